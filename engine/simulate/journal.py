"""What happened, one JSON object a line: written before anybody is answered, so that it outlives whoever is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson


class Journal:
    """One NDJSON file, appended to; without a path nothing is written."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Go on at the file's end. OSError where that cannot be."""
        if self.path is not None and self._file is None:
            self._file = self.path.open("ab", buffering=0)

    def write(self, row: Any) -> None:
        """A dataclass or a table, as one line; it has left this process when this returns."""
        if self._file is not None:
            self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a journal, oldest first; a last line that was cut off is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield orjson.loads(line)
