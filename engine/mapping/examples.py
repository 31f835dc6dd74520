"""Examples beside the mappings: a message, and what must become of it. Run by `interlock test` and by pytest.

name: a preliminary result
message: |
  MSH|…
expect:                               # of each type that is named, all entries in order; a single mapping: the only one
  Patient:
    - birthDate: "1980-02-28"
      identifier.0.value: MRN1
      extension(religion).valueCodeableConcept.text: (any)     # (any): something
      deceasedBoolean: null           # null: nothing
      entry.policy: fill              # of the entry itself: name, role, policy, event, clears, drops, key (the first)
  Observation: [{status: final, subject.reference: "Patient[1]"}, {status: final}]
  Condition: []                       # none
output:                               # instead, or besides: all of it, every entry with every element
  - Patient: {birthDate: "1980-02-28", identifier: [{system: "urn:x", value: MRN1}]}
types: [Patient, Observation]         # the types of all entries, in order
diagnostics: [unknown-code]           # exactly these codes
lost: [PID-12]                        # exactly these fields have values that no rule takes
refused: unmapped                     # instead of an output: the code

What the message is mapped by and comes in: mapping (a name, where MSH-9 would not choose it), options, override and
unmapped (as a channel has them), channel, connection, timezone, identity, encoding, charset, received (µs). All of them
may be left out.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from engine.config.changes import Changes, as_written
from engine.fhir.output import Entry, Output
from engine.mapping.library import Context, Library, MappingError, Unmappable
from engine.mapping.library import Mapping as FhirMapping
from engine.mapping.lineage import values
from engine.mapping.problems import Place, guess
from engine.mapping.schema import r4

RECEIVED: Final = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z; of an example that does not say
ANY: Final = "(any)"
OUTCOMES: Final = ("expect", "output", "types", "diagnostics", "lost", "refused")
AROUND: Final = ("mapping", "options", "override", "unmapped", "channel", "connection", "timezone", "identity")
READING: Final = ("encoding", "charset", "received")
KEYS: Final = ("name", "message", *OUTCOMES, *AROUND, *READING)
UNMAPPED: Final = ("ignore", "count", "keep", "refuse")
ENTRY: Final = ("name", "role", "policy", "event", "key", "clears", "drops")
E = TypeVar("E")

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STEP = re.compile(r"\.(?![^(]*\))")


_Constructor = yaml.constructor.SafeConstructor


class _AsWritten(_Constructor):
    """A date is the text that FHIR has."""

    yaml_constructors = _Constructor.yaml_constructors | {
        "tag:yaml.org,2002:timestamp": _Constructor.construct_yaml_str
    }


@dataclass(frozen=True, slots=True)
class Example:
    """One example of a file. wanted: by outcome, what stands there."""

    file: Path
    name: str
    place: Place
    message: bytes
    wanted: Mapping[str, Node]
    mapping: str | None
    changes: Changes
    context: Context


@dataclass(frozen=True, slots=True)
class Fault:
    """Where an output is otherwise than wanted. entry: `Observation[2]`, the second of the output. rules: that set it,
    where this was traced."""

    place: Place
    entry: str
    path: str
    expected: str
    found: str
    rules: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """The element, or what else is compared."""
        return ".".join(part for part in (self.entry, self.path) if part)

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, found {self.found}"


@dataclass(slots=True)
class Verdict(Generic[E]):
    """What an example showed: no faults means that it holds. Where it was traced, used: the rows that it used; left:
    the places of rows that left values out, and the fields of its message that have a value."""

    example: E
    faults: list[Fault | str] = field(default_factory=list)
    used: list[Any] = field(default_factory=list)
    left: set[str] = field(default_factory=set)
    mapping: str = ""


def documents(folder: Path) -> Iterator[tuple[Path, Any]]:
    """What stands in a folder's files, in order."""
    for path in sorted(folder.glob("*.yaml")):
        for raw in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield path, raw


def load(folder: Path) -> list[Example]:
    """All examples of a folder's files, in order. Raises ValueError where a file is no example."""
    return [example for path in sorted(folder.glob("*.yaml")) for example in read(path)]


