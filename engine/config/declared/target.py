"""The new way: a mapping, and the destinations."""

from __future__ import annotations

from typing import get_args

from engine.config.changes import Unmapped
from engine.config.declared.filtering import EMIT, FILTER
from engine.config.declared.legacy import VIA
from engine.config.declared.words import NAMED, REFERENCE
from engine.config.endpoint import Dead
from engine.config.kinds import ID, WORD, Choice, ListOf, Text, Verbatim
from engine.config.tables import Either, Field, MapOf, Table

ORDER_BY = Text(
    "channel, patient, or a field such as OBR-2 or PV1-19.1",
    r"channel|patient|[A-Z][A-Z0-9]{2}-[1-9][0-9]?(\.[1-9][0-9]?)?",
)

DEAD = Field(
    Choice(get_args(Dead)),
    "what a message that it will never take keeps back until a person decides: waits: its lane; goes_on: nothing; "
    "stops_channel: its lane, and in live all that the channel sends anywhere",
    default="waits",
)

MAPPING_NAME = Text("the name of a mapping", r"[A-Za-z0-9_-]{1,64}")

MAPPING = Table(
    "mapping",
    {
        "use": Field(MAPPING_NAME, "the name of a mapping; left out: chosen by MSH-9"),
        "override": Field(
            Verbatim("maps, resources, groups, tables, decisions or fields, by name"),
            "where this channel differs from the mapping, by name",
        ),
        "options": Field(MapOf(WORD), "what the mapping leaves to the channel, by name", default={}),
        "unmapped": Field(
            Choice(get_args(Unmapped)),
            "values that no rule takes: ignore: nobody looks; count: by field; keep: counted, and kept in an "
            "extension; refuse: such a message is not mapped",
            default="ignore",
        ),
    },
)

MEDPLUM_DESTINATION = Table(
    "a medplum destination",
    {
        "name": Field(ID, "the destination's name in this channel", default="medplum"),
        "strategy": Field(Choice(("anchored",)), "how a message becomes requests", default="anchored"),
        "order_by": Field(ORDER_BY, "what stays in order", default="patient"),
        "dead": DEAD,
        "project": Field(WORD, "project", refused="no project: this version uses the project of medplum.client_id"),
    },
)

DESTINATION = Table(
    "a destination",
    {
        "medplum": Field(MEDPLUM_DESTINATION, "FHIR, to the Medplum server of the settings"),
        "mllp": Field(
            Either(REFERENCE, VIA),
            "HL7 v2: the name of an endpoint, or host:port, or {via: CHANNEL}: on its sender's own connection",
        ),
        "file": Field(NAMED, "a file a message: the name of an endpoint with directory: or sftp:"),
        "name": Field(ID, "the destination's name in this channel; left out: the endpoint's"),
        "order_by": Field(ORDER_BY, "what stays in order", default="channel"),
        "dead": DEAD,
        "mapping": Field(MAPPING_NAME, "the v2 mapping; left out: the message as it came"),
        "filter": Field(FILTER, "what this destination does not get", default=()),
        "emit": Field(EMIT, "the control ids of what is sent"),
    },
    one_of=("medplum", "mllp", "file"),
)

TARGET = Table(
    "target",
    {
        "mapping": Field(Either(MAPPING_NAME, MAPPING), "the mapping; left out: chosen by MSH-9"),
        "filter": Field(FILTER, "what no destination gets", default=()),
        "destinations": Field(ListOf(DESTINATION), "where messages go", required=True),
    },
)
