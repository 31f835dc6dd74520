"""What a channel says about its move from the old engine: comparison, gate, window, rollback."""

from __future__ import annotations

from typing import get_args

from engine.config.declared.words import FIELD_PATH, WEEKDAYS
from engine.config.kinds import DURATION, TIME_OF_DAY, Choice, Flag, Fraction, ListOf, Text, Whole
from engine.config.model import DAY, Replay, Tolerance
from engine.config.tables import Field, Table

PLACE = Text(
    "a field such as MSH-7 or OBX-5.2, or a segment such as ZDS",
    r"[A-Z][A-Z0-9]{2}(-[0-9]{1,3}(\.[0-9]{1,2}){0,2})?",
)
REASON = Text("a reason in words", r".*\w.*")

ROLLBACK = Table(
    "rollback",
    {
        "replay": Field(Choice(get_args(Replay)), "what a rollback sends to the old engine again", required=True),
        "until": Field(DURATION, "how long after a cutover a rollback needs no override", default=72 * 3600.0),
    },
)

IGNORED = Table(
    "a rule that ignores a difference",
    {
        "path": Field(PLACE, "the field, component or segment", required=True),
        "reason": Field(REASON, "why the difference does not matter", required=True),
    },
)

TOLERATED = Table(
    "a rule that tolerates a difference",
    {
        "how": Field(
            Choice(get_args(Tolerance)),
            "what may differ: padding: blanks and leading zeros; precision: 7.1 and 7.10; order: of segments and"
            " repetitions; case: of letters; escapes: how a character is written; time_precision: seconds that one"
            ' side leaves out; time_zone: a zone that one side leaves out; null: "" and nothing',
            required=True,
        ),
        "reason": Field(REASON, "why the difference does not matter", required=True),
        "path": Field(PLACE, "only in this field, component or segment; left out: anywhere"),
    },
)

COMPARE = Table(
    "compare",
    {
        "key": Field(
            ListOf(FIELD_PATH), "the fields that pair an output with its input; left out: by direction", default=()
        ),
        "nth": Field(Flag(), "pair the n-th output of a key with its n-th input", default=True),
        "within": Field(DURATION, "how long after an input its output may come", default=600.0),
        "ignore": Field(ListOf(IGNORED), "places whose differences do not matter", default=()),
        "tolerate": Field(ListOf(TOLERATED), "ways of writing the same thing that do not matter", default=()),
    },
)

GATE = Table(
    "gate",
    {
        "min_match": Field(Fraction(), "the share of compared messages that must match", default=0.999),
        "min_messages": Field(
            Whole(1, 1_000_000, "a number of messages"), "how many must have been compared", default=100
        ),
    },
)

RETENTION = Table(
    "retention",
    {
        "raw": Field(DURATION, "the bytes of messages, and of what came of them at taps", default=90 * DAY),
        "captured": Field(DURATION, "outputs that were made and not sent", default=30 * DAY),
        "receipts": Field(DURATION, "the head of a message, what became of it and the answer given", default=730 * DAY),
        "events": Field(DURATION, "input that became no message: noise, refused frames", default=90 * DAY),
    },
)

WINDOW = Table(
    "window",
    {
        "days": Field(ListOf(Choice(WEEKDAYS)), "days on which it opens; left out: every day", default=()),
        "from": Field(TIME_OF_DAY, "when it opens, in the channel's time zone", required=True),
        "to": Field(
            Text("a time of day such as 05:00, or 24:00", r"([01]?[0-9]|2[0-3]):[0-5][0-9]|24:00", written=True),
            "when it closes; before from: on the next day",
            required=True,
        ),
    },
)
