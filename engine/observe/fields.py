"""The only fields an event may have, and the shape of each: the wall between messages and logs.

A field that is not in this table makes a test fail; a value that has not its field's shape is withheld when
the line is written. So a careless `reason=str(error)` costs a clear reason, never a patient's name in a log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

WITHHELD = "(withheld)"

ID = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.~/:@+\[\]-]{0,127}")
ADDRESS = re.compile(r"(\[[0-9A-Za-z:.%]+\]|[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+):[0-9]{1,5}")
CODE = re.compile(r"[A-Za-z0-9_.-]{1,40}")
FIELD = re.compile(r"[A-Z][A-Z0-9]{2}-[0-9]{1,3}|other")
MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}([+-][0-9]{2}:[0-9]{2})?")
PATH = re.compile(r"[^\x00-\x1f|^]{1,400}")
# Words of ours: no HL7 delimiters, nothing long, and a caret only inside a message type such as ORU^R01.
REASON = re.compile(r"(?:[^\x00-\x1f\x7f|^~&\\{}<>\"]|(?<=[A-Z0-9]{3})\^(?=[A-Z0-9]{3}\b)){1,240}")
NUMBER = None

FIELDS: Mapping[str, re.Pattern[str] | None] = MappingProxyType(
    {
        "address": ADDRESS,
        "attempt": NUMBER,
        "batch": NUMBER,
        "bytes": NUMBER,
        "channel": ID,
        "channels": NUMBER,
        "code": CODE,
        "connection": NUMBER,  # written as `interlock show` writes it
        "destination": ID,
        "endpoint": ID,
        "field": FIELD,
        "first_seq": NUMBER,
        "held": NUMBER,
        "in_s": NUMBER,
        "incarnation": ID,
        "ledger": PATH,
        "lost": NUMBER,
        "messages": NUMBER,
        "mistakes": NUMBER,
        "open": NUMBER,
        "peer": ADDRESS,
        "phase": CODE,
        "points": NUMBER,
        "reason": REASON,
        "seconds": NUMBER,
        "seq": NUMBER,
        "signal": CODE,
        "run": NUMBER,
        "size": NUMBER,
        "step": REASON,
        "table": ID,
        "tap": ID,
        "term": NUMBER,
        "until": MOMENT,
        "verb": CODE,
        "version": CODE,
        "who": REASON,
        "worker": NUMBER,
    }
)


def connection(number: int) -> str:
    """The service's term and a number in it: 3.17."""
    return f"{number >> 32}.{number & 0xFFFFFFFF}"


def cleared(name: str, value: object) -> object:
    """The value if it has its field's shape, else `(withheld)`. Numbers and None pass."""
    if name == "connection" and isinstance(value, int):
        return connection(value)
    if isinstance(value, float):
        return round(value, 3)
    if value is None or isinstance(value, int):
        return value
    shape = FIELDS.get(name)
    if shape is not None and isinstance(value, str) and shape.fullmatch(value):
        return value
    return WITHHELD
