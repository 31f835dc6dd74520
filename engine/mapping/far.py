"""Rows that read only what stands far behind, and are skipped together where a segment or a value ends before.

Most segments and values are short, and even to see that a field is empty takes its time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from engine.mapping.expression import Call, Else, Path, Template, Value
from engine.mapping.model import Assign, Build, Constant, First, Kept, Nothing, Row, Switch, When, under

FIELDS = (8, 12, 15, 20, 24, 28, 33, 38)
COMPONENTS = (4, 8, 14)
_FEW = 2  # rows that are not worth a test of their own

Run = tuple[str, int, list["Row | Run"]]
"""An owner, the lowest number of its fields or components that the rows read, and the rows or runs of them."""


def runs(rows: Sequence[Row], marks: tuple[int, ...]) -> list[Row | Run]:
    """The rows in their order; neighbours that read nothing before one of the marks, of one owner, as runs."""
    return _runs([(row, _least(row)) for row in rows], marks)


def _runs(rows: Sequence[tuple[Row, tuple[str, int] | None]], marks: tuple[int, ...]) -> list[Row | Run]:
    out: list[Row | Run] = []
    for owner, near in groupby(rows, lambda one: one[1][0] if marks and one[1] and one[1][1] >= marks[0] else None):
        run = list(near)
        if owner is None or len(run) < _FEW:
            out.extend(row for row, _ in run)
            continue
        lowest = min(least[1] for _, least in run if least)
        inner = _runs(run, marks[1:])
        if len(inner) == 1 and isinstance(inner[0], tuple) and inner[0][1] == lowest:
            inner = inner[0][2]
        out.append((owner, lowest, inner))
    return out


def needed(rows: Sequence[Row]) -> str | None:
    """The one owner without whose fields none of the rows does anything; None where that is not plain."""
    found = _lowest([_least(row) for row in rows if not isinstance(row, Nothing)])
    return found[0] if found else None


def _least(row: Row) -> tuple[str, int] | None:
    """The owner and the lowest field or component without which a row does nothing; None where that is not plain."""
    match row:
        case Assign():
            return None if row.decide else _lowest([_value(value) for value in row.values])
        case Kept():
            return _lowest([_value(value) for value in row.values])
        case Build():
            return _lowest([_least(one) for one in row.rows if not isinstance(one, Constant)])
        case When() | First() | Switch():
            return _lowest([_least(one) for one in under(row)])  # a constant needs nothing but the condition
        case Nothing():
            return None
        case _:
            return None


def _value(value: Value) -> tuple[str, int] | None:
    match value:
        case Path():
            return value.owner, value.field
        case Else():
            return _lowest([_value(option) for option in value.options])
        case Template():
            found = [
                one for part in value.parts if not isinstance(part, str) and not part[1] for one in _known(part[0])
            ]
            return max(found, key=lambda one: one[1], default=None) if _one_owner(found) else None
        case Call() if value.function in ("lines", "first", "trimmed"):
            return _value(value.arguments[0])
        case _:
            return None  # a function may make something of nothing


def _known(value: Value) -> Iterator[tuple[str, int]]:
    found = _value(value)
    if found is not None:
        yield found


def _one_owner(found: Sequence[tuple[str, int]]) -> bool:
    return len({owner for owner, _ in found}) == 1


def _lowest(found: Sequence[tuple[str, int] | None]) -> tuple[str, int] | None:
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found) or not _one_owner(known):
        return None
    return min(known, key=lambda one: one[1])
