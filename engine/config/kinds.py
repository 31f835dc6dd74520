"""The kinds of value a configuration can hold. One declaration reads, checks, and becomes JSON Schema.

`read(node, findings)` gives the value, or BAD after it has recorded the problem. Nothing raises, so that one
run finds every mistake.
"""

from __future__ import annotations

import codecs
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from engine.config import units
from engine.config.address import Address
from engine.config.nodes import BOOL, FLOAT, INT, NULL, STR, Findings, described, empty, where


class _Bad:
    """The value of a field whose problem has been recorded."""

    def __bool__(self) -> bool:
        return False


BAD: Final = _Bad()

Schema = dict[str, Any]


class Kind(Protocol):
    """How one value is read and what it looks like in JSON Schema."""

    def read(self, node: Node, findings: Findings) -> Any: ...
    def schema(self) -> Schema: ...


def _text(node: Node, wanted: str, findings: Findings, *, written: bool = False) -> str | _Bad:
    """The scalar's text. `written`: whatever YAML would make of it (01:00, 5), it is taken as it stands."""
    if not isinstance(node, ScalarNode) or node.tag == NULL or (node.tag != STR and not written):
        findings.problem(node, described(node), wanted)
        return BAD
    text = findings.text(node)
    return BAD if text is None else text


@dataclass(frozen=True, slots=True)
class Text:
    """Text in one piece; `pattern` must match all of it. `written`: also what YAML takes for a number."""

    wanted: str = "text"
    pattern: str = ""
    written: bool = False

    def read(self, node: Node, findings: Findings) -> str | _Bad:
        text = _text(node, self.wanted, findings, written=self.written)
        if isinstance(text, str) and self.pattern and not re.fullmatch(self.pattern, text):
            findings.problem(node, described(node), self.wanted)
            return BAD
        return text

    def schema(self) -> Schema:
        return {"type": "string"} | ({"pattern": f"^(?:{self.pattern})$"} if self.pattern else {})


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words. `later` words are known and refused with a sentence."""

    words: tuple[str, ...]
    later: Mapping[str, str] = field(default_factory=dict)

    def read(self, node: Node, findings: Findings) -> str | _Bad:
        wanted = "one of " + ", ".join(self.words) if len(self.words) > 1 else self.words[0]
        text = _text(node, wanted, findings)
        if not isinstance(text, str):
            return BAD
        if text in self.later:
            findings.problem(node, described(node), f"{wanted}: {self.later[text]}")
            return BAD
        if text not in self.words:
            findings.problem(node, described(node), guessed(text, self.words, wanted))
            return BAD
        return text

    def schema(self) -> Schema:
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `low` to `high`."""

    low: int
    high: int
    what: str = "a whole number"

    def read(self, node: Node, findings: Findings) -> int | _Bad:
        wanted = f"{self.what} from {self.low} to {self.high}" if self.low < self.high else self.what
        text = findings.text(node) if isinstance(node, ScalarNode) else ""
        filled = isinstance(node, ScalarNode) and text != node.value
        if text is None:
            return BAD
        if not (node.tag == INT or filled) or not re.fullmatch(r"-?[0-9]{1,12}", text):
            findings.problem(node, described(node), wanted)
            return BAD
        number = int(text)
        if not self.low <= number <= self.high:
            findings.problem(node, described(node), wanted)
            return BAD
        return number

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Fraction:
    """A number from 0 to 1."""

    def read(self, node: Node, findings: Findings) -> float | _Bad:
        try:
            number = float(node.value) if node.tag in (INT, FLOAT) else -1.0
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            findings.problem(node, described(node), "a number from 0 to 1")
            return BAD
        return number

    def schema(self) -> Schema:
        return {"type": "number", "minimum": 0, "maximum": 1}


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, node: Node, findings: Findings) -> bool | _Bad:
        if node.tag != BOOL:
            findings.problem(node, described(node), "true or false")
            return BAD
        return str(node.value).lower() in ("true", "yes", "on")

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """Text that a function turns into a value; None from it means that the text is not right.

    guess: given the wrong text, what to expect instead, where that is clearer than `wanted`.
    """

    parse: Callable[[str], Any]
    wanted: str
    pattern: str = ""
    guess: Callable[[str], str | None] | None = None

    def read(self, node: Node, findings: Findings) -> Any:
        text = _text(node, self.wanted, findings, written=True)
        if not isinstance(text, str):
            return BAD
        value = self.parse(text)
        if value is None:
            better = self.guess(text) if self.guess else None
            findings.problem(node, described(node), better or self.wanted)
            return BAD
        return value

    def schema(self) -> Schema:
        return {"type": "string"} | ({"pattern": self.pattern} if self.pattern else {})


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list, each item of one kind."""

    item: Kind

    def read(self, node: Node, findings: Findings) -> tuple[Any, ...] | _Bad:
        if not isinstance(node, SequenceNode):
            findings.problem(node, described(node), "a list")
            return BAD
        values = [self.item.read(item, findings) for item in node.value]
        return tuple(value for value in values if value is not BAD)

    def schema(self) -> Schema:
        return {"type": "array", "items": self.item.schema()}


@dataclass(frozen=True, slots=True)
class MapOf:
    """A table whose keys are free; each value is of one kind. A key that is almost a `usual` one is a mistake."""

    value: Kind
    usual: tuple[str, ...] = ()

    def read(self, node: Node, findings: Findings) -> dict[str, Any] | _Bad:
        if not isinstance(node, MappingNode):
            findings.problem(node, described(node), "a table of keys")
            return BAD
        out = {}
        for key_node, key, value in _each(node, findings):
            close = get_close_matches(key.lower(), self.usual, 1, 0.75)
            if close and key not in self.usual:
                findings.problem(key_node, f"the key '{key}', which nothing reads", f"'{close[0]}'")
                continue
            read = self.value.read(value, findings)
            if read is not BAD:
                out[key] = read
        return out

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": self.value.schema()}


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


@dataclass(frozen=True, slots=True)
class Table:
    """A table with declared keys. `what`: its name in sentences, such as `a channel`."""

    what: str
    fields: Mapping[str, Field]

    def read(self, node: Node, findings: Findings) -> Section | _Bad:
        if not isinstance(node, MappingNode):
            findings.problem(
                node, described(node), f"{self.what}, with keys such as {', '.join(list(self.fields)[:3])}"
            )
            return BAD
        section = Section(node, {}, {})
        for key_node, key, value in _each(node, findings):
            self._key(section, key_node, key, value, findings)
        for key, declared in self.fields.items():
            if declared.required and key not in section.places:
                findings.problem(node, f"{self.what} without '{key}'", f"{key}: {declared.doc}")
        return section

    def _key(self, section: Section, key_node: Node, key: str, value: Node, findings: Findings) -> None:
        declared = self.fields.get(key)
        if declared is None:
            findings.problem(key_node, f"the unknown key '{key}' in {self.what}", _unknown(key, tuple(self.fields)))
        elif declared.refused:
            if not empty(value):
                findings.problem(key_node, f"'{key}'", declared.refused)
        elif not empty(value):
            section.places[key] = value
            section.values[key] = declared.kind.read(value, findings)
            if declared.noted:
                findings.note(key_node, declared.noted)

    def schema(self) -> Schema:
        properties = {
            key: declared.kind.schema() | {"description": declared.doc}
            for key, declared in self.fields.items()
            if not declared.refused
        }
        required = [key for key, declared in self.fields.items() if declared.required]
        out: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return out | ({"required": required} if required else {})


@dataclass(frozen=True, slots=True)
class Either:
    """A word, or a table in its place: `mapping: oru_r01` or `mapping: {use: oru_r01}`."""

    scalar: Kind
    table: Table

    def read(self, node: Node, findings: Findings) -> Any:
        return (self.table if isinstance(node, MappingNode) else self.scalar).read(node, findings)

    def schema(self) -> Schema:
        return {"anyOf": [self.scalar.schema(), self.table.schema()]}


def _each(node: MappingNode, findings: Findings) -> list[tuple[ScalarNode, str, Node]]:
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


def _unknown(key: str, known: Sequence[str]) -> str:
    return guessed(key, known, "one of " + ", ".join(known))


def guessed(text: str, known: Sequence[str], wanted: str) -> str:
    """`wanted`, led by the known word that is closest to `text`, if one is close."""
    lowered = {word.lower(): word for word in known}
    close = get_close_matches(text.lower(), lowered, 1, 0.6)
    return f"'{lowered[close[0]]}', perhaps ({wanted})" if close else wanted


# --- kinds that are used in more than one place

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


def address(text: str) -> Address | None:
    """host:port, IPv6 in brackets; None where it is not that or the port is not from 1 to 65535."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match[2]) <= 65535:
        return None
    return Address(match[1].strip("[]"), int(match[2]))


