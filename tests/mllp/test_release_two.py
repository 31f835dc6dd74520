"""Rules of MLLP's release 2: each side says on the transport level what became of each block, beside all answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from engine.config.edge import Framing, Sockets
from engine.mllp import connection
from engine.mllp.back import Back
from engine.mllp.client import Answered, Lost, NotSent, State, Written
from engine.mllp.commits import Commits
from engine.mllp.framing import encode
from engine.mllp.replies import NOT_COMMITTED, TIMED_OUT
from engine.mllp.server import Connection
from tests.mllp.test_client import Replies, Scene, scene
from tests.mllp.test_server import Recorder, connected, eventually, listening, within

TWO = Framing(release=2)
STORED = b"\x0b\x06\x1c\r"
NOT_STORED = b"\x0b\x15\x1c\r"


async def got(conn: socket.socket, expected: bytes, *, then_closed: bool = False) -> None:
    """Exactly these bytes come, and nothing behind them for a moment."""
    loop, came = asyncio.get_running_loop(), b""
    async with asyncio.timeout(5):
        while len(came) < len(expected):
            piece = await loop.sock_recv(conn, 65536)
            assert piece, f"closed after {came!r}"
            came += piece
    await asyncio.sleep(0.02)
    closed = False
    with suppress(BlockingIOError):
        piece = conn.recv(65536)
        came, closed = came + piece, not piece
    assert (came, closed) == (expected, then_closed)


@pytest.mark.parametrize(
    ("became", "said"),
    [
        ([(1, True), (2, False)], [STORED, NOT_STORED]),
        ([(2, True), (3, False)], []),
        ([(2, True), (3, False), (1, True)], [STORED, STORED, NOT_STORED]),
        ([(2, True), (1, None)], [STORED]),
        ([(1, None), (2, None), (3, True)], [STORED]),
    ],
)
def test_nothing_is_said_of_a_block_before_those_before_it(
    became: list[tuple[int, bool | None]], said: list[bytes]
) -> None:
    """A sender that does not wait would take it for one of them."""
    heard: list[bytes] = []
    commits = Commits(lambda payload: heard.append(encode(payload)))
    assert [commits.came() for _ in range(3)] == [1, 2, 3]
    for block, stored in became:
        commits.became(block, stored)
    assert heard == said


# -- a peer sends


class Storing(Recorder):
    """Says what becomes of a message, then answers it."""

    def __init__(self, stored: bool = True) -> None:
        super().__init__()
        self.stored = stored

    def frame(self, conn: Connection, payload: bytes) -> None:
        conn.commit(self.stored)
        super().frame(conn, payload)


class TestReceiving:
    @pytest.mark.parametrize(("stored", "said"), [(True, STORED), (False, NOT_STORED)])
    async def test_what_became_of_a_message_goes_out_before_its_answer(self, stored: bool, said: bytes) -> None:
        async with (
            listening(Storing(stored), framing=TWO) as listener,
            connected(listener) as (reader, writer),
        ):
            writer.write(encode(b"1"))
            expected = said + encode(b"ack 1")
            assert await within(5, reader.readexactly(len(expected))) == expected

    async def test_in_release_1_nothing_is_said(self) -> None:
        async with listening(Storing()) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            assert await within(5, reader.readexactly(8)) == encode(b"ack 1")

    @pytest.mark.parametrize("said", [STORED, NOT_STORED])
    async def test_what_a_peer_says_of_our_answer_is_no_message_and_no_noise(self, said: bytes) -> None:
        handler = Storing()
        async with listening(handler, framing=TWO) as listener, connected(listener) as (_, writer):
            writer.write(said + encode(b"1"))
            await handler.until("frame", b"1")
            writer.write(said + said + encode(b"2"))
            await handler.until("frame", b"2")
            assert handler.said == [("connected",), ("frame", b"1"), ("frame", b"2")]
            assert handler.conns[0].owed == 0

    async def test_however_it_is_cut(self) -> None:
        handler = Storing()
        async with listening(handler, framing=TWO) as listener, connected(listener) as (_, writer):
            for byte in STORED + encode(b"1") + NOT_STORED + encode(b"2"):
                writer.write(bytes([byte]))
                await asyncio.sleep(0.002)
            await handler.until("frame", b"2")
            assert handler.said == [("connected",), ("frame", b"1"), ("frame", b"2")]

    async def test_a_peer_hears_of_its_blocks_in_their_order(self) -> None:
        handler = Recorder(answer=False)
        heard: list[tuple[str, bool]] = []
        async with listening(handler, framing=TWO) as listener, connected(listener) as (_, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            conn = handler.conns[0]
            conn.send(b"ack 1")
            conn.transmit(b"a result", lambda stored: heard.append(("result", stored)))
            conn.commit(True)  # it is no block that would be acknowledged
            conn.transmit(b"another", lambda stored: heard.append(("another", stored)))
            writer.write(STORED + NOT_STORED + STORED)
            await eventually(lambda: len(heard) == 2)
            assert heard == [("result", False), ("another", True)]

    async def test_each_block_may_be_spoken_of_when_it_is_known_what_became_of_it(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler, framing=TWO) as listener, connected(listener) as (reader, writer):
            blocks: list[int] = []
            for name in (b"1", b"2"):
                writer.write(encode(name))
                await handler.until("frame", name)
                blocks.append(handler.conns[0].block)
            handler.conns[0].commit(True, blocks[1])
            handler.conns[0].commit(False, blocks[0])
            assert await within(5, reader.readexactly(8)) == NOT_STORED + STORED

    async def test_a_peer_is_not_cut_off_before_it_has_said_what_became_of_its_answer(self) -> None:
        handler = Storing()
        async with (
            listening(handler, framing=TWO, sockets=Sockets(one_message=True)) as listener,
            connected(listener) as (reader, writer),
        ):
            writer.write(encode(b"1"))
            assert await within(5, reader.read()) == STORED + encode(b"ack 1")
            writer.write(STORED)
            await asyncio.sleep(0.05)
            writer.write(STORED)
            await writer.drain()  # would fail after a reset
            assert ("closed",) not in handler.said
            writer.close()
            await handler.until("closed")

    async def test_one_that_never_says_so_is_cut_off_all_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "LINGER", 0.1)
        handler = Storing()
        async with (
            listening(handler, framing=TWO, sockets=Sockets(one_message=True)) as listener,
            connected(listener) as (_, writer),
        ):
            writer.write(encode(b"1"))
            await handler.until("closed")

    async def test_a_peer_that_half_closes_gets_all_and_is_not_waited_for(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler, framing=TWO) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            writer.write_eof()
            await handler.until("frame", b"1")
            await asyncio.sleep(0.02)
            handler.conns[0].commit(True)
            handler.conns[0].send(b"ack 1")
            assert await within(5, reader.read()) == STORED + encode(b"ack 1")
            async with asyncio.timeout(1):
                await handler.until("closed")


# -- we send


async def asked(it: Scene, *, expects: bool = True, final: Callable[[bytes], bool] | None = None) -> socket.socket:
    """A message has been sent; the connection on which it came."""
    it.send(b"one", expects=expects, final=final)
    conn = await it.peer.accept()
    await it.peer.receive(conn, b"one")
    return conn


class TestSending:
    async def test_that_a_message_is_stored_is_no_answer(self) -> None:
        async with scene(framing=TWO) as it:
            conn = await asked(it)
            conn.sendall(STORED)
            await asyncio.sleep(0.05)
            assert (it.replies.came, it.client.state) == ([], State.WAITING)
            conn.sendall(encode(b"AA"))
            assert await it.replies.until(1) == [("one", Answered(b"AA"))]
            await got(conn, STORED)
            assert (it.strays, it.client.state) == ([], State.IDLE)

    @pytest.mark.parametrize("at", range(1, len(STORED + encode(b"AA"))))
    async def test_however_what_comes_is_cut(self, at: int) -> None:
        async with scene(framing=TWO) as it:
            conn = await asked(it)
            said = STORED + encode(b"AA")
            for piece in (said[:at], said[at:]):
                conn.sendall(piece)
                await asyncio.sleep(0.005)
            assert await it.replies.until(1) == [("one", Answered(b"AA"))]
            assert (it.strays, it.client.state) == ([], State.IDLE)
            await got(conn, STORED)

    async def test_a_peer_of_release_1_is_understood(self) -> None:
        async with scene(framing=TWO) as it:
            conn = await asked(it)
            conn.sendall(encode(b"AA"))
            assert await it.replies.until(1) == [("one", Answered(b"AA"))]
            it.send(b"two")
            await got(conn, STORED + encode(b"two"))
            conn.sendall(encode(b"AA two"))
            assert (await it.replies.until(2))[1] == ("two", Answered(b"AA two"))

    async def test_in_release_1_nothing_is_said(self) -> None:
        async with scene(unasked=lambda payload: True) as it:
            conn = await asked(it, final=lambda payload: payload == b"AA")
            conn.sendall(encode(b"CA") + encode(b"AA") + encode(b"a result"))
            assert await it.replies.until(1) == [("one", Answered(b"AA"))]
            await got(conn, b"")

    async def test_one_that_could_not_be_stored_is_not_sent_and_the_connection_stays(self) -> None:
        async with scene(framing=TWO) as it:
            conn = await asked(it)
            conn.sendall(NOT_STORED)
            assert await it.replies.until(1) == [("one", NotSent(NOT_COMMITTED))]
            it.send(b"again")
            await it.peer.receive(conn, b"again")
            conn.sendall(STORED + encode(b"AA"))
            assert (await it.replies.until(2))[1] == ("again", Answered(b"AA"))

    async def test_an_answer_behind_a_no_is_not_taken_for_the_next_ones(self) -> None:
        async with scene(framing=TWO) as it:
            it.send(b"one")
            it.send(b"two")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(NOT_STORED + encode(b"AE one"))
            assert await it.replies.until(1) == [("one", NotSent(NOT_COMMITTED))]
            assert it.strays == [b"AE one"]
            await it.peer.receive(await it.peer.accept(), b"two")

    async def test_a_no_behind_the_answer_changes_nothing(self) -> None:
        async with scene(framing=TWO) as it:
            conn = await asked(it)
            conn.sendall(encode(b"AA") + NOT_STORED)
            assert await it.replies.until(1) == [("one", Answered(b"AA"))]
            assert (it.strays, it.client.state) == ([], State.IDLE)

    async def test_without_an_answer_it_is_lost_in_time_though_it_was_stored(self) -> None:
        async with scene(framing=TWO) as it:
            it.send(b"one", timeout=0.1)
            conn = await it.peer.accept()
            conn.sendall(STORED)
            assert await it.replies.until(1) == [("one", Lost(TIMED_OUT))]

    async def test_where_no_answer_is_expected_it_ends_when_it_is_stored(self) -> None:
        async with scene(framing=TWO) as it:
            conn = await asked(it, expects=False)
            await asyncio.sleep(0.05)
            assert it.replies.came == []
            for byte in STORED:
                conn.sendall(bytes([byte]))
                await asyncio.sleep(0.002)
            assert await it.replies.until(1) == [("one", Written())]
            assert it.client.state is State.IDLE
            await got(conn, b"")

    async def test_where_no_answer_is_expected_a_no_is_a_no(self) -> None:
        async with scene(framing=TWO) as it:
            conn = await asked(it, expects=False)
            conn.sendall(NOT_STORED)
            assert await it.replies.until(1) == [("one", NotSent(NOT_COMMITTED))]

    async def test_where_no_answer_is_expected_silence_means_lost(self) -> None:
        async with scene(framing=TWO) as it:
            it.send(b"one", timeout=0.1, expects=False)
            await it.peer.accept()
            assert await it.replies.until(1) == [("one", Lost(TIMED_OUT))]

    async def test_what_is_said_late_of_one_message_is_not_taken_for_the_next(self) -> None:
        async with scene(framing=TWO) as it:
            conn = await asked(it)
            conn.sendall(encode(b"AA"))
            await it.replies.until(1)
            it.send(b"two", expects=False)
            await got(conn, STORED + encode(b"two"))
            conn.sendall(STORED)  # of the first
            await asyncio.sleep(0.05)
            assert len(it.replies.came) == 1
            conn.sendall(NOT_STORED)
            assert (await it.replies.until(2))[1] == ("two", NotSent(NOT_COMMITTED))

    async def test_what_is_said_when_nothing_is_due_is_nothing_strange(self) -> None:
        async with scene(framing=TWO) as it:
            conn = await asked(it)
            conn.sendall(STORED + encode(b"AA") + STORED)
            await it.replies.until(1)
            conn.sendall(NOT_STORED[:2])
            await asyncio.sleep(0.02)
            conn.sendall(NOT_STORED[2:])
            await asyncio.sleep(0.02)
            assert (it.strays, it.client.state) == ([], State.IDLE)

    async def test_an_accept_acknowledgement_is_acknowledged_too(self) -> None:
        """A peer that keeps to the letter sends the application's answer only then."""
        async with scene(framing=TWO) as it:
            conn = await asked(it, final=lambda payload: payload == b"AA")
            conn.sendall(STORED + encode(b"CA"))
            await got(conn, STORED)
            conn.sendall(encode(b"AA"))
            assert await it.replies.until(1) == [("one", Answered(b"AA"))]
            await got(conn, STORED)

    async def test_what_nobody_wants_is_not_said_to_be_stored(self) -> None:
        async with scene(framing=TWO) as it:
            conn = await asked(it)
            conn.sendall(encode(b"AA"))
            await it.replies.until(1)
            conn.sendall(encode(b"a result"))
            await it.settled(State.CLOSED)
            await got(conn, STORED, then_closed=True)
            assert it.strays == [b"a result"]

    async def test_a_connection_for_each_message_is_not_reset_before_the_last_word(self) -> None:
        async with scene(framing=TWO, persistent=False) as it:
            conn = await asked(it)
            conn.sendall(STORED + encode(b"AA"))
            assert await it.replies.until(1) == [("one", Answered(b"AA"))]
            await got(conn, STORED, then_closed=True)
            for _ in range(2):
                conn.sendall(b"\r\n")  # the second would fail after a reset
                await asyncio.sleep(0.02)

    async def test_an_answer_that_came_elsewhere_is_not_acknowledged_here(self) -> None:
        async with scene(framing=TWO, elsewhere=True) as it:
            conn = await asked(it)
            conn.sendall(STORED)
            await asyncio.sleep(0.02)
            it.client.offer(b"AA")
            assert it.replies.came == [("one", Answered(b"AA"))]
            await got(conn, b"")


