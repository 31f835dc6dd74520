"""Every key that a configuration file may have, declared once: parsing, checks, JSON Schema and help follow from it.

What the design knows and this version does not do yet is `refused` where leaving it undone would change what
happens to messages, and `noted` where it is only checked so far.
"""

from __future__ import annotations

from typing import get_args

from engine.config.kinds import (
    ADDRESS,
    CODEC,
    DURATION,
    ID,
    NETWORK,
    PORT,
    SIZE,
    TIME_OF_DAY,
    WORD,
    ZONE,
    Choice,
    Either,
    Field,
    Flag,
    Fraction,
    ListOf,
    MapOf,
    Parsed,
    Schema,
    Table,
    Text,
    Whole,
)
from engine.config.model import Tolerance, Weekday

REFERENCE = Text("the name of an endpoint in endpoints.yaml, or host:port", r"[A-Za-z0-9_.:\[\]-]{1,255}")
MESSAGE_TYPE = Text("a message type such as ORU^R01", r"[A-Z][A-Z0-9]{2}\^[A-Z][A-Z0-9]{2}(\^[A-Z0-9_]{3,7})?")
SYSTEM = Text("a URI, such as https://acme.example/mrn or urn:oid:1.2.3", r"[a-z][a-z0-9+.-]*:\S+")
IDENTITIES = ("patient", "visit", "placer", "filler", "practitioner", "organization")  # what the shipped mappings read
FIELD_PATH = Text("a field such as OBR-3.1", r"[A-Z][A-Z0-9]{2}-[0-9]{1,3}(\.[0-9]{1,2}){0,2}")
PLACE = Text(
    "a field such as MSH-7 or OBX-5.2, or a segment such as ZDS",
    r"[A-Z][A-Z0-9]{2}(-[0-9]{1,3}(\.[0-9]{1,2}){0,2})?",
)
REASON = Text("a reason in words", r".*\w.*")
WEEKDAY = Choice(get_args(Weekday))
HOST = Text("an IP address or host name", r"[A-Za-z0-9_.:-]+")
ORDER_BY = Choice(("channel", "patient"))

LISTEN = Table(
    "listen",
    {
        "port": Field(PORT, "the port that the vendor sends to", required=True),
        "host": Field(HOST, "the address to bind", default="0.0.0.0"),
        "allow": Field(ListOf(NETWORK), "networks that may connect; left out: everybody", default=()),
        "accepts": Field(ListOf(MESSAGE_TYPE), "message types; left out: what the mapping knows", default=()),
        "encoding": Field(CODEC, "auto (MSH-18 decides) or a character set", default="auto"),
        "max_bytes": Field(SIZE, "the largest message", default=32 * 1024 * 1024),
        "frame_timeout": Field(DURATION, "how long a begun frame may take to end", default=60.0),
        "tls": Field(WORD, "TLS", refused="no tls: this version listens without TLS only"),
    },
)

ACK = Table(
    "ack",
    {
        "from": Field(
            Choice(("authoritative", "stored")),
            "authoritative: the sender gets the answer of whoever is responsible; stored: ours, once it is durable",
        ),
        "on_relay_timeout": Field(
            Choice(("silent", "close", "ae")), "what the sender gets when that answer is late", default="silent"
        ),
    },
)

TAP_LISTEN = Table(
    "a tap's listen",
    {
        "port": Field(PORT, "the port that the old engine sends its output to", required=True),
        "host": Field(HOST, "the address to bind; left out: the one of the channel's listen"),
        "allow": Field(ListOf(NETWORK), "networks that may connect; left out: everybody", default=()),
        "tls": Field(WORD, "TLS", refused="no tls: this version listens without TLS only"),
    },
)

TAP = Table(
    "a tap",
    {
        "listen": Field(Either(PORT, TAP_LISTEN), "the port that the old engine sends its output to", required=True),
        "forward": Field(REFERENCE, "where that output belongs: the name of an endpoint, or host:port", required=True),
        "settle": Field(
            DURATION,
            "quiet after which nothing of the old engine is on its way here; left out: three times its measured lag",
        ),
    },
)

