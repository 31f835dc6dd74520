"""From the files of mapping folders to compiled mappings: everything read, checked together, compiled."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from collections.abc import Mapping as Dict
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from engine.mapping.compiled import LANGUAGE, Compiled, Part, Shelf, Written
from engine.mapping.emit import Emitter
from engine.mapping.expression import paths
from engine.mapping.files import Files, read_folder, read_texts
from engine.mapping.model import MessageMap
from engine.mapping.moves import Move
from engine.mapping.overrides import overridden
from engine.mapping.problems import Place, Problems
from engine.mapping.program import Program
from engine.mapping.reasons import Reasons
from engine.mapping.schema import r4
from engine.mapping.source import Source
from engine.mapping.writer import Unit, Workshop

CODING_TABLE = "CodingSystem"


def read(folders: Iterable[Path]) -> tuple[Files, Problems]:
    """All that stands in some folders, a later one's winning by name."""
    problems, files = Problems(), Files()
    for folder in folders:
        read_folder(folder, files, problems)
    return files, problems


def make(folders: Iterable[Path], full: bool) -> tuple[Maker, Shelf]:
    """All maps of the folders, checked; where only the fast variant is wanted, a function is compiled when it is first
    used. Raises `MappingError` with all problems of all files."""
    files, problems = read(folders)
    maker = Maker(files)
    return maker, maker.shelf(problems, full, maker.names, late=not full)


def make_again(folders: Iterable[Iterable[tuple[str, str]]], names: Collection[str]) -> tuple[Maker, Shelf]:
    """The maps of these names, from the files of folders that were right once, each by name and text. Raises
    `MappingError` where this release does not understand them any more."""
    problems, files = Problems(), Files()
    for folder in folders:
        read_texts(folder, files, problems)
    maker = Maker(files)
    return maker, maker.shelf(problems, False, sorted(maker.names & set(names)))


