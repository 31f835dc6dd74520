"""What HL7 calls a segment, field or component in a message's own version (MSH-12), for people who read a message.

The dictionary is hl7apy's, which knows v2.1 to v2.8.2. It is large: it is loaded when first asked for, each version by
itself. A version that it does not know is read as the nearest older one. What has no name in that version (a Z segment,
a field beyond the last) is None; nothing here raises.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

from engine.hl7.segments import SEGMENTS

VERSIONS: Final = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.8.1", "2.8.2")
USUAL: Final = "2.5.1"
"""Taken where MSH-12 says nothing that is a version."""

_ORDER: Final = {version: tuple(map(int, version.split("."))) for version in VERSIONS}
_VERSION: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){0,3}")
_CAPITALS: Final = frozenset({"ID", "OID", "SSN", "HCFA", "DRG", "UB", "IV", "NDC", "HL7", "ISO", "VIP", "II", "III"})
_SMALL: Final = frozenset({"AND", "AS", "AT", "BY", "FOR", "FROM", "IN", "OF", "ON", "OR", "THE", "TO", "WITH"})


def nearest(version: str) -> str:
    """The known version that `version` is read as."""
    found = _VERSION.fullmatch(version.strip())
    if found is None:
        return USUAL
    wanted = tuple(map(int, found[0].split(".")))
    return max((known for known in VERSIONS if _ORDER[known] <= wanted), key=_ORDER.__getitem__, default=VERSIONS[0])


@lru_cache(maxsize=1024)
def segment_name(segment: str, version: str) -> str | None:
    """`PID` → Patient Identification."""
    known = _dictionary(nearest(version))
    return SEGMENTS.get(segment) if known is not None and segment in known.SEGMENTS else None


@lru_cache(maxsize=4096)
def field_name(segment: str, field: int, version: str) -> str | None:
    """`PID`, 5 → Patient Name."""
    found = _field(segment, field, version)
    return _words(found[3]) if found else None


@lru_cache(maxsize=4096)
def component_name(segment: str, field: int, component: int, version: str, data_type: str | None = None) -> str | None:
    """`PID`, 5, 2 → Given Name. `data_type`: of a field that has no type of its own, as OBX-2 says it of OBX-5."""
    found, known = _field(segment, field, version), _dictionary(nearest(version))
    if not found or known is None:
        return None
    kind = data_type if found[2] == "varies" and data_type else found[2]
    part = known.DATATYPES.get(f"{kind}_{component}")
    return _words(part[3]) if part else None


def _field(segment: str, field: int, version: str) -> Any:
    """hl7apy's entry: (leaf or sequence, its parts, data type, name, table, length); None where there is none."""
    known = _dictionary(nearest(version))
    return known.FIELDS.get(f"{segment}_{field}") if known is not None else None


@lru_cache(maxsize=len(VERSIONS))
def _dictionary(version: str) -> Any:
    try:
        return import_module(f"hl7apy.v{version.replace('.', '_')}")
    except ImportError:  # names are a help for readers, and nothing depends on them
        return None


def _words(name: str | None) -> str | None:
    """`SET_ID_PID` → Set ID PID."""
    if not name:
        return None
    words = name.replace("_E_G_", "_e.g._").split("_")
    return " ".join(_word(word) if index else word.title() for index, word in enumerate(words))


def _word(word: str) -> str:
    if word in _SMALL:
        return word.lower()
    return word if word in _CAPITALS or word in SEGMENTS or word == "e.g." else word.title()
