"""The effective mapping of a destination: all that its outputs are made by, under one version.

Its version is the hash of all that it says: mappings with what they use, tables with their content, filter, emit, and
how the channel has messages read. Two with the same version make the same outputs of the same message. Of the
channel's files nothing else matters, and of the mappings' files nothing but their meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final

import orjson

from engine.config.changes import UNCHANGED, Changes
from engine.config.filtering import AS_IT_CAME, Emit, Rule, Written
from engine.config.model import Channel, Destination
from engine.fhir.output import Output
from engine.hl7.batch import read_batch
from engine.hl7.peek import Peek, peek
from engine.mapping.library import Context, Library, Unmappable
from engine.mapping.library import Mapping as FhirMapping
from engine.mapping.problems import Problems
from engine.mapping.v2.emission import emitted
from engine.mapping.v2.filters import Filter, Filtered
from engine.mapping.v2.library import V2Library, V2Mapping, messages_of

LENGTH: Final = 16  # of a version, in hexadecimal digits
Recall = Callable[[str, str, bool], Mapping[str, Any] | None]
"""(store, key, later) → what the newest of the earlier messages brought; or the first of the later ones."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a channel has its messages read: what a mapping has to know besides the message, and the message does not
    say."""

    connection: str
    identity: Mapping[str, str]
    timezone: str
    encoding: str
    undeclared: str | None

    @staticmethod
    def of(channel: Channel) -> Reading:
        takes = channel.takes
        return Reading(channel.connection, channel.identity, channel.timezone, takes.encoding, takes.undeclared)


@dataclass(frozen=True, slots=True)
class ToFhir:
    """The way to FHIR. mapping: the name of the one for all messages, None: each by its type. accepts: the types.
    changes: what the channel has otherwise; the library has them already."""

    library: Library
    mapping: str | None
    accepts: frozenset[str]
    changes: Changes = UNCHANGED

    @property
    def versions(self) -> dict[str, str]:
        """Of the mappings that may be used, by name."""
        names = [self.mapping] if self.mapping else self.library.names
        return {(one := self.library.mapping(name)).name: one.version for name in names}

    def prepare(self) -> None:
        """Have all functions ready: to write one when its first message comes would keep the others waiting."""
        found = [self.library.mapping(self.mapping)] if self.mapping else map(self.library.mapping, self.library.names)
        for mapping in found:
            if self.accepts.intersection(mapping.accepts):
                mapping.prepare(self.changes.unmapped != "ignore")

    def run(self, raw: bytes, context: Context) -> list[Output]:
        """The resources of a message, or those of each message of a batch. Raises `Unmappable`."""
        batch = read_batch(raw)
        return [self._one(each, context) for each in (batch.messages if batch else (raw,))]

    def _one(self, raw: bytes, context: Context) -> Output:
        head = peek(raw)
        if f"{head.type}^{head.trigger}" not in self.accepts:
            raise Unmappable("not-accepted", "MSH-9", ", ".join(sorted(self.accepts)))  # `live` would refuse it
        return self._mapping(head).account(raw, context, self.changes.unmapped)

    def _mapping(self, head: Peek) -> FhirMapping:
        if self.mapping:
            return self.library.mapping(self.mapping)
        found = self.library.for_message(head.type, head.trigger) if head.ok else None
        if found is None:
            raise Unmappable("no-mapping", "MSH-9", "a message type that a mapping accepts")
        return found


@dataclass(frozen=True, slots=True)
class Effective:
    """Ready to run, and never changed. version: "" where a message goes as it came."""

    version: str
    reading: Reading
    rules: tuple[Rule, ...]
    filter: Filter
    emit: Emit
    fhir: ToFhir | None = None
    v2: V2Mapping | None = None

    @staticmethod
    def of(channel: Channel, destination: Destination, library: Library, v2: V2Library) -> Effective:
        """As a channel's file and the mappings have it now. Raises `MappingError`."""
        target, fhir = channel.target, None
        if destination.kind == "medplum" and target is not None:
            own = library.changed(target.mapping, target.changes)
            fhir = ToFhir(own, target.mapping, _accepted(channel, target.mapping, own), target.changes)
        other = v2.mapping(destination.mapping) if destination.mapping else None
        return made(Reading.of(channel), destination.filter, destination.emit, fhir, other)

    def prepare(self) -> None:
        """Have what makes FHIR resources ready, before the first message comes."""
        if self.fhir is not None:
            self.fhir.prepare()

    @property
    def recalls(self) -> bool:
        """Whether it looks up what earlier messages brought."""
        return self.v2 is not None and bool(self.v2.recalls)

    def held_back(self, raw: bytes) -> str | None:
        """Why the filter holds a message back; None where it does not. Raises `Unmappable`."""
        return self.filter.verdict(raw, self.reading.encoding, self.reading.undeclared)

    def outputs(
        self, raw: bytes, context: Context, destination: str, delivery: int = 1
    ) -> list[bytes] | Filtered | None:
        """What a message becomes at a destination: a message for each part; None where it goes as it came, or where it
        is made at its delivery, as for FHIR. Raises `Unmappable`, and `Later` where it may be tried again."""
        reason = self.held_back(raw)
        if reason is not None:
            return Filtered(reason)
        if self.fhir is not None or (self.v2 is None and self.emit == AS_IT_CAME):
            return None
        made = self.v2.run(raw, context) if self.v2 is not None else messages_of(raw)
        if isinstance(made, Filtered):
            return made
        return emitted(
            made, self.emit, incarnation=context.incarnation, channel=context.channel, seq=context.seq,
            destination=destination, delivery=delivery,
        )  # fmt: skip

    def context(
        self, channel: str, *, received: int, incarnation: str, seq: int, recall: Recall | None = None
    ) -> Context:
        """Of one message of a channel. received: microseconds since 1970."""
        read = self.reading
        return Context(
            channel=channel, connection=read.connection, identity=read.identity, timezone=read.timezone,
            encoding=read.encoding, received=received, incarnation=incarnation, seq=seq, undeclared=read.undeclared,
            recall=recall,
        )  # fmt: skip


