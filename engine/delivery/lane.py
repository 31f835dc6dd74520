"""Order keys: which messages must stay behind each other. Read from the bytes, without parsing the message."""

from __future__ import annotations


def patient(raw: bytes) -> bytes:
    """PID-3.1 and its assigning authority, of the first repetition; empty (one shared lane) where there is none.

    Not decoded: the same patient in the same channel comes in the same bytes.
    """
    at = raw.find(b"\rPID")
    if at < 0:
        at = raw.find(b"\nPID")
        if at < 0:
            return b""
    separator = raw[3:4]
    fields = raw[at + 1 : at + 2000].split(separator, 4)
    if len(fields) < 4:
        return b""
    identifier = fields[3].split(raw[5:6], 1)[0]  # MSH-2's second mark separates repetitions
    parts = identifier.split(raw[4:5], 4)
    return parts[0] + b"^" + parts[3] if len(parts) > 3 and parts[0] else parts[0]


def channel(raw: bytes) -> bytes:
    """One lane for the whole channel."""
    return b""
