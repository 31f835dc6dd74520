"""What each end of an attempt means for the message: one table for peers over MLLP, each row on a real socket, and one
for folders. FHIR's is in tests/fhir/test_failure_classes.py."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.config.edge import Answers, Directory, Framing
from engine.config.endpoint import Endpoint
from engine.delivery.breaker import Breaker
from engine.delivery.classes import ERRORS
from engine.delivery.decision import Manner, decide
from engine.delivery.destinations.file import FileDestination
from engine.delivery.destinations.mllp import MllpDestination
from engine.delivery.sender import Sender
from engine.delivery.work import Work
from engine.files.places import folder_of
from engine.hl7.ack import CONDITIONS
from engine.ledger.course import ChannelBook
from engine.ledger.model import Message, State
from engine.ledger.outcome import Outcome, Result
from engine.mllp.client import Client
from engine.mllp.framing import encode
from tests.support.ports import free_port

RAW = b"MSH|^~\\&|LAB|L|EMR|C|20260101||ORU^R01|X1|P|2.5\rPID|1||7^^^H\r"
TIMEOUT = 0.3  # seconds until an answer is late


def answer(code: str, id: str = "X1", error: str = "") -> bytes:
    err = f"ERR||PID^1|{error}^a text^HL70357|E\r" if error else ""
    return f"MSH|^~\\&|EMR|C|LAB|L|20260101||ACK|9|P|2.5\rMSA|{code}|{id}\r{err}".encode()


def says(code: str, id: str = "X1", error: str = "") -> bytes:
    return encode(answer(code, id, error))


class Silent:
    """The peer says nothing, and stays."""


class Closes:
    """The peer closes after the message."""


class Resets:
    """The peer's kernel answers with a reset."""


Act = bytes | type[Silent | Closes | Resets]


@dataclass(frozen=True)
class Row:
    """act: what the peer does with the message; None: nobody listens. state: what the first attempt makes of it.
    trouble: whether the endpoint itself may be down."""

    act: Act | tuple[Act, ...] | None
    state: State
    trouble: bool = False
    options: dict[str, Any] = field(default_factory=dict)


ENHANCED = Answers(accepted=("AA",))
RELEASE_2 = Framing(release=2)
NAK = b"\x0b\x15\x1c\x0d"

MLLP: dict[str, Row] = {
    # not taken: no byte, or the peer said "later"
    "nobody listens": Row(None, State.RETRYING, trouble=True),
    "it could not commit (release 2)": Row(NAK, State.RETRYING, trouble=True, options={"framing": RELEASE_2}),
    "AE": Row(says("AE"), State.RETRYING),
    "CE": Row(says("CE"), State.RETRYING),
    "AE, record locked": Row(says("AE", error="206"), State.RETRYING),
    "AE, internal error": Row(says("AE", error="207"), State.RETRYING),
    "CE, record locked": Row(says("CE", error="206"), State.RETRYING),
    "AE, an error of its own": Row(says("AE", error="999"), State.RETRYING),
    # never
    "AR": Row(says("AR"), State.DEAD),
    "CR": Row(says("CR"), State.DEAD),
    **{f"AE, error {code}": Row(says("AE", error=code), State.DEAD) for code in (
        "100", "101", "102", "103", "104", "200", "201", "202", "203", "204", "205"
    )},
    "a code that its file rejects": Row(says("ZZ"), State.DEAD, options={"answers": Answers(rejected=("AR", "ZZ"))}),
    "AE, where its file rejects it": Row(says("AE"), State.DEAD, options={"answers": Answers(rejected=("AE", "AR"))}),
    # unknown: it may have been taken
    "silence": Row(Silent, State.UNKNOWN, trouble=True),
    "a closed connection": Row(Closes, State.UNKNOWN, trouble=True),
    "a reset": Row(Resets, State.UNKNOWN, trouble=True),
    "half an answer, and the end": Row((says("AA")[:-20], Closes), State.UNKNOWN, trouble=True),
    "half an answer, and silence": Row((says("AA")[:-20], Silent), State.UNKNOWN, trouble=True),
    "AA to another message": Row(says("AA", "X2"), State.UNKNOWN),
    "AR to another message": Row(says("AR", "X2"), State.UNKNOWN),
    "AA to nobody": Row(says("AA", ""), State.UNKNOWN),
    "a code of nobody's": Row(says("OK"), State.UNKNOWN),
    "no acknowledgement": Row(encode(b"hello"), State.UNKNOWN),
    "a message of its own": Row(encode(RAW), State.UNKNOWN),
    "CA, and nothing more where more is wanted": Row(says("CA"), State.UNKNOWN, True, {"answers": ENHANCED}),
    # taken
    "AA": Row(says("AA"), State.DELIVERED),
    "CA": Row(says("CA"), State.DELIVERED),
    "CA, then AA where that is wanted": Row((says("CA"), says("AA")), State.DELIVERED, options={"answers": ENHANCED}),
    "AA in blanks": Row(says("AA", " X1 "), State.DELIVERED),
    "a code that its file accepts": Row(says("OK"), State.DELIVERED, options={"answers": Answers(("AA", "OK"))}),
    "another's name where its file does not check": Row(
        says("AA", "X2"), State.DELIVERED, options={"answers": Answers(check=False)}
    ),
    "silence where none is due": Row(Silent, State.DELIVERED, options={"answers": Answers(expected=False)}),
}  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, id=what) for what, row in MLLP.items()])
async def test_what_an_end_over_mllp_makes_of_the_message(row: Row) -> None:
    async with peer(row.act) as port:
        outcome = await sent(Endpoint("emr", Address("127.0.0.1", port), ack_timeout=TIMEOUT, **row.options))
    assert (becomes(outcome), outcome.trouble) == (row.state, row.trouble), outcome.reason
    if row.state is State.UNKNOWN:
        assert outcome.answer is None, "nothing that may be another's is kept as its answer"


