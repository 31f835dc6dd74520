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
from functools import cache
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from engine.config import units
from engine.config.address import Address
from engine.config.nodes import BOOL, FLOAT, INT, NULL, STR, Findings, described


class Bad:
    """The type of BAD, the value of a field whose problem has been recorded."""

    def __bool__(self) -> bool:
        return False


BAD: Final = Bad()

Schema = dict[str, Any]


class Kind(Protocol):
    """How one value is read and what it looks like in JSON Schema."""

    def read(self, node: Node, findings: Findings) -> Any: ...
    def schema(self) -> Schema: ...


def _text(node: Node, wanted: str, findings: Findings, *, written: bool = False) -> str | Bad:
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

    def read(self, node: Node, findings: Findings) -> str | Bad:
        text = _text(node, self.wanted, findings, written=self.written)
        if isinstance(text, str) and self.pattern and not re.fullmatch(self.pattern, text):
            findings.problem(node, described(node), self.wanted)
            return BAD
        return text

    def schema(self) -> Schema:
        return {"type": "string"} | ({"pattern": f"^(?:{self.pattern})$"} if self.pattern else {})


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words. `later` words are known and refused with a sentence. `written`: as for Text."""

    words: tuple[str, ...]
    later: Mapping[str, str] = field(default_factory=dict)
    written: bool = False

    def read(self, node: Node, findings: Findings) -> str | Bad:
        wanted = "one of " + ", ".join(self.words) if len(self.words) > 1 else self.words[0]
        text = _text(node, wanted, findings, written=self.written)
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

    def read(self, node: Node, findings: Findings) -> int | Bad:
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

    def read(self, node: Node, findings: Findings) -> float | Bad:
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

    def read(self, node: Node, findings: Findings) -> bool | Bad:
        if node.tag != BOOL:
            findings.problem(node, described(node), "true or false")
            return BAD
        return str(node.value).lower() in ("true", "yes", "on")

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Yes:
    """Only true: a key that is written to choose something, and left out otherwise."""

    def read(self, node: Node, findings: Findings) -> bool | Bad:
        value = Flag().read(node, findings)
        if value is False:
            findings.problem(node, described(node), "true, or the key left out")
            return BAD
        return value

    def schema(self) -> Schema:
        return {"const": True}


@dataclass(frozen=True, slots=True)
class OrNone:
    """A value, or the word `none`, which is read as None."""

    kind: Kind

    def read(self, node: Node, findings: Findings) -> Any:
        return None if isinstance(node, ScalarNode) and node.value == "none" else self.kind.read(node, findings)

    def schema(self) -> Schema:
        return {"anyOf": [{"const": "none"}, self.kind.schema()]}


@dataclass(frozen=True, slots=True)
class OrWord:
    """A value, or a word that is read as itself."""

    kind: Kind
    word: str
    wanted: str

    def read(self, node: Node, findings: Findings) -> Any:
        if not isinstance(node, ScalarNode) or node.tag != STR:
            return self.kind.read(node, findings)
        if node.value == self.word:
            return self.word
        findings.problem(node, described(node), self.wanted)
        return BAD

    def schema(self) -> Schema:
        return {"anyOf": [{"const": self.word}, self.kind.schema()]}


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A table of whatever keys, as it stands: somebody else knows what it means."""

    wanted: str

    def read(self, node: Node, findings: Findings) -> Any:
        if not isinstance(node, MappingNode):
            findings.problem(node, described(node), self.wanted)
            return BAD
        return node

    def schema(self) -> Schema:
        return {"type": "object"}


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

    def read(self, node: Node, findings: Findings) -> tuple[Any, ...] | Bad:
        if not isinstance(node, SequenceNode):
            findings.problem(node, described(node), "a list")
            return BAD
        values = [self.item.read(item, findings) for item in node.value]
        return tuple(value for value in values if value is not BAD)

    def schema(self) -> Schema:
        return {"type": "array", "items": self.item.schema()}


@dataclass(frozen=True, slots=True)
class OneOrMore:
    """One value, or a list of at least one. Always read as a tuple."""

    item: Kind

    def read(self, node: Node, findings: Findings) -> tuple[Any, ...] | Bad:
        if not isinstance(node, SequenceNode):
            value = self.item.read(node, findings)
            return BAD if value is BAD else (value,)
        values = ListOf(self.item).read(node, findings)
        if not node.value:
            findings.problem(node, "an empty list", "at least one item")
        elif isinstance(values, tuple) and len(set(values)) < len(values):
            findings.problem(node, "a list that names something twice", "each once")
        return values

    def schema(self) -> Schema:
        item = self.item.schema()
        return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1, "uniqueItems": True}]}


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


@cache
def zone(text: str) -> str | None:
    """The name if it is in the IANA time zone database."""
    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _zone_guess(text: str) -> str | None:
    if "/" not in text:
        return None  # what looks like an abbreviation such as CST is a zone of another continent
    close = get_close_matches(text, sorted(available_timezones()), 1, 0.6)
    return f"'{close[0]}', perhaps (an IANA time zone)" if close else None


@cache
def charset(text: str) -> str | None:
    """The name of a codec of text as Python knows it: `hex` and its like are none."""
    try:
        "".encode(text)
        return codecs.lookup(text).name
    except (LookupError, UnicodeError):
        return None


def codec(text: str) -> str | None:
    return text if text == "auto" else charset(text)


def lasting(wanted: str, zero: str) -> Parsed:
    """A duration above 0. zero: what is right for who writes 0 and means no limit."""
    return Parsed(
        lambda text: units.duration(text) or None,
        wanted,
        f"^(?=[0-9.]*[1-9]){_LENGTH}$",
        lambda text: zero if text == "0" or units.duration(text) == 0 else None,
    )


_LENGTH = r"[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)"

PORT = Whole(1, 65535, "a port")
DURATION = lasting("a duration such as 30s, 10m or 72h", "more than 0s")
DURATION_OR_ZERO = Parsed(units.duration, "a duration such as 30s, 10m or 72h, or 0s", f"^{_LENGTH}$")
SIZE = Parsed(units.size, "a size such as 512KiB or 32MiB", r"^[0-9]+(\.[0-9]+)? ?([KMG]i?)?B$")
ADDRESS = Parsed(address, "host:port, such as 127.0.0.1:6661")
NETWORK = Parsed(network, "a network such as 10.20.0.0/16", guess=_network_guess)
ZONE = Parsed(zone, "an IANA time zone such as America/Chicago", guess=_zone_guess)
CODEC = Parsed(codec, "auto, or a character set such as utf-8 or latin-1")
CHARSET = Parsed(charset, "a character set such as utf-8 or cp1252")
TIME_OF_DAY = Text("a time of day such as 07:00", r"([01]?[0-9]|2[0-3]):[0-5][0-9]", written=True)
WORD = Text("text")
ID = Text("letters, digits, '-', '_' and '.', at most 64", r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", written=True)
