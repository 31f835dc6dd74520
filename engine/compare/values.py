"""Whether two values that are written differently say the same: by number, by instant, by text.

The answer is the name of a tolerance, and whether it needs a rule: blanks around a name, a last zero or thousandths of
a second hurt nobody; leading zeros of an identifier, or an upper-case unit, may.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from engine.config.model import Tolerance
from engine.hl7.datetime import Moment, parse
from engine.hl7.message import NULL


class Likeness(NamedTuple):
    """How two values are the same. harmless: also where no rule says so."""

    how: Tolerance
    harmless: bool


def _places(table: dict[str, str]) -> frozenset[str]:
    return frozenset(f"{segment}-{place}" for segment, places in table.items() for place in places.split())


TIMES: Final = _places(
    {
        "MSH": "7", "EVN": "2 3 6", "PID": "7 29 33", "PV1": "44 45", "PV2": "8 9", "AL1": "6", "DG1": "5", "NTE": "6",
        "ORC": "7.4 7.5 9 15 27", "OBR": "6 7 8 14 22 27.4 27.5 36", "OBX": "12 14 19", "SPM": "17.1 17.2 17 18 19",
        "TQ1": "7 8", "TXA": "4 6 7 8", "RXE": "32", "RXA": "3 4 16", "RXD": "3",
    }
)  # fmt: skip
"""Fields that hold a time."""

QUANTITIES: Final = _places(
    {
        "OBX": "5 7", "OBR": "9.1 9", "SPM": "12.1 12", "RXO": "2 3 18", "RXE": "3 4 10 25", "RXD": "4", "RXA": "6 15",
        "RXC": "3", "FT1": "10 11 12",
    }
)  # fmt: skip
"""Fields that hold a number, or a range."""

_NAMES: Final = _places(
    {
        "PID": "5 6 9 11 23", "NK1": "2 4", "MRG": "7", "GT1": "3 5", "IN1": "4 16", "PV1": "7 8 9 17",
        "ORC": "10 11 12", "OBR": "10 16 28 32", "OBX": "16 23 24 25", "TXA": "5 9 10",
    }
)  # fmt: skip
"""Fields of people's and places' names, where upper case means nothing."""

UNORDERED: Final = _places(
    {
        "PID": "10 11 13 14 22 26", "PV1": "7 8 9 17 52", "ORC": "12 14", "OBR": "10 16 17 28", "NK1": "4 5 6",
        "SPM": "5 6 21 24", "OBX": "8 16 17 18",
    }
)  # fmt: skip
"""Repeating fields in which no repetition is the first. PID-3 is not among them: many receivers read only its first."""

_NUMERIC: Final = frozenset({"NM", "SN"})
_TIMELY: Final = frozenset({"TS", "DT", "DTM"})
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_IN_TEXT: Final = re.compile(r"(?<![\w.])[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?![\w.])")  # `10.10.2020` has none
_SIGNS: Final = re.compile(r"\s*([-<>=:])\s*")
LONGEST_RANGE: Final = 64  # characters; longer is text


def common_type(one: str, other: str) -> str:
    """The value type (OBX-2) by which two values are compared; empty where the two sides mean different ones."""
    return one if one == other or {one, other} <= _NUMERIC or {one, other} <= _TIMELY else ""


def likeness(path: str, one: str, other: str, value_type: str = "") -> Likeness | None:
    """How two unequal values of a leaf are the same, or None: they are not.

    path: `OBX-5` or `PID-5.1`. value_type: what both sides say in OBX-2, for OBX-5.
    """
    field = path.partition(".")[0]
    bare, plain = one.strip(), other.strip()
    if bare == plain:
        return Likeness("padding", True)
    if not bare or not plain:
        return Likeness("null", False) if NULL in (bare, plain) else None
    if path in TIMES or field in TIMES or (field == "OBX-5" and value_type in _TIMELY):
        return _times(bare, plain)
    if (path in QUANTITIES or field in QUANTITIES) and _same_number(bare, plain, value_type):
        return Likeness("precision", True)
    if bare.casefold() == plain.casefold():
        return Likeness("case", field in _NAMES)
    if bare.lstrip("0") == plain.lstrip("0"):
        return Likeness("padding", False)
    return None


def _same_number(one: str, other: str, value_type: str) -> bool:
    """Whether two texts differ only in how their numbers are written."""
    if max(len(one), len(other)) > LONGEST_RANGE:
        return False
    if value_type in _NUMERIC and _NUMBER.fullmatch(one) and _NUMBER.fullmatch(other):
        return Decimal(one) == Decimal(other)
    return _plain_numbers(one) == _plain_numbers(other)


def _plain_numbers(text: str) -> str:
    return _IN_TEXT.sub(lambda match: _plain(match[0]), _SIGNS.sub(r"\1", text))


def _plain(number: str) -> str:
    """`7.10` as `7.1`, `.5` as `0.5`. Leading zeros stay: in a text, `007` may be no number."""
    if "." not in number:
        return number
    whole, _, decimals = number.partition(".")
    decimals = decimals.rstrip("0")
    whole = whole if whole.lstrip("+-") else whole + "0"
    return f"{whole}.{decimals}" if decimals else whole


# -- times


def _times(one: str, other: str) -> Likeness | None:
    """The same instant, or one that only says less: without its zone, or without its seconds."""
    first, second = _moment(one), _moment(other)
    if first is None or second is None or not (first.whole and second.whole):
        return None
    if first.zone and second.zone and first.zone != second.zone:
        return Likeness("time_zone", True) if _instant(first) == _instant(second) else None
    if _local(first) != _local(second):
        return _shorter(one, other)
    return Likeness("time_precision" if first.zone == second.zone else "time_zone", True)


@lru_cache(maxsize=1024)
def _moment(value: str) -> Moment | None:
    return parse(value)


def _local(moment: Moment) -> datetime:
    time, _, fraction = (moment.time or "00:00:00").partition(".")
    return datetime.fromisoformat(f"{moment.date}T{time}.{(fraction + '000000')[:6]}")


def _instant(moment: Moment) -> datetime:
    return _local(moment).replace(tzinfo=datetime.fromisoformat(f"2000-01-01T00:00:00{moment.zone}").tzinfo)


def _shorter(one: str, other: str) -> Likeness | None:
    """One of them leaves something out. Seconds hurt nobody, the time of day may."""
    digits, more = sorted((re.split("[+-]", one)[0], re.split("[+-]", other)[0]), key=len)
    if not more.startswith(digits) or len(digits) < len("YYYYMMDD"):
        return None
    return Likeness("time_precision", len(digits) >= len("YYYYMMDDHHMM"))


def damaged(text: str) -> bool:
    """Whether a text holds characters that stand for bytes nobody could read."""
    return any(one == "\ufffd" or "\udc80" <= one <= "\udcff" for one in text) if not text.isascii() else False
