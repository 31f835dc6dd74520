"""A mapping as it is in effect: with what it takes from other messages, with all maps and tables that it uses, and with
what a channel has otherwise. As YAML, to be read beside the guide: each row tells where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from engine.hl7.group import Node
from engine.mapping.code_tables import MARK
from engine.mapping.expression import Call, Condition, Else, Logic, Name, Path, Template, Test, Text, This, Value, paths
from engine.mapping.files import Files
from engine.mapping.maker import CODING_TABLE
from engine.mapping.model import (
    Assign,
    Block,
    Build,
    Constant,
    Decision,
    First,
    Include,
    Kept,
    Key,
    Map,
    MessageMap,
    Nothing,
    Row,
    Switch,
    Table,
    When,
    every_row,
)
from engine.mapping.moves import Move
from engine.mapping.problems import FOLDERS, Place

WIDTH = 96
"""Where the places stand, if the line is not longer."""

Texts = tuple[str, ...]
Line = tuple[int, str, str]
"""Depth, text, and what is to be said of it behind `#`."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The mappings of some messages. files: as they are in effect. base: as they are without the channel's override."""

    files: Files
    base: Files
    moves: Sequence[Move] = ()

    def whole(self, names: Iterable[str]) -> Iterator[str]:
        """Some messages, then all that they use, each once."""
        parts = _Parts(self.files)
        names = list(names)
        for name in names:
            parts.message(self.files.messages[name])
        documents = [self.part(name) for name in (*names, *parts.maps, *parts.tables, *parts.decisions)]
        before = False
        for document in (*documents, self._chosen(parts), *self._named(parts)):
            for number, line in enumerate(document):
                if before and not number:
                    yield "---"
                yield line
                before = True

    def part(self, name: str) -> Iterator[str]:
        """One message, resource of a message, map, table or decision. Raises KeyError."""
        message, _, block = name.partition(".")
        if name in self.files.messages:
            yield from _text(self._message(self.files.messages[name]))
        elif block and message in self.files.messages:
            yield from _text(self._resource(message, block))
        elif name in self.files.maps:
            yield from _text(self._map(self.files.maps[name]))
        elif name in self.files.tables:
            yield from _text(self._table(self.files.tables[name]))
        else:
            yield from _text(self._decision(self.files.decisions[name]))

    @property
    def names(self) -> list[str]:
        """Of all parts."""
        files = self.files
        blocks = [f"{name}.{block.id}" for name, message in files.messages.items() for block in message.blocks]
        return [*files.messages, *blocks, *files.maps, *files.tables, *files.decisions]

    # -- messages

    def _message(self, message: MessageMap) -> Iterator[Line]:
        base = self.base.messages.get(message.name)
        here = where(message.place)
        told = here if base is None or base.place == message.place else f"{where(base.place)}, with {here}"
        yield 0, f"message: {message.name}", told
        yield 0, f"accepts: [{', '.join(message.accepts)}]", "where a channel names it" if message.named else ""
        if message.joined:
            yield 0, "texts: joined", ""
        if self.moves:
            fields = ", ".join(f"{one.segment}-{one.to}: {one.segment}-{one.source}" for one in self.moves)
            yield 0, f"# fields that stand elsewhere: {fields}", ""
        yield 0, "groups:", ""
        yield from _node(message.root, 1)
        if message.lets:
            yield 0, "let:", ""
            for name, value in message.lets:
                yield 1, f"{name}: {quoted(value_text(value))}", ""
        yield 0, "resources:", ""
        before = self._before(message.name)
        for block in message.blocks:
            yield from self._block(block, before.get(block.id))

    def _resource(self, name: str, block: str) -> Iterator[Line]:
        yield 0, f"message: {name}", ""
        yield 0, "resources:", ""
        found = {one.id: one for one in self.files.messages[name].blocks}
        yield from self._block(found[block], self._before(name).get(block))

    def _before(self, name: str) -> dict[str, Block]:
        """The resources of a message as they are without the channel's override."""
        base = self.base.messages.get(name)
        return {block.id: block for block in base.blocks} if base else {}

    def _block(self, block: Block, before: Block | None) -> Iterator[Line]:
        yield 1, f"{block.id}:", where(block.place) if before else f"{where(block.place)}, a new one"
        said = _block_text(block)
        was = _block_text(before) if before else said
        yield from _said(said, was, 2)
        if block.rows:
            yield 2, "rows:", ""
            yield from self._rows(block.rows, before.rows if before else (), 3)

    # -- maps

    def _map(self, found: Map) -> Iterator[Line]:
        before = self.base.maps.get(found.name)
        said = _map_text(found)
        was = _map_text(before) if before else said
        yield 0, f"map: {found.name}", where(found.place) if before else f"{where(found.place)}, a new one"
        yield from _said(said, was, 0)
        yield 0, "rows:", ""
        yield from self._rows(found.rows, before.rows if before else found.rows, 1)

    def _rows(self, rows: Iterable[Row], before: Iterable[Row], depth: int) -> Iterator[Line]:
        there = {(row.place, said(row)) for row in every_row(rows)}
        gone = [row for row in every_row(before) if (row.place, said(row)) not in there]
        known = {(row.place, said(row)) for row in every_row(before)}
        for row in rows:
            yield from _row(row, depth, lambda one: _whence(one, known, gone))

    # -- tables

    def _table(self, table: Table) -> Iterator[Line]:
        before = self.base.tables.get(table.name)
        yield 0, f"table: {table.name}", where(table.place)
        if table.system:
            yield 0, f"system: {table.system}", ""
        yield 0, "codes:", ""
        for code, target in table.codes.items():
            shown = code.replace(MARK, " of ")
            yield 1, f"{quoted(shown)}: {_coded(*target, _own(code, table))}", _instead(code, table, before)
        if table.otherwise is not None:
            yield 0, f"otherwise: {_coded(*table.otherwise, _own('', table))}", _instead("", table, before)

    def _decision(self, decision: Decision) -> Iterator[Line]:
        yield 0, f"decision: {decision.name}", ""
        yield 0, f"inputs: [{', '.join(decision.inputs)}]", ""
        yield 0, "rows:", ""
        for cells, result, place in decision.rows:
            texts = [_cell(cell) for cell in cells]
            yield 1, f"- [{', '.join([*texts, quoted(result, True)])}]", where(place)
        yield 0, f"otherwise: {quoted(decision.otherwise) or chr(39) * 2}", where(decision.place)

    # -- what the channel has chosen, and names

    def _chosen(self, parts: _Parts) -> Iterator[str]:
        lines: list[Line] = []
        for name in parts.options:
            option = self.files.options[name]
            lines.append((1, f"{name}:", where(option.source.place)))
            if option.chosen != self.base.options[name].chosen:
                lines.append((2, f"# {option.chosen}, as the channel has it", ""))
            lines.append((2, f"of: [{', '.join(option.of)}]", ""))
            lines.append((2, f"default: {self.base.options[name].chosen}", ""))
            lines.append((2, f"about: {quoted(option.about)}", ""))
        if lines:
            yield from _text([(0, "options:", ""), *lines])

    def _named(self, parts: _Parts) -> Iterator[Iterator[str]]:
        for kind, names, known in (
            ("systems", parts.systems, self.files.systems),
            ("extensions", parts.extensions, self.files.extensions),
        ):
            if names:
                yield _text([(0, f"{kind}:", ""), *((1, f"{name}: {known[name]}", "") for name in names)])


