"""What a socket or a folder towards a peer can be set to, wherever in the files one stands."""

from __future__ import annotations

from typing import get_args

from engine.config.declared.words import END, FILE, HOST, IP, MESSAGE_TYPE, NAMED, START
from engine.config.edge import MIB, AfterFile, Batch
from engine.config.kinds import (
    ADDRESS,
    CHARSET,
    CODEC,
    DURATION,
    NETWORK,
    PORT,
    SIZE,
    Choice,
    Flag,
    ListOf,
    OrNone,
    Text,
    Whole,
    lasting,
)
from engine.config.tables import Either, Field, Table

FRAMING = Field(
    Either(
        Text("mllp, or {start: 0x0B, end: 0x1C 0x0D}", "mllp"),
        Table(
            "framing",
            {
                "start": Field(START, "the byte before a message; none: there is none", default=b"\x0b"),
                "end": Field(END, "the one or two bytes after it; a peer may leave out the second", default=b"\x1c\r"),
                "release": Field(
                    Whole(1, 2, "a release of MLLP"),
                    "of MLLP; in 2 each side also says on the transport level whether it has stored what came",
                    default=1,
                ),
            },
        ),
    ),
    "the bytes around a message: mllp, or {start, end, release}",
    default="mllp",
)

SERVER_TLS = Field(
    Table(
        "tls",
        {
            "certificate": Field(FILE, "PEM file of our own certificate, with what leads to its root", required=True),
            "key": Field(FILE, "PEM file of its private key", required=True),
            "ca": Field(FILE, "PEM file of who signs the peers' certificates, which they then must have"),
            "names": Field(
                ListOf(Text(written=True)), "names of the peers that are let in; left out: all that ca: signed"
            ),
        },
    ),
    "TLS; left out: none",
)

CLIENT_TLS = Field(
    Table(
        "tls",
        {
            "ca": Field(FILE, "PEM file of who signs the peer's certificate; left out: the system's authorities"),
            "certificate": Field(FILE, "PEM file of our own certificate, for mutual TLS"),
            "key": Field(FILE, "PEM file of its private key"),
            "server_name": Field(HOST, "the name that the peer's certificate must have; left out: the host"),
        },
    ),
    "TLS; left out: none; {}: with the system's authorities",
)

IDLE = Field(
    OrNone(lasting("a duration such as 10m, or none", "more than 0s; for no limit: none, or idle: left out")),
    "silence after which a connection is closed; none: never",
)
KEEPALIVE = Field(DURATION, "silence after which the kernel asks whether the peer is still there", default=60.0)
FRAME_TIMEOUT = Field(
    DURATION, "how long a begun frame may be silent; in all it may take twenty times that", default=60.0
)
CONNECT_TIMEOUT = Field(DURATION, "how long to wait for a connection", default=10.0)
SOURCE_ADDRESS = Field(IP, "the address of this machine to connect from; left out: the system chooses")

CONNECTIONS = Field(
    Table(
        "connections",
        {
            "max": Field(Whole(1, 10_000, "a number of connections"), "at the same time", default=256),
            "per_address": Field(
                Whole(1, 10_000, "a number of connections"), "of one address; left out: as many as max", default=0
            ),
            "newest_wins": Field(Flag(), "a new connection of an address ends its older ones", default=False),
            "idle": IDLE,
            "keepalive": KEEPALIVE,
            "one_message": Field(Flag(), "a connection is closed once its message has its answers", default=False),
        },
    ),
    "how connections are kept",
)

SOCKET = {
    "allow": Field(ListOf(NETWORK), "networks that may connect; left out: everybody", default=()),
    "probes": Field(
        ListOf(NETWORK), "networks of load balancers that only look whether the port is open: no peers", default=()
    ),
    "frame_timeout": FRAME_TIMEOUT,
    "framing": FRAMING,
    "connections": CONNECTIONS,
    "tls": SERVER_TLS,
}

READ_AS = {
    "accepts": Field(ListOf(MESSAGE_TYPE), "message types; left out: what the mapping knows", default=()),
    "encoding": Field(CODEC, "auto (MSH-18 decides) or a character set", default="auto"),
    "undeclared": Field(CHARSET, "the character set of messages that name none; left out: ASCII or UTF-8 only"),
}

TAKES = READ_AS | {
    "max_bytes": Field(SIZE, "the largest message", default=32 * MIB),
    "batch": Field(
        Choice(get_args(Batch)),
        "FHS/BHS envelopes: refuse them, or acknowledge with one for all, each in a batch, errors only, or none",
        default="one",
    ),
}

LISTEN = Table(
    "listen",
    {
        "port": Field(PORT, "the port that the vendor sends to", required=True),
        "host": Field(HOST, "the address to bind", default="0.0.0.0"),
        **SOCKET,
        **TAKES,
    },
)

TAP_LISTEN = Table(
    "a tap's listen",
    {
        "port": Field(PORT, "the port that the old engine sends its output to", required=True),
        "host": Field(HOST, "the address to bind; left out: the one of the channel's listen"),
        **SOCKET,
    },
)

CONNECT = Table(
    "connect",
    {
        "to": Field(ADDRESS, "host:port of the peer, which sends on the connection that we make", required=True),
        "reconnect": Field(DURATION, "how long to wait before the next attempt", default=5.0),
        "connect_timeout": CONNECT_TIMEOUT,
        "source_address": SOURCE_ADDRESS,
        "frame_timeout": FRAME_TIMEOUT,
        "framing": FRAMING,
        "idle": IDLE,
        "keepalive": KEEPALIVE,
        "tls": CLIENT_TLS,
        **TAKES,
    },
)

FOLDER = Text("the name of a folder beneath the place", r"[^./\\\s][^/\\]{0,63}")

FOLDER_KEYS = {
    "directory": Field(FILE, "the folder; at an SFTP server as it names it, left out: its endpoint's"),
    "sftp": Field(NAMED, "the SFTP server: the name of an endpoint with sftp:"),
    "pattern": Field(Text("a pattern of file names such as *.hl7", r"[^/\\]{1,255}"), "the files", default="*.hl7"),
    "poll": Field(DURATION, "how long between looks", default=5.0),
    "stable": Field(DURATION, "how long a file must not have changed before it is read", default=2.0),
    "after": Field(Choice(get_args(AfterFile)), "what becomes of a file that is stored", default="archive"),
    "archive": Field(FOLDER, "the folder for files that are stored", default="archive"),
    "failed": Field(FOLDER, "the folder for files that could not be read", default="failed"),
}

FILES = Table("files", FOLDER_KEYS | TAKES)
TAP_FILES = Table("a tap's files", FOLDER_KEYS)
