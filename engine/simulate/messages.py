"""Made-up messages: laboratory results and orders of people who do not exist.

The n-th message is a pure function of (seed, n): the same numbers give the same bytes, in any process, in any order.
Two hundred patients recur, as they do in life, so that order per patient and one record per patient mean something.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["oru", "orm", "oml"]

PATIENTS: Final = 200
FIRST_DAY: Final = datetime(2026, 1, 5, 6, 0, tzinfo=UTC)

FAMILIES = [
    "ABLE",
    "BAKERSON",
    "CARVER",
    "DRUMLIN",
    "ELSTREE",
    "FENWICK",
    "GARNER",
    "HOLLISTER",
    "INGRAM",
    "JUNIPER",
    "KESTREL",
    "LARKIN",
]
GIVEN = {
    "F": ["ADA", "BEATRIX", "CORA", "DELIA", "EDITH", "FLORA", "GRETA", "HILDA", "IONA", "JUNE"],
    "M": ["ABEL", "BRUNO", "CLYDE", "DORIAN", "EMIL", "FELIX", "GUS", "HUGO", "IVAN", "JASPER"],
}
STREETS = ["ORCHARD LANE", "MILL ROAD", "HARBOR STREET", "QUARRY AVENUE", "STATION WAY"]
TOWNS = (("SPRINGVALE", "IL", "62999"), ("EASTBROOK", "IL", "60999"), ("NORTHPORT", "WI", "53999"))
DOCTORS = (("1990001", "MARLOW", "VERA"), ("1990002", "OKONJO", "SAMUEL"), ("1990003", "LINDQVIST", "ANNA"))
LABORATORY = "REFERENCE LABORATORY^L^^^^CLIA^XX^^^99D0000001"
WARDS = ("3W^301^A", "3W^304^B", "ICU^2^A", "ER^7^", "OPD^^")


@dataclass(frozen=True, slots=True)
class Test:
    """One measured quantity. `decimals`: places after the point; `low` and `high`: the reference range."""

    code: str
    name: str
    unit: str
    low: float
    high: float
    decimals: int


@dataclass(frozen=True, slots=True)
class Panel:
    """What is ordered as one thing and comes as five results."""

    code: str
    name: str
    local: str
    specimen: str
    tests: tuple[Test, Test, Test, Test, Test]


PANELS: Final = (
    Panel(
        "58410-2",
        "CBC panel",
        "CBC",
        "Blood",
        (
            Test("6690-2", "Leukocytes [#/volume] in Blood", "10*3/uL", 4.5, 11.0, 1),
            Test("789-8", "Erythrocytes [#/volume] in Blood", "10*6/uL", 4.2, 5.9, 2),
            Test("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 12.0, 16.0, 1),
            Test("4544-3", "Hematocrit [Volume Fraction] of Blood", "%", 36.0, 48.0, 1),
            Test("777-3", "Platelets [#/volume] in Blood", "10*3/uL", 150, 400, 0),
        ),
    ),
    Panel(
        "24321-2",
        "Basic metabolic panel",
        "BMP",
        "Serum",
        (
            Test("2951-2", "Sodium [Moles/volume] in Serum or Plasma", "mmol/L", 135, 145, 0),
            Test("2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L", 3.5, 5.1, 1),
            Test("2075-0", "Chloride [Moles/volume] in Serum or Plasma", "mmol/L", 98, 107, 0),
            Test("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 0.6, 1.2, 2),
            Test("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", 70, 99, 0),
        ),
    ),
    Panel(
        "24325-3",
        "Hepatic function panel",
        "LFT",
        "Serum",
        (
            Test("1742-6", "Alanine aminotransferase [U/L]", "U/L", 7, 56, 0),
            Test("1920-8", "Aspartate aminotransferase [U/L]", "U/L", 10, 40, 0),
            Test("6768-6", "Alkaline phosphatase [U/L]", "U/L", 44, 147, 0),
            Test("1975-2", "Bilirubin.total [Mass/volume]", "mg/dL", 0.1, 1.2, 1),
            Test("1751-7", "Albumin [Mass/volume]", "g/dL", 3.4, 5.4, 1),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Messages:
    """A vendor's messages. `prefix` begins every control id and order number, and keeps vendors apart."""

    kind: Kind = "oru"
    seed: int = 1
    prefix: str = "SIM"

    def control_id(self, number: int) -> str:
        """MSH-10 of the n-th message: at most 20 characters for seeds to 999 and numbers to 9,999,999."""
        return f"{self.prefix}{self.seed:03d}{number:07d}"

    def message(self, number: int) -> bytes:
        """The n-th message, CR after each segment, ASCII."""
        random = Random(f"{self.seed}/{number}")
        somebody = Random(f"{self.seed}/patient/{random.randrange(PATIENTS)}")
        at = FIRST_DAY + timedelta(seconds=7 * number)
        panel = random.choice(PANELS)
        segments = [self._msh(number, at), *patient(somebody, self.prefix)]
        if self.kind == "oru":
            segments += self._report(number, at, panel, random)
        else:
            segments += self._order(number, at, panel, random)
        return "".join(f"{segment}\r" for segment in segments).encode("ascii")

    def _msh(self, number: int, at: datetime) -> str:
        kind, version = {
            "oru": ("ORU^R01^ORU_R01", "2.5.1"),
            "orm": ("ORM^O01", "2.3"),
            "oml": ("OML^O21^OML_O21", "2.5.1"),
        }[self.kind]
        return (
            f"MSH|^~\\&|{self.prefix}|REFLAB|EMR|CLINIC|{stamp(at)}||{kind}|{self.control_id(number)}|P|{version}"
            + ("||||||UNICODE UTF-8" if version > "2.4" else "")
        )

    def _numbers(self, number: int) -> tuple[str, str]:
        """Placer and filler order number."""
        return f"{self.prefix}P{self.seed:03d}{number:07d}", f"{self.prefix}F{self.seed:03d}{number:07d}"

    def _report(self, number: int, at: datetime, panel: Panel, random: Random) -> list[str]:
        placer, filler = self._numbers(number)
        who = doctor(random)
        drawn, received = stamp(at - timedelta(minutes=95)), stamp(at - timedelta(minutes=50))
        status = "C" if random.random() < 0.03 else "F"
        return [
            f"ORC|RE|{placer}^EMR|{filler}^LAB||CM||||{stamp(at)}|||{who}",
            f"OBR|1|{placer}^EMR|{filler}^LAB|{panel.code}^{panel.name}^LN^{panel.local}^{panel.name}^L|||{drawn}"
            f"|||||||{received}|{panel.specimen}|{who}||||||{stamp(at)}||LAB|{status}",
            *(result(index, test, status, at, random) for index, test in enumerate(panel.tests, 1)),
        ]

    def _order(self, number: int, at: datetime, panel: Panel, random: Random) -> list[str]:
        placer, _ = self._numbers(number)
        who = doctor(random)
        control = "CA" if random.random() < 0.04 else "NW"
        return [
            f"ORC|{control}|{placer}^EMR|||||^^^{stamp(at)}^^R||{stamp(at)}|||{who}",
            f"OBR|1|{placer}^EMR||{panel.code}^{panel.name}^LN^{panel.local}^{panel.name}^L|||{stamp(at)}"
            f"||||||||{panel.specimen}|{who}|||||||||||^^^{stamp(at)}^^R",
            "DG1|1||Z00.00^Encounter for general adult medical examination^I10|||W",
        ]


