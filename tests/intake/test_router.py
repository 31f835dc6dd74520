"""Which channels a frame of a feed belongs to: the first rule that fits, the table, the default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.config.address import Address
from engine.config.edge import Ack, Listen, Takes
from engine.config.endpoint import Endpoint
from engine.config.feed import Feed, Rule, Table
from engine.hl7.peek import peek
from engine.intake.router import Router

FEED = Feed(
    "lis", Listen(1), Takes(), Ack("stored"), Endpoint("old", Address("127.0.0.1", 2)),
    (
        Rule((("MSH-4", ("LAB1", "LAB2")), ("MSH-9", ("ORU^R01",))), ("a",)),
        Rule((("PV1-3.4", ("CLINIC7",)),), ("a", "b")),
        Rule((("OBR[2]-4", ("GLU",)),), ("c",)),
    ),
    Table("MSH-6", {"WEST": ("b",), "BOTH": ("b", "c")}), "rest", ("a", "b", "c", "rest"), "feeds/lis.yaml",
)  # fmt: skip
ROUTER = Router(FEED)


def message(sender: str = "X", to: str = "Y", kind: str = "ORU^R01^ORU_R01", rest: str = "") -> bytes:
    return f"MSH|^~\\&|APP|{sender}|APP|{to}|20260101||{kind}|1|P|2.5\rPID|1||7\r{rest}".encode()


@pytest.mark.parametrize(
    ("frame", "channels"),
    [
        (message("LAB1"), ("a",)),
        (message("LAB2^1.2.3^ISO"), ("a",)),  # a field without a component means its first one
        (message(" LAB1 "), ("a",)),
        (message("LAB1", kind="ORM^O01"), ("rest",)),  # every condition of a rule
        (message(rest="PV1|1|I|A^1^2^CLINIC7\r"), ("a", "b")),
        (message("LAB1", rest="PV1|1|I|A^1^2^CLINIC7\r"), ("a",)),  # the first rule that fits
        (message(rest="OBR|1|||HB\rOBR|2|||GLU\r"), ("c",)),
        (message(rest="OBR|1|||GLU\r"), ("rest",)),  # the first OBR is not the second
        (message(to="WEST"), ("b",)),
        (message(to="BOTH"), ("b", "c")),
        (message(to="west"), ("rest",)),  # as it is written
        (message(to=""), ("rest",)),
        (message("LAB1", rest="PV1|1|I|A^1^2^CLINIC7\r").replace(b"\r", b"\n"), ("a",)),
        (b"MSH|^~\\&|APP|LAB1|APP|Y|20260101||ORU^R01|1|P|2.5", ("a",)),
        (b"not HL7 at all", ("rest",)),
        (b"", ("rest",)),
        (b"MSH", ("rest",)),
    ],
)
def test_a_frame_goes_to(frame: bytes, channels: tuple[str, ...]) -> None:
    assert ROUTER.route(peek(frame), frame) == channels


def test_other_delimiters() -> None:
    frame = b"MSH#*~\\&#APP#LAB1*1.2*ISO#APP#Y#20260101##ORU*R01#1#P#2.5\rPV1#1#I#A*1*2*CLINIC7\r"
    assert ROUTER.route(peek(frame), frame) == ("a",)


# -- the same reading as on a channel of its own

NAMES = Feed(
    "lis", Listen(1), Takes(), Ack("stored"), None,
    (Rule((("MSH-4", ("LAB1", "Zürich")),), ("a",)), Rule((("PID-5.1", ("Müller", "山田")),), ("b",))),
    Table("MSH-6", {"Köln": ("c",)}), "rest", ("a", "b", "c", "rest"), "feeds/lis.yaml",
)  # fmt: skip


def named(sender: str = "X", to: str = "Y", charset: str = "", patient: str = "DOE") -> str:
    header = f"MSH|^~\\&|APP|{sender}|APP|{to}|20260101||ORU^R01|1|P|2.5||||||{charset}"
    return f"{header}\rPID|1||7||{patient}^X\rNTE|1||a note\r"


WRITTEN: dict[str, Callable[[str], bytes]] = {
    "ascii": lambda text: text.encode("ascii"),
    "MSH-18 UTF-8": lambda text: text.replace("||||||\r", "||||||UNICODE UTF-8\r").encode(),
    "MSH-18 Latin-1": lambda text: text.replace("||||||\r", "||||||8859/1\r").encode("latin-1"),
    "UTF-8 unsaid": lambda text: text.encode(),
    "Latin-1 unsaid": lambda text: text.encode("latin-1"),
    "a byte order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "blank lines before it": lambda text: ("\r\n\r\n" + text).encode(),
    "a line feed before it": lambda text: ("\n" + text).encode(),
    "NULs before it": lambda text: b"\0\0" + text.encode(),
    "LF segments": lambda text: text.replace("\r", "\n").encode(),
    "CRLF segments": lambda text: text.replace("\r", "\r\n").encode(),
    "Latin-1, LF in a field": lambda text: text.replace("a note", "a\nb").encode("latin-1"),
}


TEXTS = [
    (named("LAB1"), "a"), (named("Zürich"), "a"), (named(patient="Müller"), "b"), (named(to="Köln"), "c"),
    (named("Zurich"), "rest"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "text", "channel"),
    [(form, *text) for form in WRITTEN for text in TEXTS if form != "ascii" or text[0].isascii()],
)
def test_however_it_is_written_the_same_text_goes_the_same_way(form: str, text: str, channel: str) -> None:
    frame = WRITTEN[form](text)
    assert Router(NAMES).route(peek(frame), frame) == (channel,)


@pytest.mark.parametrize("codec", ["cp1250", "iso-8859-2", "shift_jis"])
def test_the_feeds_own_encoding_goes_before_what_the_message_says(codec: str) -> None:
    sender, patient = ("X", "山田") if codec == "shift_jis" else ("Zürich", "DOE")
    frame = named(sender, charset="UNICODE UTF-8", patient=patient).encode(codec)
    reading = replace(NAMES, takes=Takes(encoding=codec))
    assert Router(reading).route(peek(frame), frame) == (("b",) if codec == "shift_jis" else ("a",))


def test_what_the_feed_says_of_messages_that_say_nothing_counts() -> None:
    frame = named(patient="山田").encode("euc_jp")
    reading = replace(NAMES, takes=Takes(undeclared="euc_jp"))
    assert Router(reading).route(peek(frame), frame) == ("b",)


def test_what_is_no_text_is_still_routed_by_its_plain_fields() -> None:
    frame = named("LAB1", charset="UNICODE UTF-8").encode() + b"OBX|1|TX|||\xff\xfe\r"
    assert Router(NAMES).route(peek(frame), frame) == ("a",)
    frame = named(charset="UNICODE UTF-8").encode() + b"OBX|1|TX|||\xff\xfe\r"
    assert Router(NAMES).route(peek(frame), frame) == ("rest",)


def batch(*messages: bytes) -> bytes:
    return b"FHS|^~\\&|A\rBHS|^~\\&|A\r" + b"".join(messages) + b"BTS|%d\rFTS|1\r" % len(messages)


def test_a_batch_goes_where_all_its_messages_go_and_else_to_the_default_whole() -> None:
    same = batch(message("LAB1"), message("LAB2"))
    mixed = batch(message("LAB1"), message(to="WEST"))
    assert ROUTER.route(peek(same), same) == ("a",)
    assert ROUTER.route(peek(mixed), mixed) == ("rest",)
    empty = batch()
    assert ROUTER.route(peek(empty), empty) == ("rest",)