def made(reading: Reading, rules: tuple[Rule, ...], emit: Emit, fhir: ToFhir | None, v2: V2Mapping | None) -> Effective:
    """With its version. Raises `MappingError`."""
    problems = Problems()
    filter = Filter.of(rules, problems)
    problems.check()
    plain = not (rules or fhir or v2) and emit == AS_IT_CAME
    said = orjson.dumps(head(reading, rules, emit, fhir, v2), option=orjson.OPT_SORT_KEYS)
    version = "" if plain else sha256(said).hexdigest()[:LENGTH]
    return Effective(version, reading, rules, filter, emit, fhir, v2)


def head(
    reading: Reading, rules: Iterable[Rule], emit: Emit, fhir: ToFhir | None, v2: V2Mapping | None
) -> dict[str, Any]:
    """All that a version covers, as JSON; mappings by name and version."""
    return {
        "reading": {
            "connection": reading.connection, "identity": dict(reading.identity), "timezone": reading.timezone,
            "encoding": reading.encoding, "undeclared": reading.undeclared,
        },
        "filter": [[rule.when.text, rule.drop, rule.reason] for rule in rules],
        "emit": asdict(emit),
        "fhir": _fhir(fhir) if fhir else None,
        "v2": {"name": v2.name, "version": v2.version} if v2 else None,
    }  # fmt: skip


def _fhir(fhir: ToFhir) -> dict[str, Any]:
    said = {"mapping": fhir.mapping, "accepts": sorted(fhir.accepts), "versions": fhir.versions}
    if fhir.changes == UNCHANGED:
        return said
    changes = fhir.changes
    return said | {"override": changes.override, "options": dict(changes.options), "unmapped": changes.unmapped}


def changes_of(head: Mapping[str, Any]) -> Changes:
    """What a head says of the changes."""
    options = tuple(sorted(head.get("options", {}).items()))
    return Changes(head.get("override", ""), options, head.get("unmapped", "ignore"))


def rules_of(filter: Iterable[tuple[str, bool, str]]) -> tuple[Rule, ...]:
    """The rules of a head."""
    return tuple(Rule(Written(text, "a kept mapping", 1, 1), drop, reason) for text, drop, reason in filter)


def _accepted(channel: Channel, mapping: str | None, library: Library) -> frozenset[str]:
    """The message types that a channel which is mapped takes in `live`."""
    if channel.takes.accepts:
        return frozenset(channel.takes.accepts)
    names = [mapping] if mapping else library.names
    return frozenset(kind for name in names for kind in library.mapping(name).accepts)
