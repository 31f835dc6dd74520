"""All mappings: read from the shipped folder and the site's, checked together, compiled once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config.changes import Changes, Unmapped
from engine.config.uncollected import uncollected
from engine.fhir.output import Entry, Output
from engine.hl7 import charset, text_lines
from engine.hl7.group import Grouper
from engine.hl7.message import delimiters_of, split_segments
from engine.mapping import cache as compile_cache
from engine.mapping.compiled import LANGUAGE, Compiled, Shelf, link
from engine.mapping.lineage import Leaf, Lineage, first_origin, keep, lineage, lost
from engine.mapping.moves import Move, in_place
from engine.mapping.problems import MappingError, guess
from engine.mapping.run import Connection, Run, settle
from engine.mapping.source import option_places, said_by

if TYPE_CHECKING:
    from engine.mapping.files import Files
    from engine.mapping.maker import Maker
    from engine.mapping.reasons import Reasons

_CONNECTIONS = 512

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
    undeclared: str | None = None  # the codec of messages that name none
    recall: Callable[[str, str, bool], Dict[str, str] | None] | None = None  # store, key, whether of a later message


class Mapping:
    """One message structure's mapping, ready to run. `version` is the hash of everything that it uses."""

    def __init__(
        self, compiled: Compiled, shelf: Shelf, maker: Callable[[], Maker], moves: Sequence[Move] = ()
    ) -> None:
        self.name, self.accepts, self.version = compiled.name, compiled.accepts, compiled.version
        self.named = compiled.named
        self._compiled, self._shelf = compiled, shelf
        self._grouper = Grouper(compiled.root)
        self._known = compiled.root.names() if compiled.joined else frozenset()
        self._maker, self._moves = maker, moves
        self._functions: dict[tuple[bool, bool], Callable[..., None]] = {}
        self._on_purpose: dict[tuple[str, int, int, int], bool] = {}
        self._reasons: Reasons | None = None
        self._connections: dict[tuple[str, str], Connection] = {}

    @property
    def source(self) -> str:
        """The generated Python."""
        return self._maker().source(self.name)

    def run(self, raw: bytes, context: Context) -> Output:
        """The message's resources. Raises `Unmappable`."""
        return self._run(raw, context, False)[0]

    def noted(self, raw: bytes, context: Context) -> Output:
        """As `run`, with notes of what is from where, which nobody reads: what lineage costs."""
        return self._run(raw, context, True)[0]

    def trace(self, raw: bytes, context: Context) -> tuple[Output, Lineage]:
        """As `run`, and what came from where, and what went nowhere. Raises `Unmappable`."""
        output, state, lines = self._run(raw, context, True)
        return output, lineage(state, output, lines)

    def account(self, raw: bytes, context: Context, unmapped: Unmapped) -> Output:
        """As `run`, with what is to be done about values that no rule takes. Raises `Unmappable`."""
        if unmapped == "ignore":
            return self.run(raw, context)
        output, state, lines = self._run(raw, context, True)
        left = [leaf for leaf in lost(state, output, lines) if not self._left_out(lines[leaf[0]][:3], leaf)]
        if left and unmapped == "refuse":
            raise Unmappable("unmapped", f"{lines[left[0][0]][:3]}-{left[0][1]}", "only values that a rule takes")
        if unmapped == "keep":
            keep(output, state, lines, left)
        output.lost = Counter(f"{lines[segment][:3]}-{field}" for segment, field, *_ in left)
        return output

    def _left_out(self, segment: str, leaf: Leaf) -> bool:
        """Whether a rule says that a value goes nowhere, or it stands in an identifier."""
        place = segment, leaf[1], leaf[3], leaf[4]
        known = self._on_purpose.get(place)
        if known is None:
            self._reasons = self._reasons or self.reasons()
            known = self._on_purpose[place] = self._reasons.why(*place).kind in ("left-out", "key")
        return known

    def prepare(self, traced: bool) -> None:
        """Have its functions ready, which takes a while, before the first message comes."""
        for full in (False, True):
            self._function(full, traced)
        if traced:
            self._reasons = self._reasons or self.reasons()

    def reasons(self) -> Reasons:
        """Why values are lost."""
        return self._maker().reasons(self.name)

    def _run(self, raw: bytes, context: Context, traced: bool) -> tuple[Output, Run, list[str]]:
        try:
            text = charset.decode(raw, context.encoding, context.undeclared)
        except charset.Undecodable as error:
            raise Unmappable("charset", f"byte {error.position}", f"{error.codec}; {error.wanted}") from None
        lines = split_segments(text)
        if not lines or lines[0][:3] != "MSH":
            raise Unmappable("no-header", "the first segment", "MSH")
        if self._moves:
            lines = in_place(lines, self._moves)
        if self._compiled.joined and ("|TX|" in text or "|FT|" in text or text[3:4] != "|"):
            lines = self._joined(lines)
        state = Run(raw, self._connection(context), context.channel, context.received)
        state.sequence, state.incarnation = str(context.seq or ""), context.incarnation
        state.version = self.version
        group, repairs = self._grouper.group(lines)
        full = not _is_plain(raw)
        if full:
            state.delimiters = delimiters_of(lines[0])
        came = lines.copy() if traced else lines
        function = self._functions.get((full, traced)) or self._function(full, traced)
        mark = lines[0][3:4]
        names = [line[:3] if (line := lines[repair.segment])[3:4] in (mark, "") else "" for repair in repairs]
        function(state, lines, group)  # cuts the lines into fields as it goes
        for repair, name in zip(repairs, names, strict=True):
            shown = name if name.isalnum() and name.isascii() else "segment"
            state.note(repair.code, f"{shown} in line {first_origin(came, repair.segment) + 1}", repair.wanted)
        if state.former:
            state.leave_former()
        for entry in state.entries:
            if "contained" in entry.resource:
                settle(entry.resource)
        return Output(_ordered(state.entries), state.diagnostics, tuple(state.unmapped)), state, came

    def _joined(self, lines: list[str]) -> list[str]:
        """With the texts that come a line each put together."""
        marks = delimiters_of(lines[0])
        if not marks.repetition:
            return lines
        return text_lines.joined(lines, marks.field, marks.repetition, self._known)

    def _connection(self, context: Context) -> Connection:
        key = (context.connection, context.timezone)
        found = self._connections.get(key)
        if found is None or (found.identity is not context.identity and found.identity != context.identity):
            if len(self._connections) >= _CONNECTIONS:
                self._connections.clear()
            found = Connection(context.connection, context.identity, context.timezone, self._compiled.coding)
            self._connections[key] = found
        return found

    def _function(self, full: bool, traced: bool = False) -> Callable[..., None]:
        """A variant, on first need; the full one is for escapes, nulls, stray blanks, other delimiters."""
        known = self._functions.get((full, traced))
        if known is None:
            parts = self._shelf.parts.get((full, traced)) or self._maker().variant(self.name, full, traced)
            known = self._functions[full, traced] = link(parts, self._compiled.run)
        return known


