"""Reads the files of a mapping folder into data: maps, tables, decisions, messages, named systems and extensions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from engine.hl7.group import Node, Slot
from engine.mapping import code_tables
from engine.mapping.expression import Condition, Value
from engine.mapping.model import Block, Decision, Key, Map, MessageMap, Option, Row, Table, read_by, referred
from engine.mapping.problems import Place, Problems, guess
from engine.mapping.rows import RowReader
from engine.mapping.source import Source, documents, fields, of_json, read, texts

_NAME = re.compile(r"([A-Z][A-Z0-9]*)\[([A-Za-z]+(?:\.[A-Za-z]+)*)(?:-[A-Za-z0-9-]+)?\]")
_SLOT = re.compile(r"([A-Z][A-Z0-9_]*)([?*+]?)(?:\s+after\s+([A-Z_0-9]+))?")
_EVENT = re.compile(r"[A-Z0-9]{3}\^[A-Z0-9]+")
_KINDS = ("map", "table", "csv", "decision", "message", "systems", "extensions", "options", "guide")
_NAMED = ("name", "key", "update", "keyless", "rows")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAP_KEYS = (*_NAMED, "map", "takes", "beside", "needs", "cached", "display", "target")
_TELLING = ("event", "drops", "apart", "becomes", "series", "formerly")
_BLOCK_KEYS = (*_NAMED, "like", "for", "make", "role", "when", "from", "let", *_TELLING)
_MESSAGE_KEYS = ("message", "title", "use", "accepts", "groups", "resources", "let", "texts")


@dataclass(slots=True)
class Files:
    """Everything that was read, by name. A later folder wins by name."""

    maps: dict[str, Map] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    messages: dict[str, MessageMap] = field(default_factory=dict)
    systems: dict[str, str] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)
    options: dict[str, Option] = field(default_factory=dict)
    guide: dict[str, tuple[tuple[Source, Source], ...]] = field(default_factory=dict)
    """Where the maps depart from those of the HL7 guide: by map, what (nothing: the whole) and why."""


def read_folder(folder: Path, into: Files, problems: Problems) -> None:
    """Add a folder's files to `into`, but for the examples, and for v2/, which has a language of its own."""
    reader = Reader(into, problems)
    for path in paths(folder):
        for source in read(path, str(path), problems):
            reader.document(source)
    reader.end()


def paths(folder: Path) -> list[Path]:
    """The files of a folder that are FHIR mappings or parts of them, in the order in which they are read."""
    found = sorted(folder.rglob("*.yaml")) if folder.is_dir() else []
    return [path for path in found if path.relative_to(folder).parts[0] not in ("examples", "v2")]


def read_texts(texts: Iterable[tuple[str, str]], into: Files, problems: Problems) -> None:
    """Add a folder's files, given by name and text, to `into`."""
    every = dict(texts)
    reader = Reader(into, problems, lambda path: every[path].encode() if path in every else None)
    for name, text in every.items():
        for source in documents(text, name, problems) if name.endswith(".yaml") else ():
            reader.document(source)
    reader.end()


def read_tables(folder: Path, into: Files, problems: Problems) -> None:
    """Add a folder's tables alone to `into`."""
    reader = Reader(into, problems)
    for path in sorted((folder / "tables").rglob("*.yaml")):
        for source in read(path, str(path), problems):
            if any(key.text == "table" for key, _ in source.pairs()):
                reader.document(source)


