"""Acknowledgement codes as metric labels: only those of HL7 table 0008, since a peer may send anything."""

from __future__ import annotations

KNOWN = frozenset({"AA", "AE", "AR", "CA", "CE", "CR"})


def label(code: str) -> str:
    """The code, or `other`."""
    return code if code in KNOWN else "other"