LEGACY = Table(
    "legacy",
    {
        "mllp": Field(REFERENCE, "the old engine: the name of an endpoint, or host:port", required=True),
        "settle": Field(
            DURATION, "without taps: quiet after which nothing of the old engine is on its way", default=600.0
        ),
        "taps": Field(
            ListOf(TAP),
            "ports where the old engine's output arrives, is compared, and goes on to its endpoint while the old"
            " engine is the one to send",
            default=(),
        ),
    },
)

MAPPING_NAME = Text("the name of a mapping", r"[A-Za-z0-9_-]{1,64}")

MAPPING = Table(
    "mapping",
    {
        "use": Field(MAPPING_NAME, "the name of a mapping", required=True),
        "override": Field(WORD, "overrides", refused="no override: this version uses mappings as they are"),
    },
)

MEDPLUM_DESTINATION = Table(
    "a medplum destination",
    {
        "name": Field(ID, "the destination's name in this channel", default="medplum"),
        "strategy": Field(Choice(("anchored",)), "how a message becomes requests", default="anchored"),
        "order_by": Field(ORDER_BY, "what stays in order", default="patient"),
        "project": Field(WORD, "project", refused="no project: this version uses the project of medplum.client_id"),
    },
)

DESTINATION = Table(
    "a destination",
    {
        "medplum": Field(MEDPLUM_DESTINATION, "FHIR, to the Medplum server of the settings"),
        "mllp": Field(REFERENCE, "HL7 v2: the name of an endpoint, or host:port"),
        "name": Field(ID, "the destination's name in this channel; left out: the endpoint's"),
        "order_by": Field(ORDER_BY, "what stays in order", default="channel"),
        "mapping": Field(WORD, "mapping", refused="no mapping: this version sends MLLP messages as they came"),
        "file": Field(WORD, "file", refused="medplum or mllp: this version does not write files yet"),
    },
)

TARGET = Table(
    "target",
    {
        "mapping": Field(Either(MAPPING_NAME, MAPPING), "the mapping; left out: chosen by MSH-9"),
        "destinations": Field(ListOf(DESTINATION), "where messages go", required=True),
    },
)

ROLLBACK = Table(
    "rollback",
    {
        "replay": Field(
            Choice(("guarded", "undelivered", "all", "none")),
            "what a rollback sends to the old engine again",
            required=True,
        ),
        "until": Field(DURATION, "how long after a cutover a rollback needs no override", default=72 * 3600.0),
    },
)

