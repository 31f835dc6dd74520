"""The site's mapping files while the service runs: read anew where they have changed.

All of them are read, checked and compiled before any is used. Where one has a mistake, all stay as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.mapping.library import Library
from engine.mapping.packing import Sources
from engine.mapping.v2.library import V2Library


@dataclass(frozen=True, slots=True)
class Fresh:
    """What was read. v2: None where no channel has a v2 mapping."""

    library: Library
    sources: Sources
    v2: V2Library | None


class MappingFiles:
    """The shipped mappings, which stay as they are, and a site's folder."""

    def __init__(self, shipped: Path, site: Path | None, cache: Path, tables: Path | None) -> None:
        """cache: for what was compiled. tables: where the v2 mappings' tables are kept, None without such mappings."""
        self._shipped, self._site, self._cache, self._tables = shipped, site, cache, tables
        self._seen = self._stamps()

    @property
    def has_site(self) -> bool:
        """Whether there is a folder of the site's own."""
        return self._site is not None

    def changed(self) -> Fresh | None:
        """All of them, if a file is not what it was; for a thread of its own. Raises `MappingError`, once for each
        state of the files."""
        found = self._stamps()
        if found == self._seen or self._site is None:
            return None
        self._seen = found
        fresh = self.read()
        if self._stamps() != found:  # somebody is still at it: what was read may be half of one state, half of another
            self._seen = ()
            return None
        return fresh

    def read(self) -> Fresh:
        """All of them as they are now. Raises `MappingError`."""
        library = Library.load(self._shipped, self._site, self._cache)
        sources = Sources(self._shipped, self._site)
        sources.fhir  # noqa: B018 - read now, not when they are packed
        v2 = V2Library.load(self._shipped, self._site, self._tables) if self._tables is not None else None
        return Fresh(library, sources, v2)

    def _stamps(self) -> tuple[tuple[str, int, int], ...]:
        """The path, time and size of each file."""
        found = []
        for path in sorted(self._site.rglob("*")) if self._site is not None and self._site.is_dir() else ():
            if path.suffix in (".yaml", ".csv") and path.is_file():
                stat = path.stat()
                found.append((str(path), stat.st_mtime_ns, stat.st_size))
        return tuple(found)