class TestTwoWay:
    async def test_a_peers_own_message_is_acknowledged_by_whoever_keeps_it(self) -> None:
        later: list[Callable[[bool], None]] = []

        def keep(payload: bytes) -> bool:
            later.append(it.client.commit_later())
            return True

        async with scene(framing=TWO, unasked=keep) as it:
            conn = await asked(it)
            conn.sendall(STORED + encode(b"AA") + encode(b"result"))
            await it.replies.until(1)
            await got(conn, STORED)
            later[0](False)
            await got(conn, NOT_STORED)

    async def test_nothing_overtakes_what_is_still_to_be_said_of_a_message_before_it(self) -> None:
        later: list[Callable[[bool], None]] = []

        def keep(payload: bytes) -> bool:
            later.append(it.client.commit_later())
            return True

        async with scene(framing=TWO, unasked=keep) as it:
            conn = await asked(it, final=lambda payload: payload == b"AA")
            conn.sendall(STORED + encode(b"result") + encode(b"AA"))
            assert await it.replies.until(1) == [("one", Answered(b"AA"))]
            await got(conn, b"")
            later[0](False)
            await got(conn, NOT_STORED + STORED)

    async def test_what_is_said_too_late_is_not_said_on_another_connection(self) -> None:
        later: list[Callable[[bool], None]] = []

        def keep(payload: bytes) -> bool:
            later.append(it.client.commit_later())
            return True

        async with scene(framing=TWO, unasked=keep) as it:
            conn = await asked(it)
            conn.sendall(STORED + encode(b"AA") + encode(b"result"))
            await eventually(lambda: len(later) == 1)
            conn.close()
            await it.settled(State.CLOSED)
            it.send(b"two")
            again = await it.peer.accept()
            await it.peer.receive(again, b"two")
            later[0](True)
            await got(again, b"")

    async def test_one_that_is_heard_and_not_kept_is_acknowledged_at_once(self) -> None:
        async with scene(framing=TWO, unasked=lambda payload: True) as it:
            conn = await asked(it)
            conn.sendall(STORED + encode(b"AA") + encode(b"a later answer"))
            await it.replies.until(1)
            await got(conn, STORED + STORED)

    async def test_what_is_said_of_our_answer_is_not_taken_for_a_message(self) -> None:
        """On a socket that both sides use, the peer speaks of our blocks in the order in which they went out."""
        async with scene(framing=TWO, unasked=lambda payload: it.client.transmit(b"ack " + payload)) as it:
            conn = await asked(it)
            conn.sendall(STORED + encode(b"AA") + encode(b"result"))
            await it.replies.until(1)
            it.send(b"two", expects=False)
            await got(conn, STORED + encode(b"ack result") + STORED + encode(b"two"))
            conn.sendall(NOT_STORED)  # of our answer
            await asyncio.sleep(0.05)
            assert len(it.replies.came) == 1
            conn.sendall(STORED)
            assert (await it.replies.until(2))[1] == ("two", Written())