class _Parts:
    """All that some messages use, in the order of its first use."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.maps: dict[str, None] = {}
        self.tables: dict[str, None] = {}
        self.decisions: dict[str, None] = {}
        self.options: dict[str, None] = {}
        self.systems: dict[str, None] = {}
        self.extensions: dict[str, None] = {}

    def message(self, message: MessageMap) -> None:
        for block in message.blocks:
            for name, *_ in block.maps:
                self._map(name[name.rfind(".", 0, name.find("[")) + 1 :])
            self._rows(block.rows)
            values = [value for _, value in block.lets] + [one for one in (block.event,) if one is not None]
            for condition in (block.when, block.becomes):
                values += _values(condition) if condition is not None else ()
            self._options(values)
        self._options(value for _, value in message.lets)
        if CODING_TABLE in self._files.tables:
            self.tables[CODING_TABLE] = None

    def _map(self, name: str) -> None:
        if name in self._files.maps and name not in self.maps:
            self.maps[name] = None
            self._rows(self._files.maps[name].rows)

    def _rows(self, rows: Iterable[Row]) -> None:
        for row in every_row(rows):
            match row:
                case Assign():
                    self._assign(row)
                case Constant():
                    for name in {row.system, row.code} & self._files.systems.keys():
                        self.systems[name] = None
                case Include():
                    self._map(row.name)
            self._asked(row)

    def _assign(self, row: Assign) -> None:
        if row.use is not None:
            self._map(row.use.name)
        if row.table is not None and row.table[0] in self._files.tables:
            self.tables[row.table[0]] = None
            of_codes = self._files.tables[row.table[0]].systems.values()
            self.systems |= dict.fromkeys(sorted(set(of_codes) & self._files.systems.keys()))
        if row.decide is not None and row.decide[0] in self._files.decisions:
            self.decisions[row.decide[0]] = None

    def _asked(self, row: Row) -> None:
        """Names of extensions and options."""
        for step in getattr(getattr(row, "target", None), "steps", ()):
            if step.url in self._files.extensions:
                self.extensions[step.url] = None
        condition = row.condition if isinstance(row, When) else getattr(row, "when", None)
        self._options([*getattr(row, "values", ()), *(_values(condition) if condition else ())])

    def _options(self, values: Iterable[Value]) -> None:
        for value in values:
            for call in _calls(value):
                for one in call.arguments:
                    if call.function == "option" and isinstance(one, Name) and one.name in self._files.options:
                        self.options[one.name] = None


# -- rows as text


def _row(row: Row, depth: int, whence: Callable[[Row], str]) -> Iterator[Line]:
    told = whence(row)
    inner: Sequence[Row] = ()
    text = said(row)
    match row:
        case Assign() | Build() | When():
            inner = row.rows
        case First():
            inner = row.options
        case Switch():
            yield depth, f"- {quoted(text)}:", told
            for codes, rows in (*row.cases, *([(("else",), row.otherwise)] if row.otherwise else ())):
                yield depth + 2, f"{quoted(', '.join(codes))}:{'' if rows else ' []'}", ""
                for one in rows:
                    yield from _row(one, depth + 3, whence)
            return
        case Nothing() if row.reason:
            yield depth, f"- {quoted(text)}: {quoted(row.reason)}", told
            return
        case Kept() if row.reason:
            yield depth, f"- {quoted(text)}: {quoted(row.reason)}", told
            return
    yield depth, f"- {quoted(text)}{':' if inner else ''}", told
    for one in inner:
        yield from _row(one, depth + 2, whence)


def said(row: Row) -> str:
    """The line of a row, without the rows under it."""
    match row:
        case Assign() | Constant() | Build() | Kept():
            return row.text
        case Nothing():
            return f"{', '.join(map(value_text, row.values))} -> nothing"
        case Switch():
            return f"switch {value_text(row.value)}"
        case First():
            return "first"
        case Include():
            return f"include {row.name}"
        case When():
            return f"when {condition_text(row.condition)}"


def _whence(row: Row, known: set[tuple[Place, str]], gone: Sequence[Row]) -> str:
    """Where a row stands, and instead of which it does."""
    here = where(row.place)
    if (row.place, said(row)) in known:
        return here
    same = [one for one in gone if _same(row, one)]
    return f"{here}, instead of {', '.join(where(one.place) for one in same)}" if same else f"{here}, a new one"


def _same(row: Row, gone: Row) -> bool:
    """Whether a row may have taken the place of one that is gone."""
    if isinstance(row, Nothing | Kept):
        read = {str(path) for value in row.values for path in paths(value)}
        return bool(read & {str(path) for value in getattr(gone, "values", ()) for path in paths(value)})
    if isinstance(row, Assign) and isinstance(gone, Assign):
        mine, theirs = (one.text.partition(" -> ")[0].strip() for one in (row, gone))
        return mine == theirs and str(row.target) == str(gone.target)
    ours, other = getattr(row, "target", None), getattr(gone, "target", None)
    return type(row) is type(gone) and ours is not None and str(ours) == str(other)


# -- parts of rows as text


def value_text(value: Value) -> str:
    """A value as it is written."""
    match value:
        case Path():
            return str(value)
        case This():
            return "this"
        case Name():
            return f"{value.how} {value.name}".strip()
        case Text():
            return f"'{value.text}'"
        case Template():
            return f"'{''.join(map(_hole, value.parts))}'"
        case Call():
            where = f" where {condition_text(value.where)}" if value.where is not None else ""
            return f"{value.function}({', '.join(map(value_text, value.arguments))}{where})"
        case Else():
            return " else ".join(map(value_text, value.options))


def _hole(part: str | tuple[Value, bool]) -> str:
    return part if isinstance(part, str) else f"{{{value_text(part[0])}{'?' if part[1] else ''}}}"


def condition_text(condition: Condition) -> str:
    """A condition as it is written."""
    if isinstance(condition, Logic):
        if condition.kind == "not":
            return f"not {_inner(condition.parts[0])}"
        return f" {condition.kind} ".join(map(_inner, condition.parts))
    assert isinstance(condition, Test)
    value, options = value_text(condition.value), [value_text(one) for one in condition.options]
    if condition.kind == "valued":
        return f"{value} is {'not ' if condition.negated else ''}valued"
    if condition.kind == "repeats":
        return f"{value} repeats"
    if len(options) == 1:
        return f"{value} {'!=' if condition.negated else '='} {options[0]}"
    return f"{value} {'not ' if condition.negated else ''}in ({', '.join(options)})"


def _inner(condition: Condition) -> str:
    text = condition_text(condition)
    return f"({text})" if isinstance(condition, Logic) and condition.kind != "not" else text


def _calls(value: Value) -> Iterator[Call]:
    match value:
        case Call():
            yield value
            for one in value.arguments:
                yield from _calls(one)
        case Else():
            for one in value.options:
                yield from _calls(one)
        case Template():
            for part in value.parts:
                if not isinstance(part, str):
                    yield from _calls(part[0])


def _values(condition: Condition) -> Iterator[Value]:
    if isinstance(condition, Logic):
        for part in condition.parts:
            yield from _values(part)
    else:
        yield condition.value
        yield from condition.options


def _key(key: Key) -> str:
    if key.value is None:
        return f"identifier {key.type}".strip()
    return f"{key.system} {value_text(key.value)}"


# -- what stands around rows


def _block_text(block: Block) -> dict[str, Texts]:
    lets = ", ".join(f"{name}: {quoted(value_text(value), True)}" for name, value in block.lets)
    return {
        "for": _one(block.scope[0]),
        "name": _one(block.entry if block.entry != block.id else ""),
        "make": _one(block.make[0]),
        "role": _one(block.role),
        "update": _one(block.update if block.role == "anchor" else ""),
        "event": _one(quoted(value_text(block.event)) if block.event is not None else ""),
        "when": _one(quoted(condition_text(block.when)) if block.when is not None else ""),
        "from": _list(_from(name, when) for name, _, when in block.maps),
        "let": _one(f"{{{lets}}}" if lets else ""),
        "drops": _list(name for name, _ in block.drops),
        "apart": _one(block.apart[0] if block.apart is not None else ""),
        "becomes": _one(quoted(condition_text(block.becomes)) if block.becomes is not None else ""),
        "series": _one(block.series[0] if block.series is not None else ""),
        "key": _list(map(_key, block.keys)),
        "formerly": _list(map(_key, block.formerly)),
        "keyless": _one(block.keyless if block.keyless != "drop" else ""),
    }


def _from(name: str, when: Condition | None) -> str:
    return name if when is None else f"{name} when {condition_text(when)}"


def _map_text(found: Map) -> dict[str, Texts]:
    """What is not as it would be if nothing were said."""
    named = found.name.partition("[")[2].rstrip("]").partition("-")[0]
    return {
        "target": _one(found.target if found.target != named else ""),
        "takes": _many(found.takes),
        "beside": _many(found.beside),
        "needs": _many(found.needs),
        "cached": _one("true" if found.cached else ""),
        "name": _one(found.entry if found.entry != found.target.lower() else ""),
        "update": _one(found.update if found.update != "fill" else ""),
        "key": _list(map(_key, found.keys)),
        "keyless": _one(found.keyless if found.keyless != "display" else ""),
        "display": _one(quoted(value_text(found.display)) if found.display is not None else ""),
    }


def _said(said: dict[str, Texts], was: dict[str, Texts], depth: int) -> Iterator[Line]:
    """Keys with what stands there; several on lines of their own."""
    for key, texts in said.items():
        if texts:
            told = f"instead of {', '.join(was[key]) or 'none'}" if texts != was[key] else ""
            if len(texts) == 1:
                yield depth, f"{key}: {texts[0]}", told
            else:
                yield depth, f"{key}:", told
                for text in texts:
                    yield depth + 1, f"- {text}", ""


def _one(text: str) -> Texts:
    return (text,) if text else ()


def _many(names: Sequence[str]) -> Texts:
    return _one(f"[{', '.join(names)}]" if names else "")


def _list(texts: Iterable[str]) -> Texts:
    return tuple(map(quoted, texts))


def _node(node: Node, depth: int) -> Iterator[Line]:
    for slot in node.slots:
        count = {(True, True): "*", (True, False): "+", (False, True): "?"}.get((slot.many, slot.optional), "")
        after = f" after {slot.after}" if slot.after else ""
        name = f"{slot.name}{count}{after}"
        if slot.node is None:
            yield depth, f"- {name}", ""
        elif any(one.node or one.after or (one.optional and not one.many) for one in slot.node.slots):
            yield depth, f"- {name}:", ""
            yield from _node(slot.node, depth + 2)
        else:
            inner = ", ".join(text.removeprefix("- ") for _, text, _ in _node(slot.node, 0))
            yield depth, f"- {name}: [{inner}]", ""


def _coded(code: str, display: str, system: str) -> str:
    if not display and not system:
        return quoted(code)
    words = (code, display, system) if system else (code, display)
    return f"[{', '.join(quoted(word, True) for word in words)}]"


def _own(code: str, table: Table) -> str:
    """The system of what a code becomes, where it is not the table's."""
    system = table.systems.get(code, "")
    return "" if system == table.system else system