SILENCE = Table(
    "silence_alert",
    {
        "after": Field(DURATION, "how long without a message", required=True),
        "during": Field(
            Text("days and hours such as 'mon-fri 07:00-19:00'", r"[a-z]{3}(-[a-z]{3})?( \d\d:\d\d-\d\d:\d\d)?"), "when"
        ),
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

WINDOW = Table(
    "window",
    {
        "days": Field(ListOf(WEEKDAY), "days on which it opens; left out: every day", default=()),
        "from": Field(TIME_OF_DAY, "when it opens, in the channel's time zone", required=True),
        "to": Field(
            Text("a time of day such as 05:00, or 24:00", r"([01]?[0-9]|2[0-3]):[0-5][0-9]|24:00", written=True),
            "when it closes; before from: on the next day",
            required=True,
        ),
    },
)

CHANNEL = Table(
    "a channel",
    {
        "id": Field(ID, "its name, for ever: the ledger knows the channel by it", required=True),
        "connection": Field(ID, "the trading partner's link that this channel belongs to", required=True),
        "title": Field(WORD, "its name for people"),
        "direction": Field(Choice(("orders", "results", "adt", "query")), "what flows", required=True),
        "labels": Field(MapOf(Text(written=True)), "words to select channels by", default={}),
        "owner": Field(WORD, "who to ask", default=""),
        "timezone": Field(ZONE, "the zone of timestamps that have none, such as America/Chicago", required=True),
        "phase": Field(
            Choice(
                ("outside", "legacy", "parallel", "live"),
                {"retired": "a channel is retired from live, never begun so"},
            ),
            "the phase of the first epoch; afterwards the ledger rules",
        ),
        "listen": Field(LISTEN, "the port that the vendor sends to", required=True),
        "feed": Field(WORD, "feed", refused="listen: this version has no feeds yet"),
        "ack": Field(ACK, "whose answer the sender gets"),
        "identity": Field(
            MapOf(SYSTEM, IDENTITIES), "the systems of identifiers that come without an authority", default={}
        ),
        "legacy": Field(LEGACY, "the way to the old engine"),
        "target": Field(TARGET, "the new way"),
        "rollback": Field(ROLLBACK, "how to go back"),
        "silence_alert": Field(
            SILENCE, "when silence is an alarm", noted="silence_alert is checked; this version does not raise it yet"
        ),
        "compare": Field(COMPARE, "how the old engine's outputs are compared with ours"),
        "gate": Field(GATE, "what must hold before a cutover"),
        "window": Field(WINDOW, "when a cutover may happen; left out: at any time"),
        "duplicates": Field(WORD, "duplicates", refused="no duplicates: this version stores and delivers every repeat"),
        "emit": Field(WORD, "emit", refused="no emit: this version sends MLLP messages as they came"),
    },
)

ENDPOINT = Table(
    "an endpoint",
    {
        "mllp": Field(ADDRESS, "host:port", required=True),
        "connections": Field(Whole(1, 64, "a number of connections"), "connections at the same time", default=1),
        "ack_timeout": Field(DURATION, "how long to wait for an answer", default=30.0),
        "connect_timeout": Field(DURATION, "how long to wait for a connection", default=10.0),
        "on_unknown": Field(
            Choice(("resend", "park")), "what becomes of a message that may have been taken: resend it, or ask a person"
        ),
        "probe": Field(
            Choice(("none", "window", "always")), "when it may be connected to without a message", default="window"
        ),
        "sink": Field(Flag(), "nothing real happens there: both sides may send to it", default=False),
        "source_address": Field(WORD, "source", refused="no source_address: this version lets the system choose"),
        "rate": Field(WORD, "rate", refused="no rate: this version sends as fast as the endpoint answers"),
        "deliver": Field(WORD, "deliver", refused="no deliver: this version sends at all hours"),
        "tls": Field(WORD, "tls", refused="no tls: this version connects without TLS only"),
    },
)

MEDPLUM = Table(
    "medplum",
    {
        "base_url": Field(
            Text("http(s)://host without /fhir/R4", r"https?://[^\s/?#]+(/(?!.*fhir/R4)[^\s?#]*)?"),
            "the server's address, without /fhir/R4",
            required=True,
        ),
        "client_id": Field(Text(written=True), "of the ClientApplication", required=True),
        "client_secret": Field(
            Text(written=True), "of the ClientApplication; write ${NAME}, not the secret", required=True
        ),
        "time_limit": Field(
            DURATION,
            "the longest that the server works on a request whose client is gone; a write without an answer is looked"
            " for, and only then repeated, after this time",
            default=60.0,
        ),
    },
)


def _ledger(text: str) -> str | None:
    return text if text.startswith("sqlite:///") and len(text) > len("sqlite:///") else None


def _ledger_guess(text: str) -> str | None:
    if text.startswith(("postgresql:", "postgres:")):
        return "sqlite:///var/interlock.db: this version keeps its ledger in SQLite, PostgreSQL comes later"
    return None


SETTINGS = Table(
    "the settings",
    {
        "channels": Field(WORD, "the folder of the channel files", default="./channels"),
        "mappings": Field(WORD, "a folder that adds to the shipped mappings and wins by name"),
        "ledger": Field(
            Parsed(_ledger, "sqlite:///FILE, such as sqlite:///var/interlock.db", "^sqlite:///.", _ledger_guess),
            "the ledger's file: three slashes = beside this file, four = from the root",
            default="sqlite:///var/interlock.db",
        ),
        "http": Field(ADDRESS, "where the API, /metrics and the health checks listen", default="127.0.0.1:8600"),
        "workers": Field(
            Whole(0, 0, "0: this version delivers in the process that receives"),
            "worker processes; 0 = in the same process",
            default=0,
        ),
        "medplum": Field(MEDPLUM, "the Medplum server"),
    },
)


def json_schema() -> Schema:
    """JSON Schemas of a channel, of endpoints.yaml and of the settings, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {
            "channel": CHANNEL.schema(),
            "endpoints": {"type": "object", "additionalProperties": ENDPOINT.schema()},
            "settings": SETTINGS.schema(),
        },
    }
