"""Rules of engine.mllp.client, against a peer whose every byte is in the test's hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from engine.config.address import Address
from engine.mllp.client import Answered, Client, Lost, NotSent, Reply, State
from engine.mllp.framing import encode
from engine.mllp.states import MOVES, Step, advance


class Peer:
    """A listening socket whose connections the test accepts, reads and writes one by one."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.address = Address("127.0.0.1", self.sock.getsockname()[1])
        self.accepted: list[socket.socket] = []

    async def accept(self) -> socket.socket:
        async with asyncio.timeout(5):
            conn, _ = await asyncio.get_running_loop().sock_accept(self.sock)
        conn.setblocking(False)
        self.accepted.append(conn)
        return conn

    async def receive(self, conn: socket.socket, payload: bytes) -> None:
        """Take exactly this message."""
        expected, got = encode(payload), b""
        async with asyncio.timeout(5):
            while len(got) < len(expected):
                piece = await asyncio.get_running_loop().sock_recv(conn, 65536)
                assert piece, f"closed after {got!r}"
                got += piece
        assert got == expected

    def close(self) -> None:
        for conn in [*self.accepted, self.sock]:
            conn.close()


class Replies:
    """The callbacks' end: what came, in its order."""

    def __init__(self) -> None:
        self.came: list[tuple[str, Reply]] = []
        self.news = asyncio.Event()

    def of(self, name: str):  # type: ignore[no-untyped-def]
        def done(reply: Reply) -> None:
            self.came.append((name, reply))
            self.news.set()

        return done

    async def until(self, count: int) -> list[tuple[str, Reply]]:
        async with asyncio.timeout(5):
            while len(self.came) < count:
                self.news.clear()
                await self.news.wait()
        return self.came


class Scene:
    def __init__(self, peer: Peer, **options: object) -> None:
        self.peer = peer
        self.strays: list[bytes] = []
        self.replies = Replies()
        self.client = Client(peer.address, stray=self.strays.append, **options)  # type: ignore[arg-type]

    def send(
        self,
        payload: bytes,
        timeout: float = 5.0,
        *,
        final: Callable[[bytes], bool] | None = None,
        expects: bool = True,
    ) -> None:
        done = self.replies.of(payload.decode())
        self.client.send(payload, timeout, done, final=final, expects=expects)

    async def ask(self, payload: bytes, answer: bytes) -> socket.socket:
        """One clean exchange on a new connection, which it gives."""
        self.send(payload)
        conn = await self.peer.accept()
        await self.peer.receive(conn, payload)
        conn.sendall(encode(answer))
        assert (await self.replies.until(1))[-1] == (payload.decode(), Answered(answer))
        return conn

    async def settled(self, state: State) -> None:
        async with asyncio.timeout(5):
            while self.client.state is not state:  # noqa: ASYNC110  no callback tells of it
                await asyncio.sleep(0.002)


@asynccontextmanager
async def scene(**options: object) -> AsyncIterator[Scene]:
    peer = Peer()
    it = Scene(peer, **options)
    try:
        yield it
    finally:
        if it.client.state is not State.ENDED:
            await it.client.aclose()
        peer.close()
        left = [t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("mllp")]
        assert not left


class TestExchange:
    async def test_a_message_gets_its_answer(self) -> None:
        async with scene() as it:
            await it.ask(b"one", b"ack")
            assert it.client.state is State.IDLE

    async def test_the_connection_is_kept_for_the_next_message(self) -> None:
        async with scene() as it:
            conn = await it.ask(b"one", b"ack one")
            it.send(b"two")
            await it.peer.receive(conn, b"two")
            conn.sendall(encode(b"ack two"))
            assert (await it.replies.until(2))[1] == ("two", Answered(b"ack two"))

    async def test_only_one_message_is_outstanding_and_the_rest_wait_in_order(self) -> None:
        async with scene() as it:
            for name in (b"one", b"two", b"three"):
                it.send(name)
            conn = await it.peer.accept()
            for name in (b"one", b"two", b"three"):
                await it.peer.receive(conn, name)  # fails if anything more has come
                await asyncio.sleep(0.01)
                conn.sendall(encode(b"ack " + name))
            assert [name for name, _ in await it.replies.until(3)] == ["one", "two", "three"]

    async def test_an_answer_may_come_in_pieces(self) -> None:
        async with scene() as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            for byte in encode(b"ack"):
                conn.sendall(bytes([byte]))
                await asyncio.sleep(0.001)
            assert await it.replies.until(1) == [("one", Answered(b"ack"))]
            await asyncio.sleep(0.01)
            assert it.client.state is State.IDLE  # the last CR came after the answer and is nothing strange
            assert it.strays == []

    async def test_noise_around_an_answer_is_kept_and_the_answer_counts(self) -> None:
        async with scene() as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(b"hello\r\n" + encode(b"ack") + b"\x00\x00")
            assert await it.replies.until(1) == [("one", Answered(b"ack"))]
            assert it.strays == [b"hello\r\n", b"\x00\x00"]
            assert it.client.state is State.IDLE

    async def test_a_callback_may_send_the_next_message(self) -> None:
        async with scene() as it:
            it.client.send(b"one", 5, lambda reply: it.send(b"two"))
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(encode(b"ack one"))
            await it.peer.receive(conn, b"two")
            conn.sendall(encode(b"ack two"))
            assert await it.replies.until(1) == [("two", Answered(b"ack two"))]

    async def test_a_callback_that_fails_does_not_stop_the_next_exchange(self) -> None:
        problems: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with scene() as it:
            it.client.send(b"one", 5, lambda reply: 1 / 0)  # type: ignore[arg-type,return-value]
            it.send(b"two")
            conn = await it.peer.accept()
            for name in (b"one", b"two"):
                await it.peer.receive(conn, name)
                conn.sendall(encode(b"ack"))
            assert await it.replies.until(1) == [("two", Answered(b"ack"))]
        assert len(problems) == 1


