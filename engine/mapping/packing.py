"""An effective mapping as data that outlives its files, and back.

What is kept is what people wrote: the text of the FHIR mappings' files, what a v2 mapping's file says, the rows of its
tables. Nothing that was compiled is kept: it is code, it belongs to one release, and a backup travels. So what comes
back is compiled anew, and is what it was only if it has its version again; where a release has changed what the
language means, that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Final

import orjson

from engine.config.filtering import Emit
from engine.ledger.sqlite.mappings import KeptMapping, part_hash
from engine.mapping import effective, files
from engine.mapping.effective import Effective, Reading, ToFhir, made, rules_of
from engine.mapping.library import Library
from engine.mapping.problems import MappingError, Place
from engine.mapping.source import as_json, of_json
from engine.mapping.v2.library import V2Mapping, mapping_of
from engine.mapping.v2.tables import Table, packed, unpacked

KEPT: Final = Place("a kept mapping", 1, 1)
LIBRARIES: Final = 4  # of earlier FHIR mappings, in memory; one is a few hundred KB
TABLES: Final = 8  # and of earlier tables


class NotKept(Exception):
    """A version cannot be had any more. The sentence says why."""


class Sources:
    """The files of the FHIR mappings, as they were read at the start: shipped, and the site's."""

    def __init__(self, shipped: Path, site: Path | None) -> None:
        self._folders = [folder for folder in (shipped, site) if folder is not None]

    @cached_property
    def fhir(self) -> bytes:
        """[[[name, text], …], …]: a list for each folder, in the order in which they are read; JSON."""
        return orjson.dumps([
            [[path.relative_to(folder).as_posix(), _text(path)] for path in (*files.paths(folder), *csv_files(folder))]
            for folder in self._folders
        ])  # fmt: skip


def csv_files(folder: Path) -> list[Path]:
    """The code tables of a folder."""
    return sorted(folder.rglob("*.csv"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


class Packer:
    """Packs versions, on whatever thread; what they share is packed once."""

    def __init__(self, present: Mapping[str, Effective], sources: Sources) -> None:
        """`present`: by version."""
        self._present = present
        self._sources = sources
        self._parts: dict[str, tuple[str, bytes]] = {}  # by what they are of → hash, content

    def __call__(self, version: str) -> KeptMapping:
        """All that it takes to make it again."""
        it = self._present[version]
        head = effective.head(it.reading, it.rules, it.emit, it.fhir, it.v2)
        parts: dict[str, bytes] = {}

        def put(of: str, content: Callable[[], bytes]) -> str:
            if of not in self._parts:
                made = content()
                self._parts[of] = part_hash(made), made
            hash, parts[hash] = self._parts[of][0], self._parts[of][1]
            return hash

        if it.fhir is not None:
            head["fhir"]["files"] = put("files", lambda: self._sources.fhir)
        if it.v2 is not None:
            source = it.v2.source
            head["v2"]["says"] = put(f"v2 {it.v2.version}", lambda: orjson.dumps(as_json(source)))
            head["v2"]["tables"] = {
                name: put(f"table {table.version}", partial(packed, table)) for name, table in it.v2.tables.items()
            }
        return KeptMapping(version, orjson.dumps(head), parts)


def unpack(kept: KeptMapping) -> Effective:
    """What was packed. Compiles: for a thread of its own. Raises NotKept where it is not what it was."""
    head = orjson.loads(kept.head)
    try:
        fhir = _fhir(head["fhir"], kept) if head["fhir"] else None
        v2 = _v2(head["v2"], kept) if head["v2"] else None
        reading, emit = Reading(**head["reading"]), Emit(**head["emit"])
        found = made(reading, rules_of(head["filter"]), emit, fhir, v2)
    except (MappingError, KeyError, TypeError) as error:
        raise NotKept(f"this release does not understand mapping {kept.version} any more") from error
    if found.version != kept.version:
        raise NotKept(f"mapping {kept.version} would not be the same in this release: the language has changed since")
    return found


def _fhir(head: dict[str, Any], kept: KeptMapping) -> ToFhir:
    changes = effective.changes_of(head)
    library = _library(kept.parts[head["files"]], tuple(sorted(head["versions"])))
    own = library.changed(head["mapping"], changes)
    found = ToFhir(own, head["mapping"], frozenset(head["accepts"]), changes)
    found.prepare()
    return found


@lru_cache(LIBRARIES)
def _library(files: bytes, names: tuple[str, ...]) -> Library:
    """Compiled once for all channels that were mapped by it."""
    from engine.mapping import maker  # as in the library: a start with a full cache needs no compiler

    one, shelf = maker.make_again(orjson.loads(files), names)
    return Library(shelf, lambda: one)


def _v2(head: dict[str, Any], kept: KeptMapping) -> V2Mapping:
    tables = {name: _table_of(name, kept.parts[hash]) for name, hash in head["tables"].items()}
    return mapping_of(head["name"], of_json(orjson.loads(kept.parts[head["says"]]), KEPT), tables)


@lru_cache(TABLES)
def _table_of(name: str, content: bytes) -> Table:
    """It is never too old: what was made by it was made when it was not."""
    return unpacked(name, content)
