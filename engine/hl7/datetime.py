"""HL7 times (DTM, DT, TM: 2.A.22) as FHIR date, dateTime, instant and time, no more precise than they were sent.

A month or day of 00 means that it is unknown and is left off. What FHIR cannot hold without being made up (an instant
without a zone, the 31st of February) is None; the caller says so. The zone is the value's own, else the one it is
given. Seconds that were not sent are 00, as FHIR has no minutes without them.

What is written as ISO 8601 has it (`2026-03-01T07:00:00Z`) is the same time. HL7 knows no such form, senders do.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple

_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII)


class Moment(NamedTuple):
    """A parsed time. `time` is `` or `hh:mm:ss[.f]`; `zone` is `` or `+hh:mm`; `whole` says that a day was sent."""

    date: str
    time: str
    zone: str

    @property
    def whole(self) -> bool:
        """Whether year, month and day are known."""
        return len(self.date) == 10


def parse(value: str, zone: tzinfo | None = None) -> Moment | None:
    """YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZZZ], or None where that is no time."""
    digits, offset = _offset(value)
    if digits is None:
        return None
    digits, _, fraction = digits.partition(".")
    size = len(digits)
    if size not in (4, 6, 8, 10, 12, 14) or not (digits.isascii() and digits.isdigit()):
        return None
    if fraction and (size != 14 or not (fraction.isascii() and fraction.isdigit())):
        return None
    date = _date(digits[:8])
    if date is None or size <= 8 or len(date) < 10:
        return None if date is None else Moment(date, "", "")
    clock = (digits[8:] + "0000")[:6]
    try:
        moment = datetime(*map(int, (digits[:4], digits[4:6], digits[6:8], clock[:2], clock[2:4], clock[4:])))  # type: ignore[arg-type]
    except ValueError:
        return None
    time = f"{clock[:2]}:{clock[2:4]}:{clock[4:]}" + (f".{fraction}" if fraction else "")
    return Moment(date, time, offset or (_zone(moment, zone) if zone else ""))


def date(value: str) -> str | None:
    """FHIR date: `1980`, `1980-02`, `1980-02-28`; a time of day is left off."""
    if len(value) == 8 and value.isascii() and value.isdigit():  # nearly always
        return _date(value)
    moment = parse(value)
    return moment.date if moment else None


def datetime_(value: str, zone: tzinfo | None = None) -> str | None:
    """FHIR dateTime, with a time only where one was sent."""
    moment = parse(value, zone)
    if moment is None:
        return None
    return f"{moment.date}T{moment.time}{moment.zone}" if moment.time else moment.date


def instant(value: str, zone: tzinfo | None = None) -> str | None:
    """FHIR instant: needs a time of day and a zone."""
    moment = parse(value, zone)
    if moment is None or not moment.time or not moment.zone:
        return None
    return f"{moment.date}T{moment.time}{moment.zone}"


def time(value: str) -> str | None:
    """FHIR time from a TM, HHMM[SS[.SSSS]]. One with a zone, which has no place in FHIR, or without minutes is none."""
    value = value.strip()
    digits, offset = _offset(f"2000-01-01T{value}" if value[2:3] == ":" else f"20000101{value}")
    if digits is None or offset or len(digits) < 12:
        return None
    moment = parse(digits)
    return moment.time if moment and moment.time else None


def zone_of(value: str) -> tzinfo | None:
    """The zone that a DTM names, as MSH-7 does for its whole message (2.14.9.7)."""
    _, offset = _offset(value)
    if not offset:
        return None
    return datetime.fromisoformat(f"2000-01-01T00:00:00{offset}").tzinfo


def is_after(left: str, right: str) -> bool:
    """Whether one FHIR dateTime is later than another, as far as both tell."""
    if len(left) > 19 and len(right) > 19:
        return datetime.fromisoformat(left) > datetime.fromisoformat(right)
    size = min(len(left), len(right), 19)
    return left[:size] > right[:size]


def from_epoch(microseconds: int) -> str:
    """An instant in UTC of microseconds since 1970."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{rest // 1000:03d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def _offset(value: str) -> tuple[str | None, str]:
    """(the digits, the zone as FHIR writes it); no digits where the zone is impossible."""
    value = value.strip()
    if value[4:5] == "-":
        iso = _ISO.fullmatch(value)
        value = "".join(part or "" for part in iso.groups()) if iso else value
    if value.endswith("Z"):
        return value[:-1], "+00:00"
    for mark in "+-":
        digits, found, zone = value.partition(mark)
        if found:
            zone = zone.replace(":", "")
            good = len(zone) == 4 and zone.isascii() and zone.isdigit() and int(zone) <= 1400 and int(zone[2:]) < 60
            return (digits, f"{mark}{zone[:2]}:{zone[2:]}") if good else (None, "")
    return value, ""


def _date(digits: str) -> str | None:
    year, month, day = digits[:4], digits[4:6], digits[6:8]
    if year == "0000":
        return None
    if not month or month == "00":
        return year
    if int(month) > 12:
        return None
    if not day or day == "00":
        return f"{year}-{month}"
    try:
        datetime(int(year), int(month), int(day))
    except ValueError:
        return None
    return f"{year}-{month}-{day}"


def _zone(moment: datetime, zone: tzinfo) -> str:
    offset = zone.utcoffset(moment)
    if offset is None:
        return ""
    minutes = round(offset.total_seconds() / 60)
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"
