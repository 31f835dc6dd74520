"""What a mapping hands to a delivery: FHIR R4 resources with their references still open.

An entry's `reference` is one dict, shared by everything in the output that points at the entry. Making all of those
references concrete is therefore one assignment: `entry.reference["reference"] = "Patient/<id>"`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Resource = dict[str, Any]
Role = Literal["anchor", "fact", "provenance"]
Policy = Literal["create", "fill", "overwrite"]
Pair = tuple[str, str]
Key = tuple[Pair, ...]


@dataclass(slots=True)
class Entry:
    """One resource of an output.

    name: what the mapping calls it ('patient', 'observation').
    resource: FHIR R4 JSON without an id.
    reference: {"reference": "urn:uuid:…"}, the one dict that every reference to this entry uses.
    role: an `anchor` is shared with other messages, a `fact` is this message's own, a `provenance` tells of both.
    key: business identifiers (system, value), best first; the first is the condition. Never without a system.
    policy: what an update of an existing anchor may change: nothing, empty fields only, or all this message knows.
    event: when what it says was so, a FHIR dateTime; "" where the message does not tell.
    clears: elements that the message declares empty (HL7's `""`, 2.5.3), to be removed where the event is not older.
    drops: elements that a rule removes before what the resource says is put in their place (an unlinked `link`).
    apart: an element that tells apart what the sender calls by one number (the services of an order). Where the stored
    resource has another one, and the last of the keys finds one too, it is that.
    becomes: whether the one that has its number becomes this, though it was of something else until now.
    series: an element that says which one it is of several under one key (the times of a test).
    formerly: keys under which a message has stored it that did not know the first yet; of a further one of a series the
    key of the first.
    """

    name: str
    resource: Resource
    reference: dict[str, str]
    role: Role
    key: Key
    policy: Policy
    event: str = ""
    clears: frozenset[str] = frozenset()
    drops: tuple[str, ...] = ()
    apart: str = ""
    becomes: bool = False
    series: str = ""
    formerly: Key = ()

    @property
    def type(self) -> str:
        """The FHIR resource type."""
        kind: str = self.resource["resourceType"]
        return kind


def series_key(key: Pair) -> Pair:
    """The identifier that all have in common which came several times under one key."""
    return f"{key[0]}:series", key[1]


WHOSE = ("subject", "patient", "beneficiary")
"""The elements that say of whom a resource is."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """Something a mapping could not carry over as it stood: ids, codes and paths only, never patient data.

    code: stable and short ('unknown-code'). where: an HL7 path ('OBX[3]-5'). wanted: what would have been right.
    """

    code: str
    where: str
    wanted: str = ""


class UnmappedCode(NamedTuple):
    """A code that a table does not know: it went on as it came. field: where it stood, `OBX-3`."""

    table: str
    field: str
    code: str
    system: str


@dataclass(slots=True)
class Output:
    """The resources of one message, in dependency order as far as the mapping knows one.

    unmapped: each code once. lost: by field (`PID-12`), how many of its values are in no resource, where the channel
    has that counted.
    """

    entries: list[Entry] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    unmapped: tuple[UnmappedCode, ...] = ()
    lost: dict[str, int] = field(default_factory=dict)
