"""Rules of who is let in at a listener, who counts as a peer, and how its connection is kept."""

from __future__ import annotations

import asyncio
import errno
import socket
import time

import pytest

from engine.config.address import Address
from engine.config.edge import Framing, Sockets
from engine.mllp import server
from engine.mllp.framing import encode
from engine.mllp.server import Connection, Listener
from tests.mllp.test_server import LOOPBACK, Recorder, connected, eventually, listening, within


def open_socket(listener: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port))


async def closed_by_peer(sock: socket.socket) -> bool:
    """Whether the listener closes it, within a moment."""
    sock.setblocking(False)
    try:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(sock, 1) == b""
    except ConnectionResetError:
        return True


class TestAllow:
    async def test_an_address_outside_is_turned_away_and_told_once(self) -> None:
        handler = Recorder()
        async with listening(handler, allow=["10.0.0.0/8"]) as listener:
            with open_socket(listener) as sock:
                assert await closed_by_peer(sock)
            assert handler.refusals == ["not in allow"]
            assert (handler.said, handler.probes, list(listener.connections)) == ([], [], [])

    async def test_an_address_inside_is_let_in(self) -> None:
        handler = Recorder()
        async with listening(handler, allow=["127.0.0.0/8"]) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            assert await within(5, reader.readexactly(8)) == encode(b"ack 1")

    async def test_a_load_balancer_that_may_only_probe_is_no_intruder(self) -> None:
        handler = Recorder()
        async with listening(handler, allow=["10.0.0.0/8"], probes=["127.0.0.1/32"]) as listener:
            with open_socket(listener) as sock:
                assert await closed_by_peer(sock)
            assert (handler.refusals, len(handler.probes)) == ([], 1)


