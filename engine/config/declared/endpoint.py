"""One entry of endpoints.yaml. What else it may have depends on how it is reached."""

from __future__ import annotations

from typing import get_args

from engine.config.declared.channel import PROFILE_NAMES
from engine.config.declared.edge import (
    CLIENT_TLS,
    CONNECT_TIMEOUT,
    FRAMING,
    IDLE,
    KEEPALIVE,
    SERVER_TLS,
    SOCKET,
    SOURCE_ADDRESS,
)
from engine.config.declared.words import CODE, DURING, FILE, HOST, RATE
from engine.config.edge import AnswerMode
from engine.config.kinds import ADDRESS, DURATION, ID, PORT, ZONE, Choice, Flag, ListOf, OrWord, Text, Whole
from engine.config.tables import Either, Field, Table

DELIVER = Table(
    "deliver",
    {
        "during": Field(DURING, "days and hours; an end that is not after the start is the next day's", required=True),
        "timezone": Field(ZONE, "their zone, such as America/Chicago", required=True),
    },
)

ANSWERS_ON = Table(
    "answers_on",
    {
        "port": Field(PORT, "the port that the peer's answers come to", required=True),
        "host": Field(HOST, "the address to bind", default="0.0.0.0"),
        "allow": SOCKET["allow"],
        "tls": SERVER_TLS,
    },
)

EVERY = {
    "on_unknown": Field(
        Choice(("resend", "park")), "what becomes of a message that may have been taken: resend it, or ask a person"
    ),
    "probe": Field(
        Choice(("none", "window", "always")), "when it may be connected to without a message", default="window"
    ),
    "sink": Field(Flag(), "nothing real happens there: both sides may send to it", default=False),
    "rate": Field(RATE, "how many messages it is sent at most, such as 10/s; left out: as fast as it answers"),
    "deliver": Field(DELIVER, "when it is sent to; left out: at any time"),
    "profile": PROFILE_NAMES,
}

ACKNOWLEDGING = {
    "ack_timeout": Field(DURATION, "how long to wait for an answer", default=30.0),
    "accept": Field(ListOf(CODE), "answers that mean: taken", default=("AA", "CA")),
    "reject": Field(ListOf(CODE), "answers that mean: never to be sent again as it is", default=("AR", "CR")),
    "check_control_id": Field(Flag(), "MSA-2 of an answer must be the MSH-10 that was sent", default=True),
    "answers": Field(Flag(), "the peer answers at all", default=True),
    "ack_mode": Field(
        Choice(get_args(AnswerMode)),
        "original: it answers each message; enhanced: only as MSH-15 and MSH-16 ask, and else is not waited for. Left "
        "out: original, and for the old engine as the channel's ack.mode says",
    ),
}

MLLP = Table(
    "an endpoint",
    {
        "mllp": Field(ADDRESS, "host:port", required=True),
        "connections": Field(Whole(1, 64, "a number of connections"), "connections at the same time", default=1),
        "persistent": Field(Flag(), "a connection serves more than one message", default=True),
        "idle": IDLE,
        "keepalive": KEEPALIVE,
        "framing": FRAMING,
        "source_address": SOURCE_ADDRESS,
        "connect_timeout": CONNECT_TIMEOUT,
        **ACKNOWLEDGING,
        "answers": Field(
            OrWord(Flag(), "bare", "true, false or bare"),
            "the peer answers at all; bare: by a byte outside of any block, 0x06 for yes, 0x15 for a no that may pass",
            default=True,
        ),
        "answers_on": Field(
            Either(PORT, ANSWERS_ON), "the port that the peer's answers come to; left out: our connection"
        ),
        "tls": CLIENT_TLS,
        **EVERY,
    },
)

VIA = Table(
    "an endpoint with via:",
    {
        "via": Field(ID, "the channel on whose sender's own connection messages go back to it", required=True),
        **ACKNOWLEDGING,
        **EVERY,
    },
)


FILE_NAME = Text(
    "the name of a file with {sequence} in it, and perhaps {channel} and {control_id}",
    r"(?!\.)(?=.*\{sequence\})([^/\\{}\s]|\{(channel|sequence|control_id)\}){1,200}",
)

WRITTEN = {
    "directory": Field(FILE, "the folder that files are written to", required=True),
    "name": Field(
        FILE_NAME,
        "how files are called: {channel}, {sequence} and {control_id} are filled in",
        default="{channel}-{sequence}.hl7",
    ),
    **EVERY,
    "rate": Field(
        RATE, "no rate", refused="it at an endpoint with mllp: or via:, since files are written without a limit"
    ),
}

DIRECTORY = Table("an endpoint with directory:", WRITTEN)

SFTP = Table(
    "an endpoint with sftp:",
    {
        "sftp": Field(ADDRESS, "host:port of the server", required=True),
        "user": Field(Text(written=True), "who we are there", required=True),
        "key": Field(FILE, "file of our private key"),
        "password": Field(Text(written=True), "our password; write ${NAME}, not the secret"),
        "known_hosts": Field(
            FILE,
            "file with the server's public key, as ssh-keyscan prints it: no other server is talked to",
            required=True,
        ),
        "connect_timeout": CONNECT_TIMEOUT,
        "timeout": Field(DURATION, "how long the server may take for one request", default=60.0),
        **WRITTEN,
        "directory": Field(FILE, "the folder, as the server names it; left out: the user's own", default="."),
    },
    one_of=("key", "password"),
)

ENDPOINTS = {"mllp": MLLP, "sftp": SFTP, "directory": DIRECTORY, "via": VIA}
"""Table by the key that chooses it; `directory` only where there is no `sftp`, which may have one as well."""
