"""The way to the old engine, and the taps where its output arrives."""

from __future__ import annotations

from typing import get_args

from engine.config.declared.edge import TAP_FILES, TAP_LISTEN
from engine.config.declared.words import NAMED, REFERENCE
from engine.config.kinds import DURATION, ID, PORT, Choice, ListOf, Yes
from engine.config.model import Shape
from engine.config.tables import Either, Field, Table

VIA = Table(
    "mllp",
    {"via": Field(ID, "the channel on whose sender's own connection messages go back to it", required=True)},
)

TAP = Table(
    "a tap",
    {
        "listen": Field(Either(PORT, TAP_LISTEN), "the port that the old engine sends its output to"),
        "on_link": Field(Yes(), "the old engine's output comes on our own connection to it"),
        "files": Field(TAP_FILES, "the folder that the old engine writes its output to"),
        "forward": Field(
            Either(REFERENCE, VIA),
            "where that output belongs: the name of an endpoint, or host:port, or {via: CHANNEL}",
            required=True,
        ),
        "settle": Field(
            DURATION,
            "quiet after which nothing of the old engine is on its way here; left out: three times its measured lag",
        ),
        "shape": Field(Choice(get_args(Shape), written=True), "how many outputs an input has", default="1:1"),
    },
    one_of=("listen", "on_link", "files"),
)

LEGACY = Table(
    "legacy",
    {
        "mllp": Field(REFERENCE, "the old engine: the name of an endpoint, or host:port"),
        "observed": Field(Yes(), "the old engine is in front, and only a copy reaches us"),
        "file": Field(NAMED, "the folder that the old engine reads: the name of an endpoint with directory: or sftp:"),
        "settle": Field(
            DURATION, "without taps: quiet after which nothing of the old engine is on its way", default=600.0
        ),
        "taps": Field(
            ListOf(TAP),
            "where the old engine's output arrives, is compared, and goes on to its endpoint while the old engine is"
            " the one to send",
            default=(),
        ),
    },
)
