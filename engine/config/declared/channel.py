"""A channel file."""

from __future__ import annotations

from typing import get_args

from engine.config.declared.answers import ACK
from engine.config.declared.edge import CONNECT, FILES, LISTEN, READ_AS
from engine.config.declared.filtering import REMEMBER
from engine.config.declared.legacy import LEGACY
from engine.config.declared.moves import COMPARE, GATE, PLACE, RETENTION, ROLLBACK, WINDOW
from engine.config.declared.target import TARGET
from engine.config.declared.words import DURING
from engine.config.kinds import DURATION, DURATION_OR_ZERO, ID, WORD, ZONE, Choice, ListOf, OneOrMore, Text
from engine.config.model import Direction
from engine.config.tables import Either, Field, MapOf, Table

SYSTEM = Text("a URI, such as https://acme.example/mrn or urn:oid:1.2.3", r"[a-z][a-z0-9+.-]*:\S+")
IDENTITIES = ("patient", "visit", "placer", "filler", "practitioner", "organization")  # what the shipped mappings read

SOURCES = ("listen", "connect", "feed", "files")

PROFILE_NAMES = Field(OneOrMore(ID), "profiles that lie beneath: the last of them wins")

OF_THE_FEED = "it in the feed's file: its channels share one socket"

FROM_FEED = Table(
    "feed",
    {
        "name": Field(ID, "the feed", required=True),
        **READ_AS,
        "max_bytes": Field(WORD, "max_bytes", refused=OF_THE_FEED),
        "batch": Field(WORD, "batch", refused=OF_THE_FEED),
    },
)

SILENCE = Table(
    "silence_alert",
    {
        "after": Field(DURATION, "how long without a message", required=True),
        "during": Field(DURING, "when; left out: always"),
    },
)

DUPLICATES = Table(
    "duplicates",
    {
        "window": Field(DURATION_OR_ZERO, "how long after a message a repeat of it is one; 0s: never", default=600.0),
        "ignore": Field(
            ListOf(PLACE), "fields that differ from one sending to the next, or segments", default=("MSH-7",)
        ),
    },
)

CHANNEL = Table(
    "a channel",
    {
        "id": Field(ID, "its name, for ever: the ledger knows the channel by it", required=True),
        "connection": Field(ID, "the trading partner's link that this channel belongs to", required=True),
        "title": Field(WORD, "its name for people"),
        "direction": Field(Choice(get_args(Direction)), "what flows", required=True),
        "labels": Field(MapOf(Text(written=True)), "words to select channels by", default={}),
        "owner": Field(WORD, "who to ask", default=""),
        "timezone": Field(ZONE, "the zone of timestamps that have none, such as America/Chicago", required=True),
        "profile": PROFILE_NAMES,
        "phase": Field(
            Choice(
                ("outside", "legacy", "parallel", "live"),
                {"retired": "a channel is retired from live, never begun so"},
            ),
            "the phase of the first epoch; afterwards the ledger rules",
        ),
        "listen": Field(LISTEN, "the port that the vendor sends to"),
        "connect": Field(CONNECT, "a peer that we connect to, and that sends on this connection"),
        "feed": Field(Either(ID, FROM_FEED), "the feed whose socket the messages come on"),
        "files": Field(FILES, "a folder that messages are read from"),
        "ack": Field(ACK, "whose answer the sender gets, and in which form"),
        "identity": Field(
            MapOf(SYSTEM, IDENTITIES), "the systems of identifiers that come without an authority", default={}
        ),
        "legacy": Field(LEGACY, "the way to the old engine"),
        "target": Field(TARGET, "the new way"),
        "remember": Field(REMEMBER, "what later messages' mappings may look up", default=()),
        "rollback": Field(ROLLBACK, "how to go back"),
        "silence_alert": Field(
            SILENCE, "when silence is an alarm", noted="silence_alert is checked; this version does not raise it yet"
        ),
        "compare": Field(COMPARE, "how the old engine's outputs are compared with ours"),
        "gate": Field(GATE, "what must hold before a cutover"),
        "retention": Field(RETENTION, "how long what is settled is kept"),
        "window": Field(WINDOW, "when a cutover may happen; left out: at any time"),
        "duplicates": Field(DUPLICATES, "when a message is taken for a repeat of one whose answer was not heard"),
        "emit": Field(WORD, "emit", refused="it at a destination with mllp: or file:"),
    },
    one_of=SOURCES,
)
