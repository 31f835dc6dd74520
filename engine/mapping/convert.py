"""From a v2 value to a FHIR primitive: text in, JSON value out, None where it is none.

Each takes the value's text (unescaped, not empty) and the run. Nothing raises and nothing is made up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from engine.hl7 import datetime as times

if TYPE_CHECKING:
    from engine.mapping.run import Run

_DIGITS = 15  # significant decimal digits that survive as an IEEE double, which is what a JSON number becomes
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CODE = re.compile(r"\S+(?: \S+)*")
_HL7 = re.compile(r"HL7-?(\d{4})")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def text(value: str, run: Run) -> str | None:
    """FHIR string: no control characters but tab and line ends, not blank, as a server sees it that counts a byte
    order mark as blank (as ECMAScript does)."""
    if not value.isprintable():
        value = _CONTROL.sub("", value)
        if not value.replace("\ufeff", " ").strip():
            return None
    return value if value and not value.isspace() else None


def code(value: str, run: Run) -> str | None:
    """FHIR code: no blanks but single ones inside."""
    if " " not in value:
        return value if value.isprintable() else None
    return value if value.isprintable() and _CODE.fullmatch(value) else None


def uri(value: str, run: Run) -> str | None:
    """FHIR uri, url, canonical."""
    return value if value.isprintable() and " " not in value else None


def boolean(value: str, run: Run) -> bool | None:
    """HL7 table 0136."""
    return {"Y": True, "N": False, "1": True, "0": False, "YES": True, "NO": False, "TRUE": True, "FALSE": False}.get(
        value.upper()
    )


def decimal(value: str, run: Run) -> float | int | None:
    """NM (2.A.47) as a JSON number, if a double holds all of its digits."""
    found = _decimal(value)
    if found is not None and len(value) <= _DIGITS:
        run.connection.remember(run.connection.numbers, value, found)
    return found


def _decimal(value: str) -> float | int | None:
    if len(value) <= _DIGITS and value.isascii():  # plain ones first
        if value.isdigit():
            return int(value)
        whole, _, fraction = value.partition(".")
        if whole.isdigit() and fraction.isdigit():
            return float(value)
    value = value.strip().removeprefix("+")
    body = value.removeprefix("-")
    if not body.isascii():
        return None
    if body.isdigit():
        return int(value) if len(body.lstrip("0")) <= _DIGITS else None
    whole, dot, fraction = body.partition(".")
    if not dot or not (whole + fraction).isdigit() or len((whole + fraction).lstrip("0")) > _DIGITS:
        return None
    return float(value)


def integer(value: str, run: Run) -> int | None:
    """FHIR integer, 32 bits."""
    found = decimal(value, run)
    return found if isinstance(found, int) and -(2**31) <= found < 2**31 else None


def unsigned(value: str, run: Run) -> int | None:
    """FHIR unsignedInt."""
    found = integer(value, run)
    return found if found is not None and found >= 0 else None


def positive(value: str, run: Run) -> int | None:
    """FHIR positiveInt."""
    found = integer(value, run)
    return found if found is not None and found > 0 else None


def date(value: str, run: Run) -> str | None:
    """FHIR date."""
    return times.date(value)


def datetime(value: str, run: Run) -> str | None:
    """FHIR dateTime, in the value's zone, the message's, or the connection's."""
    known = run.times.get(value)
    if known is None:
        known = times.datetime_(value, run.zone)
        if known is not None:
            run.times[value] = known
    return known


def instant(value: str, run: Run) -> str | None:
    """FHIR instant: only from a value with a time of day, in a known zone."""
    found = datetime(value, run)
    if found is None or len(found) <= 19 or found[10] != "T" or found[-6:-5] not in "+-":
        return None
    run.instants[value] = found
    return found


def time(value: str, run: Run) -> str | None:
    """FHIR time."""
    return times.time(value)


def base64(value: str, run: Run) -> str | None:
    """FHIR base64Binary: the characters of base64 and no others, blanks and line ends removed."""
    value = "".join(value.split())
    body = value.rstrip("=")
    if not body or len(value) % 4 or len(value) - len(body) > 2:
        return None
    return value if re.fullmatch(r"[A-Za-z0-9+/]+", body) else None


CONVERSIONS: dict[str, tuple[str, Callable[[str, Run], Any]]] = {
    "string": ("text", text),
    "markdown": ("text", text),
    "code": ("a code without blanks", code),
    "id": ("an id", code),
    "uri": ("a URI", uri),
    "url": ("a URL", uri),
    "canonical": ("a URL", uri),
    "oid": ("an OID", uri),
    "uuid": ("a UUID", uri),
    "boolean": ("Y or N", boolean),
    "decimal": ("a number of at most 15 digits", decimal),
    "integer": ("a whole number", integer),
    "unsignedInt": ("a whole number from 0", unsigned),
    "positiveInt": ("a whole number from 1", positive),
    "date": ("a date", date),
    "dateTime": ("a date or time", datetime),
    "instant": ("a time with a zone", instant),
    "time": ("a time of day", time),
    "base64Binary": ("base64", base64),
}


def as_uri(name: str) -> str | None:
    """An OID, UUID or URI as a URI; None where it is a plain name."""
    if _OID.fullmatch(name):
        return "urn:oid:" + name
    if "://" in name or name.startswith("urn:"):
        return name if " " not in name and name.isprintable() else None
    if _UUID.fullmatch(name):
        return "urn:uuid:" + name.lower()
    return None


def authority(run: Run, name: str, universal: str, purpose: str) -> str:
    """The system of an identifier: its universal id, else its namespace, else what the channel says for `purpose`.

    A namespace means something within its connection only, so it becomes urn:interlock:<connection>:<namespace>.
    """
    key = (name, universal, purpose)
    known = run.connection.authorities.get(key)
    if known is None:
        found = universal or name
        known = as_uri(universal) if universal else as_uri(name) if name else run.connection.identity.get(purpose)
        if known and not (known.isprintable() and " " not in known):
            known = None
        known = known or run.locals[found or purpose]
        run.connection.remember(run.connection.authorities, key, known)
    return known


def coding_system(run: Run, name: str, oid: str) -> str:
    """The URI of a coding system: its OID, a known name, an HL7 table, else a name of this connection's."""
    if not name:
        return (as_uri(oid) if oid else None) or ""
    known = run.connection.systems.get((name, oid))
    if known is None:
        known = run.connection.coding.get(name.upper())
        table = _HL7.fullmatch(name)
        if known is None and table:
            known = f"http://terminology.hl7.org/CodeSystem/v2-{table[1]}"
        known = known or as_uri(name) or (as_uri(oid) if oid else None) or run.locals[name]
        run.connection.remember(run.connection.systems, (name, oid), known)
    return known


def urn_part(name: str) -> str:
    """A name as part of a URN."""
    return quote(name.strip(), safe="-._~")
