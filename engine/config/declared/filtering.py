"""Conditions on messages, what is remembered of them, and the control ids of what is sent."""

from __future__ import annotations

from dataclasses import dataclass

from yaml.nodes import Node, ScalarNode

from engine.config.declared.words import FIELD_PATH
from engine.config.filtering import Written
from engine.config.kinds import BAD, DURATION, ID, Bad, Choice, Kind, ListOf, Schema, Text, Whole
from engine.config.nodes import Findings
from engine.config.tables import Field, MapOf, Table


@dataclass(frozen=True, slots=True)
class Placed:
    """A text that is read on later, with the place where it begins."""

    kind: Kind

    def read(self, node: Node, findings: Findings) -> Written | Bad:
        text = self.kind.read(node, findings)
        if not isinstance(text, str) or not isinstance(node, ScalarNode):
            return BAD
        mark = node.start_mark
        quoted = node.style in ("'", '"')
        return Written(text, mark.name, mark.line + 1, mark.column + 1 + quoted)

    def schema(self) -> Schema:
        return self.kind.schema()


CONDITION = Placed(Text("a condition such as PID-8 = 'F'"))
PATH = Placed(FIELD_PATH)

FILTER = ListOf(
    Table(
        "a filter",
        {
            "drop": Field(CONDITION, "messages that fit this are held back"),
            "keep": Field(CONDITION, "messages that do not fit this are held back"),
            "reason": Field(Text(written=True), "why, as it is shown wherever they are counted", required=True),
        },
        one_of=("drop", "keep"),
    )
)

REMEMBER = ListOf(
    Table(
        "remember",
        {
            "as": Field(ID, "the name that mappings look it up by: lookup: with in:", required=True),
            "key": Field(PATH, "the field that a later message has as well, such as ORC-2", required=True),
            "values": Field(MapOf(PATH), "names, and the fields that are kept under them", required=True),
            "keep": Field(DURATION, "how long it is kept", required=True),
            "when": Field(CONDITION, "only of messages, or of the key's segments, that fit this"),
        },
    )
)

EMIT = Table(
    "emit",
    {
        "control_id": Field(
            Choice(("keep", "ours")),
            "keep: MSH-10 as it came, where no two messages of one would have the same; ours: each has one of ours",
            default="keep",
        ),
        "prefix": Field(
            Text("at most 4 letters and digits", r"[A-Za-z0-9]{0,4}", written=True), "how ours begin", default=""
        ),
        "length": Field(Whole(16, 199, "a number of characters"), "of ours", default=20),
    },
)
