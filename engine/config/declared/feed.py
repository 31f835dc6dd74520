"""A feed file: one socket, and which channels its messages go to."""

from __future__ import annotations

from engine.config.declared.answers import ACK
from engine.config.declared.channel import PROFILE_NAMES
from engine.config.declared.edge import CONNECT, LISTEN
from engine.config.declared.words import FIELD_PATH, REFERENCE
from engine.config.kinds import ID, ListOf, OneOrMore, Text
from engine.config.tables import Field, MapOf, Table

CHANNELS = OneOrMore(ID)
ROUTED_TYPE = Text(
    "a message type and its trigger event such as ORU^R01, or MSH-9.1 for all of a type",
    r"[A-Z][A-Z0-9]{2}\^[A-Z][A-Z0-9]{2}",
)
WILD = "*?"
VALUE = Text("a value as a whole: there are no wildcards", f"[^{WILD}]*", written=True)

ROUTE = Table(
    "a route",
    {
        "when": Field(
            MapOf(OneOrMore(VALUE), key=FIELD_PATH),
            "fields, and the value or values that each of them must have",
            required=True,
        ),
        "to": Field(CHANNELS, "the channel, or the channels that get a copy each", required=True),
    },
)

TABLE = Table(
    "table",
    {
        "by": Field(FIELD_PATH, "the field whose value is looked up", required=True),
        "of": Field(MapOf(CHANNELS), "the channel or channels of each value"),
        "file": Field(
            Text("a CSV file with the columns value and channel"),
            "CSV with the columns value and channel, relative to the folder of the feeds",
        ),
    },
    one_of=("of", "file"),
)

FEED = Table(
    "a feed",
    {
        "id": Field(ID, "its name, which its channels give as feed:", required=True),
        "profile": PROFILE_NAMES,
        "listen": Field(LISTEN, "the port that the peer sends to"),
        "connect": Field(CONNECT, "a peer that we connect to, and that sends on this connection"),
        "ack": Field(ACK, "whose answer the sender gets, and in which form"),
        "legacy": Field(
            Table(
                "legacy",
                {"mllp": Field(REFERENCE, "the old engine: the name of an endpoint, or host:port", required=True)},
            ),
            "the feed's own connection to the old engine, for all its channels",
        ),
        "routes": Field(ListOf(ROUTE), "which messages go where: the first that fits", default=()),
        "table": Field(TABLE, "where the rest goes, by the value of a field"),
        "default": Field(ID, "the channel of what nothing else fits", required=True),
    },
    one_of=("listen", "connect"),
)
