"""How the command line speaks: exit statuses, sentences on standard error, tables, JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

DONE, REFUSED, USAGE = 0, 1, 2
WIDTH = 100
"""Characters of a line that people read."""


class Stop(Exception):
    """Ends the command with a sentence on standard error and an exit status."""

    def __init__(self, sentence: str, status: int = REFUSED) -> None:
        self.sentence = sentence
        self.status = status
        super().__init__(sentence)


def usage(sentence: str) -> NoReturn:
    raise Stop(sentence, USAGE)


def out(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def at_terminal() -> bool:
    """Whether a person reads what is printed."""
    return sys.stdout.isatty()


def out_bytes(content: bytes) -> None:
    """The bytes and nothing else, for a pipe or a file."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def err(text: str) -> None:
    sys.stderr.write(text + "\n")


def out_json(value: Any) -> None:
    """One line of JSON."""
    import orjson

    out(orjson.dumps(value).decode())


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), width: int = 0) -> str:
    """Aligned columns, two spaces apart; columns named in `right` stand flush right.

    width: where it is given, the last column is wrapped so that a line has at most so many characters.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(head, row, widths, strict=True)
        )
        return "  ".join(cells).rstrip()

    if width:
        left = sum(widths[:-1]) + 2 * (len(widths) - 1)
        rows = [part for row in rows for part in _wrapped_row(row, max(width - left, 20))]
        widths[-1] = 0
    return "\n".join([line(head), *map(line, rows)])


def _wrapped_row(row: Sequence[str], width: int) -> list[Sequence[str]]:
    first, *others = wrapped(row[-1], width)
    return [[*row[:-1], first], *([*[""] * (len(row) - 1), other] for other in others)]


def wrapped(text: str, width: int = WIDTH, indent: str = "") -> list[str]:
    """The lines of a paragraph, at least one; those after the first begin with `indent`. Words are never broken."""
    import textwrap

    lines = textwrap.wrap(
        printable(text), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return lines or [""]


def printable(text: str) -> str:
    """Without control characters: what a peer once sent must not steer a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def many(count: int, noun: str) -> str:
    """1 message, 2 messages"""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def age(seconds: float | None) -> str:
    """A duration for people: 0.4 s, 12 s, 3 min, 2 h, 5 d; a dash for none."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} d"


def since_then(moment: str, now: datetime | None = None) -> float:
    """Seconds since an ISO time; below 0 where it is yet to come."""
    then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return ((now or datetime.now(UTC)) - then).total_seconds()


def since(moment: str | None, now: datetime | None = None) -> str:
    """The age of an ISO time."""
    if not moment:
        return "-"
    return age(since_then(moment, now))


def clock(moment: str, to: str = "milliseconds") -> str:
    """An ISO time in the reader's own zone, with its offset: as `--since` and `--until` take it."""
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).astimezone().isoformat(" ", to)


def second(moment: str) -> str:
    """The same, to the second."""
    return clock(moment, "seconds")


def minute(moment: str) -> str:
    """The same, to the minute."""
    return clock(moment, "minutes")


def bytes_shown(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    return f"{size / 1000:.1f} KB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"
