"""Examples beside the v2 mappings: a message, and what must become of it. Run by `interlock test` and by pytest.

name: the clinic's own names                # mappings/v2/examples/relabel_oru.yaml
mapping: relabel_oru
channel: acme-results                       # optional, as connection, timezone, encoding, received (µs)
recall: {acme-orders: {P-1: {priority: S}}} # optional: what earlier messages brought
message: |
  MSH|…
expect:                                     # the messages it becomes, in order; a single one may stand alone
  - {MSH-5: EMR, "OBX[2]-8": H, PID-19: ""} # values as they stand in the message, "" where there is none
  - segments: [MSH, PID, OBR, OBX]          # the names of its segments
  - |                                       # or all of it
    MSH|…
filtered: test patients                     # instead of expect: the reason
refused: unknown-code                       # instead of expect: the code
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.hl7 import charset
from engine.mapping.examples import RECEIVED, Verdict, documents
from engine.mapping.library import Context, Unmappable
from engine.mapping.problems import Place, Problems
from engine.mapping.v2 import path as paths
from engine.mapping.v2.draft import Draft
from engine.mapping.v2.filters import Filtered
from engine.mapping.v2.library import V2Library
from engine.mapping.v2.path import ALL, NOWHERE

_OUTCOMES = ("expect", "filtered", "refused")


@dataclass(frozen=True, slots=True)
class Example:
    """One example of a file. outcome: `expect`, `filtered` or `refused`, and what is wanted."""

    file: Path
    name: str
    mapping: str
    message: bytes
    outcome: tuple[str, Any]
    context: Context


def load(folder: Path) -> list[Example]:
    """All examples of a folder's files, in order. Raises ValueError where a file is no example."""
    return [_example(path, raw) for path, raw in documents(folder)]


def _example(path: Path, raw: Any) -> Example:
    if not isinstance(raw, dict) or not {"name", "mapping", "message"} <= raw.keys():
        raise ValueError(f"{path}: an example needs name, mapping and message")
    outcomes = [(kind, raw[kind]) for kind in _OUTCOMES if kind in raw]
    if len(outcomes) != 1:
        raise ValueError(f"{path}: the example {raw['name']!r} needs one of expect, filtered and refused")
    stores = raw.get("recall", {})
    connection = str(raw.get("connection", "example"))
    context = Context(
        str(raw.get("channel", connection)),
        connection,
        {},
        raw.get("timezone", "UTC"),
        raw.get("encoding", "auto"),
        raw.get("received", RECEIVED),
        recall=lambda store, key, later: None if later else stores.get(store, {}).get(key),
    )
    message = _bytes(raw["message"], raw.get("charset", "utf-8"))
    return Example(path, raw["name"], raw["mapping"], message, outcomes[0], context)


def _bytes(text: str, codec: str) -> bytes:
    return text.rstrip("\n").replace("\n", "\r").encode(codec) + b"\r"


def check(example: Example, library: V2Library) -> Verdict[Example]:
    """Map the message, and compare."""
    verdict = Verdict(example)
    kind, wanted = example.outcome
    try:
        made = library.mapping(example.mapping).run(example.message, example.context)
    except KeyError as error:
        verdict.faults.append(str(error.args[0]))
        return verdict
    except Unmappable as error:
        if kind != "refused" or wanted != error.code:
            verdict.faults.append(f"refused: {error}")
        return verdict
    if isinstance(made, Filtered):
        if kind != "filtered" or wanted != made.reason:
            verdict.faults.append(f"filtered: {made.reason}")
        return verdict
    if kind != "expect":
        verdict.faults.append(f"{kind}: expected {wanted!r}, found {len(made)} messages")
        return verdict
    verdict.faults.extend(_compare(wanted, made, example.context))
    return verdict


def _compare(wanted: Any, made: list[bytes], context: Context) -> Iterator[str]:
    expected = wanted if isinstance(wanted, list) else [wanted]
    if len(expected) != len(made):
        yield f"expected {len(expected)} messages, found {len(made)}"
        return
    for number, (want, raw) in enumerate(zip(expected, made, strict=True), 1):
        draft = Draft(raw, context)
        where = f"message {number}: " if len(made) > 1 else ""
        if isinstance(want, str):
            text = charset.decode(raw, context.encoding).replace("\r", "\n").rstrip("\n")
            for line, (one, other) in enumerate(_side_by_side(want.rstrip("\n"), text), 1):
                if one != other:
                    yield f"{where}line {line}: expected {one!r}, found {other!r}"
            continue
        for path, value in want.items():
            found = [line.name for line in draft.lines] if path == "segments" else value_at(draft, path)
            if found != (value if path == "segments" else str(value)):
                yield f"{where}{path}: expected {value!r}, found {found!r}"


def _side_by_side(one: str, other: str) -> Iterator[tuple[str, str]]:
    mine, theirs = one.split("\n"), other.split("\n")
    most = max(len(mine), len(theirs))
    yield from zip(mine + [""] * (most - len(mine)), theirs + [""] * (most - len(theirs)), strict=True)


def value_at(draft: Draft, text: str) -> str:
    """The value at a path as it stands in the message, `` where there is none; all of them, for a path with [*]."""
    problems = Problems()
    path = paths.parse(text, Place("", 1, 1), problems)
    if path is None:
        return f"no path: {problems.found[0].wanted}"
    if ALL in (path.nth, path.repetition):
        return " ".join(paths.every(path, NOWHERE)(draft, None))
    return paths.reader(path, NOWHERE, whole=True)(draft, None)