def patient(random: Random, authority: str) -> list[str]:
    """PID and PV1 of somebody who does not exist."""
    sex = random.choice("FM")
    number = random.randrange(100_000, 999_999)
    born = date(1930, 1, 1) + timedelta(days=random.randrange(33_000))
    town, state, zip_code = random.choice(TOWNS)
    street = f"{random.randrange(1, 400)} {random.choice(STREETS)}"
    name = f"{random.choice(FAMILIES)}^{random.choice(GIVEN[sex])}^{random.choice('ABCDE')}"
    phone = f"(555)555-{random.randrange(10_000):04d}"
    return [
        f"PID|1||{number}^^^{authority}^MR||{name}||{born:%Y%m%d}|{sex}|||{street}^^{town}^{state}^{zip_code}^USA^H"
        f"||{phone}^PRN^PH|||||{number}01^^^{authority}^AN",
        f"PV1|1|O|{random.choice(WARDS)}^CLINIC||||{doctor(random)}||||||||||||{number}02^^^{authority}^VN",
    ]


def doctor(random: Random) -> str:
    """A provider, as XCN."""
    number, family, given = random.choice(DOCTORS)
    return f"{number}^{family}^{given}^^^DR^^^NPI"


def result(index: int, test: Test, status: str, at: datetime, random: Random) -> str:
    """OBX of a value around its reference range, with the flag that goes with it."""
    span = test.high - test.low
    value = max(0.0, random.gauss((test.low + test.high) / 2, span / 3))
    flag = "L" if value < test.low else "H" if value > test.high else "N"
    low, high = f"{test.low:.{test.decimals}f}", f"{test.high:.{test.decimals}f}"
    return (
        f"OBX|{index}|NM|{test.code}^{test.name}^LN||{value:.{test.decimals}f}|{test.unit}^{test.unit}^UCUM|{low}-{high}"
        f"|{flag}|||{status}|||{stamp(at)}||1001^TECH^ONE|||||||{LABORATORY}"
    )


def stamp(at: datetime) -> str:
    """To the second, without an offset."""
    return f"{at:%Y%m%d%H%M%S}"