class TestNotSent:
    async def test_connection_refused(self) -> None:
        async with scene() as it:
            it.peer.sock.close()
            it.send(b"one")
            assert await it.replies.until(1) == [("one", NotSent("connection refused"))]
            assert it.client.state is State.CLOSED

    async def test_all_that_waits_is_told_at_once(self) -> None:
        async with scene() as it:
            it.peer.sock.close()
            for name in (b"one", b"two", b"three"):
                it.send(name)
            assert await it.replies.until(3) == [(n, NotSent("connection refused")) for n in ("one", "two", "three")]

    async def test_a_connect_that_takes_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def never(self: Client) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(Client, "_open_link", never)
        async with scene(connect_timeout=0.05) as it:
            it.send(b"one")
            assert await it.replies.until(1) == [("one", NotSent("connect timed out"))]

    async def test_an_unknown_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def unknown(self: Client) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        monkeypatch.setattr(Client, "_open_link", unknown)
        async with scene() as it:
            it.send(b"one")
            assert await it.replies.until(1) == [("one", NotSent("host name not resolved"))]

    async def test_after_a_refusal_the_next_send_tries_again(self) -> None:
        async with scene() as it:
            it.peer.sock.close()
            it.send(b"one")
            await it.replies.until(1)
            it.peer.sock = socket.create_server((it.peer.address.host, it.peer.address.port))
            it.peer.sock.setblocking(False)
            it.send(b"two")
            await it.peer.receive(await it.peer.accept(), b"two")

    async def test_a_peer_that_closed_meanwhile_gets_nothing_and_the_message_goes_on_a_new_connection(self) -> None:
        async with scene() as it:
            conn = await it.ask(b"one", b"ack")
            conn.close()
            it.send(b"two")  # before the event loop could notice: the FIN is in the kernel only
            assert it.client.state is State.CONNECTING
            await it.peer.receive(await it.peer.accept(), b"two")
            assert len(it.replies.came) == 1


class TestLost:
    async def test_a_time_out_closes_the_socket(self) -> None:
        async with scene() as it:
            it.send(b"one", timeout=0.05)
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            assert await it.replies.until(1) == [("one", Lost("answer timed out"))]
            async with asyncio.timeout(5):
                assert await asyncio.get_running_loop().sock_recv(conn, 1) == b""

    async def test_a_late_answer_is_not_taken_for_the_next_messages(self) -> None:
        async with scene() as it:
            it.send(b"one", timeout=0.05)
            it.send(b"two")
            first = await it.peer.accept()
            await it.peer.receive(first, b"one")
            second = await it.peer.accept()
            await it.peer.receive(second, b"two")
            with suppress(ConnectionError):  # so firmly may it be closed
                first.sendall(encode(b"ack one"))
            await asyncio.sleep(0.01)
            second.sendall(encode(b"ack two"))
            assert await it.replies.until(2) == [("one", Lost("answer timed out")), ("two", Answered(b"ack two"))]

    async def test_a_connection_closed_without_an_answer(self) -> None:
        async with scene() as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.close()
            assert await it.replies.until(1) == [("one", Lost("connection closed before the answer"))]

    async def test_a_connection_closed_in_mid_answer(self) -> None:
        async with scene() as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(b"\x0bMSH|ha")
            conn.close()
            assert await it.replies.until(1) == [("one", Lost("connection closed in mid-answer"))]
            assert it.strays == [b"MSH|ha"]

    async def test_a_reset(self) -> None:
        async with scene() as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            conn.close()
            assert await it.replies.until(1) == [("one", Lost("connection reset"))]

    async def test_an_answer_over_the_limit(self) -> None:
        async with scene(max_bytes=10) as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(encode(b"x" * 100))
            assert await it.replies.until(1) == [("one", Lost("answer too large"))]
            assert it.client.state is State.CLOSED

    async def test_after_a_loss_the_next_message_goes_on_a_new_connection(self) -> None:
        async with scene() as it:
            it.send(b"one")
            it.send(b"two")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.close()
            again = await it.peer.accept()
            await it.peer.receive(again, b"two")
            again.sendall(encode(b"ack"))
            assert await it.replies.until(2) == [
                ("one", Lost("connection closed before the answer")),
                ("two", Answered(b"ack")),
            ]


