"""Rules of engine.mllp.strangers: who speaks another protocol is cut off at once, and known."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import suppress

import pytest

from engine.config.edge import Framing
from engine.mllp import connection
from engine.mllp.framing import encode
from engine.mllp.strangers import HTTP, LONGEST, TLS, stranger, undecided
from tests.mllp.test_server import Recorder, connected, listening, within

HELLO = bytes.fromhex("16 03 01 00 20 01 00 00 1c 03 03 00 01 02 03")
REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"
MESSAGE = b"MSH|1"


def noise(handler: Recorder) -> bytes:
    return b"".join(said[1] for said in handler.said if said[0] == "noise")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("first", "what"),
    [
        (HELLO, TLS),
        (b"\x16\x03\x03", TLS),
        (b"\x16\x02\x00", None),
        (REQUEST, HTTP),
        (b"OPTIONS * HTTP/1.0\r\n", HTTP),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP),
        (b"GETTING UP", None),
        (b"get / ", None),
        (b"MSH|^~\\&|", None),
        (b"\r\n", None),
        (b"", None),
    ],
)
def test_the_first_bytes_tell(first: bytes, what: str | None) -> None:
    assert stranger(first) == what


def test_it_is_undecided_only_as_long_as_it_may_still_be_one() -> None:
    assert undecided(b"\x16")
    assert undecided(b"OPTIONS")
    assert not undecided(b"GET /")
    assert not undecided(b"x")
    assert not undecided(b"x" * LONGEST)


@pytest.mark.parametrize(("sent", "what"), [(HELLO, TLS), (REQUEST, HTTP)])
async def test_a_stranger_is_cut_off_at_once_and_known(sent: bytes, what: str) -> None:
    handler = Recorder()
    async with listening(handler, frame_timeout=60) as listener, connected(listener) as (reader, writer):
        began = time.monotonic()
        writer.write(sent)
        assert await within(5, reader.read()) == b""
        assert time.monotonic() - began < 1
        await handler.until("closed")
        assert handler.said == [("connected",), ("noise", sent), ("closed",)]
        assert handler.conns[0].stranger == what


@pytest.mark.parametrize("at", range(1, LONGEST + 1))
@pytest.mark.parametrize(("sent", "what"), [(HELLO, TLS), (REQUEST, HTTP)])
async def test_however_its_first_bytes_are_cut(sent: bytes, what: str, at: int) -> None:
    handler = Recorder()
    async with listening(handler) as listener, connected(listener) as (reader, writer):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (sent[:at], sent[at:]):
            writer.write(piece)
            await asyncio.sleep(0.02)
        with suppress(ConnectionResetError):  # it was cut off before the second piece
            assert await within(5, reader.read()) == b""
        await handler.until("closed")
        assert handler.conns[0].stranger == what
        assert sent.startswith(noise(handler))


async def test_what_a_stranger_sends_behind_its_greeting_is_no_message() -> None:
    handler = Recorder()
    async with listening(handler) as listener, connected(listener) as (reader, writer):
        writer.write(REQUEST + encode(MESSAGE))
        assert await within(5, reader.read()) == b""
        assert ("frame", MESSAGE) not in handler.said


@pytest.mark.parametrize("before", [b"\0", b"\r\n", encode(b"MSH|0"), b"hello "])
async def test_later_the_same_bytes_are_noise_like_any_other(before: bytes) -> None:
    handler = Recorder()
    async with listening(handler) as listener, connected(listener) as (_, writer):
        for sent in (before, REQUEST, HELLO, encode(MESSAGE)):
            writer.write(sent)
            await asyncio.sleep(0.01)
        await handler.until("frame", MESSAGE)
        assert handler.conns[0].stranger is None
        assert noise(handler).endswith(REQUEST + HELLO)


async def test_nobody_is_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []

    def look(first: bytes) -> str | None:
        looked.append(first)
        return None

    monkeypatch.setattr(connection, "stranger", look)
    handler = Recorder()
    async with listening(handler) as listener, connected(listener) as (_, writer):
        for sent in (b"\r\n", b"hello", encode(MESSAGE)):
            writer.write(sent)
            await asyncio.sleep(0.01)
        await handler.until("frame", MESSAGE)
        assert looked == [b"\r\n"]


async def test_without_a_start_byte_everything_may_be_a_message() -> None:
    handler = Recorder()
    async with listening(handler, framing=Framing(b"")) as listener, connected(listener) as (_, writer):
        writer.write(b"GET up\x1c\r")
        await handler.until("frame", b"GET up")


async def test_a_start_byte_that_is_a_strangers_too_begins_a_message() -> None:
    handler = Recorder()
    framing = Framing(b"\x16", b"\x1c\r")
    async with listening(handler, framing=framing) as listener, connected(listener) as (_, writer):
        writer.write(b"\x16\x03MSH|1\x1c\r")
        await handler.until("frame", b"\x03MSH|1")


async def test_a_tls_client_fails_at_once() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    handler = Recorder()
    async with listening(handler) as listener:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with asyncio.timeout(5):
                await asyncio.open_connection("127.0.0.1", listener.port, ssl=context)
        await handler.until("closed")
        assert handler.conns[0].stranger == TLS