def read_file(path: str) -> bytes | None:
    """The content of a file, None where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


class Reader:
    """Turns documents into maps, tables, decisions and messages of `files`."""

    def __init__(self, files: Files, problems: Problems, read_bytes: Callable[[str], bytes | None] = read_file) -> None:
        """read_bytes: the content of a file by its path, None where there is none."""
        self.files, self.problems, self.read_bytes = files, problems, read_bytes
        self.rows = RowReader(problems)
        self.seen: set[str] = set()
        self.waiting: dict[str, tuple[dict[str, Source], Source]] = {}

    def end(self) -> None:
        """Make the messages that use another one, now that all have been read."""
        while self.waiting:
            ready = [name for name, (got, _) in self.waiting.items() if got["use"].text not in {*self.waiting} - {name}]
            for name in ready:
                self.derived(name, *self.waiting.pop(name))
            if not ready:
                for got, _ in self.waiting.values():
                    use = got["use"]
                    self.problems.add(use.place, f"use {use.text}", "a message that does not use this one")
                return
        self._one_for_each()

    def _one_for_each(self) -> None:
        """A message is for one mapping, unless a channel names another."""
        taken: dict[str, MessageMap] = {}
        for message in self.files.messages.values():
            for kind in () if message.named else message.accepts:
                other = taken.setdefault(kind, message)
                if other is not message:
                    found = f"{message.name} for {kind}, as {other.name} is ({other.place})"
                    without = f"`use: {other.name}` without `accepts`, for channels that name it"
                    self.problems.add(message.place, found, f"the name {other.name}, to take its place, or {without}")
                    break

    def document(self, source: Source) -> None:
        keys = [key for key, _ in source.pairs() if key.text in _KINDS]
        if not keys:
            first = source.pairs()[0][0] if source.pairs() else source
            found = f"unknown key {first.text}" if first.text else f"a {source.kind}"
            self.problems.add(first.place, found, "one of " + ", ".join(_KINDS))
            return
        getattr(self, f"_{keys[0].text}")(source)

    def _once(self, kind: str, name: Source) -> None:
        if f"{kind} {name.text}" in self.seen:
            self.problems.add(name.place, f"{kind} {name.text} twice", "each once in a folder")
        self.seen.add(f"{kind} {name.text}")

    def _systems(self, source: Source) -> None:
        self.files.systems |= self._uris(source, "systems")

    def _extensions(self, source: Source) -> None:
        self.files.extensions |= self._uris(source, "extensions")

    def _uris(self, source: Source, kind: str) -> dict[str, str]:
        """URIs by name."""
        got = fields(source, kind, (kind,), (kind,), self.problems)
        pairs = got[kind].pairs() if kind in got else []
        return {key.text: self._uri(value, f"{key.text}:") for key, value in pairs}

    def _uri(self, source: Source, what: str) -> str:
        if ":" not in source.text:
            found = f"{what} {source.text}" if source.text else f"{what} without a value"
            self.problems.add(source.place, found, "a URI, such as http://loinc.org")
        return source.text

    def _options(self, source: Source) -> None:
        got = fields(source, "options", ("options",), ("options",), self.problems)
        for key, value in got["options"].pairs():
            said = fields(value, key.text, ("of", "default", "about"), ("of", "default", "about"), self.problems)
            if len(said) < 3:
                continue
            of, chosen = words(said["of"]), said["default"].text
            if said["of"].kind != "list":
                self.problems.add(said["of"].place, f"of: {said['of'].text}", "a list of words: [a, b]")
            elif chosen not in of:
                self.problems.add(said["default"].place, f"default {chosen}", "one of " + ", ".join(of))
            self.files.options[key.text] = Option(key.text, of, chosen, said["about"].text, value)

    def _map(self, source: Source) -> None:
        got = fields(source, "map", _MAP_KEYS, ("map", "rows"), self.problems)
        name = got.get("map")
        if name is None or "rows" not in got:
            return
        match = _NAME.fullmatch(name.text)
        if match is None:
            self.problems.add(name.place, name.text, "a name like PID[Patient] or OBX[Observation-Value]")
            return
        self._once("map", name)
        target = got["target"].text if "target" in got else match[2]
        rows = self.rows.rows(got["rows"])
        cached = "cached" in got and got["cached"].text == "true"
        made = Map(
            name.text, match[1], target, rows, cached, target.lower(), source, name.place, _fields(rows, name.place)
        )
        self.files.maps[name.text] = replace(made, **self.parts(got))

    def parts(self, got: dict[str, Source]) -> dict[str, Any]:
        """What a map says besides its rows."""
        for one in texts(got.get("takes")):
            self._named(one)
        found: dict[str, Any] = {key: words(got[key]) for key in ("takes", "beside", "needs") if key in got}
        if "name" in got:
            found["entry"] = got["name"].text
        if "target" in got:
            found["target"] = got["target"].text
        if "key" in got:
            found["keys"] = self._keys(got["key"])
        if "display" in got:
            found["display"] = self.rows.value(got["display"])
        if "update" in got:
            found["update"] = self._word(got, "update", ("create", "fill", "overwrite"), "fill")
        if "keyless" in got:
            found["keyless"] = self._word(got, "keyless", ("display", "contain", "drop"), "display")
        return found

    def _guide(self, source: Source) -> None:
        """Where the guide's maps are not followed. It is no part of a mapping's version."""
        got = fields(source, "guide", ("guide",), ("guide",), self.problems)
        for name, said in got["guide"].pairs() if "guide" in got else ():
            pairs = said.pairs() or [(Source(name.place, "", "scalar"), said)]
            self.files.guide[name.text] = (*self.files.guide.get(name.text, ()), *pairs)

    def _csv(self, source: Source) -> None:
        known = ("csv", "title", "file", "system", "delimiter", "encoding")
        got = fields(source, "csv", known, ("csv", "file"), self.problems)
        if not {"csv", "file"} <= got.keys():
            return
        self._once("table", got["csv"])
        name = str(PurePath(source.place.file).parent / got["file"].text)
        data = self.read_bytes(name)
        system = got["system"].text if "system" in got else ""
        encoding = got["encoding"].text if "encoding" in got else "utf-8"
        delimiter = got["delimiter"].text if "delimiter" in got else ","
        lines = code_tables.NONE
        if data is None:
            self.problems.add(got["file"].place, f"{got['file'].text}, which cannot be read", "a CSV file")
        elif not code_tables.is_delimiter(delimiter):
            wanted = """one character, such as ";", or "\\t" for a tab"""
            self.problems.add(got["delimiter"].place, f"delimiter {delimiter!r}", wanted)
        elif not code_tables.is_encoding(encoding):
            wanted = "utf-8, cp1252 or another of Python's"
            self.problems.add(got["encoding"].place, f"unknown encoding {encoding}", wanted)
        else:
            lines = code_tables.read(data, name, encoding, delimiter, system, self.problems)
        codes = {key: (code, display) for key, (_, code, display) in lines.targets.items()}
        systems = {key: of for key, (of, _, _) in lines.targets.items()}
        content = Source(source.place, [(source, of_json(lines.content, source.place))], "mapping")
        self.files.tables[got["csv"].text] = Table(
            got["csv"].text, system, codes, lines.places, None, content, got["csv"].place, systems,
            any(code_tables.MARK in key for key in codes), (lines.columns, delimiter),
        )  # fmt: skip

    def _keys(self, source: Source | None) -> tuple[Key, ...]:
        found = (self.rows.key(item) for item in texts(source))
        return tuple(key for key in found if key is not None)

    def _word(self, got: dict[str, Source], key: str, known: tuple[str, ...], default: str) -> str:
        if key not in got:
            return default
        if got[key].text not in known:
            self.problems.add(got[key].place, f"{key} {got[key].text}", guess(got[key].text, known, key))
        return got[key].text

    def _table(self, source: Source) -> None:
        got = fields(
            source, "table", ("table", "title", "system", "codes", "otherwise"), ("table", "codes"), self.problems
        )
        if "table" not in got or "codes" not in got:
            return
        self._once("table", got["table"])
        name = got["table"].text
        self.files.tables[name] = self.table_with(
            Table(name, "", {}, {}, None, source, got["table"].place), got, source
        )

    def table_with(self, base: Table, got: dict[str, Source], said: Source) -> Table:
        """A table with what is said on top."""
        codes, places, systems, new = dict(base.codes), dict(base.places), dict(base.systems), set[str]()
        for key, value in got["codes"].pairs() if "codes" in got else ():
            if key.text in new:
                self.problems.add(key.place, f"code {key.text} twice", "each code once")
            new.add(key.text)
            codes[key.text], places[key.text] = self._coded(key.text, value, systems), value.place
        otherwise = base.otherwise
        if "otherwise" in got:
            otherwise, places[""] = self._coded("", got["otherwise"], systems), got["otherwise"].place
        system = self._uri(got["system"], "system") if "system" in got else base.system
        source = said if said is base.source else Source(said.place, [(base.source, said)], "mapping")
        return replace(
            base, system=system, codes=codes, places=places, otherwise=otherwise, source=source, systems=systems
        )

    def _coded(self, code: str, source: Source, systems: dict[str, str]) -> tuple[str, str]:
        """What a code becomes: a code and its display, if it has one; its own system goes to `systems`."""
        parts = words(source)
        if len(parts) > 3:
            wanted = "[code, display, system], with quotes where a comma is in it"
            self.problems.add(source.place, f"{len(parts)} words", wanted)
        systems.pop(code, None)
        if parts[2:]:
            systems[code] = parts[2]
        return (parts[0] if parts else "", parts[1] if len(parts) > 1 else "")

    def _decision(self, source: Source) -> None:
        known = ("decision", "title", "inputs", "rows", "otherwise")
        got = fields(source, "decision", known, ("decision", "inputs", "rows", "otherwise"), self.problems)
        if len(got) < 4:
            return
        self._once("decision", got["decision"])
        name, place = got["decision"].text, got["otherwise"].place
        base = Decision(name, words(got["inputs"]), (), "", source, place)
        self.files.decisions[name] = self.decision_with(base, got, source)

    def decision_with(self, base: Decision, got: dict[str, Source], said: Source) -> Decision:
        """A decision with what is said on top: its rows before the others."""
        rows = []
        for row in got["rows"].items() if "rows" in got else ():
            cells = row.items()
            if len(cells) != len(base.inputs) + 1:
                wanted = f"{len(base.inputs) + 1}: {', '.join(base.inputs)} and the result"
                self.problems.add(row.place, f"{len(cells)} cells", wanted)
                continue
            rows.append((tuple(words(cell) for cell in cells[:-1]), cells[-1].text, cells[-1].place))
        otherwise = got["otherwise"].text if "otherwise" in got else base.otherwise
        place = got["otherwise"].place if "otherwise" in got else base.place
        source = said if said is base.source else Source(said.place, [(base.source, said)], "mapping")
        return replace(base, rows=(*rows, *base.rows), otherwise=otherwise, place=place, source=source)

    def _message(self, source: Source) -> None:
        own = any(key.text == "use" for key, _ in source.pairs())
        needed = ("message", "use") if own else ("message", "accepts", "groups", "resources")
        got = fields(source, "message", _MESSAGE_KEYS, needed, self.problems)
        if not set(needed) <= got.keys():
            return
        self._once("message", got["message"])
        name = got["message"].text
        if own:
            self.waiting[name] = (got, source)
            return
        blocks: dict[str, Block] = {}
        self._named(got["message"])
        for key, value in got["resources"].pairs():
            block = self._block(key, value, blocks) if self._named(key) else None
            if block is not None:
                blocks[key.text] = block
        root = self.node(name, got["groups"])
        self.files.messages[name] = MessageMap(
            name,
            self._accepts(got["accepts"]),
            root,
            list(blocks.values()),
            source,
            got["message"].place,
            self._lets(got["let"]) if "let" in got else (),
            self._joined(got, False),
        )

    def _accepts(self, source: Source) -> tuple[str, ...]:
        """The messages that a mapping is for; of any other form, none would ever come."""
        for one in texts(source):
            if not _EVENT.fullmatch(one.text):
                self.problems.add(one.place, one.text, "a message type with its trigger: ORU^R01")
        return words(source)

    def derived(self, name: str, got: dict[str, Source], source: Source) -> None:
        """A message that says only where it differs from another."""
        base = self.files.messages.get(got["use"].text)
        if base is None:
            self.problems.unknown(got["use"].place, "message", got["use"].text, self.files.messages)
            return
        blocks = {block.id: block for block in base.blocks}
        said = got["resources"].pairs() if "resources" in got else []
        for key, value in said:
            if value.kind != "scalar":
                blocks = self._with(blocks, key, value)
            elif key.text not in blocks:
                self.problems.unknown(key.place, f"resource of {base.name}", key.text, blocks)
            elif value.text != "none":
                self.problems.add(value.place, f"{key.text}: {value.text}", "none, or what is said of a resource")
        dropped = {key.text: value.place for key, value in said if value.kind == "scalar" and value.text == "none"}
        blocks = self._without(blocks, dropped)
        self.files.messages[name] = MessageMap(
            name,
            self._accepts(got["accepts"]) if "accepts" in got else base.accepts,
            self.node(name, got["groups"]) if "groups" in got else replace(base.root, name=name),
            list(blocks.values()),
            Source(source.place, [(got["message"], source), (got["use"], base.source)], "mapping"),
            got["message"].place,
            base.lets + (self._lets(got["let"]) if "let" in got else ()),
            self._joined(got, base.joined),
            "accepts" not in got and (base.named or base.name != name),
        )

    def _joined(self, got: dict[str, Source], default: bool) -> bool:
        """Whether `texts:` that come a line each are put together."""
        said = self._word(got, "texts", ("as-sent", "joined"), "joined" if default else "as-sent")
        return said == "joined"

    def _without(self, blocks: dict[str, Block], dropped: dict[str, Place]) -> dict[str, Block]:
        """The blocks less some. One that another refers to stays, so that this is told here and not at its rows."""
        left = {name: block for name, block in blocks.items() if name not in dropped}
        used = [(name, [one.id for one in left.values() if name in _referred_by(one)]) for name in dropped]
        used = [(name, users) for name, users in used if users and name in blocks]
        for name, users in used:
            wanted = f"none for {' and '.join(users)} too, whose rows refer to it"
            self.problems.add(dropped[name], f"{name}: none", wanted)
        return blocks if used else left

    def _with(self, blocks: dict[str, Block], key: Source, value: Source) -> dict[str, Block]:
        """The blocks with one more, or with one that says more than before."""
        before = next((body.text for name, body in value.pairs() if name.text == "before"), "")
        value = replace(value, value=[(name, body) for name, body in value.pairs() if name.text != "before"])
        if key.text in blocks:
            known = fields(value, f"resource {key.text}", _BLOCK_KEYS, (), self.problems)
            return blocks | {key.text: self._overlay(blocks[key.text], known)}
        block = self._block(key, value, blocks) if self._named(key) else None
        if block is None:
            return blocks
        if before and before not in blocks:
            self.problems.unknown(value.place, "resource", before, blocks)
        at = [*blocks].index(before) if before in blocks else len(blocks)
        every = [*blocks.values()]
        return {one.id: one for one in (*every[:at], block, *every[at:])}

    def node(self, name: str, source: Source) -> Node:
        node = Node(name)
        for item in source.items():
            head, body = item.pairs()[0] if item.pairs() else (item, None)
            match = _SLOT.fullmatch(head.text)
            if match is None:
                self.problems.add(
                    head.place, head.text or f"a {head.kind}", "a segment or group: PID, NTE*, VISIT?, with its members"
                )
                continue
            count = match[2]
            child = self.node(match[1], body) if body is not None else None
            node.slots.append(
                Slot(
                    match[1],
                    count in ("*", "+") and bool(count),
                    count in ("?", "*") and bool(count),
                    match[3] or "",
                    child,
                )
            )
        return node

    def _block(self, key: Source, source: Source, before: dict[str, Block]) -> Block | None:
        needed = () if any(k.text == "like" for k, _ in source.pairs()) else ("for", "make", "role")
        got = fields(source, f"resource {key.text}", _BLOCK_KEYS, needed, self.problems)
        if not set(needed) <= got.keys():
            return None
        if "like" in got:
            return self._like(key, got, before)
        base = Block(
            key.text,
            key.text,
            (got["for"].text, got["for"].place),
            (got["make"].text, got["make"].place),
            self._word(got, "role", ("anchor", "fact", "provenance"), ""),
            "create",
            None,
            (),
            (),
            (),
            "drop",
            (),
            None,
            (),
            None,
            None,
            None,
            (),
            key.place,
        )
        return self._overlay(base, got)

    def _like(self, key: Source, got: dict[str, Source], before: dict[str, Block]) -> Block | None:
        like = got["like"]
        if like.text not in before:
            self.problems.unknown(like.place, "resource", like.text, before)
            return None
        base = before[like.text]
        return self._overlay(replace(base, id=key.text, place=key.place), got)

    def _overlay(self, base: Block, got: dict[str, Source]) -> Block:
        """The block with what this file says on top; rows add to the base's, all else replaces it."""
        changes: dict[str, object] = {}
        if "for" in got:
            changes["scope"] = (got["for"].text, got["for"].place)
        if "make" in got:
            changes["make"] = (got["make"].text, got["make"].place)
        if "name" in got:
            changes["entry"] = got["name"].text
        if "from" in got:
            changes["maps"] = tuple(self._from(item) for item in texts(got["from"]))
        if "rows" in got:
            changes["rows"] = base.rows + self.rows.rows(got["rows"])
        if "key" in got:
            changes["keys"] = self._keys(got["key"])
        if "let" in got:
            changes["lets"] = base.lets + self._lets(got["let"])
        if "event" in got:
            changes["event"] = self.rows.value(got["event"])
        if "apart" in got:
            changes["apart"] = (got["apart"].text, got["apart"].place)
        if "becomes" in got:
            changes["becomes"] = self._when(got["becomes"])
        if "series" in got:
            changes["series"] = (got["series"].text, got["series"].place)
        if "formerly" in got:
            changes["formerly"] = self._keys(got["formerly"])
        if "drops" in got:
            changes["drops"] = tuple((item.text, item.place) for item in texts(got["drops"]))
        if "when" in got:
            changes["when"] = self._when(got["when"])
        changes["role"] = self._word(got, "role", ("anchor", "fact", "provenance"), base.role)
        changes["update"] = self._word(got, "update", ("create", "fill", "overwrite"), base.update)
        changes["keyless"] = self._word(got, "keyless", ("contain", "drop"), base.keyless)
        return replace(base, **changes)  # type: ignore[arg-type]

    def _from(self, source: Source) -> tuple[str, Place, Condition | None]:
        """`OBSERVATION.OBX[DiagnosticReport-Final] when OBR-25 is not valued`."""
        name, _, when = source.text.partition(" when ")
        place = source.place if source.plain else source.place.shifted(1)
        condition = self.rows.condition(when, place.shifted(len(name) + 6)) if when else None
        return name.strip(), source.place, condition

    def _when(self, source: Source) -> Condition | None:
        return self.rows.condition(source.text, source.place if source.plain else source.place.shifted(1))

    def _lets(self, source: Source) -> tuple[tuple[str, Value], ...]:
        found = [(key.text, self.rows.value(value)) for key, value in source.pairs() if self._named(key)]
        return tuple((name, value) for name, value in found if value is not None)

    def _named(self, name: Source) -> bool:
        """Whether a name is one: letters, digits and _, as generated code has it."""
        good = bool(_WORD.fullmatch(name.text))
        if not good:
            self.problems.add(name.place, f"the name {name.text}", "letters, digits and _, no digit first")
        return good


def _fields(rows: tuple[Row, ...], place: Place) -> bool:
    """Whether rows read a segment's fields, not a data type's components: by their folder, in a channel's file by
    their paths."""
    parts = PurePath(place.file).parts
    if "segments" in parts or "datatypes" in parts:
        return "segments" in parts
    return any(not path.dotted for path in read_by(rows))


def _referred_by(block: Block) -> set[str]:
    """The resources that a block's rows name."""
    own = {name for name, _ in block.lets}
    return {one.name for one in referred(block.rows) if one.how != "every" and one.name not in own}


def words(source: Source | None) -> tuple[str, ...]:
    return tuple(item.text for item in texts(source))
