"""All mappings: read from the shipped folder and the site's, checked together, compiled once."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from engine.fhir.output import Output
from engine.hl7 import charset
from engine.hl7.group import Grouper
from engine.hl7.message import delimiters_of, split_segments
from engine.mapping import convert, run
from engine.mapping.emit import Emitter
from engine.mapping.files import Files, read_folder
from engine.mapping.model import MessageMap
from engine.mapping.problems import MappingError, Problems, guess
from engine.mapping.program import Program
from engine.mapping.run import Connection, Run
from engine.mapping.schema import r4
from engine.mapping.writer import Module

LANGUAGE = 1
"""Part of every version: goes up when the same files come to mean something else."""
CODING_TABLE = "CodingSystem"
_CONNECTIONS = 512
_RUNTIME = {
    name: getattr(run, name)
    for name in (
        "clock", "component", "decide", "digits", "encoded", "fields", "first", "head", "header",
        "identifiers", "joined",
        "link", "received", "translated", "walk",
    )
} | {"authority": convert.authority, "coding_system": convert.coding_system, "number": convert.number,
     "as_string": convert.text, "NUL": "\0"}  # fmt: skip

__all__ = ["Context", "Library", "Mapping", "MappingError", "Unmappable"]


class Unmappable(Exception):
    """A message that no mapping can take: code, where in the message, what was wanted. Never patient data."""

    def __init__(self, code: str, where: str, wanted: str) -> None:
        self.code, self.where, self.wanted = code, where, wanted
        super().__init__(f"{code} at {where}: expected {wanted}")


@dataclass(frozen=True, slots=True)
class Context:
    """What a mapping needs to know besides the message. `received` is in µs since 1970, UTC."""

    channel: str
    connection: str
    identity: Dict[str, str]
    timezone: str
    encoding: str
    received: int
    incarnation: str = ""
    seq: int = 0


class Mapping:
    """One message structure's mapping, ready to run. `version` is the hash of everything that it uses."""

    def __init__(self, message: MessageMap, files: Files, problems: Problems) -> None:
        self.name = message.name
        self.accepts = message.accepts
        self._message, self._files = message, files
        self._grouper = Grouper(message.root)
        self._functions: dict[bool, Any] = {}
        self._connections: dict[tuple[str, str], Connection] = {}
        table = files.tables.get(CODING_TABLE)
        self._coding = {code.upper(): uri for code, (uri, _) in table.codes.items()} if table else {}
        self.source, used = self._compile(False, problems)
        if table:
            used[f"table {CODING_TABLE}"] = table.source
        content = {name: getattr(part, "content", lambda part=part: part)() for name, part in sorted(used.items())}
        whole = orjson.dumps([LANGUAGE, message.source.content(), content], option=orjson.OPT_SORT_KEYS)
        self.version = sha256(whole).hexdigest()

    def run(self, raw: bytes, context: Context) -> Output:
        """The message's resources. Raises `Unmappable`."""
        try:
            text = charset.decode(raw, context.encoding)
        except charset.Undecodable as error:
            raise Unmappable("charset", f"byte {error.position}", f"{error.codec}; {error.wanted}") from None
        lines = split_segments(text)
        if not lines or lines[0][:3] != "MSH":
            raise Unmappable("no-header", "the first segment", "MSH")
        state = Run(raw, self._connection(context), context.channel, context.received)
        group, repairs = self._grouper.group(lines)
        full = not _is_plain(raw)
        if full:
            state.delimiters = delimiters_of(lines[0])
        function = self._functions.get(full) or self._full()
        names = [lines[repair.segment][:3] for repair in repairs]
        function(state, lines, group)  # cuts the lines into fields as it goes
        for repair, name in zip(repairs, names, strict=True):
            shown = name if name.isalnum() and name.isascii() else "segment"
            state.note(repair.code, f"{shown} in line {repair.segment + 1}", repair.wanted)
        return Output(_ordered(state.entries), state.diagnostics)

    def _connection(self, context: Context) -> Connection:
        key = (context.connection, context.timezone)
        found = self._connections.get(key)
        if found is None or (found.identity is not context.identity and found.identity != context.identity):
            if len(self._connections) >= _CONNECTIONS:
                self._connections.clear()
            found = Connection(context.connection, context.identity, context.timezone, self._coding)
            self._connections[key] = found
        return found

    def _full(self) -> Any:
        """The variant for messages with escapes, nulls, stray blanks, other delimiters; made on first need."""
        self._compile(True, Problems())
        return self._functions[True]

    def _compile(self, full: bool, problems: Problems) -> tuple[str, dict[str, Any]]:
        module = Module(full)
        emitter = Emitter(self._files, r4(), module, problems)
        Program(self._message, emitter, r4(), problems).emit()
        source = module.source()
        if not problems.found:
            namespace = {**_RUNTIME, "link": run.link, **module.namespace}
            exec(compile(source, f"<mapping {self.name}{' full' if full else ''}>", "exec"), namespace)
            self._functions[full] = namespace["run"]
        return source, emitter.used


class Library:
    """All mappings by name."""

    def __init__(self, mappings: dict[str, Mapping]) -> None:
        self._mappings = mappings
        self._accepts = {kind: one for one in mappings.values() for kind in one.accepts}

    @staticmethod
    def load(shipped: Path, site: Path | None = None) -> Library:
        """Read, check and compile; the site's win by name. Raises `MappingError` with all problems of all files."""
        problems = Problems()
        files = Files()
        for folder in (shipped, site):
            if folder is not None:
                read_folder(Path(folder), files, problems)
        mappings = {name: Mapping(message, files, problems) for name, message in sorted(files.messages.items())}
        _check_unused(files, problems)
        problems.check()
        return Library(mappings)

    @property
    def names(self) -> list[str]:
        """The mappings' names."""
        return sorted(self._mappings)

    def mapping(self, name: str) -> Mapping:
        """A mapping by its name, in any case. Raises KeyError with a guess."""
        found = self._mappings.get(name) or self._mappings.get(name.upper())
        if found is None:
            raise KeyError(f"no mapping {name}; {guess(name, self._mappings, 'mapping')}")
        return found

    def for_message(self, type: str, trigger: str) -> Mapping | None:
        """The mapping that accepts `ORU^R01`."""
        return self._accepts.get(f"{type}^{trigger}")


def _check_unused(files: Files, problems: Problems) -> None:
    """Compile the data type maps that no message uses, for the mistakes in them."""
    emitter = Emitter(files, r4(), Module(False), problems)
    for found in files.maps.values():
        if len(found.owner) < 3 or found.target in ("Identifier", "CodeableConcept"):
            emitter.functions.function(found)


_MARKS = bytes.maketrans(b"^~&\r\n", b"|||||")


def _is_plain(raw: bytes) -> bool:
    """Whether a message needs no care: standard delimiters, no escapes, no nulls, no blanks at the edges of values."""
    if not raw.startswith(b"MSH|^~\\&|") or raw.find(b"\\", 8) >= 0 or (b'"' in raw and b'""' in raw):
        return False
    marked = raw.translate(_MARKS)
    return b" |" not in marked and b"| " not in marked


def _ordered(entries: list[Any]) -> list[Any]:
    """Referenced first: anchors, facts in the order of their making, provenance."""
    rank = {"anchor": 0, "fact": 1, "provenance": 2}
    return sorted(entries, key=lambda entry: rank[entry.role])
