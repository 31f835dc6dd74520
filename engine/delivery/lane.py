"""Order keys: which messages must stay behind each other. Read from the bytes, without parsing the message."""

from __future__ import annotations

LONGEST = 2000  # bytes of PID that are looked at


def patient(raw: bytes) -> bytes:
    """PID-3.1 and its assigning authority, of the first repetition; empty (one shared lane) where there is none.

    Not decoded: the same patient in the same channel comes in the same bytes.
    """
    if raw[:3] in (b"FHS", b"BHS"):
        return b""  # a batch holds many patients
    head = 0 if raw[:3] == b"MSH" else raw.find(b"MSH", 0, 1024)
    start = raw.find(b"\rPID")
    end = b"\r"
    if start < 0:
        start, end = raw.find(b"\nPID"), b"\n"
    if start < 0 or head < 0:
        return b""
    field, component, repetition = raw[head + 3 : head + 4], raw[head + 4 : head + 5], raw[head + 5 : head + 6]
    fields = raw[start + 1 : start + LONGEST].split(end, 1)[0].split(field, 4)
    if len(fields) < 4:
        return b""
    identifier = fields[3].split(repetition, 1)[0] if repetition else fields[3]
    parts = identifier.split(component, 4) if component else [identifier]
    return parts[0] + b"^" + parts[3] if len(parts) > 3 and parts[0] else parts[0]


def channel(raw: bytes) -> bytes:
    """One lane for the whole channel."""
    return b""