def network(text: str) -> str | None:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        return None


def _network_guess(text: str) -> str | None:
    try:
        return f"'{ipaddress.ip_network(text, strict=False)}' (bits beyond the prefix must be 0)"
    except ValueError:
        return None


_ZONES: dict[str, str | None] = {}


def zone(text: str) -> str | None:
    """The name if it is in the IANA time zone database."""
    if text not in _ZONES:
        try:
            _ZONES[text] = ZoneInfo(text).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            _ZONES[text] = None
    return _ZONES[text]


def _zone_guess(text: str) -> str | None:
    close = get_close_matches(text, sorted(available_timezones()), 1, 0.6)
    return f"'{close[0]}', perhaps (an IANA time zone)" if close else None


def codec(text: str) -> str | None:
    try:
        return text if text == "auto" else codecs.lookup(text).name
    except LookupError:
        return None


PORT = Whole(1, 65535, "a port")
DURATION = Parsed(units.duration, "a duration such as 30s, 10m or 72h", r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)$")
SIZE = Parsed(units.size, "a size such as 512KiB or 32MiB", r"^[0-9]+(\.[0-9]+)? ?([KMG]i?)?B$")
ADDRESS = Parsed(address, "host:port, such as 127.0.0.1:6661")
NETWORK = Parsed(network, "a network such as 10.20.0.0/16", guess=_network_guess)
ZONE = Parsed(zone, "an IANA time zone such as America/Chicago", guess=_zone_guess)
CODEC = Parsed(codec, "auto, or a character set such as utf-8 or latin-1")
TIME_OF_DAY = Text("a time of day such as 07:00", r"([01]?[0-9]|2[0-3]):[0-5][0-9]", written=True)
WORD = Text("text")
ID = Text("letters, digits, '-', '_' and '.', at most 64", r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", written=True)
