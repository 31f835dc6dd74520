"""Rules of engine.mllp.client for peers with habits of their own: enhanced mode, two-way sockets, answers elsewhere, no
answers at all, a connection for each message."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from engine.config.edge import Framing
from engine.mllp import link
from engine.mllp.client import TIMED_OUT, Answered, Client, Lost, NotSent, State, Written
from engine.mllp.framing import encode
from tests.mllp.test_client import scene


def is_application_answer(payload: bytes) -> bool:
    return not payload.startswith(b"CA")


async def ended(conn: socket.socket) -> bool:
    """Whether the client has closed it."""
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(conn, 1) == b""


class TestFinal:
    async def test_a_frame_that_is_not_final_is_waited_through(self) -> None:
        async with scene() as it:
            it.send(b"one", final=is_application_answer)
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(encode(b"CA one"))
            conn.sendall(encode(b"AA one"))
            assert await it.replies.until(1) == [("one", Answered(b"AA one"))]
            assert it.strays == [b"CA one"]
            assert it.client.state is State.IDLE

    async def test_both_in_one_read(self) -> None:
        async with scene() as it:
            it.send(b"one", final=is_application_answer)
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(encode(b"CA one") + encode(b"AA one"))
            assert await it.replies.until(1) == [("one", Answered(b"AA one"))]

    async def test_a_welcome_frame_is_not_stray(self) -> None:
        welcome: list[bytes] = []
        async with scene(unasked=lambda payload: welcome.append(payload) or True) as it:
            it.send(b"one", final=is_application_answer)
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(encode(b"CA one") + encode(b"AA one"))
            await it.replies.until(1)
            assert (welcome, it.strays) == ([b"CA one"], [])

    async def test_without_a_final_one_it_is_lost_in_time(self) -> None:
        async with scene() as it:
            it.send(b"one", timeout=0.1, final=is_application_answer)
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(encode(b"CA one"))
            assert await it.replies.until(1) == [("one", Lost(TIMED_OUT))]


class TestTwoWay:
    async def test_a_peers_own_message_is_heard_and_answered_and_the_connection_stays(self) -> None:
        def hear(payload: bytes) -> bool:
            return it.client.transmit(b"ack " + payload)

        async with scene(unasked=hear) as it:
            conn = await it.ask(b"one", b"AA")
            conn.sendall(encode(b"result"))
            await it.peer.receive(conn, b"ack result")
            assert it.client.state is State.IDLE
            it.send(b"two")
            await it.peer.receive(conn, b"two")

    async def test_while_an_answer_is_due_the_final_one_is_told_from_it(self) -> None:
        def hear(payload: bytes) -> bool:
            return it.client.transmit(b"ack " + payload)

        async with scene(unasked=hear) as it:
            it.send(b"one", final=lambda payload: payload.startswith(b"AA"))
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(encode(b"result"))
            await it.peer.receive(conn, b"ack result")
            conn.sendall(encode(b"AA one"))
            assert await it.replies.until(1) == [("one", Answered(b"AA one"))]

    async def test_a_message_in_pieces_costs_no_connection(self) -> None:
        heard: list[bytes] = []
        async with scene(unasked=lambda payload: heard.append(payload) or True) as it:
            conn = await it.ask(b"one", b"AA")
            conn.sendall(b"\x0bres")
            await asyncio.sleep(0.02)
            it.send(b"two", final=lambda payload: payload.startswith(b"AA"))
            await it.peer.receive(conn, b"two")
            conn.sendall(b"ult\x1c\r" + encode(b"AA two"))
            assert (await it.replies.until(2))[1] == ("two", Answered(b"AA two"))
            assert heard == [b"result"]

    async def test_one_that_could_be_taken_for_the_answer_does(self) -> None:
        async with scene(unasked=lambda payload: True) as it:
            conn = await it.ask(b"one", b"AA")
            conn.sendall(b"\x0bres")
            await asyncio.sleep(0.02)
            it.send(b"two")  # nothing could tell the rest of that message from the answer to this one
            again = await it.peer.accept()
            await it.peer.receive(again, b"two")
            assert it.strays == [b"res"]

    async def test_a_frame_that_is_not_welcome_costs_the_connection(self) -> None:
        async with scene(unasked=lambda payload: False) as it:
            conn = await it.ask(b"one", b"AA")
            conn.sendall(encode(b"what"))
            await it.settled(State.CLOSED)
            assert it.strays == [b"what"]

    async def test_a_callback_may_send_at_once(self) -> None:
        def hear(payload: bytes) -> bool:
            it.send(b"two")
            return True

        async with scene(unasked=hear) as it:
            conn = await it.ask(b"one", b"AA")
            conn.sendall(encode(b"result"))
            await it.peer.receive(conn, b"two")
            conn.sendall(encode(b"AA two"))
            assert (await it.replies.until(2))[1] == ("two", Answered(b"AA two"))

    async def test_a_callback_that_sends_and_does_not_welcome_loses_what_it_sent(self) -> None:
        def hear(payload: bytes) -> bool:
            it.send(b"two")
            return False

        async with scene(unasked=hear) as it:
            conn = await it.ask(b"one", b"AA")
            conn.sendall(encode(b"result"))
            assert (await it.replies.until(2))[1] == ("two", Lost("something came that nobody asked for"))

    async def test_a_message_still_in_the_kernel_may_lead_to_a_send_before_the_next(self) -> None:
        def hear(payload: bytes) -> bool:
            it.send(b"three")
            return True

        async with scene(unasked=hear) as it:
            conn = await it.ask(b"one", b"AA")
            conn.sendall(encode(b"result"))
            it.send(b"two")  # finds the result in the kernel
            await it.peer.receive(conn, b"two")
            conn.sendall(encode(b"AA two"))
            await it.peer.receive(conn, b"three")
            conn.sendall(encode(b"AA three"))
            assert [name for name, _ in await it.replies.until(3)] == ["one", "two", "three"]

    async def test_a_callback_that_hangs_up_loses_the_answer_before_it(self) -> None:
        def hear(payload: bytes) -> bool:
            it.client.hang_up()
            return True

        problems: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with scene(unasked=hear) as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(encode(b"AA one") + encode(b"result"))
            assert await it.replies.until(1) == [("one", Lost("hung up"))]
            it.send(b"two")
            await it.peer.receive(await it.peer.accept(), b"two")
        assert problems == []

    async def test_transmit_without_a_connection_says_false(self) -> None:
        async with scene() as it:
            assert it.client.transmit(b"x") is False
            assert it.client.state is State.CLOSED


class TestElsewhere:
    async def test_an_offered_answer_is_the_answer(self) -> None:
        async with scene() as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            it.client.offer(b"AA one")
            assert it.replies.came == [("one", Answered(b"AA one"))]
            assert it.client.state is State.IDLE

    async def test_a_peer_that_closes_after_the_message_may_still_answer(self) -> None:
        async with scene(elsewhere=True) as it:
            it.send(b"one")
            it.send(b"two")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.close()
            await it.settled(State.APART)
            it.client.offer(b"AA one")
            assert it.replies.came == [("one", Answered(b"AA one"))]
            await it.peer.receive(await it.peer.accept(), b"two")

    async def test_if_no_answer_comes_it_is_lost_in_time(self) -> None:
        async with scene(elsewhere=True) as it:
            it.send(b"one", timeout=0.1)
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.close()
            assert await it.replies.until(1) == [("one", Lost(TIMED_OUT))]
            assert it.client.state is State.CLOSED

    async def test_a_reset_loses_it_at_once(self) -> None:
        async with scene(elsewhere=True) as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            conn.close()
            assert await it.replies.until(1) == [("one", Lost("connection reset"))]

    async def test_one_that_nobody_waits_for_costs_the_connection_like_any_frame(self) -> None:
        async with scene() as it:
            await it.ask(b"one", b"AA")
            it.client.offer(b"AA what")
            assert (it.strays, it.client.state) == ([b"AA what"], State.CLOSED)

    async def test_one_that_nobody_waits_for_is_stray(self) -> None:
        async with scene() as it:
            it.client.offer(b"AA what")
            assert it.strays == [b"AA what"]

    @pytest.mark.parametrize("close", [Client.hang_up, Client.aclose])
    async def test_while_apart_it_can_be_given_up(self, close: Callable[[Client], object]) -> None:
        async with scene(elsewhere=True) as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.close()
            await it.settled(State.APART)
            if asyncio.iscoroutine(waiting := close(it.client)):
                await waiting
            assert it.replies.came in ([("one", Lost("hung up"))], [("one", Lost("client closed"))])


class TestNoAnswer:
    async def test_what_the_kernel_has_taken_is_written(self) -> None:
        async with scene() as it:
            for name in (b"one", b"two"):
                it.send(name, expects=False)
            conn = await it.peer.accept()
            assert await it.replies.until(2) == [("one", Written()), ("two", Written())]
            async with asyncio.timeout(5):
                got = await asyncio.get_running_loop().sock_recv(conn, 100)
            assert got == encode(b"one") + encode(b"two")

    async def test_what_the_kernel_does_not_take_is_not(self) -> None:
        async with scene() as it:
            message = b"MSH|" + b"x" * 30_000_000  # more than both kernels hold
            it.client.send(message, 0.2, it.replies.of("big"), expects=False)
            await it.peer.accept()
            assert await it.replies.until(1) == [("big", Lost("could not be written in time"))]

    async def test_a_large_one_is_written_when_the_last_byte_has_left(self) -> None:
        async with scene() as it:
            message = b"MSH|" + b"x" * 30_000_000
            it.client.send(message, 5.0, it.replies.of("big"), expects=False)
            conn = await it.peer.accept()
            await asyncio.sleep(0.05)
            assert it.replies.came == []
            await it.peer.receive(conn, message)
            assert await it.replies.until(1) == [("big", Written())]

    async def test_nobody_there_is_not_sent(self) -> None:
        async with scene() as it:
            it.peer.sock.close()
            it.send(b"one", expects=False)
            assert await it.replies.until(1) == [("one", NotSent("connection refused"))]


class TestOneMessageAConnection:
    async def test_each_message_has_its_own(self) -> None:
        async with scene(persistent=False) as it:
            for n, name in enumerate((b"one", b"two"), 1):
                it.send(name)
                conn = await it.peer.accept()
                await it.peer.receive(conn, name)
                conn.sendall(encode(b"ack"))
                assert len(await it.replies.until(n)) == n
                assert it.client.state is State.CLOSED
                assert await ended(conn)

    async def test_a_peer_that_does_not_answer_gets_the_message_before_the_end(self) -> None:
        async with scene(persistent=False) as it:
            it.send(b"one", expects=False)
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            assert await it.replies.until(1) == [("one", Written())]
            assert await ended(conn)
            conn.close()

    async def test_a_connection_that_the_peer_does_not_end_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(link, "GOODBYE", 0.05)
        async with scene(persistent=False) as it:
            it.send(b"one", expects=False)
            await it.peer.accept()
            await it.replies.until(1)
            async with asyncio.timeout(5):
                while it.client._leaving:  # noqa: ASYNC110  no callback tells of it
                    await asyncio.sleep(0.005)


class TestKeeping:
    async def test_an_unused_connection_is_closed(self) -> None:
        async with scene(idle=0.1) as it:
            conn = await it.ask(b"one", b"ack")
            assert await ended(conn)
            assert it.client.state is State.CLOSED
            it.send(b"two")
            await it.peer.receive(await it.peer.accept(), b"two")

    async def test_one_that_waits_for_an_answer_is_used(self) -> None:
        async with scene(idle=0.05) as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            await asyncio.sleep(0.2)
            conn.sendall(encode(b"ack"))
            assert await it.replies.until(1) == [("one", Answered(b"ack"))]

    async def test_a_message_on_its_way_keeps_its_connection_however_short_the_idle_limit(self) -> None:
        async with scene(idle=0.0) as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            await asyncio.sleep(0.02)
            conn.sendall(encode(b"ack"))
            assert await it.replies.until(1) == [("one", Answered(b"ack"))]
            assert await ended(conn)
            assert it.client.state is State.CLOSED

    async def test_keepalive_is_asked_for_as_configured(self) -> None:
        async with scene(keepalive=30.0) as it:
            await it.ask(b"one", b"ack")
            assert it.client._link is not None
            assert it.client._link.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30

    async def test_a_peer_that_vanished_under_what_we_sent_is_given_up_as_soon_as_a_silent_one(self) -> None:
        """The kernel asks nobody while it repeats what was not acknowledged: for a quarter of an hour unless told."""
        async with scene(keepalive=30.0) as it:
            await it.ask(b"one", b"ack")
            assert it.client._link is not None
            assert it.client._link.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 70_000

    async def test_it_connects_from_the_source_address(self) -> None:
        async with scene(source_address="127.0.0.2") as it:
            conn = await it.ask(b"one", b"ack")
            assert conn.getpeername()[0] == "127.0.0.2"

    async def test_a_source_address_of_another_family_is_told_as_such(self) -> None:
        async with scene(source_address="::1") as it:
            it.send(b"one")
            reason = "source address is of another family than the peer's"
            assert await it.replies.until(1) == [("one", NotSent(reason))]

    async def test_a_source_address_that_is_not_ours_is_told(self) -> None:
        async with scene(source_address="192.0.2.1") as it:
            it.send(b"one")
            assert await it.replies.until(1) == [("one", NotSent("source address is not this machine's"))]

    async def test_another_framing(self) -> None:
        framing = Framing(b"", b"\x1c\r")
        async with scene(framing=framing) as it:
            it.send(b"MSH|1")
            conn = await it.peer.accept()
            async with asyncio.timeout(5):
                assert await asyncio.get_running_loop().sock_recv(conn, 100) == b"MSH|1\x1c\r"
            conn.sendall(b"MSH|2\rMSA|AA|1\r\x1c\r")
            assert await it.replies.until(1) == [("MSH|1", Answered(b"MSH|2\rMSA|AA|1\r"))]
