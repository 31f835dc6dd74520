"""Texts that are sent a line each: OBX by OBX, alike in all but their number and their line.

Put together they are one result with one text, as they were in the sender's system. A correction that has fewer lines
then replaces all of them; line by line its last ones would stand on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from engine.hl7.message import NULL

TYPES = ("TX", "FT")
TEXT = 5
"""OBX-5."""
_TYPE, _STATUS = 2, 11
_FINAL, _CORRECTED = "F", "C"


class Joined(list[str]):
    """Segments, some of them made of several. origins: by their numbers here, those that they came with, one for each
    repetition of OBX-5. names: of the segments as they came."""

    def __init__(self, lines: Iterable[str], origins: Sequence[list[int]], names: list[str]) -> None:
        super().__init__(lines)
        self.origins, self.names = origins, names

    def copy(self) -> Joined:
        """The same; the segments of one may then be cut."""
        return Joined(self, self.origins, self.names)


def joined(lines: list[str], mark: str, again: str, known: Set[str]) -> list[str]:
    """The segments with each such text in one OBX, a repetition a line. mark: between fields; again: between
    repetitions. known: the names of segments; one that nobody knows ends no text, but for what goes on with the segment
    in front of it (ADD)."""
    found: list[str] = []
    origins: list[list[int]] = []
    texts: dict[int, tuple[list[str], list[str]]] = {}  # by place in `found`: an OBX's fields, and its lines
    before: list[str] | None = None  # what the last OBX told, if more lines may follow it
    at = 0  # its place in `found`
    for number, line in enumerate(lines):
        fields = line.split(mark) if line.startswith("OBX" + mark) else []
        if len(fields) <= TEXT or fields[_TYPE] not in TYPES or fields[TEXT] == NULL:
            found.append(line)
            origins.append([number])
            if line[:3] in known or line[:3] == "ADD":
                before = None
            continue
        told = _told(fields)
        if before != told:
            at = len(found)
            texts[at] = fields, []
            found.append(line)
            origins.append([])
        first, all_lines = texts[at]
        if _status(fields) == _CORRECTED:
            first[_STATUS] = _CORRECTED
        all_lines.append(fields[TEXT])
        origins[at] += [number] * (fields[TEXT].count(again) + 1)
        before = told
    if len(found) == len(lines):
        return lines
    for at, (fields, all_lines) in texts.items():
        found[at] = mark.join([*fields[:TEXT], again.join(all_lines), *fields[TEXT + 1 :]])
    return Joined(found, origins, [line[:3] for line in lines])


def _status(fields: list[str]) -> str:
    return fields[_STATUS] if len(fields) > _STATUS else ""


def _told(fields: list[str]) -> list[str]:
    """What an OBX says besides its number and its line. Of a text only some lines may be corrected."""
    told = [*fields[_TYPE:TEXT], *fields[TEXT + 1 :]]
    if _status(fields) == _CORRECTED:
        told[_STATUS - _TYPE - 1] = _FINAL
    while told and not told[-1]:
        told.pop()
    return told