@pytest.mark.parametrize(("error", "gives_up"), [("206", False), ("207", True), ("999", True), ("", True)])
async def test_a_locked_record_is_waited_for_and_any_other_error_only_a_few_times(error: str, gives_up: bool) -> None:
    async with peer(says("AE", error=error)) as port:
        outcome = await sent(Endpoint("emr", Address("127.0.0.1", port), ack_timeout=TIMEOUT))
    made = decide(outcome, 1_000, Manner(), relayed=False, unknown=False, jitter=0.5)
    assert made.state is (State.DEAD if gives_up else State.RETRYING)


@pytest.mark.parametrize("code", [str(code) for code in CONDITIONS if code])
def test_every_error_of_table_0357_has_its_class(code: str) -> None:
    assert code in ERRORS


@asynccontextmanager
async def peer(act: Act | tuple[Act, ...] | None) -> AsyncIterator[int]:
    """The port of a peer that takes one message and does this."""
    if act is None:
        yield free_port()
        return

    over = asyncio.Event()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\x1c\x0d")
            for each in act if isinstance(act, tuple) else (act,):
                await do(each, writer)
            await over.wait()
        writer.close()

    async def do(each: Act, writer: asyncio.StreamWriter) -> None:
        if isinstance(each, bytes):
            writer.write(each)
            await writer.drain()
        elif each is Closes:
            writer.close()
            await writer.wait_closed()
        elif each is Resets:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()
        await server.wait_closed()


async def sent(endpoint: Endpoint) -> Outcome:
    """The outcome of one attempt to bring a message to this endpoint."""
    assert endpoint.mllp is not None
    sender = Sender()
    client = Client(endpoint.mllp, connect_timeout=2.0, framing=endpoint.framing)
    sender.use([client])
    destination = MllpDestination("emr", endpoint, sender, Breaker("emr"), Manner(), lambda *_: None)
    try:
        return await attempt(destination.send)
    finally:
        await client.aclose()


async def attempt(send: Callable[[Work], None]) -> Outcome:
    message = Message(ChannelBook(1, "acme", 0), RAW, 0, "X1")
    message.seq = 1
    heard: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    send(Work(message, lambda _, outcome: heard.set_result(outcome)))
    async with asyncio.timeout(10):
        return await heard


def becomes(outcome: Outcome) -> State:
    """What the delivery loop makes of a first attempt that nobody's sender waits for."""
    if outcome.result is Result.DELIVERED:
        return State.DELIVERED
    return decide(outcome, 1, Manner(), relayed=False, unknown=False, jitter=0.5).state


FOLDERS: dict[str, tuple[str, State, bool]] = {
    # what is the matter: what is done to the folder, what becomes of the message, whether the breaker opens at once
    "nothing": ("", State.DELIVERED, False),
    "the same file is there": ("same", State.DELIVERED, False),
    "another file has its name": ("other", State.DEAD, False),
    "there is no such folder": ("gone", State.RETRYING, True),
    "a file stands in its place": ("file", State.RETRYING, True),
}


@pytest.mark.parametrize(("done", "state", "opens"), FOLDERS.values(), ids=list(FOLDERS))
async def test_what_an_end_at_a_folder_makes_of_the_message(
    tmp_path: Path, done: str, state: State, opens: bool
) -> None:
    place, name = tmp_path / "out", "acme-0000000001.hl7"
    if done == "file":
        place.write_bytes(b"")
    elif done != "gone":
        place.mkdir()
    if done in ("same", "other"):
        (place / name).write_bytes(RAW if done == "same" else b"theirs")
    folder = folder_of(Directory(place))
    breaker = Breaker("drop")
    destination = FileDestination("acme", Endpoint("drop", None), folder, breaker, Manner())
    try:
        outcome = await attempt(destination.send)
    finally:
        await destination.close()
        await folder.close()
    breaker.heard(outcome)
    breaker.stop()
    assert (becomes(outcome), breaker.open) == (state, opens), outcome.reason