class TestProbes:
    async def test_a_connection_that_goes_without_a_byte_is_a_probe_and_nothing_else(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "QUIET", 60.0)
        handler = Recorder()
        async with listening(handler) as listener:
            with open_socket(listener) as sock:
                own = f"127.0.0.1:{sock.getsockname()[1]}"
                await eventually(lambda: len(listener._open) == 1)
                assert list(listener.connections) == []
            await eventually(lambda: handler.probes == [own])
            assert handler.said == []

    async def test_a_reset_without_a_byte_is_a_probe_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "QUIET", 60.0)
        handler = Recorder()
        async with listening(handler) as listener:
            sock = open_socket(listener)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            sock.close()
            await eventually(lambda: len(handler.probes) == 1)
            assert handler.said == []

    async def test_the_first_byte_makes_it_a_peer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "QUIET", 60.0)
        handler = Recorder()
        async with listening(handler) as listener:
            async with connected(listener) as (_, writer):
                writer.write(b"\x0b")
                await handler.until("connected")
                assert list(listener.connections) == handler.conns
            await handler.until("closed")
            assert handler.said == [("connected",), ("unfinished", b"", "closed"), ("closed",)]
            assert handler.probes == []

    async def test_whoever_stays_is_a_silent_peer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "QUIET", 0.05)
        handler = Recorder()
        async with listening(handler) as listener:
            async with connected(listener):
                await handler.until("connected")
            await handler.until("closed")
            assert (handler.said, handler.probes) == ([("connected",), ("closed",)], [])

    async def test_from_a_load_balancers_network_only_a_byte_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "QUIET", 0.02)
        handler = Recorder()
        async with listening(handler, probes=["127.0.0.0/8"]) as listener, connected(listener) as (_, writer):
            await asyncio.sleep(0.1)  # five times as long as a peer elsewhere is given
            assert handler.said == []
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            assert handler.said[0] == ("connected",)

    async def test_a_listener_that_closes_tells_of_no_probe(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "QUIET", 60.0)
        handler = Recorder()
        async with listening(handler) as listener, connected(listener) as (reader, _):
            await eventually(lambda: len(listener._open) == 1)
            await listener.close(grace=5)
            assert await within(5, reader.read()) == b""
            assert (handler.said, handler.probes) == ([], [])

    async def test_a_handler_that_raises_at_connected_costs_only_its_connection(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Broken(Recorder):
            def connected(self, conn: Connection) -> None:
                raise ValueError("a bug")

        monkeypatch.setattr(server, "QUIET", 0.02)
        asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
        async with listening(Broken()) as listener, connected(listener) as (reader, _):
            assert await within(5, reader.read()) == b""


class TestLimits:
    async def test_no_more_than_most(self) -> None:
        handler = Recorder()
        async with listening(handler, sockets=Sockets(most=2)) as listener:
            with open_socket(listener) as one, open_socket(listener), open_socket(listener) as third:
                assert await closed_by_peer(third)
                assert handler.refusals == ["too many connections"]
                one.close()
                await handler.until("closed")
                with open_socket(listener) as fourth:
                    fourth.sendall(encode(b"4"))
                    await handler.until("frame", b"4")

    async def test_no_more_than_its_share_for_one_address(self) -> None:
        handler = Recorder()
        async with listening(handler, sockets=Sockets(per_address=1)) as listener:
            with open_socket(listener), open_socket(listener) as second:
                assert await closed_by_peer(second)
                assert handler.refusals == ["too many connections of its address"]

    async def test_the_newest_wins_and_the_older_one_ends_when_its_message_is_answered(self) -> None:
        handler = Recorder(answer=False)
        sockets = Sockets(most=1, newest_wins=True)
        async with listening(handler, sockets=sockets) as listener, connected(listener) as (older, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            async with connected(listener) as (_, newer):
                newer.write(encode(b"2"))
                await handler.until("frame", b"2")
                assert handler.refusals == []
                handler.conns[0].send(b"answer 1")
                assert await within(5, older.read()) == encode(b"answer 1")
                assert handler.conns[1].send(b"answer 2")

    async def test_a_probe_does_not_win(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "QUIET", 60.0)
        handler = Recorder()
        sockets = Sockets(newest_wins=True)
        async with listening(handler, sockets=sockets) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            await within(5, reader.readexactly(8))
            open_socket(listener).close()
            await eventually(lambda: len(handler.probes) == 1)
            writer.write(encode(b"2"))
            assert await within(5, reader.readexactly(8)) == encode(b"ack 2")

    async def test_replaced_connections_that_do_not_end_are_limited_too(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler, sockets=Sockets(most=2, newest_wins=True)) as listener:
            socks = []
            for n in range(4):
                socks.append(open_socket(listener))
                socks[-1].sendall(encode(b"%d, never answered" % n))
                await handler.until("frame", b"%d, never answered" % n)
            with open_socket(listener) as fifth:
                assert await closed_by_peer(fifth)
            assert handler.refusals == ["too many connections"]
            for sock in socks:
                sock.close()

    async def test_a_flood_is_taken_in_helpings(self) -> None:
        class Flood:
            """A listening socket at which somebody always waits."""

            def accept(self) -> tuple[socket.socket, tuple[str, int]]:
                return socket.socket(), ("192.0.2.1", 1)

        handler = Recorder()
        async with listening(handler, allow=["10.0.0.0/8"]) as listener:
            listener._accept(Flood())  # type: ignore[arg-type]
            assert len(handler.refusals) == server.HELPING

    async def test_a_flood_costs_others_little(self) -> None:
        """500 connections that are not wanted come at once; a peer's messages are answered meanwhile."""
        handler = Recorder()
        async with listening(handler, sockets=Sockets(most=1)) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            await within(5, reader.readexactly(8))
            flood = []
            for _ in range(500):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", listener.port))
                flood.append(sock)
            slowest = 0.0
            while len(handler.refusals) < 500:
                began = time.perf_counter()
                writer.write(encode(b"2"))
                await within(5, reader.readexactly(8))
                slowest = max(slowest, time.perf_counter() - began)
            assert slowest < 0.1  # a few ms: a helping of them between two turns
            for sock in flood:
                sock.close()

    async def test_without_file_descriptors_it_rests_and_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Exhausted:
            """A listening socket of a process that has no file descriptor left."""

            def accept(self) -> None:
                raise OSError(errno.EMFILE, "too many open files")

        monkeypatch.setattr(server, "REST", 0.05)
        handler = Recorder()
        async with listening(handler) as listener:
            listener._accept(Exhausted())  # type: ignore[arg-type]
            assert handler.refusals == ["out of file descriptors"]
            with open_socket(listener) as sock:
                sock.sendall(encode(b"1"))
                await handler.until("frame", b"1")


class TestKeeping:
    async def test_a_silent_connection_is_closed_after_the_idle_limit(self) -> None:
        handler = Recorder()
        async with listening(handler, sockets=Sockets(idle=0.1)) as listener, connected(listener) as (reader, writer):
            began = time.monotonic()
            for _ in range(3):
                writer.write(encode(b"1"))
                await within(5, reader.readexactly(8))
                await asyncio.sleep(0.05)
            assert await within(5, reader.read()) == b""
            assert time.monotonic() - began >= 0.195  # the loop counts in milliseconds

    async def test_one_that_waits_for_its_answer_is_not_idle(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler, sockets=Sockets(idle=0.05)) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            await asyncio.sleep(0.2)
            assert handler.conns[0].send(b"late")
            assert await within(5, reader.readexactly(7)) == encode(b"late")
            writer.write(encode(b"2"))  # its time begins with the answer
            await handler.until("frame", b"2")

    async def test_one_that_neither_reads_nor_sends_is_idle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It has vanished, or hangs: its place is for somebody else."""
        monkeypatch.setattr("engine.mllp.connection.LINGER", 0.05)
        handler = Recorder(answer=False)
        async with listening(handler, sockets=Sockets(idle=0.05)) as listener, connected(listener) as (_, writer):
            writer.write(encode(b"1") + encode(b"2"))
            await handler.until("frame", b"2")
            handler.conns[0].send(b"x" * 20_000_000)
            await handler.until("closed")

    async def test_one_that_reads_slowly_is_not_idle(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler, sockets=Sockets(idle=0.2)) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            handler.conns[0].send(b"x" * 40_000_000)
            heard = 0
            async with asyncio.timeout(20):
                while heard < 40_000_003:
                    heard += len(await reader.read(4_000_000 if heard % 3 else 1_000_000))
                    await asyncio.sleep(0.005)
            assert handler.said[-1] == ("frame", b"1")

    async def test_one_in_mid_message_is_not_idle(self) -> None:
        handler = Recorder()
        async with listening(handler, sockets=Sockets(idle=0.05)) as listener, connected(listener) as (_, writer):
            writer.write(b"\x0bMSH|half")
            await asyncio.sleep(0.2)
            writer.write(b"whole\x1c\r")
            await handler.until("frame", b"MSH|halfwhole")

    async def test_one_message_a_connection(self) -> None:
        handler = Recorder()
        sockets = Sockets(one_message=True)
        async with listening(handler, sockets=sockets) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            assert await within(5, reader.read()) == encode(b"ack 1")

    async def test_one_message_a_connection_owes_no_answer(self) -> None:
        handler = Recorder(answer=False)
        sockets = Sockets(one_message=True)
        async with listening(handler, sockets=sockets) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1") + encode(b"2"))
            await handler.until("frame", b"2")
            handler.conns[0].send(b"answer 1")
            handler.conns[0].send(b"answer 2")
            assert await within(5, reader.read()) == encode(b"answer 1") + encode(b"answer 2")

    async def test_one_message_a_connection_with_two_answers(self) -> None:
        handler = Recorder(answer=False)
        sockets = Sockets(one_message=True)
        async with listening(handler, sockets=sockets) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            conn = handler.conns[0]
            conn.expect_more(60)
            conn.send(b"CA")
            await asyncio.sleep(0.05)
            assert conn.transmit(b"AA")
            assert await within(5, reader.read()) == encode(b"CA") + encode(b"AA")

    async def test_one_message_a_connection_whose_second_answer_never_comes(self) -> None:
        handler = Recorder(answer=False)
        sockets = Sockets(one_message=True)
        async with listening(handler, sockets=sockets) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            began = time.monotonic()
            handler.conns[0].expect_more(0.1)
            handler.conns[0].send(b"CA")
            assert await within(5, reader.read()) == encode(b"CA")
            assert 0.095 < time.monotonic() - began < 2
            assert handler.conns[0].transmit(b"AA") is False

    async def test_one_message_a_connection_that_is_half_closed_gets_the_second_answer_too(self) -> None:
        handler = Recorder(answer=False)
        sockets = Sockets(one_message=True)
        async with listening(handler, sockets=sockets) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            handler.conns[0].expect_more(60)
            handler.conns[0].send(b"CA")
            assert await within(5, reader.readexactly(5)) == encode(b"CA")
            writer.write_eof()
            await asyncio.sleep(0.05)
            assert handler.conns[0].transmit(b"AA")
            assert await within(5, reader.read()) == encode(b"AA")

    async def test_one_message_a_connection_whose_only_answer_is_an_accept_acknowledgement(self) -> None:
        handler = Recorder(answer=False)
        sockets = Sockets(one_message=True)
        async with listening(handler, sockets=sockets) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            handler.conns[0].transmit(b"CA")
            await asyncio.sleep(0.05)
            assert ("closed",) not in handler.said
            handler.conns[0].waive()
            assert await within(5, reader.read()) == encode(b"CA")

    async def test_a_connection_for_many_messages_waits_for_no_answer(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            handler.conns[0].expect_more(60)
            handler.conns[0].send(b"CA")
            handler.conns[0].finish()
            assert await within(5, reader.read()) == encode(b"CA")

    async def test_keepalive_is_asked_for_as_configured(self) -> None:
        handler = Recorder()
        async with listening(handler, sockets=Sockets(keepalive=30.0)) as listener, connected(listener):
            await handler.until("connected")
            transport = handler.conns[0].transport
            assert transport is not None
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10

    async def test_what_we_transmit_is_no_answer(self) -> None:
        handler = Recorder(answer=False)
        async with listening(handler) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"1"))
            await handler.until("frame", b"1")
            assert handler.conns[0].transmit(b"a result")
            assert handler.conns[0].owed == 1
            handler.conns[0].send(b"ack 1")
            assert await within(5, reader.readexactly(19)) == encode(b"a result") + encode(b"ack 1")

    async def test_transmit_to_a_peer_that_is_gone_says_false(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener:
            async with connected(listener):
                await handler.until("connected")
            await handler.until("closed")
            assert handler.conns[0].transmit(b"late") is False

    async def test_another_framing_goes_both_ways(self) -> None:
        framing = Framing(b"\x02", b"\x03")
        handler = Recorder()
        async with listening(handler, framing=framing) as listener, connected(listener) as (reader, writer):
            writer.write(encode(b"MSH|\x1c\x0b", framing))
            assert await within(5, reader.readexactly(12)) == encode(b"ack MSH|\x1c\x0b", framing)


class TestOpening:
    async def test_a_listener_can_be_closed_and_opened_again(self) -> None:
        handler = Recorder()
        async with listening(handler) as listener:
            for n in (b"1", b"2"):
                async with connected(listener) as (_, writer):
                    writer.write(encode(n))
                    await handler.until("frame", n)
                await listener.close()
                await listener.start()

    async def test_an_ipv6_address(self) -> None:
        handler = Recorder()
        listener = Listener(Address("::1", 0), lambda: handler, allow=["::1/128"])
        try:
            await listener.start()
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")
        _, writer = await asyncio.open_connection("::1", listener.port)
        writer.write(encode(b"1"))
        await handler.until("frame", b"1")
        assert handler.conns[0].peer.startswith("[::1]:")
        writer.close()
        await listener.close()

    async def test_a_name_that_nobody_knows_is_told(self) -> None:
        with pytest.raises(OSError, match=r"cannot listen on no such host:1: "):
            await Listener(Address("no such host", 1), Recorder).start()

    async def test_framing_that_cannot_work_is_refused_before_anything_opens(self) -> None:
        with pytest.raises(ValueError, match="an end: that segments end in"):
            Listener(LOOPBACK, Recorder, framing=Framing(b"", b"\r"))