def _cell(cell: Sequence[str]) -> str:
    texts = [quoted(code, True) for code in cell]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _instead(code: str, table: Table, before: Table | None) -> str:
    """Where a row of a table stands, if that is not the table's file."""
    place = table.places.get(code, table.place)
    was = before.places.get(code) if before else None
    if before is None or place == was:
        return ""
    return f"{where(place)}, instead of {where(was)}" if was else f"{where(place)}, a new one"


def where(place: Place) -> str:
    """`segments/OBX.yaml:12`, `channels/acme.yaml:33`"""
    parts = PurePath(place.file).parts
    known = any(part in FOLDERS for part in parts[:-1])
    return str(place) if known or len(parts) < 2 else f"{'/'.join(parts[-2:])}:{place.line}"


def quoted(text: str, inside: bool = False) -> str:
    """A text as YAML has it. inside: of a list on one line."""
    special = not text or text[0] in "'\"&*!|>%@`#{}[],?:-" or text != text.strip()
    special = special or ": " in text or " #" in text or "\n" in text or text.endswith(":")
    special = special or (inside and any(mark in text for mark in ",[]{}"))
    plain = text.lower() in ("true", "false", "null", "yes", "no", "on", "off", "~", "y", "n")
    if not special and not plain:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _text(lines: Iterable[Line]) -> Iterator[str]:
    for depth, text, told in lines:
        line = "  " * depth + text
        yield f"{line:<{WIDTH}}  # {told}" if told else line
