"""From the files of mapping folders to compiled mappings: everything read, checked together, compiled."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path

import orjson

from engine.mapping.compiled import LANGUAGE, Compiled, pack
from engine.mapping.emit import Emitter
from engine.mapping.files import Files, read_folder, read_texts
from engine.mapping.model import MessageMap
from engine.mapping.problems import Problems
from engine.mapping.program import Program
from engine.mapping.schema import r4
from engine.mapping.writer import Module

CODING_TABLE = "CodingSystem"


def make(folders: list[Path], full: bool) -> tuple[dict[str, Maker], list[Compiled]]:
    """All maps of the folders, a later one's winning by name. Raises `MappingError` with all problems of all files."""
    problems = Problems()
    files = Files()
    for folder in folders:
        read_folder(folder, files, problems)
    makers = {name: Maker(message, files) for name, message in sorted(files.messages.items())}
    compiled = [maker.compiled(problems, full) for maker in makers.values()]
    _check_unused(files, problems)
    problems.check()
    return makers, compiled


def make_again(folders: Iterable[Iterable[tuple[str, str]]], names: Collection[str]) -> list[tuple[Maker, Compiled]]:
    """The maps of these names, from the files of folders that were right once, each by name and text. Raises
    `MappingError` where this release does not understand them any more."""
    problems, files = Problems(), Files()
    for folder in folders:
        read_texts(folder, files, problems)
    makers = [Maker(message, files) for name, message in sorted(files.messages.items()) if name in names]
    found = [(maker, maker.compiled(problems, False)) for maker in makers]
    problems.check()
    return found


class Maker:
    """Compiles one message map."""

    def __init__(self, message: MessageMap, files: Files) -> None:
        self._message, self._files = message, files

    def module(self, full: bool) -> Module:
        """A variant of a map that is known to have no mistakes."""
        return self._emitted(full, Problems()).module

    def compiled(self, problems: Problems, full: bool) -> Compiled:
        """The fast variant, and the `full` one too if it is wanted."""
        message, table = self._message, self._files.tables.get(CODING_TABLE)
        coding = {code.upper(): uri for code, (uri, _) in table.codes.items()} if table else {}
        emitter = self._emitted(False, problems)
        used = emitter.used | ({f"table {CODING_TABLE}": table.source} if table else {})
        content = {name: getattr(part, "content", lambda part=part: part)() for name, part in sorted(used.items())}
        whole = orjson.dumps([LANGUAGE, message.source.content(), content], option=orjson.OPT_SORT_KEYS)
        bodies: dict[bool, bytes] = {}
        if not problems.found:
            bodies[False] = pack(emitter.module, message.name)
            if full:
                bodies[True] = pack(self.module(True), message.name)
        return Compiled(message.name, message.accepts, sha256(whole).hexdigest(), coding, message.root, bodies)

    def _emitted(self, full: bool, problems: Problems) -> Emitter:
        emitter = Emitter(self._files, r4(), Module(full), problems)
        Program(self._message, emitter, r4(), problems).emit()
        return emitter


def _check_unused(files: Files, problems: Problems) -> None:
    """Compile the data type maps that no message uses, for the mistakes in them."""
    emitter = Emitter(files, r4(), Module(False), problems)
    for found in files.maps.values():
        if len(found.owner) < 3 or found.target in ("Identifier", "CodeableConcept"):
            emitter.functions.function(found)
