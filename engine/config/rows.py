"""A feed's table as a CSV file: two columns, value and channel; several rows of one value are several channels."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.config.nodes import Findings, Place, shown
from engine.config.tables import Section

COLUMNS = ["value", "channel"]


@dataclass(frozen=True, slots=True)
class Row:
    """place: of the channel. at: of the value."""

    place: Place
    at: Place
    value: str
    channel: str


def read_rows(table: Section, folder: Path, findings: Findings) -> list[Row]:
    """The rows of the file that `file:` names, relative to the folder of the feeds. A problem has its row's line."""
    given = table.get("file")
    if given is None:
        return []
    path = folder / given
    try:
        text = path.read_text("utf-8-sig")
        rows = csv.reader(io.StringIO(text))
        lines = [(rows.line_num, row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no CSV in UTF-8"
        wanted = "a CSV file with the columns value and channel"
        findings.problem(table.place("file"), f"{path}, which cannot be read ({why})", wanted)
        return []
    name = shown(path)
    if not lines or [cell.strip() for cell in lines[0][1]] != COLUMNS:
        findings.problem(name, "a first row that does not name the columns", ",".join(COLUMNS))
        return []
    return list(_rows(name, lines[1:], findings))


def _rows(name: str, lines: list[tuple[int, list[str]]], findings: Findings) -> Iterator[Row]:
    seen = set()
    for number, row in lines:
        cells = tuple(cell.strip() for cell in row)
        if not any(cells):
            continue
        if len(cells) != 2 or not all(cells):
            found = "a row with an empty cell" if len(cells) == 2 else f"a row of {len(cells)} cells"
            findings.problem((name, number, 1), found, "a value and a channel")
        elif cells in seen:
            findings.problem((name, number, 1), f"'{cells[0]}' and '{cells[1]}' a second time", "each row once")
        else:
            seen.add(cells)
            yield Row((name, number, len(row[0]) + 2), (name, number, 1), *cells)
