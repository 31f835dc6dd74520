"""Where a channel differs from the shipped mappings, by name, without a copy.

    OBX[Observation]:                           # a map: what it says replaces, rows go by what they fill from what
      rows:
        - OBX-3 -> code as CWE[CodeableConcept] table AcmeTests     # instead of the row that fills code from OBX-3
        - OBX-17 -> nothing: Acme's instrument, not the method      # instead of all rows on OBX-17
        - OBX-9 -> note.text                                        # a new one, before the others
    resources:                                  # of the message, as in a message that uses another
      report: {key: "report '{filler}'"}
    groups:                                     # further slots, behind the one that is named
      ORDER_OBSERVATION: {OBR: [ZLB*]}
    tables: {AdministrativeSex: {codes: {X: other}}}
    decisions: {OrderStatus: {rows: [[empty, ZZ, active]]}}         # before the others
    fields: {PID-3: PID-2}                      # PID-3 stands in PID-2, where PID-3 is empty

What is not named stays as it is. Rows of a Z segment need a map of their own (`ZLB[Observation]`), new or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

from engine.hl7.group import Node, Slot
from engine.mapping.expression import paths
from engine.mapping.files import Files, Reader
from engine.mapping.model import Assign, Build, Constant, Kept, Nothing, Row, When
from engine.mapping.moves import Move
from engine.mapping.problems import Place, Problems
from engine.mapping.source import Source, fields

_SECTIONS = ("resources", "groups", "tables", "decisions", "fields", "let")
_MAP = ("rows", "needs", "key", "update", "keyless", "display", "name", "beside", "target")
NOWHERE = Place("the channel's mapping", 1, 1)
_FIELD = re.compile(r"([A-Z][A-Z0-9]{2})-([1-9]\d?)")


@dataclass(frozen=True, slots=True)
class Overridden:
    """The files as a channel has them. changed: names of content (`map PID[Patient]`) that is not as it was; new:
    maps that were not there, and where they stand."""

    files: Files
    changed: frozenset[str]
    new: dict[str, Place]
    moves: tuple[Move, ...]


def overridden(
    files: Files,
    said: Source | None,
    use: str | None,
    options: dict[str, str],
    problems: Problems,
    places: Mapping[str, Place] | None = None,
) -> Overridden:
    """The files with an override on top. use: the message that `resources` and `groups` are of. places: of options."""
    one = _Override(files, use, problems)
    one.options(options, places or {})
    for key, value in said.pairs() if said is not None else ():
        if key.text in _SECTIONS:
            getattr(one, key.text)(key, value)
        elif "[" in key.text:
            one.map(key, value)
        else:
            known = [*_SECTIONS, *files.maps]
            problems.unknown(key.place, "part of an override", key.text, known)
    return Overridden(one.files, frozenset(one.changed), one.new, tuple(one.moves))


class _Override:
    def __init__(self, files: Files, use: str | None, problems: Problems) -> None:
        self.files = Files(
            dict(files.maps),
            dict(files.tables),
            dict(files.decisions),
            dict(files.messages),
            dict(files.systems),
            dict(files.extensions),
            dict(files.options),
            dict(files.guide),
        )
        self._use, self._problems = use, problems
        self._reader = Reader(self.files, problems)
        self.changed: set[str] = set()
        self.new: dict[str, Place] = {}
        self.moves: list[Move] = []

    def options(self, chosen: dict[str, str], places: Mapping[str, Place]) -> None:
        for name, value in chosen.items():
            option = self.files.options.get(name)
            place = places.get(name, NOWHERE)
            if option is None:
                self._problems.unknown(place, "option", name, self.files.options)
            elif value not in option.of:
                self._problems.add(place, f"{name}: {value}", "one of " + ", ".join(option.of))
            else:
                self.files.options[name] = replace(option, chosen=value)
                self.changed.add(f"option {name}")

    # -- maps

    def map(self, key: Source, value: Source) -> None:
        base = self.files.maps.get(key.text)
        if base is None:
            pairs = [(Source(key.place, "map", "scalar"), key), *value.pairs()]
            self._reader.document(Source(key.place, pairs, "mapping"))
            self.changed.add(f"map {key.text}")
            self.new[key.text] = key.place
            return
        got = fields(value, key.text, _MAP, (), self._problems)
        changes = self._reader.parts(got)
        rows = base.rows
        for row in self._reader.rows.rows(got["rows"]) if "rows" in got else ():
            rows = _with(rows, row)
        source = Source(key.place, [(base.source, base.source), (key, value)], "mapping")
        self.files.maps[key.text] = replace(base, rows=rows, source=source, **changes)
        self.changed.add(f"map {key.text}")

    # -- the message

    def resources(self, key: Source, value: Source) -> None:
        self._message({"resources": value}, key)

    def let(self, key: Source, value: Source) -> None:
        self._message({"let": value}, key)

    def _message(self, got: dict[str, Source], key: Source) -> None:
        if self._use is None:
            self._problems.add(key.place, f"{key.text} without use", "use: and the name of a mapping")
            return
        name = Source(key.place, self._use, "scalar")
        pairs = [(Source(key.place, part, "scalar"), value) for part, value in got.items()]
        self._reader.derived(self._use, {"message": name, "use": name, **got}, Source(key.place, pairs, "mapping"))

    def groups(self, key: Source, value: Source) -> None:
        message = self.files.messages.get(self._use or "")
        if message is None:
            self._problems.add(key.place, "groups without use", "use: and the name of a mapping")
            return
        root = deepcopy(message.root)
        known = {node.name: node for node in _nodes(root)}
        for name, slots in value.pairs():
            node = known.get(name.text)
            if node is None:
                self._problems.unknown(name.place, "group", name.text, known)
                continue
            for after, added in slots.pairs() or [(name, slots)]:
                self._slots(node, after if slots.pairs() else None, added)
        source = Source(key.place, [(message.source, message.source), (key, value)], "mapping")
        self.files.messages[message.name] = replace(message, root=root, source=source)

    def _slots(self, node: Node, after: Source | None, added: Source) -> None:
        names = [slot.name for slot in node.slots]
        if after is not None and after.text not in names:
            self._problems.unknown(after.place, f"slot of {node.name}", after.text, names)
            return
        at = names.index(after.text) + 1 if after is not None else len(names)
        new: list[Slot] = self._reader.node("", added).slots
        node.slots[at:at] = new

    # -- tables

    def tables(self, key: Source, value: Source) -> None:
        for name, said in value.pairs():
            base = self.files.tables.get(name.text)
            got = fields(said, name.text, ("codes", "otherwise", "system"), (), self._problems)
            if base is None:
                self._problems.unknown(name.place, "table", name.text, self.files.tables)
                continue
            self.files.tables[name.text] = self._reader.table_with(base, got, said)
            self.changed.add(f"table {name.text}")

    def decisions(self, key: Source, value: Source) -> None:
        for name, said in value.pairs():
            base = self.files.decisions.get(name.text)
            got = fields(said, name.text, ("rows", "otherwise"), (), self._problems)
            if base is None:
                self._problems.unknown(name.place, "decision", name.text, self.files.decisions)
                continue
            self.files.decisions[name.text] = self._reader.decision_with(base, got, said)
            self.changed.add(f"decision {name.text}")

    # -- fields in the wrong place

    def fields(self, key: Source, value: Source) -> None:
        for to, source in value.pairs():
            found = _FIELD.fullmatch(to.text), _FIELD.fullmatch(source.text)
            if found[0] and found[1] and found[0][1] == found[1][1]:
                self.moves.append(Move(found[0][1], int(found[0][2]), int(found[1][2])))
            else:
                wanted = "two fields of one segment, as PID-3: PID-2"
                self._problems.add(source.place, f"{to.text}: {source.text}", wanted)


def _with(rows: tuple[Row, ...], row: Row) -> tuple[Row, ...]:
    """The rows with one instead of those of its name; where there are none, before them all."""
    if isinstance(row, Nothing | Kept):
        read = {str(path) for value in row.values for path in paths(value)}
        return (*(one for one in (_without(each, read) for each in rows) if one is not None), row)
    name = _name(row)
    places = [index for index, one in enumerate(rows) if name and _name(one) == name]
    if not places:
        return (row, *rows)
    return tuple(row if index == places[0] else one for index, one in enumerate(rows) if index not in places[1:])


def _name(row: Row) -> str:
    """What a row is called: what it fills from what."""
    match row:
        case Assign():
            return f"{row.text.partition(' -> ')[0].strip()} -> {row.target}"
        case Constant() | Build():
            return str(row.target)
        case _:
            return ""


def _without(row: Row, read: set[str]) -> Row | None:
    """A row less what reads nothing but some fields."""
    match row:
        case Assign() | Nothing() | Kept():
            found = {str(path) for value in row.values for path in paths(value)}
            return None if found and found <= read else row
        case When() | Build():
            inner = tuple(one for one in (_without(each, read) for each in row.rows) if one is not None)
            return replace(row, rows=inner) if inner else None
        case _:
            return row


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for slot in node.slots:
        if slot.node is not None:
            yield from _nodes(slot.node)
