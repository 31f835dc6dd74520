"""By what people look for a message: its control id, order numbers, accession, patient and type, read from its bytes.

| kind | where |
|---|---|
| `control_id` | MSH-10; of a batch FHS-11 and BHS-11 as well |
| `order` | placer and filler number: ORC-2, ORC-3, OBR-2, OBR-3 |
| `accession` | OBR-3; OBR-18 and OBR-20, where laboratories put it; SPM-2 (both numbers); SAC-2; IPC-1 |
| `patient` | PID-2, PID-3, PID-4, the account PID-18, and MRG-1, the number that a merge has ended |
| `type` | MSH-9: `ORU^R01`, and `ORU` alone |

Every occurrence and repetition counts, in every message of a batch. Of a number only the identifier itself is a key
(its first component); a patient's is one twice, alone and with its assigning authority: `4711` and `4711^^^ACME`.

Case and blanks do not count, since people type them as they like. Nothing here raises, whatever the bytes are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

from engine.hl7.charset import readable
from engine.hl7.escape import STANDARD, Delimiters, unescape
from engine.hl7.message import NULL, delimiters_of, spans, split_segments

Kind: TypeAlias = Literal["control_id", "order", "accession", "patient", "type"]
Key: TypeAlias = tuple[Kind, str]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

Place: TypeAlias = tuple[int, tuple[Kind, ...]]
_NUMBERS: Final[Mapping[str, tuple[Place, ...]]] = MappingProxyType(
    {
        "ORC": ((2, ("order",)), (3, ("order",))),
        "OBR": ((2, ("order",)), (3, ("order", "accession")), (18, ("accession",)), (20, ("accession",))),
        "SPM": ((2, ("accession",)),),
        "SAC": ((2, ("accession",)),),
        "IPC": ((1, ("accession",)),),
        "PID": ((2, ("patient",)), (3, ("patient",)), (4, ("patient",)), (18, ("patient",))),
        "MRG": ((1, ("patient",)),),
    }
)
_LAST: Final = MappingProxyType({name: places[-1][0] + 1 for name, places in _NUMBERS.items()})
_CONTROL_ID: Final = MappingProxyType({"MSH": 9, "FHS": 10, "BHS": 10})  # where it stands in the split header
_NAMES: Final = frozenset(name.encode() for name in (*_NUMBERS, *_CONTROL_ID))
_TYPE: Final = 8
_USUAL: Final = 32  # a type of fewer characters is remembered
_TWOFOLD: Final = frozenset({"SPM", "PID", "MRG"})  # whose values come from more than the first component
_AUTHORITY: Final = 3  # of a CX the fourth component: namespace, universal id
LARGE: Final = 1 << 16  # bytes of a message of which only some segments are decoded
_BETWEEN_TYPES: Final = re.compile(r"[\^_]")


def keys(raw: bytes) -> frozenset[Key]:
    """The keys of a message, or of all messages of a batch: (kind, value as `normal` writes it)."""
    found: set[Key] = set()
    marks = STANDARD
    again: dict[str, list[str]] = {}  # ORC and OBR have the same numbers as a rule: each field once
    for line in _lines(readable(raw if len(raw) < LARGE else _thin(raw))):
        name = line[:3]
        places = _NUMBERS.get(name)
        if places is None:
            if name in _CONTROL_ID and line[3:4].strip():
                if (now := delimiters_of(line)) is not marks:
                    marks = now
                    again.clear()
                found.update(_of_header(name, line, marks))
        elif line[3:4] == marks.field:
            fields = line.split(marks.field, _LAST[name])
            count = len(fields)
            for number, kinds in places:
                if number < count and (field := fields[number]):
                    if name in _TWOFOLD:
                        values = _values(name, field, marks)
                    elif field in again:
                        values = again[field]
                    else:
                        values = again[field] = _values(name, field, marks)
                    for kind in kinds:
                        for value in values:
                            found.add((kind, value))
    return frozenset(found)


def _thin(raw: bytes) -> bytes:
    """The segments of a large message that may have keys: what else it has, many megabytes of a document, is neither
    copied nor decoded. As it is where its segments cannot be told so."""
    if not raw.startswith(b"MSH") or b"\n" in raw:
        return raw
    return b"\r".join(raw[begin:end] for begin, end in spans(raw) if raw[begin : begin + 3] in _NAMES)


def wanted(kind: Kind, typed: str) -> str:
    """What somebody typed, as the key that it means; empty where it means none. A patient's number may come with its
    authority (`4711^^^ACME`), a type with its trigger (`ORU^R01` or `ORU_R01`)."""
    if kind == "type":
        return "^".join(part for part in map(normal, _BETWEEN_TYPES.split(typed)[:2]) if part)
    if kind != "patient":
        return normal(typed)
    number, _, _, authority = (*typed.split("^"), "", "", "")[:4]
    number, issuer = normal(number), next(filter(None, map(normal, authority.split("&"))), "")
    return f"{number}^^^{issuer}" if number and issuer else number


def normal(value: str) -> str:
    """A value without its blanks, in small letters."""
    return value.casefold() if value.isalnum() else "".join(value.split()).casefold()


def _lines(text: str) -> list[str]:
    return split_segments(text) if "\n" in text or not text.startswith("MSH") else text.split("\r")


def _of_header(name: str, line: str, marks: Delimiters) -> tuple[Key, ...]:
    fields = line.split(marks.field, _CONTROL_ID[name] + 1)
    count = len(fields)
    control_id = normal(fields[_CONTROL_ID[name]]) if count > _CONTROL_ID[name] else ""
    own: tuple[Key, ...] = (("control_id", control_id),) if control_id else ()
    if name != "MSH" or count <= _TYPE:
        return own
    return own + (_of_usual_type if len(fields[_TYPE]) < _USUAL else _of_type)(fields[_TYPE], marks)


def _of_type(field: str, marks: Delimiters) -> tuple[Key, ...]:
    first = field.split(marks.repetition, 1)[0] if marks.repetition else field
    code, trigger = (*map(normal, first.split(marks.component)[:2]), "", "")[:2]
    if not code:
        return ()
    return (("type", code), ("type", f"{code}^{trigger}")) if trigger else (("type", code),)


_of_usual_type = lru_cache(maxsize=256)(_of_type)


def _values(name: str, field: str, marks: Delimiters) -> list[str]:
    """The identifiers in a field, all its repetitions."""
    values: list[str] = []
    for repetition in field.split(marks.repetition) if marks.repetition else (field,):
        number, more, rest = repetition.partition(marks.component)
        number = _leaf(number, marks)
        if number:
            values.append(number)
        if not more or name not in _TWOFOLD:
            continue
        if name == "SPM":
            if filler := _leaf(rest.partition(marks.component)[0], marks):
                values.append(filler)
        elif number and len(parts := rest.split(marks.component, _AUTHORITY)) >= _AUTHORITY:
            authority = parts[_AUTHORITY - 1]
            for part in authority.split(marks.subcomponent)[:2] if marks.subcomponent else (authority,):
                if issuer := _leaf(part, marks):
                    values.append(f"{number}^^^{issuer}")
    return values


def _leaf(component: str, marks: Delimiters) -> str:
    """The first subcomponent, as people would type it; empty for the null value."""
    if component.isalnum() and marks.subcomponent not in component and marks.escape not in component:
        return component.casefold()  # what follows would come to the same
    leaf = component.split(marks.subcomponent, 1)[0] if marks.subcomponent else component
    if leaf == NULL:
        return ""
    return normal(unescape(leaf, marks) if marks.escape and marks.escape in leaf else leaf)