class _Late:
    """The compiler of all maps, made when it is asked for: a start with a full cache needs none."""

    def __init__(self, shipped: Path, site: Path | None) -> None:
        self._folders = [Path(folder) for folder in (shipped, site) if folder is not None]
        self._maker: Maker | None = None

    def shelf(self, full: bool) -> Shelf:
        """Everything read, checked and compiled. Raises `MappingError`."""
        from engine.mapping import maker  # 50 ms that a start with a full cache is spared

        self._maker, found = maker.make(self._folders, full)
        return found

    def __call__(self) -> Maker:
        if self._maker is None:
            self.shelf(False)
        assert self._maker is not None
        return self._maker


class Library:
    """All mappings by name."""

    def __init__(self, shelf: Shelf, maker: Callable[[], Maker], moves: Sequence[Move] = ()) -> None:
        self._shelf, self._maker, self.moves = shelf, maker, moves
        self._mappings = {one.name: Mapping(one, shelf, maker, moves) for one in shelf.messages}
        self._accepts = {kind: one for one in self._mappings.values() if not one.named for kind in one.accepts}
        self._derived: dict[tuple[str | None, str, tuple[tuple[str, str], ...]], Library] = {}

    def changed(self, use: str | None, changes: Changes) -> Library:
        """As a channel has it: `use`, or all mappings, with its override and its options. Raises `MappingError`."""
        if not changes.override and not changes.options:
            return self
        name = self.mapping(use).name if use else None
        key = name, changes.override, changes.options
        known = self._derived.get(key)
        if known is None:
            said = said_by(changes)
            options, places = dict(changes.options), option_places(changes)
            maker, shelf, moves = self._maker().changed(said, name, options, places)
            known = self._derived[key] = Library(shelf, lambda: maker, moves)
        return known

    @staticmethod
    def load(shipped: Path, site: Path | None = None, cache: Path | None = None) -> Library:
        """Read, check and compile; the site's win by name. Raises `MappingError` with all problems of all files.

        cache: a file to keep what was compiled, for the next start with the same files. It is made if it can be.
        """
        with uncollected():
            key = compile_cache.key(LANGUAGE, shipped, site) if cache else None
            shelf = compile_cache.read(cache, key) if cache and key else None
            maker = _Late(shipped, site)
            if shelf is None:
                shelf = maker.shelf(full=cache is not None)
                if cache and key:
                    compile_cache.write(cache, key, shelf)
            return Library(shelf, maker)

    @staticmethod
    def empty() -> Library:
        """Without any mapping, for a service that maps nothing to FHIR."""
        return Library(Shelf((), {}), lambda: _Late(Path(), None)())

    def data(self) -> bytes:
        """All that was compiled: what another process needs to map as this one does."""
        return self._shelf.packed()

    @staticmethod
    def of(data: bytes, shipped: Path, site: Path | None = None) -> Library:
        """What `data` was made of. The folders are read only where a variant is wanted that was not compiled."""
        return Library(Shelf.of(data), _Late(shipped, site))

    def files(self) -> Files:
        """What was compiled; reads the folders where that came from a cache."""
        return self._maker().files

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


_EDGE_BLANK = re.compile(rb" (?:(?=[|^~&\r\n])|(?<=[|^~&\r\n] ))")


def _is_plain(raw: bytes) -> bool:
    """Whether a message needs no care: standard delimiters, no escapes, no nulls, no blanks at the edges of values."""
    if not raw.startswith(b"MSH|^~\\&|") or raw.find(b"\\", 8) >= 0 or (b'"' in raw and b'""' in raw):
        return False
    return _EDGE_BLANK.search(raw) is None


_ROLE = attrgetter("role")


def _ordered(entries: list[Entry]) -> list[Entry]:
    """Referenced first: anchors, facts in the order of their making, provenance. So do their names sort."""
    return sorted(entries, key=_ROLE)
