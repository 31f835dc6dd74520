"""Rules of engine.mllp.server, on real sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from engine.config.address import Address
from engine.mllp import connection, server
from engine.mllp.framing import encode
from engine.mllp.server import Connection, Listener

LOOPBACK = Address("127.0.0.1", 0)


class Recorder:
    """A handler that writes down what it is told, and answers each message unless told not to."""

    def __init__(self, answer: bool = True) -> None:
        self.answer = answer
        self.said: list[tuple[object, ...]] = []
        self.conns: list[Connection] = []
        self.refusals: list[str] = []
        self.probes: list[str] = []
        self.news = asyncio.Event()

    def _say(self, *what: object) -> None:
        self.said.append(what)
        self.news.set()

    def connected(self, conn: Connection) -> None:
        self.conns.append(conn)
        self._say("connected")

    def frame(self, conn: Connection, payload: bytes) -> None:
        self._say("frame", payload)
        if self.answer:
            conn.send(b"ack " + payload)

    def noise(self, conn: Connection, data: bytes) -> None:
        self._say("noise", data)

    def too_large(self, conn: Connection, head: bytes, size: int) -> None:
        self._say("too large", head[:4], size)
        conn.send(b"no")

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None:
        self._say("unfinished", head, why)

    def closed(self, conn: Connection) -> None:
        self._say("closed")

    def refused(self, peer: str, why: str) -> None:
        self.refusals.append(why)

    def probed(self, peer: str) -> None:
        self.probes.append(peer)

    async def until(self, *what: object) -> None:
        async with asyncio.timeout(5):
            while what not in self.said:
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def listening(handler: server.Handler, **options: object) -> AsyncIterator[Listener]:
    listener = Listener(LOOPBACK, lambda: handler, **options)  # type: ignore[arg-type]
    await listener.start()
    try:
        yield listener
    finally:
        await listener.close()


@asynccontextmanager
async def connected(listener: Listener) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def within(seconds: float, what: Awaitable[bytes]) -> bytes:
    async with asyncio.timeout(seconds):
        return await what


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  no callback tells of it
            await asyncio.sleep(0.005)


class TestMessages:
    async def test_a_message_is_handed_over_and_answered(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"MSH|1"))
            assert await within(5, reader.readexactly(12)) == encode(b"ack MSH|1")
            assert handler.said == [("connected",), ("frame", b"MSH|1")]

    async def test_many_messages_in_a_segment_are_answered_in_order(self) -> None:
        async with listening(Recorder()) as listener, connected(listener) as (reader, writer):
            writer.write(b"".join(encode(b"%03d" % n) for n in range(200)))
            expected = b"".join(encode(b"ack %03d" % n) for n in range(200))
            assert await within(5, reader.readexactly(len(expected))) == expected

    async def test_noise_is_reported(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener, connected(listener) as (_, writer):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await handler.until("noise", b"GET / HTTP/1.1\r\n\r\n")

    async def test_the_peer_is_told_as_address_and_port(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener, connected(listener) as (_, writer):
            await handler.until("connected")
            own = writer.get_extra_info("sockname")
            assert handler.conns[0].peer == f"127.0.0.1:{own[1]}"

    async def test_sockets_are_kept_alive_and_not_delayed(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener, connected(listener):
            await handler.until("connected")
            transport = handler.conns[0]._transport
            assert transport is not None
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


class TestBadMessages:
    async def test_a_message_over_the_limit_gets_its_answer_and_the_connection_ends(self) -> None:
        handler = Recorder()
        async with listening(handler, max_bytes=1000) as listener, connected(listener) as (reader, writer):
            writer.write(b"\x0bMSH|" + b"x" * 500_000)
            assert await within(5, reader.read()) == encode(b"no")
            assert [s[0] for s in handler.said].count("too large") == 1
            writer.write_eof()
            await handler.until("closed")

    async def test_messages_before_one_over_the_limit_are_still_answered(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler, max_bytes=1000) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"before") + b"\x0b" + b"x" * 2000)
            await handler.until("too large", b"xxxx", 2000)
            assert handler.conns[0].send(b"yes")
            assert await within(5, reader.read()) == encode(b"no") + encode(b"yes")

    async def test_a_peer_that_goes_on_after_too_large_is_cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "LINGER", 0.05)
        handler = Recorder()
        async with listening(handler, max_bytes=10) as listener, connected(listener) as (_, writer):
            writer.write(b"\x0b" + b"x" * 100)
            async with asyncio.timeout(1):
                while ("closed",) not in handler.said:
                    writer.write(b"x")
                    await asyncio.sleep(0.01)

    async def test_a_message_that_does_not_end_in_time_is_reported_and_the_connection_ends(self) -> None:
        handler = Recorder()
        async with listening(handler, frame_timeout=0.05) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1") + b"\x0bMSH|half")
            await handler.until("unfinished", b"MSH|half", "timed out")
            assert await within(5, reader.read()) == encode(b"ack 1")
            await handler.until("closed")

    async def test_messages_in_pieces_are_not_late_as_long_as_each_ends_in_time(self) -> None:
        handler = Recorder()
        async with listening(handler, frame_timeout=0.2) as listener, connected(listener) as (_, writer):
            for n in range(10):
                writer.write(b"\x0b%d" % n)
                await asyncio.sleep(0.04)
                writer.write(b"\x1c\r")
            await handler.until("frame", b"9")
            assert not [said for said in handler.said if said[0] == "unfinished"]

    async def test_a_message_that_goes_on_may_take_longer_than_a_peer_may_be_silent(self) -> None:
        handler = Recorder()
        async with listening(handler, frame_timeout=0.15) as listener, connected(listener) as (_, writer):
            writer.write(b"\x0b")
            for _ in range(8):
                writer.write(b"x" * 20_000)
                await asyncio.sleep(0.05)
            writer.write(b"\x1c\r")
            await handler.until("frame", b"x" * 160_000)

    async def test_a_message_of_a_byte_now_and_then_ends_in_time_all_the_same(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "PATIENCE", 3)
        handler = Recorder()
        async with listening(handler, frame_timeout=0.15) as listener, connected(listener) as (_, writer):
            loop = asyncio.get_running_loop()
            began = loop.time()
            writer.write(b"\x0b")
            while ("closed",) not in handler.said:
                assert loop.time() - began < 5
                writer.write(b"x")
                await asyncio.sleep(0.02)
            assert [said[0::2] for said in handler.said if said[0] == "unfinished"] == [("unfinished", "timed out")]
            assert loop.time() - began > 0.4

    async def test_a_peer_that_is_not_read_is_not_late(self) -> None:
        handler = Recorder()
        async with listening(handler, frame_timeout=0.1) as listener, connected(listener) as (_, writer):
            writer.write(b"\x0bMSH|half")
            await handler.until("connected")
            conn = handler.conns[0]
            await eventually(lambda: conn._decoder.inside)
            conn.pause()
            writer.write(b"whole\x1c\r")
            await asyncio.sleep(0.25)
            conn.resume()
            await handler.until("frame", b"MSH|halfwhole")

    async def test_a_connection_that_ends_in_mid_message_leaves_what_came(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener:
            async with connected(listener) as (_, writer):
                writer.write(b"\x0bMSH|half")
            await handler.until("closed")
            assert handler.said[1:] == [("unfinished", b"MSH|half", "closed"), ("closed",)]

    async def test_a_reset_in_mid_message_leaves_what_came(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener:
            sock = socket.create_connection(("127.0.0.1", listener.port))
            sock.sendall(b"\x0bMSH|half")
            await handler.until("connected")
            await eventually(lambda: handler.conns[0]._decoder.inside)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            sock.close()
            await handler.until("closed")
            assert ("unfinished", b"MSH|half", "closed") in handler.said

    async def test_a_message_begun_again_is_reported_and_the_second_one_arrives(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener, connected(listener) as (_, writer):
            writer.write(b"\x0bMSH|a\x0bMSH|b\x1c\r")
            await handler.until("frame", b"MSH|b")
            assert ("unfinished", b"MSH|a", "restarted") in handler.said


class TestGonePeers:
    async def test_send_to_a_peer_that_is_gone_says_false(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler) as listener:
            async with connected(listener):
                await handler.until("connected")
            await handler.until("closed")
            assert handler.conns[0].send(b"late") is False

    async def test_send_after_close_says_false(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler) as listener, connected(listener):
            await handler.until("connected")
            handler.conns[0].close()
            assert handler.conns[0].send(b"late") is False

    async def test_a_peer_that_resets_during_answers_does_not_stop_the_others(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler) as listener, connected(listener) as (reader, writer):
            sock = socket.create_connection(("127.0.0.1", listener.port))
            sock.sendall(encode(b"doomed"))
            await handler.until("frame", b"doomed")
            doomed = next(c for c in handler.conns if c.peer.endswith(f":{sock.getsockname()[1]}"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            sock.close()
            for _ in range(50):
                doomed.send(b"x" * 1000)
                await asyncio.sleep(0)
            writer.write(encode(b"fine"))
            await handler.until("frame", b"fine")
            other = next(c for c in handler.conns if c is not doomed)
            assert other.send(b"ok")
            assert await within(5, reader.readexactly(5)) == encode(b"ok")

    async def test_a_peer_that_half_closes_still_gets_its_answer(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"last"))
            writer.write_eof()
            await handler.until("frame", b"last")
            await asyncio.sleep(0.05)
            assert handler.conns[0].send(b"got it")
            assert await within(5, reader.read()) == encode(b"got it")
            await handler.until("closed")

    async def test_a_handler_that_raises_costs_only_its_connection(self) -> None:
        class Broken(Recorder):
            def frame(self, conn: Connection, payload: bytes) -> None:
                raise ValueError("a bug")

        problems: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        handler = Broken()
        async with listening(handler) as listener:
            async with connected(listener) as (reader, writer):
                writer.write(encode(b"1"))
                assert await within(5, reader.read()) == b""
            await handler.until("closed")
            assert len(problems) == 1
            async with connected(listener) as (_, writer):
                writer.write(b"noise")
                await handler.until("noise", b"noise")


class TestBackPressure:
    async def test_a_paused_connection_is_not_read_until_resumed(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener, connected(listener) as (_, writer):
            await handler.until("connected")
            handler.conns[0].pause()
            writer.write(encode(b"1"))
            await asyncio.sleep(0.05)
            assert ("frame", b"1") not in handler.said
            handler.conns[0].resume()
            await handler.until("frame", b"1")

    async def test_a_peer_that_does_not_read_its_answers_is_no_longer_read(self) -> None:
        class Chatty(Recorder):
            def frame(self, conn: Connection, payload: bytes) -> None:
                super().frame(conn, payload)
                conn.send(b"x" * 100_000)

        handler = Chatty()
        async with listening(handler) as listener:
            sock = socket.create_connection(("127.0.0.1", listener.port))
            for _ in range(300):  # answers of 30 MB, more than the kernel takes
                sock.sendall(encode(b"more"))
                await asyncio.sleep(0.001)
            transport = handler.conns[0]._transport
            assert transport is not None
            assert not transport.is_reading()
            assert transport.get_write_buffer_size() < 1024 * 1024
            assert handler.said.count(("frame", b"more")) < 300
            sock.close()
            await handler.until("closed")

    async def test_it_is_read_again_when_it_has_taken_its_answers(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler) as listener, connected(listener) as (reader, writer):
            await handler.until("connected")
            transport = handler.conns[0]._transport
            assert transport is not None
            for _ in range(500):  # 32 MB, more than the kernel takes
                handler.conns[0].send(b"x" * 65536)
                await asyncio.sleep(0)
                if not transport.is_reading():
                    break
            assert not transport.is_reading()
            writer.write(encode(b"after"))
            task = asyncio.create_task(reader.read(-1), name="drain")
            await handler.until("frame", b"after")
            handler.conns[0].close()
            await task


class TestListener:
    async def test_a_port_in_use_is_refused_with_a_sentence(self) -> None:
        async with listening(Recorder()) as first:
            second = Listener(Address("127.0.0.1", first.port), Recorder)
            with pytest.raises(
                OSError, match=f"cannot listen on 127.0.0.1:{first.port}: Address already in use"
            ) as error:
                await second.start()
            assert error.value.errno == errno.EADDRINUSE
            await second.close()

    async def test_a_port_can_be_taken_again_right_after_its_connections_were_closed(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener:
            port = listener.port
            async with connected(listener) as (reader, writer):
                writer.write(encode(b"1"))
                await handler.until("frame", b"1")
                await listener.close()
                await within(5, reader.read())
        again = Listener(Address("127.0.0.1", port), Recorder)
        await again.start()
        await again.close()

    async def test_close_ends_every_connection(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener, connected(listener) as (reader, _):
            await handler.until("connected")
            await listener.close()
            assert await within(5, reader.read()) == b""
            assert not list(listener.connections)
            assert handler.said[-1] == ("closed",)

    async def test_close_with_grace_waits_for_answers_and_whole_messages(self) -> None:
        handler = Recorder(answer=False)
        async with (
            listening(handler) as listener,
            connected(listener) as (idle, _),
            connected(listener) as (reader, writer),
        ):
            writer.write(encode(b"1") + b"\x0bha")
            await handler.until("frame", b"1")
            conn = next(c for c in handler.conns if c.owed)
            closing = asyncio.create_task(listener.close(grace=5), name="close")
            assert await within(5, idle.read()) == b""
            conn.send(b"answer 1")
            writer.write(b"lf\x1c\r")
            await handler.until("frame", b"half")
            assert not closing.done()
            conn.send(b"answer 2")
            assert await within(5, reader.read()) == encode(b"answer 1") + encode(b"answer 2")
            await closing

    async def test_a_waived_message_is_not_waited_for(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            closing = asyncio.create_task(listener.close(grace=60), name="close")
            await asyncio.sleep(0)
            handler.conns[0].waive()
            assert await within(5, reader.read()) == b""
            await closing

    async def test_close_with_grace_gives_up_after_it(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler) as listener, connected(listener) as (_, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            started = time.monotonic()
            await listener.close(grace=0.1)
            assert 0.09 < time.monotonic() - started < 2
            assert not list(listener.connections)

    async def test_250_listeners_start_in_a_moment(self) -> None:
        listeners = [Listener(LOOPBACK, Recorder) for _ in range(250)]
        started = time.perf_counter()
        for listener in listeners:
            await listener.start()
        took = time.perf_counter() - started
        try:
            assert len({listener.port for listener in listeners}) == 250
            assert took < 1.0  # some 30 ms on a quiet machine
        finally:
            for listener in listeners:
                await listener.close()
