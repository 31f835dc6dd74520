"""Examples beside the mappings: a message, and what must become of it. Run by `interlock test` and by pytest.

name: a preliminary result
connection: acme                      # optional, as timezone, identity, received
message: |
  MSH|…
expect:
  Patient:                            # all entries of a type, in order; a single mapping means the only one
    - birthDate: "1980-02-28"
      identifier.0.value: MRN1
  Observation: [{status: final}, {status: final}]
  Condition: []                       # none
diagnostics: [unknown-code]           # optional: exactly these codes
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from engine.mapping.library import Context, Library, Unmappable

RECEIVED = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z; of an example that does not say
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Example:
    """One example of a file."""

    file: Path
    name: str
    message: bytes
    expect: dict[str, Any]
    diagnostics: list[str] | None
    context: Context


@dataclass(slots=True)
class Verdict(Generic[E]):
    """What an example showed: no faults means that it holds."""

    example: E
    faults: list[str] = field(default_factory=list)


def documents(folder: Path) -> Iterator[tuple[Path, Any]]:
    """What stands in a folder's files, in order."""
    for path in sorted(folder.glob("*.yaml")):
        for raw in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield path, raw


def load(folder: Path) -> list[Example]:
    """All examples of a folder's files, in order. Raises ValueError where a file is no example."""
    return [_example(path, raw) for path, raw in documents(folder)]


def check(example: Example, library: Library) -> Verdict[Example]:
    """Map the message, and compare."""
    verdict = Verdict(example)
    header = example.message.split(b"\r", 1)[0].split(example.message[3:4])
    kind = header[8].decode("latin-1").split("^") if len(header) > 8 else []
    mapping = library.for_message(kind[0], kind[1]) if len(kind) > 1 else None
    if mapping is None:
        verdict.faults.append(f"no mapping for {'^'.join(kind[:2])}")
        return verdict
    try:
        output = mapping.run(example.message, example.context)
    except Unmappable as error:
        verdict.faults.append(str(error))
        return verdict
    for type, wanted in example.expect.items():
        have = [entry.resource for entry in output.entries if entry.type == type]
        verdict.faults.extend(_compare(type, wanted, have))
    if example.diagnostics is not None:
        codes = sorted(diagnostic.code for diagnostic in output.diagnostics)
        if codes != sorted(example.diagnostics):
            verdict.faults.append(f"diagnostics: expected {sorted(example.diagnostics)}, found {codes}")
    return verdict


def value_at(resource: Any, path: str) -> Any:
    """The value at `name.0.family`, None where there is none."""
    for step in path.split("."):
        if isinstance(resource, list) and step.isdigit() and int(step) < len(resource):
            resource = resource[int(step)]
        elif isinstance(resource, dict) and step in resource:
            resource = resource[step]
        else:
            return None
    return resource


def _compare(type: str, wanted: Any, have: list[Any]) -> Iterator[str]:
    expected = wanted if isinstance(wanted, list) else [wanted]
    if len(expected) != len(have):
        yield f"{type}: expected {len(expected)}, found {len(have)}"
        return
    for index, (want, one) in enumerate(zip(expected, have, strict=True)):
        for path, value in want.items():
            found = value_at(one, path)
            if found != value:
                yield f"{type}[{index}].{path}: expected {value!r}, found {found!r}"


def _example(path: Path, raw: Any) -> Example:
    if not isinstance(raw, dict) or not {"name", "message", "expect"} <= raw.keys():
        raise ValueError(f"{path}: an example needs name, message and expect")
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
    return Example(path, raw["name"], message, raw["expect"], raw.get("diagnostics"), context)
