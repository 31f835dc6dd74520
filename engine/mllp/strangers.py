"""Who speaks another protocol at an MLLP port. Its first bytes tell, where a message begins with a byte of its own.

Such a peer would wait for an answer that never comes, and its people for a reason: better it is cut off at once.
"""

from __future__ import annotations

TLS = "a TLS handshake at a port without TLS"
HTTP = "an HTTP request at an MLLP port"

_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI")
_BEGINNINGS = {b"\x16\x03": TLS} | {method + b" ": HTTP for method in _METHODS}  # RFC 8446, 5.1; RFC 9110 and 9113

LONGEST = max(len(beginning) for beginning in _BEGINNINGS)
"""Bytes after which it is decided."""


def stranger(first: bytes) -> str | None:
    """What speaks, by the first bytes of a connection; None where it may be a peer. The words are stable."""
    return next((what for beginning, what in _BEGINNINGS.items() if first.startswith(beginning)), None)


def undecided(first: bytes) -> bool:
    """Whether so few bytes may still become a stranger's."""
    return any(beginning.startswith(first) for beginning in _BEGINNINGS)