class TestStray:
    async def test_an_answer_that_nobody_asked_for_costs_the_connection(self) -> None:
        async with scene() as it:
            conn = await it.ask(b"one", b"ack")
            conn.sendall(encode(b"what"))
            await it.settled(State.CLOSED)
            assert it.strays == [b"what"]

    async def test_a_second_answer_in_the_same_read_costs_the_connection_and_not_the_first(self) -> None:
        async with scene() as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(encode(b"ack") + encode(b"again"))
            assert await it.replies.until(1) == [("one", Answered(b"ack"))]
            assert it.strays == [b"again"]
            assert it.client.state is State.CLOSED

    async def test_the_beginning_of_a_second_answer_costs_the_connection(self) -> None:
        async with scene() as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(encode(b"ack") + b"\x0bMSH|ha")
            assert await it.replies.until(1) == [("one", Answered(b"ack"))]
            assert it.strays == [b"MSH|ha"]
            assert it.client.state is State.CLOSED

    async def test_an_unasked_answer_still_in_the_kernel_is_found_before_the_next_send(self) -> None:
        async with scene() as it:
            conn = await it.ask(b"one", b"ack")
            conn.sendall(encode(b"late"))
            it.send(b"two")  # before the event loop could read it
            assert it.strays == [b"late"]
            again = await it.peer.accept()
            await it.peer.receive(again, b"two")
            again.sendall(encode(b"ack two"))
            assert (await it.replies.until(2))[1] == ("two", Answered(b"ack two"))

    async def test_filler_after_an_answer_is_kept_and_does_not_cost_the_connection(self) -> None:
        async with scene() as it:
            conn = await it.ask(b"one", b"ack")
            conn.sendall(b"\x00\r\n")
            it.send(b"two")
            await it.peer.receive(conn, b"two")
            assert it.strays == [b"\x00\r\n"]

    async def test_text_that_nobody_asked_for_costs_the_connection(self) -> None:
        async with scene() as it:
            conn = await it.ask(b"one", b"ack")
            conn.sendall(b"going down for maintenance\r\n")
            await it.settled(State.CLOSED)
            assert it.strays == [b"going down for maintenance\r\n"]


class TestHangUp:
    async def test_the_next_message_goes_on_a_new_connection(self) -> None:
        async with scene() as it:
            it.client.send(b"one", 5, lambda reply: it.client.hang_up())
            it.send(b"two")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(encode(b"an answer to another message"))
            again = await it.peer.accept()
            await it.peer.receive(again, b"two")
            again.sendall(encode(b"ack"))
            assert await it.replies.until(1) == [("two", Answered(b"ack"))]

    async def test_an_outstanding_message_is_lost(self) -> None:
        async with scene() as it:
            it.send(b"one")
            await it.peer.receive(await it.peer.accept(), b"one")
            it.client.hang_up()
            assert it.replies.came == [("one", Lost("hung up"))]

    async def test_without_a_connection_nothing_happens(self) -> None:
        async with scene() as it:
            it.client.hang_up()
            assert it.client.state is State.CLOSED


class TestClose:
    async def test_the_outstanding_message_is_lost_and_the_queued_ones_are_not_sent(self) -> None:
        async with scene() as it:
            it.send(b"one")
            it.send(b"two")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            await it.client.aclose()
            assert it.replies.came == [("one", Lost("client closed")), ("two", NotSent("client closed"))]

    async def test_in_mid_connect_nothing_was_sent(self) -> None:
        async with scene() as it:
            it.send(b"one")
            await it.client.aclose()
            assert it.replies.came == [("one", NotSent("client closed"))]

    async def test_a_send_after_it_is_not_sent_and_told_later(self) -> None:
        async with scene() as it:
            await it.client.aclose()
            it.send(b"one")
            assert it.replies.came == []
            assert await it.replies.until(1) == [("one", NotSent("client closed"))]

    async def test_the_peer_sees_the_connection_end(self) -> None:
        async with scene() as it:
            conn = await it.ask(b"one", b"ack")
            await it.client.aclose()
            async with asyncio.timeout(5):
                assert await asyncio.get_running_loop().sock_recv(conn, 1) == b""


class TestStates:
    @pytest.mark.parametrize("state", list(State))
    @pytest.mark.parametrize("step", list(Step))
    def test_what_the_table_does_not_know_is_refused(self, state: State, step: Step) -> None:
        if (state, step) in MOVES:
            assert advance(state, step) is MOVES[state, step]
        else:
            with pytest.raises(RuntimeError, match=f"{step.name} is not possible in state {state.name}"):
                advance(state, step)

    def test_nothing_leads_out_of_ended(self) -> None:
        assert {after for (state, _), after in MOVES.items() if state is State.ENDED} == {State.ENDED}
