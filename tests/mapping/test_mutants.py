"""Whatever comes as a message: valid resources or a clear refusal, and never anything of another person's.

Two thousand mutants here, ten thousand by `make soak`. A failure prints a mutant's number, what was done to it, and a
message that is as small as still fails.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.fhir.failure import Trouble
from engine.fhir.output import Output
from engine.fhir.single import single
from engine.hl7.peek import peek
from engine.mapping import library as libraries
from engine.mapping import run as running
from engine.mapping.library import Context, Library, Mapping, Unmappable
from engine.simulate.messages import Messages
from tests.mapping.folders import CONTEXT, shipped
from tests.mapping.mutants import MARKS, Mutant, Mutants, fewest, marked, shrunk, sources
from tests.mapping.shapes import faults, references

REFERENCE = os.environ.get("INTERLOCK_REFERENCE", "")
SEED = int(os.environ.get("INTERLOCK_SEED", "1"))
FEW, MANY = 2000, 10_000
BLOCK = 250
REASONS = 3  # that a trace is asked for: they take time
TRACED = ("ADT_A01", "OML_O21", "ORU_R01")  # where not all are: each takes a second to compile
SHARED = ("Device", "Location", "Organization", "Practitioner", "PractitionerRole", "Provenance")  # with other patients
CONNECTIONS = (
    replace(CONTEXT, connection="north", channel="north"),
    replace(CONTEXT, connection="south", channel="south", identity={}, timezone="Asia/Kolkata", received=10**15),
)
NAMES = re.compile(rb"urn:uuid:[0-9a-f-]{30}")
STRANGER = b"ZQQ"
Found = list[str]


class Lab:
    """The shipped mappings at work: `serving`, which has seen many messages, and `fresh`, which has seen none."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._serving: dict[str, Mapping] = {}
        self._fresh: dict[str, Mapping] = {}

    def of(self, raw: bytes) -> str | None:
        """The name of the mapping that takes a message."""
        head = peek(raw)
        found = self.library.for_message(head.type, head.trigger) if head.ok else None
        return found.name if found else None

    def serving(self, name: str) -> Mapping:
        """A mapping that goes on."""
        return self._serving.setdefault(name, self._another(name))

    def fresh(self, name: str) -> Mapping:
        """The same, without a memory."""
        found = self._fresh.setdefault(name, self._another(name))
        found._connections.clear()
        return found

    def forget(self) -> None:
        """Whatever was kept of earlier messages."""
        for one in self._serving.values():
            one._connections.clear()

    def _another(self, name: str) -> Mapping:
        one = self.library.mapping(name)
        return Mapping(one._compiled, one._shelf, one._maker)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(shipped())


@pytest.fixture(scope="module")
def mutants(lab: Lab) -> Mutants:
    return Mutants(sources(lab.library, *([Path(REFERENCE, "samples")] if REFERENCE else [])), SEED)


# -- what must be


def told(mapping: Mapping, raw: bytes, context: Context, unmapped: str = "ignore") -> tuple[bytes, Output | None]:
    """All that comes of a message, and its output. Only `Unmappable` is caught."""
    try:
        output = mapping.account(raw, context, unmapped)  # type: ignore[arg-type]
    except Unmappable as error:
        return f"refused: {error}".encode(), None
    return shown(output), output


def shown(output: Output) -> bytes:
    """Everything of an output."""
    entries = [
        [e.name, e.resource, e.reference, e.role, e.key, e.policy, e.event, sorted(e.clears), e.drops]
        for e in output.entries
    ]
    return orjson.dumps([entries, output.diagnostics, [list(one) for one in output.unmapped], output.lost])


def resources(told: bytes) -> bytes:
    """The same without diagnostics, and whatever the bytes of the message are called."""
    if not told.startswith(b"["):
        return re.sub(rb"byte \d+", b"", told)
    entries, _, unmapped, _ = orjson.loads(told)
    return NAMES.sub(b"", orjson.dumps([entries, unmapped]))


def difference(one: bytes, other: bytes) -> str:
    """Where two outputs differ first; empty where they do not."""
    if one == other:
        return ""
    if not (one.startswith(b"[") and other.startswith(b"[")):
        return "refused"
    return _difference(orjson.loads(one), orjson.loads(other), "output")


