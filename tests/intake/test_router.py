"""Which channels a frame of a feed belongs to: the first rule that fits, the table, the default."""

from __future__ import annotations

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


def batch(*messages: bytes) -> bytes:
    return b"FHS|^~\\&|A\rBHS|^~\\&|A\r" + b"".join(messages) + b"BTS|%d\rFTS|1\r" % len(messages)


def test_a_batch_goes_where_all_its_messages_go_and_else_to_the_default_whole() -> None:
    same = batch(message("LAB1"), message("LAB2"))
    mixed = batch(message("LAB1"), message(to="WEST"))
    assert ROUTER.route(peek(same), same) == ("a",)
    assert ROUTER.route(peek(mixed), mixed) == ("rest",)
    empty = batch()
    assert ROUTER.route(peek(empty), empty) == ("rest",)
