"""Order keys: which messages must stay behind each other. Read from the bytes, without parsing the message.

Keys are not decoded: the same patient in the same channel comes in the same bytes. A message without a key shares one
lane with all others that have none; a merge (MRG), and whatever else names several patients, stands in the lanes of all
of them (HL7 v2 chapter 3, 3.3.18 and the events around it).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

LONGEST = 2000  # bytes of a segment that are looked at

SHARED: tuple[bytes, ...] = (b"",)

Keys = Callable[[bytes], tuple[bytes, ...]]
"""From a message's bytes to the lanes in which it stands, each of them once."""

PATH = re.compile(r"([A-Z][A-Z0-9]{2})-([1-9][0-9]?)(?:\.([1-9][0-9]?))?")


def channel(raw: bytes) -> tuple[bytes, ...]:
    """One lane for the whole channel."""
    return SHARED


def patients(raw: bytes) -> tuple[bytes, ...]:
    """PID-3.1 and its assigning authority, of the first repetition; of each PID, and of MRG-1 in the same way."""
    first = raw.find(b"\rPID")
    if first >= 0 and raw.find(b"\rMRG") < 0 and raw.find(b"\rPID", first + 4) < 0:
        return (patient(raw),)  # as nearly always
    found = dict.fromkeys([*_identifiers(raw, b"PID", 3), *_identifiers(raw, b"MRG", 1)])
    return tuple(key for key in found if key) or SHARED


def patient(raw: bytes) -> bytes:
    """The first patient's key; empty where there is none."""
    return next(_identifiers(raw, b"PID", 3), b"")


def by(order: str) -> Keys:
    """The order keys of `order_by`: `channel`, `patient`, or a field or component such as OBR-2 or PV1-19.1, of its
    segment's first occurrence. ValueError where it is none of these."""
    if order == "channel":
        return channel
    if order == "patient":
        return patients
    path = PATH.fullmatch(order)
    if path is None:
        raise ValueError(f"{order} is no order key")
    segment, field, component = path[1].encode(), int(path[2]), int(path[3] or 0)

    def keys(raw: bytes) -> tuple[bytes, ...]:
        for whole, (separator, repetition) in _fields(raw, segment, field):
            value = whole.split(repetition, 1)[0] if repetition else whole
            if component and separator:
                parts = value.split(separator, component)
                value = parts[component - 1] if len(parts) >= component else b""
            return (value,)
        return SHARED

    return keys


def _identifiers(raw: bytes, segment: bytes, field: int) -> Iterator[bytes]:
    """The first identifier with its authority, of each of these segments."""
    for value, (component, repetition) in _fields(raw, segment, field):
        identifier = value.split(repetition, 1)[0] if repetition else value
        parts = identifier.split(component, 4) if component else [identifier]
        yield parts[0] + b"^" + parts[3] if len(parts) > 3 and parts[0] else parts[0]


def _fields(raw: bytes, segment: bytes, number: int) -> Iterator[tuple[bytes, tuple[bytes, bytes]]]:
    """(the field's bytes, the component and repetition separators) of each of these segments, empty where the segment
    is too short for it."""
    head = 0 if raw[:3] == b"MSH" else raw.find(b"MSH", 0, 1024)
    if head < 0:
        return
    field, inner = raw[head + 3 : head + 4], (raw[head + 4 : head + 5], raw[head + 5 : head + 6])
    if not field:
        return
    if segment == b"MSH":
        number, end, start = number - 1, b"\r", head  # MSH-1 is the separator itself
    else:
        end = b"\r" if raw.find(b"\r" + segment) >= 0 else b"\n"
        start = raw.find(end + segment) + 1 or -1
    while start >= 0:
        fields = raw[start : start + LONGEST].split(end, 1)[0].split(field, number + 1)
        yield (fields[number] if len(fields) > number else b"", inner)
        start = raw.find(end + segment, start + 3) + 1 or -1
