"""Messages that say which answers they want."""

from __future__ import annotations


def asking(message: bytes, accept: str, application: str) -> bytes:
    """The message with MSH-15 and MSH-16."""
    header, _, rest = message.partition(b"\r")
    fields = header.split(b"|") + [b""] * 16
    fields[14], fields[15] = accept.encode(), application.encode()
    return b"|".join(fields[:18]) + b"\r" + rest
