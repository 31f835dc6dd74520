"""The words, numbers and names that more than one table has a place for."""

from __future__ import annotations

import ipaddress
import re
from typing import get_args

from engine.config import units
from engine.config.edge import Framing
from engine.config.kinds import Choice, Parsed, Text
from engine.config.model import Weekday

REFERENCE = Text("the name of an endpoint in endpoints.yaml, or host:port", r"[A-Za-z0-9_.:\[\]-]{1,255}")
NAMED = Text("the name of an endpoint in endpoints.yaml", r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_TYPE = re.compile(r"([A-Z][A-Z0-9]{2}\^[A-Z][A-Z0-9]{2})(\^[A-Z0-9_]{3,7})?")


def message_type(text: str) -> str | None:
    """MSH-9.1 and MSH-9.2, which messages are told by; the structure that may follow says no more."""
    match = _TYPE.fullmatch(text)
    return match[1] if match else None


MESSAGE_TYPE = Parsed(message_type, "a message type such as ORU^R01", f"^{_TYPE.pattern}$")
FIELD_PATH = Text("a field such as OBR-3.1", r"[A-Z][A-Z0-9]{2}-[0-9]{1,3}(\.[0-9]{1,2}){0,2}")
HOST = Text("an IP address or host name", r"[A-Za-z0-9_.:-]+")
FILE = Text("a path, relative to the folder of the settings file")
WEEKDAYS: tuple[str, ...] = get_args(Weekday)
CODES = ("AA", "AE", "AR", "CA", "CE", "CR")
"""HL7 table 0008."""
CODE = Choice(CODES)


def _ip(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


IP = Parsed(_ip, "an IP address of this machine, such as 10.1.1.1")
RATE = Parsed(units.rate, "a rate such as 10/s or 600/m", r"^[0-9]+(\.[0-9]+)? ?/ ?[sm]$")

_DURING = re.compile(r"([a-z]{3})(?:-([a-z]{3}))?(?: (\d\d:\d\d)-(\d\d:\d\d))?")
_FROM, _TO = re.compile(r"([01]\d|2[0-3]):[0-5]\d"), re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")


def during(text: str) -> tuple[tuple[str, ...], str, str] | None:
    """(days, start, end) of `mon-fri 07:00-19:00`; without hours from 00:00 to 24:00. `sat-mon` goes round."""
    match = _DURING.fullmatch(text)
    if match is None or match[1] not in WEEKDAYS or (match[2] or match[1]) not in WEEKDAYS:
        return None
    start, end = match[3] or "00:00", match[4] or "24:00"
    if not _FROM.fullmatch(start) or not _TO.fullmatch(end):
        return None
    first, last = WEEKDAYS.index(match[1]), WEEKDAYS.index(match[2] or match[1])
    count = (last - first) % 7 + 1
    return tuple(WEEKDAYS[(first + at) % 7] for at in range(count)), start, end


def _during_guess(text: str) -> str | None:
    every = f"mon-sun {text}"
    return f"'{every}', perhaps (the days first)" if during(every) else None


DURING = Parsed(
    during,
    "days and hours such as 'mon-fri 07:00-19:00', with one stretch of days",
    r"^[a-z]{3}(-[a-z]{3})?( [0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9])?$",
    _during_guess,
)


def _start(text: str) -> bytes | None:
    return b"" if text in ("", "none") else _bytes(text, 1)


def _end(text: str) -> bytes | None:
    end = _bytes(text, 2)
    return None if end is None or Framing(b"", end).flaw else end


def _bytes(text: str, most: int) -> bytes | None:
    """Control characters only: any other byte may stand in a message."""
    words = text.split()
    if not 1 <= len(words) <= most or not all(re.fullmatch(r"0x[01][0-9A-Fa-f]", word) for word in words):
        return None
    return bytes(int(word, 16) for word in words)


START = Parsed(_start, "a byte from 0x00 to 0x1F such as 0x0B, or none", r"^(0x[01][0-9A-Fa-f]|none|)$")
END = Parsed(
    _end,
    "one or two bytes from 0x00 to 0x1F such as '0x1C 0x0D', or '0x0D 0x0D' for a blank line, "
    "but not 0x0D or '0x0D 0x0A', which end segments",
    r"^0x[01][0-9A-Fa-f]( +0x[01][0-9A-Fa-f])?$",
)
