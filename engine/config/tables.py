"""Tables: values that have keys. A table says which; what was read of it is a section, with the place of each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode

from engine.config.kinds import BAD, Bad, Kind, Schema, Text, guessed
from engine.config.nodes import Findings, described, empty, where


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a table: its kind, what it means, and whether this version acts upon it.

    refused: a sentence where the key is known and this version cannot do it: an error, never ignored.
    noted: a sentence where the key is checked but has no effect yet: shown by `validate`, not an error.
    """

    kind: Kind
    doc: str
    required: bool = False
    default: Any = None
    refused: str = ""
    noted: str = ""


@dataclass(slots=True)
class Section:
    """A table that was read: values by key, and the node of each."""

    node: Node
    values: dict[str, Any]
    places: dict[str, Node]

    def get(self, key: str, default: Any = None) -> Any:
        """The value; the default where it is left out or was wrong."""
        value = self.values.get(key, BAD)
        return default if value is BAD else value

    def place(self, key: str) -> Node:
        return self.places.get(key, self.node)

    def given(self, *keys: str, **renamed: str) -> dict[str, Any]:
        """Those of the keys that are there and right, for a model's fields of that name. `most="max"` renames one."""
        names = {key: key for key in keys} | renamed
        return {name: self.values[key] for name, key in names.items() if self.values.get(key, BAD) is not BAD}


def note_unused(section: Section, key: str, why: str, findings: Findings) -> None:
    """A key that is right and changes nothing where it stands. why: `beside persistent: false`."""
    if key in section.places:
        findings.note(section.place(key), f"{key}: has no effect {why}")


@dataclass(frozen=True, slots=True)
class Table:
    """A table with declared keys. `what`: its name in sentences, such as `a channel`.

    one_of: keys of which exactly one must be there.
    """

    what: str
    fields: Mapping[str, Field]
    one_of: tuple[str, ...] = ()
    required: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "required", tuple(key for key, each in self.fields.items() if each.required))

    def read(self, node: Node, findings: Findings) -> Section | Bad:
        if not isinstance(node, MappingNode):
            findings.problem(
                node, described(node), f"{self.what}, with keys such as {', '.join(list(self.fields)[:3])}"
            )
            return BAD
        section = Section(node, {}, {})
        for key_node, key, value in each(node, findings):
            self._key(section, key_node, key, value, findings)
        for key in self.required:
            if key not in section.places:
                findings.problem(node, f"{self.what} without '{key}'", f"{key}: {self.fields[key].doc}")
        if self.one_of:
            one_of(section, self.what, self.one_of, findings)
        return section

    def _key(self, section: Section, key_node: Node, key: str, value: Node, findings: Findings) -> None:
        declared = self.fields.get(key)
        if declared is None:
            wanted = guessed(key, tuple(self.fields), "one of " + ", ".join(self.fields))
            findings.problem(key_node, f"the unknown key '{key}' in {self.what}", wanted)
        elif declared.refused:
            if not empty(value):
                findings.problem(key_node, f"'{key}'", declared.refused)
        elif not empty(value):
            section.places[key] = value
            section.values[key] = declared.kind.read(value, findings)
            if declared.noted:
                findings.note(key_node, declared.noted)

    def takes(self, key: str) -> bool:
        """Whether a value under this key is acted upon."""
        return key in self.fields and not self.fields[key].refused

    def partial(self) -> Table:
        """The same keys with none that must be there: what lies beneath a file need not be whole."""
        return Table(self.what, {key: _partial(declared) for key, declared in self.fields.items()})

    def schema(self) -> Schema:
        properties = {
            key: declared.kind.schema() | {"description": declared.doc}
            for key, declared in self.fields.items()
            if not declared.refused
        }
        out: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        out |= {"required": list(self.required)} if self.required else {}
        return out | ({"oneOf": [{"required": [key]} for key in self.one_of]} if self.one_of else {})


def _partial(declared: Field) -> Field:
    kind = declared.kind
    if isinstance(kind, Table):
        kind = kind.partial()
    elif isinstance(kind, Either):
        kind = Either(kind.scalar, kind.table.partial())
    return replace(declared, kind=kind, required=False)


def one_of(section: Section, what: str, keys: tuple[str, ...], findings: Findings) -> str | None:
    """The one of the keys that is there; None, and a problem, where there is none or more than one."""
    there = [key for key in keys if key in section.places]
    if len(there) == 1:
        return there[0]
    if there:
        found = f"{what} with both {there[0]}: and {there[1]}:"
        findings.problem(section.places[there[1]], found, "only one of them")
    else:
        listed = ", ".join(f"{key}:" for key in keys[:-1]) + f" or {keys[-1]}:"
        findings.problem(section.node, f"{what} without {listed}", "one of them")
    return None


@dataclass(frozen=True, slots=True)
class Either:
    """A value in short, or a table in its place: `mapping: oru_r01` or `mapping: {use: oru_r01}`."""

    scalar: Kind
    table: Table

    def read(self, node: Node, findings: Findings) -> Any:
        return (self.table if isinstance(node, MappingNode) else self.scalar).read(node, findings)

    def schema(self) -> Schema:
        return {"anyOf": [self.scalar.schema(), self.table.schema()]}


@dataclass(frozen=True, slots=True)
class MapOf:
    """A table whose keys are free; each value is of one kind.

    usual: a key that is almost one of these is a mistake. key: what every key must look like.
    """

    value: Kind
    usual: tuple[str, ...] = ()
    key: Text | None = None

    def read(self, node: Node, findings: Findings) -> dict[str, Any] | Bad:
        if not isinstance(node, MappingNode):
            findings.problem(node, described(node), "a table of keys")
            return BAD
        out = {}
        for key_node, key, value in each(node, findings):
            close = key not in self.usual and get_close_matches(key.lower(), self.usual, 1, 0.75)
            if close:
                findings.problem(key_node, f"the key '{key}', which nothing reads", f"'{close[0]}'")
                continue
            if self.key and self.key.read(key_node, findings) is BAD:
                continue
            read = self.value.read(value, findings)
            if read is not BAD:
                out[key] = read
        return out

    def schema(self) -> Schema:
        names = {"propertyNames": self.key.schema()} if self.key else {}
        return {"type": "object", "additionalProperties": self.value.schema()} | names


def each(node: MappingNode, findings: Findings) -> list[tuple[ScalarNode, str, Node]]:
    """The pairs of a table, with a problem for each key that stands there twice or is no word."""
    seen: dict[str, Node] = {}
    out = []
    for key_node, value in node.value:
        if not isinstance(key_node, ScalarNode):
            findings.problem(key_node, f"{described(key_node)} as a key", "a word")
        elif key_node.value in seen:
            first = where(seen[key_node.value])
            findings.problem(key_node, f"the key '{key_node.value}' a second time (first at {first})", "it once")
        else:
            seen[key_node.value] = key_node
            out.append((key_node, key_node.value, value))
    return out