def _difference(one: Any, other: Any, path: str) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                return _difference(one.get(key), other.get(key), f"{path}.{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            if pair[0] != pair[1]:
                return _difference(*pair, f"{path}.{index}")
    kinds = [one, other] if isinstance(one, int) else [type(one).__name__, type(other).__name__]
    return f"{path} ({kinds[0]} and {kinds[1]})"


def unknown(told: bytes) -> int:
    """How many segments are told to be unknown."""
    return sum(each["code"] == "unknown-segment" for each in orjson.loads(told)[1])


def marks(text: bytes) -> set[str]:
    return {mark for mark in MARKS if mark.encode() in text.upper()}


def wrong(lab: Lab, mutant: Mutant, raw: bytes, context: Context) -> Iterator[str]:
    """Everything that is wrong with what comes of a mutant's bytes, sent to a mapping that has seen others."""
    name = lab.of(raw) or "ORU_R01"
    came, output = told(lab.serving(name), raw, context)
    if marks(came) - {mutant.mark}:
        yield "another patient's values"
    others = {one.connection for one in CONNECTIONS} - {context.connection}
    if any(f"urn:interlock:{other}:".encode() in came for other in others):
        yield "another connection's systems"
    if where := difference(came, told(lab.serving(name), raw, context)[0]):
        yield f"not the same when it comes again: {where}"
    if where := difference(came, told(lab.fresh(name), raw, context)[0]):
        yield f"not the same where nothing came before: {where}"
    if output is None:
        if marks(came):
            yield "a refusal that tells values"
        return
    yield from faults(output)
    with suppress(Trouble):  # an identifier that no server can be asked for
        orjson.dumps(single(output))
    if marks(orjson.dumps(output.diagnostics)):
        yield "diagnostics that tell values"
    for number, entry in enumerate(output.entries):  # as a delivery does
        entry.reference["reference"] = f"{entry.type}/{mutant.mark}{number}"


def careful(lab: Lab, mutant: Mutant, raw: bytes, context: Context) -> Iterator[str]:
    """Whether careful reading gives what fast reading gives."""
    name = lab.of(raw) or "ORU_R01"
    came = told(lab.serving(name), raw, context)[0]
    plain, libraries._is_plain = libraries._is_plain, lambda raw: False
    try:
        if where := difference(resources(came), resources(told(lab.serving(name), raw, context)[0])):
            yield f"not the same where it is read with care: {where}"
    finally:
        libraries._is_plain = plain


def traced(lab: Lab, mutant: Mutant, raw: bytes, context: Context) -> Iterator[str]:
    """Whether a trace changes nothing, tells no values, and gives every value that is lost its reason."""
    name = lab.of(raw) or "ORU_R01"
    mapping = lab.serving(name)
    came = told(mapping, raw, context)[0]
    try:
        output, lineage = mapping.trace(raw, context)
    except Unmappable:
        return
    if where := difference(came, shown(output)):
        yield f"not the same where it is traced: {where}"
    if marks(orjson.dumps(lineage.origins)):
        yield "a trace that tells values"
    for leaf in lineage.lost[:REASONS]:
        if not mapping.reasons().why(lineage.name(leaf), leaf[1], leaf[3], leaf[4]).text:
            yield "a value that is lost without a reason"
    for unmapped in ("count", "keep", "refuse") if mutant.number % 10 == 0 else ():
        came, found = told(mapping, raw, context, unmapped)
        if found is None:
            if marks(came):
                yield "a refusal that tells values"
        else:
            yield from (f"{unmapped}: {fault}" for fault in faults(found))


def strange(lab: Lab, mutant: Mutant, raw: bytes, context: Context) -> Iterator[str]:
    """Whether a segment that nobody knows changes nothing but the diagnostics."""
    ends = list(re.finditer(rb"\r\n?|\n", raw))
    if not ends or b"\x00" in raw[:8]:
        return
    name = lab.of(raw) or "ORU_R01"
    end, place = ends[0].group(), ends[mutant.number % len(ends)].end()
    if raw[place : place + 3] == b"ADD" or (b"\r" in raw and end == b"\n"):
        return  # ADD goes on with what stands before it; where there are CRs, a LF ends nothing
    with_stranger = raw[:place] + STRANGER + end + raw[place:]
    if (lab.of(with_stranger) or "ORU_R01") != name:
        return  # the header had no end
    came, more = told(lab.serving(name), raw, context)[0], told(lab.serving(name), with_stranger, context)[0]
    if where := difference(resources(came), resources(more)):
        yield f"not the same with an unknown segment: {where}"
    elif more.startswith(b"[") and unknown(more) != unknown(came) + 1:
        yield "an unknown segment is not told"


# -- how a failure is shown

Check = Callable[[Lab, Mutant, bytes, Context], Iterator[str]]


def found(check: Check, lab: Lab, mutant: Mutant, raw: bytes) -> Found:
    """What a check finds, an exception too."""
    context = CONNECTIONS[mutant.number % len(CONNECTIONS)]
    try:
        return list(check(lab, mutant, raw, context))
    except Exception as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
        return [f"{type(error).__name__}: {error} at {where}"]


def kind(fault: str) -> str:
    """A fault without what differs from message to message."""
    return re.sub(r"(?<!-)\b\d+", "n", fault)


def report(check: Check, lab: Lab, all: Sequence[Mutant]) -> dict[str, str]:
    """By kind of fault, the first mutant that has it, as small as may be."""
    first: dict[str, tuple[Mutant, int]] = {}
    counts: Counter[str] = Counter()
    for place, mutant in enumerate(all):
        for fault in {kind(one) for one in found(check, lab, mutant, mutant.raw)}:
            counts[fault] += 1
            first.setdefault(fault, (mutant, place))
    return {
        f"{counts[fault]} × {fault}": f"seed {SEED}, {mutant}\n" + small(check, lab, fault, mutant, all[:place])
        for fault, (mutant, place) in first.items()
    }


def small(check: Check, lab: Lab, fault: str, mutant: Mutant, before: Sequence[Mutant]) -> str:
    """The message; with those that have to come before, where there are such."""

    def fails(raw: bytes, before: Sequence[Mutant] = ()) -> bool:
        lab.forget()
        for one in before:
            found(check, lab, one, one.raw)
        return fault in map(kind, found(check, lab, mutant, raw))

    if fails(mutant.raw):
        return readable(shrunk(mutant.raw, fails))
    if not fails(mutant.raw, before):
        return "(it fails in this process only, after others)"
    left = fewest(list(before), lambda some: fails(mutant.raw, some))
    last = shrunk(mutant.raw, lambda raw: fails(raw, left))
    return "\n-- after:\n".join(map(readable, [last, *(one.raw for one in left)]))


def readable(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace").replace("\x00", "").replace("\r", "\n")


def check(check: Check, lab: Lab, all: Sequence[Mutant]) -> None:
    lab.forget()
    problems = report(check, lab, all)
    if problems:
        pytest.fail("\n\n".join(f"{fault}\n{message}" for fault, message in problems.items()), pytrace=False)


# -- the tests


def test_the_marks_tell_patients_apart(mutants: Mutants) -> None:
    """Without marks there would be nothing to find."""
    found = [mutants(number) for number in range(200)]
    assert {one.patient for one in found} == set(range(len(MARKS)))
    assert sum(one.mark.encode() in one.raw for one in found) > len(found) / 2
    assert all(marks(one.raw) <= {one.mark} for one in found)


@pytest.mark.parametrize("start", range(0, FEW, BLOCK))
def test_a_mutant_becomes_valid_resources_of_its_patient_or_is_refused(lab: Lab, mutants: Mutants, start: int) -> None:
    check(wrong, lab, [mutants(number) for number in range(start, start + BLOCK)])


def test_no_message_remembers_what_a_full_cache_forgot(
    lab: Lab, mutants: Mutants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "CACHE_LIMIT", 16)
    check(wrong, lab, [mutants(number) for number in range(FEW, FEW + BLOCK)])


def test_careful_reading_gives_what_fast_reading_gives(lab: Lab, mutants: Mutants) -> None:
    check(careful, lab, [mutants(number) for number in range(BLOCK * 2)])


def test_a_segment_that_nobody_knows_changes_nothing(lab: Lab, mutants: Mutants) -> None:
    check(strange, lab, [mutants(number) for number in range(BLOCK * 2)])


def test_a_trace_changes_nothing_and_knows_why(lab: Lab, mutants: Mutants) -> None:
    few = [mutants(number) for number in range(BLOCK)]
    check(traced, lab, [one for one in few if (lab.of(one.raw) or "ORU_R01") in TRACED])


def test_two_patients_in_one_message_are_kept_apart(lab: Lab) -> None:
    for number in range(60):
        kind: Any = ("oru", "orm", "oml")[number % 3]
        one, other = (marked(Messages(kind).message(number + add), MARKS[add]) for add in (0, 1))
        output = lab.serving(lab.of(one) or "").run(one + other[other.index(b"PID|") :], CONTEXT)
        known = {entry.reference["reference"]: entry for entry in output.entries}
        both = set()
        for entry in output.entries:
            near = [entry, *(known[name] for name in references(entry.resource) if name in known)]
            clinical = [] if entry.type in SHARED else [one for one in near if one.type not in SHARED]
            found = marks(orjson.dumps([one.resource for one in clinical]))
            assert len(found) < 2, f"{kind} {number}: {entry.name} is of {found}"
            both |= found
        assert both == {MARKS[0], MARKS[1]}


@pytest.mark.soak
def test_ten_thousand_mutants(lab: Lab, mutants: Mutants) -> None:
    many = [mutants(number) for number in range(FEW, FEW + MANY)]
    check(wrong, lab, many)
    for one in (careful, strange):
        check(one, lab, many[:: MANY // FEW])
    check(traced, lab, many[::20])


@pytest.mark.soak
def test_ten_thousand_mutants_through_small_caches(lab: Lab, mutants: Mutants, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "CACHE_LIMIT", 16)
    check(wrong, lab, [mutants(number) for number in range(FEW + MANY, FEW + 2 * MANY)])
