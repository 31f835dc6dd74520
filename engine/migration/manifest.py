"""The other side's list of control ids, as a CSV file: what the vendor or the old engine says it sent.

A header names the columns, in any case: `control_id`, and `channel` where the list knows it; other columns are left
alone. A file of one column may do without a header. Commas, semicolons and tabs are understood.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

CONTROL_ID, CHANNEL = "control_id", "channel"
SEPARATORS = ",;\t"
MOST_PROBLEMS = 20

Item = tuple[str, str | None]


class ManifestError(Exception):
    """What is wrong with the file, a line for each: `file:line: found …; expected …`."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def read_manifest(data: bytes, name: str) -> list[Item]:
    """(control id, channel or None) of each line, in order. Raises ManifestError, with lines counted from 1.

    Control ids are data of the interface, but nothing of a line is repeated in an error: it may be the wrong file.
    """
    text = _text(data, name)
    separator = _separator(text)
    rows = _rows(text, separator, name)
    first = next(rows, None)
    if first is None:
        raise ManifestError([f"{name}:1: found no lines; expected control ids"])
    columns = [cell.strip().lower() for cell in first[1]]
    if CONTROL_ID in columns:
        return _items(rows, columns, name)
    if len(columns) == 1:
        return _items(iter([first, *rows]), [CONTROL_ID], name)
    found = f"{len(columns)} columns and none named {CONTROL_ID}"
    raise ManifestError([f"{name}:{first[0]}: found {found}; expected a header with {CONTROL_ID}"])


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError([f"{name}:{line}: found bytes that are not UTF-8; expected text in UTF-8"]) from None


def _separator(text: str) -> str:
    """The one that the first line has; a comma where it has none."""
    first = text.lstrip().partition("\n")[0]
    return max(SEPARATORS, key=first.count)


def _rows(text: str, separator: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each line that has any."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error:
        raise ManifestError([f"{name}:{reader.line_num}: found broken quotes; expected CSV"]) from None


def _items(rows: Iterator[tuple[int, list[str]]], columns: list[str], name: str) -> list[Item]:
    id_at = columns.index(CONTROL_ID)
    channel_at = columns.index(CHANNEL) if CHANNEL in columns else None
    items: list[Item] = []
    problems: list[str] = []
    for line, cells in rows:
        control_id = cells[id_at].strip() if id_at < len(cells) else ""
        if len(cells) > len(columns):
            problems.append(f"{name}:{line}: found {len(cells)} cells; expected {len(columns)}, as in the first line")
        elif not control_id:
            problems.append(f"{name}:{line}: found no control id; expected one in column {id_at + 1}")
        channel = cells[channel_at].strip() if channel_at is not None and channel_at < len(cells) else ""
        items.append((control_id, channel or None))
    if problems:
        more = [f"{name}: and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        raise ManifestError(problems[:MOST_PROBLEMS] + more)
    return items
