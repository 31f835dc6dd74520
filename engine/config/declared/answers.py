"""The answer that a sender gets."""

from __future__ import annotations

from typing import get_args

from engine.config.declared.edge import SERVER_TLS, SOCKET
from engine.config.declared.words import CODE, CODES, HOST, REFERENCE
from engine.config.edge import AckError, AckMode, AckType, RelayTimeout
from engine.config.kinds import ID, PORT, Choice, Flag
from engine.config.tables import Either, Field, Table

ACK_LISTEN = Table(
    "ack.listen",
    {
        "port": Field(PORT, "the port at which the sender hears our answers", required=True),
        "host": Field(HOST, "the address to bind; left out: the one of listen"),
        "allow": SOCKET["allow"],
        "tls": SERVER_TLS,
    },
)

ACK = Table(
    "ack",
    {
        "from": Field(
            ID,
            "authoritative: the sender gets the answer of whoever is responsible; stored: ours, once it is durable;"
            " the name of a destination: that destination's",
        ),
        "on_relay_timeout": Field(
            Choice(get_args(RelayTimeout)), "what the sender gets when that answer is late", default="silent"
        ),
        "mode": Field(
            Choice(get_args(AckMode)), "original or enhanced; auto: MSH-15 and MSH-16 decide", default="auto"
        ),
        "codes": Field(
            Table("codes", {code: Field(CODE, f"the code of our answers instead of {code}") for code in CODES}),
            "what stands for which code in our answers",
        ),
        "type": Field(
            Choice(get_args(AckType)), "MSH-9 of our answers; auto: by the message's version", default="auto"
        ),
        "err": Field(
            Choice(get_args(AckError), written=True),
            "the form of ERR in our answers; auto: by the message's version; none: no ERR",
            default="auto",
        ),
        "bare": Field(
            Flag(),
            "our answers are a byte outside of any block: 0x06 for yes, 0x15 for no; one a message",
            default=False,
        ),
        "text": Field(Flag(), "our answers say in words what is wrong", default=True),
        "to": Field(
            REFERENCE,
            "the name of an endpoint, or host:port, that answers are sent to; left out: the sender's own connection",
        ),
        "listen": Field(
            Either(PORT, ACK_LISTEN), "our port at which the sender hears answers, on a connection that it makes"
        ),
    },
)