# -- we send on the connection that the peer made


@asynccontextmanager
async def back() -> AsyncIterator[tuple[Back, Replies, asyncio.StreamReader, asyncio.StreamWriter]]:
    lines: list[Back] = []

    class Port(Recorder):
        def frame(self, conn: Connection, payload: bytes) -> None:
            if lines[0].offer(conn, payload):
                conn.waive()
            else:
                super().frame(conn, payload)

    handler = Port()
    async with listening(handler, framing=TWO) as listener, connected(listener) as (reader, writer):
        lines.append(Back(lambda: listener.connections, lambda payload: "", _answer))
        writer.write(encode(b"1"))
        assert await within(5, reader.readexactly(8)) == encode(b"ack 1")
        yield lines[0], Replies(), reader, writer
        await lines[0].aclose()


def _answer(payload: bytes) -> tuple[str, str] | None:
    return ("AA", "") if payload.startswith(b"AA") else None


class TestBack:
    async def sent(self, line: Back, replies: Replies, reader: asyncio.StreamReader, **options: bool) -> None:
        line.send(b"result", 5.0, replies.of("result"), **options)  # type: ignore[arg-type]
        assert await within(5, reader.readexactly(9)) == encode(b"result")

    async def test_that_a_message_is_stored_is_no_answer(self) -> None:
        async with back() as (line, replies, reader, writer):
            await self.sent(line, replies, reader)
            writer.write(STORED + STORED)  # of our answer, and of the result
            await asyncio.sleep(0.05)
            assert replies.came == []
            writer.write(encode(b"AA"))
            assert await replies.until(1) == [("result", Answered(b"AA"))]

    async def test_one_that_could_not_be_stored_is_not_sent(self) -> None:
        async with back() as (line, replies, reader, writer):
            await self.sent(line, replies, reader)
            writer.write(STORED + NOT_STORED)
            assert await replies.until(1) == [("result", NotSent(NOT_COMMITTED))]

    async def test_a_no_to_our_answer_is_not_taken_for_one_to_the_message(self) -> None:
        async with back() as (line, replies, reader, writer):
            await self.sent(line, replies, reader)
            writer.write(NOT_STORED + STORED + encode(b"AA"))
            assert await replies.until(1) == [("result", Answered(b"AA"))]

    async def test_a_no_that_comes_late_is_not_taken_for_one_to_the_next_message(self) -> None:
        async with back() as (line, replies, reader, writer):
            await self.sent(line, replies, reader)
            writer.write(STORED + encode(b"AA"))  # of our answer, and the result's own
            await replies.until(1)
            await self.sent(line, replies, reader)
            writer.write(NOT_STORED + encode(b"AA again"))
            assert (await replies.until(2))[1] == ("result", Answered(b"AA again"))

    async def test_where_no_answer_is_expected_it_ends_when_it_is_stored(self) -> None:
        async with back() as (line, replies, reader, writer):
            await self.sent(line, replies, reader, expects=False)
            writer.write(STORED + encode(b"AA"))  # an answer that nobody expects is none
            await asyncio.sleep(0.05)
            assert replies.came == []
            writer.write(STORED)
            assert await replies.until(1) == [("result", Written())]

    async def test_where_it_is_not_said_in_time_the_message_is_lost(self) -> None:
        async with back() as (line, replies, reader, _):
            line.send(b"result", 0.1, replies.of("result"), expects=False)
            assert await replies.until(1) == [("result", Lost(TIMED_OUT))]
            assert await within(5, reader.read()) == encode(b"result")
