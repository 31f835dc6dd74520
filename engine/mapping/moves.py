"""Fields that a sender has in the wrong place, put right before anything reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.hl7.message import delimiters_of


@dataclass(frozen=True, slots=True)
class Move:
    """Where field `to` of a segment is empty, it stands in field `source`."""

    segment: str
    to: int
    source: int


def in_place(lines: list[str], moves: Sequence[Move]) -> list[str]:
    """The segments with their fields in place. What stood in the wrong one stays there, too."""
    mark = delimiters_of(lines[0]).field
    wanted = {move.segment for move in moves}
    return [_moved(line, mark, moves) if line[:3] in wanted else line for line in lines]


def _moved(line: str, mark: str, moves: Sequence[Move]) -> str:
    fields = line.split(mark)
    for move in moves:
        if move.segment == fields[0] and len(fields) > move.source and fields[move.source]:
            fields.extend("" for _ in range(move.to + 1 - len(fields)))
            fields[move.to] = fields[move.to] or fields[move.source]
    return mark.join(fields)