def read(path: Path) -> Iterator[Example]:
    """The examples of a file. Raises ValueError."""
    stream = io.BytesIO(path.read_bytes())
    stream.name = str(path)  # which YAML puts into every place
    try:
        for node in yaml.compose_all(stream, Loader=_Loader):
            if node is not None:
                yield _example(path, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ValueError(f"{path}:{line}:{column}: {error.problem or 'no YAML'}") from None


def _example(path: Path, node: Node) -> Example:
    place = _place(node, path)
    if not isinstance(node, MappingNode):
        raise ValueError(f"{_shown(place)}: an example is a mapping with name, message and expect")
    got: dict[str, Node] = {}
    for key, value in node.value:
        if key.value not in KEYS:
            raise ValueError(f"{_shown(_place(key, path))}: {key.value} in an example; {guess(key.value, KEYS, 'key')}")
        got[key.value] = value
    if not {"name", "message"} <= got.keys() or not got.keys() & set(OUTCOMES):
        raise ValueError(f"{_shown(place)}: an example needs name, message and expect, or another outcome")
    raw = {key: _value(value) for key, value in got.items() if key not in (*OUTCOMES, "override")}
    if raw.get("unmapped", "ignore") not in UNMAPPED:
        raise ValueError(f"{_shown(_place(got['unmapped'], path))}: unmapped is one of {', '.join(UNMAPPED)}")
    if not isinstance(raw.get("received", RECEIVED), int):
        raise ValueError(f"{_shown(_place(got['received'], path))}: received is a number of microseconds since 1970")
    connection = str(raw.get("connection", "example"))
    context = Context(
        str(raw.get("channel", connection)),
        connection,
        raw.get("identity", {}),
        raw.get("timezone", "UTC"),
        raw.get("encoding", "auto"),
        raw.get("received", RECEIVED),
    )
    message = raw["message"].rstrip("\n").replace("\n", "\r").encode(raw.get("charset", "utf-8"))
    wanted = {key: value for key, value in got.items() if key in OUTCOMES}
    _look(path, wanted.get("expect"))
    return Example(path, str(raw["name"]), place, message, wanted, raw.get("mapping"), _changes(got, raw), context)


def _look(file: Path, node: Node | None) -> None:
    """Raise ValueError for a type or an element that FHIR does not have: that it is missing would always hold."""
    schema = r4()
    if node is not None and not isinstance(node, MappingNode):
        raise ValueError(f"{_shown(_place(node, file))}: expect is a mapping of resource types")
    for key, value in _pairs(node) if node is not None else ():
        type = str(key.value)
        if not schema.is_resource(type):
            known = [name for name in schema.types if schema.is_resource(name)]
            told = f"unknown resource type {type}; expected {guess(type, known, 'type')}"
            raise ValueError(f"{_shown(_place(key, file))}: {told}")
        for want in value.value if isinstance(value, SequenceNode) else [value]:
            for path, _ in _pairs(want):
                told = _no_element(type, str(path.value))
                if told:
                    raise ValueError(f"{_shown(_place(path, file))}: {told}")


def _no_element(type: str, path: str) -> str:
    """What is wrong with a path, if anything is."""
    schema = r4()
    head, _, rest = path.partition(".")
    if path == "resourceType" or (head == "entry" and rest in ENTRY):
        return ""
    if head == "entry" and schema.element(type, "entry") is None:
        return f"unknown part of an entry {rest}; expected {guess(rest, ENTRY, 'part')}"
    many = False
    for step in _STEP.split(path):
        if many != step.isdigit():
            return f"{step} in {path}; expected " + (
                "a number, as in name.0.family" if many else "the name of an element"
            )
        many = False
        if step.isdigit():
            continue
        if type not in schema.types:  # of what is contained, and inside a text, nothing is known
            return ""
        extended = step.startswith("extension(") and step.endswith(")")
        element = schema.element(type, "extension" if extended else step.removeprefix("_"))
        if element is None:
            return f"unknown element of {type} {step}; expected {guess(step, schema.types[type], 'element')}"
        many = element.many and not extended
        type = "Element" if step.startswith("_") else element.type
    return ""


def _changes(got: dict[str, Node], raw: dict[str, Any]) -> Changes:
    node = got.get("override")
    said = json.dumps(as_written(node)) if node is not None else ""
    options = tuple(sorted((str(name), str(value)) for name, value in raw.get("options", {}).items()))
    return Changes(said, options, raw.get("unmapped", "ignore"), node)


def check(example: Example, library: Library, traced: bool = False) -> Verdict[Example]:
    """Map the message, and compare. traced: and tell which rules did what."""
    verdict = Verdict(example)
    kind = _kind(example.message)
    try:
        mapping = _mapping(example, library, kind)
    except (KeyError, MappingError) as error:
        verdict.faults.append(str(error.args[0]))
        return verdict
    if mapping is None:
        _refused(verdict, "no-mapping", f"no mapping for {kind}")
        return verdict
    verdict.mapping = mapping.name
    asked = "count" if "lost" in example.wanted and example.changes.unmapped == "ignore" else example.changes.unmapped
    try:
        output = mapping.account(example.message, example.context, asked)
    except Unmappable as error:
        _refused(verdict, error.code, str(error))
        return verdict
    if "refused" in example.wanted:
        node = example.wanted["refused"]
        verdict.faults.append(Fault(_place(node, example.file), "refused", "", repr(node.value), "an output"))
        return verdict
    rules = _traced(mapping, verdict) if traced else {}
    verdict.faults.extend(_Comparison(example, output, rules, library).faults())
    return verdict


def _kind(message: bytes) -> str:
    """`ORU^R01`"""
    header = message.split(b"\r", 1)[0].split(message[3:4])
    mark = message[4:5].decode("latin-1")
    return "^".join(header[8].decode("latin-1").split(mark)[:2]) if len(header) > 8 else ""


def _mapping(example: Example, library: Library, kind: str) -> FhirMapping | None:
    """The one that the example names, or that accepts its message; with what it has otherwise."""
    type, _, trigger = kind.partition("^")
    found = library.mapping(example.mapping) if example.mapping else library.for_message(type, trigger)
    return library.changed(found.name, example.changes).mapping(found.name) if found else None


def _refused(verdict: Verdict[Example], code: str, told: str) -> None:
    node = verdict.example.wanted.get("refused")
    if node is None:
        verdict.faults.append(told)
    elif node.value != code:
        place = _place(node, verdict.example.file)
        verdict.faults.append(Fault(place, "refused", "", repr(node.value), repr(code)))


def _traced(mapping: FhirMapping, verdict: Verdict[Example]) -> dict[str, list[str]]:
    """The rules by what they have set."""
    example = verdict.example
    _, lineage = mapping.trace(example.message, example.context)
    verdict.used = lineage.used
    verdict.left = {f"{lineage.name(leaf)}-{leaf[1]}" for leaf in values(lineage.lines, lineage.delimiters)}
    reasons = mapping.reasons()
    for leaf in lineage.lost:
        reason = reasons.why(lineage.name(leaf), leaf[1], leaf[3], leaf[4])
        if reason.kind == "left-out":
            verdict.left.add(reason.text.rpartition("(")[2].rstrip(")"))
    rules: dict[str, list[str]] = {}
    for origin in lineage.origins:
        rules.setdefault(origin.element, []).append(origin.rule)
    return rules


class _Comparison:
    """Of an output with what an example wants."""

    def __init__(self, example: Example, output: Output, rules: dict[str, list[str]], library: Library) -> None:
        self._example, self._output, self._rules = example, output, rules
        self._library = library
        self._names: dict[str, str] = {}
        counts: dict[str, int] = {}
        for entry in output.entries:
            counts[entry.type] = counts.get(entry.type, 0) + 1
            self._names[entry.reference.get("reference", "")] = f"{entry.type}[{counts[entry.type]}]"
        self._outcomes: dict[str, Callable[[Node], Iterator[Fault]]] = {
            "expect": self._expect, "output": self._whole, "types": self._types,
            "diagnostics": self._diagnostics, "lost": self._lost,
        }  # fmt: skip

    def faults(self) -> Iterator[Fault]:
        for outcome, node in self._example.wanted.items():
            yield from self._outcomes[outcome](node)

    # -- each outcome

    def _expect(self, node: Node) -> Iterator[Fault]:
        for key, value in _pairs(node):
            entries = [entry for entry in self._output.entries if entry.type == key.value]
            wanted = value.value if isinstance(value, SequenceNode) else [value]
            if len(wanted) != len(entries):
                others = "" if entries else f"; there are {', '.join(self._types_found())}"
                yield self._fault(key, key.value, "", str(len(wanted)), f"{len(entries)}{others}")
                continue
            for want, entry in zip(wanted, entries, strict=True):
                for path, one in _pairs(want):
                    found = self._at(entry, str(path.value))
                    yield from self._differ(path, self._name(entry), str(path.value), _value(one), found)

    def _whole(self, node: Node) -> Iterator[Fault]:
        wanted = node.value if isinstance(node, SequenceNode) else []
        pairs = [next(_pairs(one)) for one in wanted if isinstance(one, MappingNode) and one.value]
        types = [str(key.value) for key, _ in pairs]
        if types != self._types_found():
            yield self._fault(node, "output", "", ", ".join(types) or "nothing", ", ".join(self._types_found()))
            return
        for (key, value), entry in zip(pairs, self._output.entries, strict=True):
            found = {name: one for name, one in entry.resource.items() if name != "resourceType"}
            yield from self._differ(key, self._name(entry), "", _value(value) or {}, self._plain(found), _places(value))

    def _types(self, node: Node) -> Iterator[Fault]:
        wanted = [str(one) for one in _value(node) or ()]
        if wanted != self._types_found():
            yield self._fault(node, "types", "", ", ".join(wanted), ", ".join(self._types_found()))

    def _diagnostics(self, node: Node) -> Iterator[Fault]:
        wanted = sorted(map(str, _value(node) or ()))
        found = sorted(diagnostic.code for diagnostic in self._output.diagnostics)
        if wanted != found:
            where = ", ".join(f"{one.code} at {one.where}" for one in self._output.diagnostics)
            yield self._fault(node, "diagnostics", "", ", ".join(wanted) or "none", where or "none")

    def _lost(self, node: Node) -> Iterator[Fault]:
        wanted, found = sorted(map(str, _value(node) or ())), sorted(self._output.lost)
        if wanted != found:
            yield self._fault(node, "lost", "", ", ".join(wanted) or "none", ", ".join(found) or "none")

    # -- values

    def _differ(
        self, at: Node, entry: str, path: str, wanted: Any, found: Any, places: Mapping[str, Node] | None = None
    ) -> Iterator[Fault]:
        """Path by path."""
        if wanted == ANY and found is not None:
            return
        at = (places or {}).get(path, at)
        if isinstance(wanted, dict) and isinstance(found, dict):
            for name in (*wanted, *(name for name in found if name not in wanted)):
                inner = f"{path}.{name}" if path else str(name)
                yield from self._differ(at, entry, inner, wanted.get(name), found.get(name), places)
        elif isinstance(wanted, list) and isinstance(found, list):
            for number in range(max(len(wanted), len(found))):
                one = wanted[number] if number < len(wanted) else None
                other = found[number] if number < len(found) else None
                yield from self._differ(at, entry, f"{path}.{number}", one, other, places)
        elif wanted != found or isinstance(wanted, bool) != isinstance(found, bool):
            yield self._fault(at, entry, path, _said(wanted), _said(found))

    def _fault(self, at: Node, entry: str, path: str, expected: str, found: str) -> Fault:
        return Fault(_place(at, self._example.file), entry, path, expected, found, self._set_by(entry, path))

    def _set_by(self, entry: str, path: str) -> tuple[str, ...]:
        """The rules that set an element, what is in it, or what it is in."""
        element = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", f"{entry}.{path}")
        inside = [rule for one, rules in self._rules.items() if f"{one}.".startswith(f"{element}.") for rule in rules]
        whole = re.sub(r"\[\d+\]$", "", element)
        around = [rule for one, rules in self._rules.items() if whole == one for rule in rules]
        return tuple(dict.fromkeys(inside or around))

    def _at(self, entry: Entry, path: str) -> Any:
        head, _, rest = path.partition(".")
        if head == "entry" and rest in ENTRY:
            return _of_entry(entry, rest)
        return value_at(self._plain(entry.resource), path, self._extensions())

    def _extensions(self) -> Mapping[str, str]:
        return self._library.files().extensions

    def _plain(self, value: Any) -> Any:
        """With references to entries by their names."""
        if isinstance(value, dict):
            return {key: self._plain(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._plain(one) for one in value]
        return self._names.get(value, value) if isinstance(value, str) else value

    def _name(self, entry: Entry) -> str:
        return self._names[entry.reference.get("reference", "")]

    def _types_found(self) -> list[str]:
        return [entry.type for entry in self._output.entries]


def _of_entry(entry: Entry, name: str) -> Any:
    """What an entry is beside its resource, None for nothing; sets in order."""
    if name == "key":
        return entry.key[0][1] if entry.key else None
    found = getattr(entry, name) or None
    return sorted(found) if isinstance(found, frozenset | tuple) else found


def value_at(resource: Any, path: str, extensions: Mapping[str, str] | None = None) -> Any:
    """The value at `name.0.family` or `extension(religion).valueString`, None where there is none."""
    for step in _STEP.split(path):
        name = step[len("extension(") : -1] if step.startswith("extension(") and step.endswith(")") else ""
        if name and isinstance(resource, dict):
            urls = ((extensions or {}).get(name, name), name.strip("'\""))
            found = (one for one in resource.get("extension", ()) if one.get("url") in urls)
            resource = next(found, None)
        elif isinstance(resource, list) and step.isdigit() and int(step) < len(resource):
            resource = resource[int(step)]
        elif isinstance(resource, dict) and step in resource:
            resource = resource[step]
        else:
            return None
    return resource


def _pairs(node: Node) -> Iterator[tuple[ScalarNode, Node]]:
    yield from node.value if isinstance(node, MappingNode) else ()


def _places(node: Node, path: str = "") -> dict[str, Node]:
    """Where each value stands, by its path."""
    out = {path: node}
    if isinstance(node, MappingNode):
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else str(key.value)
            out |= _places(value, inner) | {inner: key}
    elif isinstance(node, SequenceNode):
        for number, value in enumerate(node.value):
            out |= _places(value, f"{path}.{number}")
    return out


def _value(node: Node) -> Any:
    return _AsWritten().construct_document(node)


def _said(value: Any) -> str:
    return "nothing" if value is None else repr(value)


def _place(node: Node, path: Path) -> Place:
    return Place(str(path), node.start_mark.line + 1, node.start_mark.column + 1)


def _shown(place: Place) -> str:
    return f"{place.file}:{place.line}:{place.column}"
