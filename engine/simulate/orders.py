"""The life of an order: placed by a clinic, then reported on by the laboratory, preliminary, final, corrected.

A connection's n-th order, its stages and each report are pure functions of (code, seed, numbers), in any process.
Each message carries its sender's own control id a second time, in the field that HL7 leaves to that party (OBR-18,
placer field 1; OBR-20, filler field 1; HL7 v2.5.1 chapter 4, 4.5.3). An engine in between may number the message anew:
`origin` still tells which one it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final, Literal, TypeAlias

from engine.simulate.messages import FIRST_DAY, PANELS, Panel, doctor, patient, result, stamp

OrderKind: TypeAlias = Literal["orm", "oml"]

PATIENTS: Final = 40
"""How many people one clinic sends orders for, again and again."""

CANCELLED: Final = 0.04
STAGES: Final = ((0.45, "F"), (0.35, "PF"), (0.15, "FC"), (0.05, "PFCC"))
"""What becomes of an order, as shares: P preliminary, F final, C corrected (table 0123)."""

REPORTS_AN_ORDER: Final = (1 - CANCELLED) * sum(share * len(stages) for share, stages in STAGES)

NOTES: Final = (
    "Specimen slightly hemolyzed; potassium may read high by 0.2 to 0.4 mmol/L. Stored at 4 °C until measured.",
    "Seen and released by Dr. Élise Marchand. Repeat within two weeks if the symptoms persist, or at once if fever.",
    "Result confirmed by a second measurement on another analyser, ± 2 %. Telephoned to the ward and read back.",
)
ACCENTED: Final = (("GARNER", "GARNIÈRE"), ("HOLLISTER", "HÖLLISTER"), ("INGRAM", "ÍÑIGO"))


@dataclass(frozen=True, slots=True)
class Orders:
    """One connection's orders. `code`: begins each of its numbers, at most eight letters and digits, its own."""

    code: str
    seed: int = 1
    kind: OrderKind = "orm"

    def order_id(self, number: int) -> str:
        """MSH-10 of the n-th message of the clinic."""
        return f"{self.code}O{number:08d}"

    def report_id(self, number: int) -> str:
        """MSH-10 of the n-th message of the laboratory."""
        return f"{self.code}R{number:08d}"

    def placer(self, order: int) -> str:
        return f"{self.code}P{order:07d}"

    def accession(self, order: int) -> str:
        return f"{self.code}A{order:07d}"

    def cancels(self, number: int) -> bool:
        """Whether the clinic's n-th message takes the order before it back, instead of placing one."""
        return number > 1 and self._random(number, "fate").random() < CANCELLED and not self.cancels(number - 1)

    def stages(self, number: int) -> str:
        """What the laboratory will report on the n-th message's order: `PF` is a preliminary and a final one."""
        if self.cancels(number):
            return ""
        drawn = self._random(number, "stages").random()
        for share, stages in STAGES:
            drawn -= share
            if drawn < 0:
                return stages
        return STAGES[0][1]

    def order(self, number: int) -> bytes:
        """The clinic's n-th message: UTF-8, CR after each segment."""
        random = self._random(number, "order")
        control, order = ("CA", number - 1) if self.cancels(number) else ("NW", number)
        at, panel = _placed(number), self._panel(order)
        kind = {"orm": "ORM^O01^ORM_O01", "oml": "OML^O21^OML_O21"}[self.kind]
        who = doctor(random)
        return _encoded(
            f"MSH|^~\\&|EMR|{self.code}|LIS|REFLAB|{stamp(at)}||{kind}|{self.order_id(number)}|P|2.5.1"
            "||||||UNICODE UTF-8",
            *self._patient(order),
            f"ORC|{control}|{self.placer(order)}^EMR|||||^^^{stamp(at)}^^R||{stamp(at)}|||{who}",
            f"OBR|1|{self.placer(order)}^EMR||{_service(panel)}|||{stamp(at)}||||||||{panel.specimen}|{who}"
            f"||{self.order_id(number)}|||||||||^^^{stamp(at)}^^R",
            "DG1|1||Z00.00^Encounter for general adult medical examination^I10|||W",
        )

    def report(self, number: int, order: int, stage: int) -> bytes:
        """The laboratory's n-th message: the stage (from 0) of an order, `stages(order)[stage]`."""
        status = self.stages(order)[stage]
        panel, at = self._panel(order), _placed(order) + timedelta(minutes=95 + 30 * stage)
        who = doctor(self._random(order, "order"))
        drawn, received = stamp(_placed(order)), stamp(_placed(order) + timedelta(minutes=40))
        kind = "ORU^R01^ORU_R01"
        return _encoded(
            f"MSH|^~\\&|LIS|REFLAB|EMR|{self.code}|{stamp(at)}||{kind}|{self.report_id(number)}|P|2.5.1"
            "||||||UNICODE UTF-8",
            *self._patient(order),
            f"ORC|RE|{self.placer(order)}^EMR|{self.accession(order)}^LAB||CM||||{stamp(at)}|||{who}",
            f"OBR|1|{self.placer(order)}^EMR|{self.accession(order)}^LAB|{_service(panel)}|||{drawn}|||||||{received}"
            f"|{panel.specimen}|{who}||||{self.report_id(number)}||{stamp(at)}||LAB|{status}",
            *self._results(panel, order, stage, status, at),
            f"NTE|1|L|{self._random(order, 'note').choice(NOTES)}",
        )

    def _results(self, panel: Panel, order: int, stage: int, status: str, at: datetime) -> list[str]:
        """A preliminary report has the first three values; each correction measures the first one again."""
        corrected = self._random(order, f"correction {stage}")
        random = self._random(order, "values")
        lines = [result(index, test, status, at, random) for index, test in enumerate(panel.tests, 1)]
        if status == "C":
            lines[0] = result(1, panel.tests[0], status, at, corrected)
        return lines[:3] if status == "P" else lines

    def _patient(self, order: int) -> list[str]:
        number = self._random(order, "patient").randrange(PATIENTS)
        pid, pv1 = patient(Random(f"{self.seed}/{self.code}/person/{number}"), self.code)
        for plain, accented in ACCENTED:
            pid = pid.replace(f"|{plain}^", f"|{accented}^")
        return [pid, pv1]

    def _panel(self, order: int) -> Panel:
        return self._random(order, "panel").choice(PANELS)

    def _random(self, number: int, what: str) -> Random:
        return Random(f"{self.seed}/{self.code}/{number}/{what}")


def origin(payload: bytes) -> str:
    """The control id that the message's first sender gave it, whoever numbered it since; empty where none is told."""
    at = payload.find(b"\rOBR|")
    if at < 0:
        return ""
    fields = payload[at + 1 : payload.find(b"\r", at + 1)].split(b"|", 21)
    told = fields[18] or fields[20] if len(fields) > 20 else fields[18] if len(fields) > 18 else b""
    return told.decode("latin-1")


def _placed(number: int) -> datetime:
    return FIRST_DAY + timedelta(seconds=7 * number)


def _service(panel: Panel) -> str:
    return f"{panel.code}^{panel.name}^LN^{panel.local}^{panel.name}^L"


def _encoded(*segments: str) -> bytes:
    return "".join(f"{segment}\r" for segment in segments).encode()
