"""YAML documents whose every value knows where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from engine.config.changes import Changes
from engine.mapping.problems import Place, Problems, guess

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Source:
    """A YAML value: a scalar's text, a list of sources, or (key, value) pairs."""

    place: Place
    value: str | list[Source] | list[tuple[Source, Source]]
    kind: str
    plain: bool = True

    @property
    def text(self) -> str:
        """The scalar as text, `` where this is none."""
        return self.value if isinstance(self.value, str) else ""

    def items(self) -> list[Source]:
        """The elements of a list; a scalar is a list of one."""
        if self.kind == "list":
            return self.value  # type: ignore[return-value]
        return [] if self.kind == "scalar" and not self.value else [self]

    def pairs(self) -> list[tuple[Source, Source]]:
        """The pairs of a mapping, in order."""
        return self.value if self.kind == "mapping" else []  # type: ignore[return-value]

    def content(self) -> Any:
        """Plain Python data, for hashing."""
        if self.kind == "scalar":
            return self.value
        if self.kind == "list":
            return [item.content() for item in self.items()]
        return [[key.content(), value.content()] for key, value in self.pairs()]


def as_json(source: Source) -> Any:
    """What JSON can hold: text, lists and objects, all that the value says but for where it stands."""
    if source.kind == "scalar":
        return source.value
    if source.kind == "list":
        return [as_json(item) for item in source.items()]
    return {key.text: as_json(value) for key, value in source.pairs()}


def of_json(data: Any, place: Place) -> Source:
    """The value that `as_json` was made of, all of it at one place."""
    if isinstance(data, dict):
        pairs = [(Source(place, key, "scalar"), of_json(value, place)) for key, value in data.items()]
        return Source(place, pairs, "mapping")
    if isinstance(data, list):
        return Source(place, [of_json(item, place) for item in data], "list")
    return Source(place, data, "scalar")


def read(path: Path, shown: str, problems: Problems) -> list[Source]:
    """The documents of a file; what is no YAML is a problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        problems.add(Place(shown, 1, 1), "bytes that are not UTF-8", "a YAML file in UTF-8")
        return []
    return documents(text, shown, problems)


def documents(text: str, shown: str, problems: Problems) -> list[Source]:
    """The documents of a file's text."""
    try:
        nodes = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problems.add(Place(shown, line, column), error.problem or "broken YAML", "YAML")
        return []
    return [_source(node, shown) for node in nodes if node is not None]


def fields(
    source: Source, what: str, known: tuple[str, ...], needed: tuple[str, ...], problems: Problems
) -> dict[str, Source]:
    """A mapping with known keys; unknown, doubled and missing ones are problems."""
    if source.kind != "mapping":
        problems.add(source.place, f"a {source.kind}", f"{what}: a mapping with {', '.join(needed)}")
        return {}
    out: dict[str, Source] = {}
    for key, value in source.pairs():
        if key.text not in known:
            problems.add(key.place, f"unknown key {key.text} in {what}", guess(key.text, known, "key"))
        elif key.text in out:
            problems.add(key.place, f"{key.text} twice in {what}", "each key once")
        else:
            out[key.text] = value
    for name in needed:
        if name not in out:
            problems.add(source.place, f"{what} without {name}", f"{name}:")
    return out


def texts(source: Source | None) -> Iterator[Source]:
    """The scalars of a list or of a single scalar."""
    return iter(()) if source is None else (item for item in source.items() if item.kind == "scalar")


def said_by(changes: Changes) -> Source | None:
    """An override, with its places where these are known."""
    if not changes.override:
        return None
    if changes.node is not None:
        return _source(changes.node, changes.node.start_mark.name)
    return of_json(orjson.loads(changes.override), Place("a kept override", 1, 1))


def option_places(changes: Changes) -> dict[str, Place]:
    """Where each option stands, where that is known."""
    pairs = changes.options_node.value if changes.options_node is not None else ()
    marks = {key.value: key.start_mark for key, _ in pairs}
    return {name: Place(mark.name, mark.line + 1, mark.column + 1) for name, mark in marks.items()}


def _source(node: yaml.Node, file: str) -> Source:
    place = Place(file, node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.SequenceNode):
        return Source(place, [_source(item, file) for item in node.value], "list")
    if isinstance(node, yaml.MappingNode):
        return Source(place, [(_source(key, file), _source(value, file)) for key, value in node.value], "mapping")
    assert isinstance(node, yaml.ScalarNode)
    null = node.tag == "tag:yaml.org,2002:null"
    return Source(place, "" if null else node.value, "scalar", node.style not in ("'", '"'))