class Maker:
    """Compiles message maps; what they share is compiled once."""

    def __init__(self, files: Files, base: Maker | None = None, changed: frozenset[str] = frozenset()) -> None:
        """base: one whose files say the same but for what is `changed`."""
        self._files = files
        self._base, self._changed = base, changed
        self._emitters: dict[tuple[bool, bool], Emitter] = {}
        known = base._contents.items() if base else ()
        self._contents: dict[str, orjson.Fragment] = {name: said for name, said in known if name not in changed}

    def changed(
        self, said: Source | None, use: str | None, options: dict[str, str], places: Dict[str, Place]
    ) -> tuple[Maker, Shelf, list[Move]]:
        """With an override on top: one message, or all. Raises `MappingError`."""
        problems = Problems()
        found = overridden(self._files, said, use, options, problems, places)
        problems.check()
        maker = Maker(found.files, self, found.changed)
        shelf = maker.shelf(problems, False, [use] if use else sorted(maker.names))
        units = maker._emitter(False, False, problems).shop.units
        used = {name for message in shelf.messages for name in units[message.run].used}
        for name, place in found.new.items():
            if f"map {name}" not in used:
                known = [one.removeprefix("map ") for one in used if one.startswith("map ")]
                problems.unknown(place, "map", name, known)
        problems.check()
        return maker, shelf, list(found.moves)

    @property
    def files(self) -> Files:
        """What it compiles."""
        return self._files

    @property
    def names(self) -> set[str]:
        """Of the messages."""
        return set(self._files.messages)

    def shelf(self, problems: Problems, full: bool, names: Collection[str], late: bool = False) -> Shelf:
        """The fast variant of all, and the `full` one too if it is wanted. late: compile when it is first used."""
        plain = self._emitter(False, False, problems)
        messages = [self._compiled(self._files.messages[name], plain, problems) for name in sorted(names)]
        if self._base is None:
            self._check_unused(plain)
        problems.check()
        wanted: dict[str, Unit] = {}
        for message in messages:
            wanted |= plain.shop.closure(message.run)
        found: dict[tuple[bool, bool], Dict[str, Part]] = {}
        found[False, False] = Written(wanted) if late else dict(Written(wanted))
        if full:
            careful = self._emitter(True, False, Problems())
            wanted = {}
            for name in sorted(names):
                wanted |= careful.shop.closure(self._unit(self._files.messages[name], careful).name)
            found[True, False] = dict(Written(wanted))
        return Shelf(tuple(messages), found)

    def variant(self, name: str, full: bool, traced: bool) -> Dict[str, Part]:
        """A variant of one message that is known to have no mistakes."""
        if self._base is not None and name in self._base.names:
            self._base.variant(name, full, traced)  # what is the same there is written once for all channels
        emitter = self._emitter(full, traced, Problems())
        unit = self._unit(self._files.messages[name], emitter)
        return Written(emitter.shop.closure(unit.name))

    def source(self, name: str) -> str:
        """The generated Python of one message."""
        emitter = self._emitter(False, False, Problems())
        units = emitter.shop.closure(self._unit(self._files.messages[name], emitter).name)
        return "\n\n".join(unit.source for unit in units.values())

    def reasons(self, name: str) -> Reasons:
        """Why values of one message's are lost."""
        message = self._files.messages[name]
        emitter = self._emitter(False, False, Problems())
        used = {one.removeprefix("map ") for one in self._unit(message, emitter).used if one.startswith("map ")}
        rows = tuple(row for block in message.blocks for row in block.rows)
        named = [value for block in message.blocks for _, value in block.lets] + [value for _, value in message.lets]
        found = (key for block in message.blocks for key in (*block.keys, *block.formerly))
        values = [key.value for key in found if key.value is not None]
        keys = [path for value in (*values, *named) for path in paths(value)]
        return Reasons(self._files, used, rows, message.root.names(), keys)

    def _compiled(self, message: MessageMap, emitter: Emitter, problems: Problems) -> Compiled:
        table = self._files.tables.get(CODING_TABLE)
        coding = {code.upper(): uri for code, (uri, _) in table.codes.items()} if table else {}
        unit = self._unit(message, emitter)
        used = unit.used | ({f"table {CODING_TABLE}": table.source} if table else {})
        content = {name: self._said(name, part) for name, part in sorted(used.items())}
        whole = orjson.dumps([LANGUAGE, message.source.content(), content], option=orjson.OPT_SORT_KEYS)
        version = sha256(whole).hexdigest()
        name, accepts, joined = message.name, message.accepts, message.joined
        return Compiled(name, accepts, version, coding, message.root, unit.name, joined, message.named)

    def _said(self, name: str, part: Any) -> orjson.Fragment:
        """What a part says, as JSON; many messages use the same ones."""
        known = self._contents.get(name)
        if known is None:
            found = part.content() if isinstance(part, Source) else part
            known = self._contents[name] = orjson.Fragment(orjson.dumps(found, option=orjson.OPT_SORT_KEYS))
        return known

    def _emitter(self, full: bool, traced: bool, problems: Problems) -> Emitter:
        found = self._emitters.get((full, traced))
        if found is None:
            found = self._emitters[full, traced] = Emitter(self._files, r4(), Workshop(full, traced), problems)
            if self._base is not None:
                found.shop.units |= self._unchanged(self._base._emitter(full, traced, Problems()).shop.units)
        return found

    def _unchanged(self, units: dict[str, Unit]) -> dict[str, Unit]:
        """The functions of maps that are as they were."""
        kept = {name: unit for name, unit in units.items() if not unit.used.keys() & self._changed}
        return {name: unit for name, unit in kept.items() if not name.startswith("run_") and "__" not in name}

    def _unit(self, message: MessageMap, emitter: Emitter) -> Unit:
        known = emitter.shop.units.get(f"run_{message.name}")
        return known or Program(message, emitter, r4(), emitter.problems).emit()

    def _check_unused(self, emitter: Emitter) -> None:
        """Compile the maps that no message uses, for the mistakes in them."""
        used = {name for unit in emitter.shop.units.values() for name in unit.used}
        for found in self._files.maps.values():
            if f"map {found.name}" in used:
                continue
            if found.of_segment and not found.keys:
                emitter.functions.filler(found, frozenset())
            elif not found.of_segment:
                emitter.functions.function(found)
