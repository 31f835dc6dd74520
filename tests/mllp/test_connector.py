"""Rules of engine.mllp.connector: we connect, the peer sends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.config.address import Address
from engine.config.edge import Connect, Sockets, Tls
from engine.mllp.connector import Connector
from engine.mllp.framing import encode
from engine.mllp.server import Listener
from engine.mllp.tls import ClientTls, ServerTls
from tests.mllp.test_client import Peer
from tests.mllp.test_server import Recorder, eventually
from tests.support.certificates import Authority


@asynccontextmanager
async def connecting(peer: Peer, handler: Recorder, **options: object) -> AsyncIterator[Connector]:
    settings = {"reconnect": 0.02, **options}
    connector = Connector(Connect(peer.address, **settings), lambda: handler)  # type: ignore[arg-type]
    await connector.start()
    try:
        yield connector
    finally:
        await connector.close()
        peer.close()
        assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("mllp")]


async def test_a_message_is_heard_and_answered() -> None:
    peer, handler = Peer(), Recorder()
    async with connecting(peer, handler) as connector:
        conn = await peer.accept()
        await handler.until("connected")  # we made it: it is no probe
        assert list(connector.connections) == handler.conns
        assert handler.conns[0].peer == str(peer.address)
        conn.sendall(encode(b"1"))
        await peer.receive(conn, b"ack 1")


async def test_after_its_end_it_connects_again() -> None:
    peer, handler = Peer(), Recorder()
    async with connecting(peer, handler):
        for n in (b"1", b"2"):
            conn = await peer.accept()
            conn.sendall(encode(n))
            await peer.receive(conn, b"ack " + n)
            conn.close()
        await eventually(lambda: handler.said.count(("closed",)) == 2)


async def test_why_there_is_no_connection_is_told_after_each_attempt() -> None:
    peer, handler = Peer(), Recorder()
    peer.sock.close()
    async with connecting(peer, handler):
        await eventually(lambda: len(handler.refusals) >= 3)
        assert set(handler.refusals) == {"connection refused"}
        peer.sock = socket.create_server((peer.address.host, peer.address.port))
        peer.sock.setblocking(False)
        conn = await peer.accept()
        await handler.until("connected")
        handler.refusals.clear()
        peer.sock.close()
        conn.close()
        await eventually(lambda: handler.refusals[:1] == ["connection refused"])


async def test_starting_it_twice_makes_one_connection() -> None:
    peer, handler = Peer(), Recorder()
    async with connecting(peer, handler) as connector:
        await connector.start()
        await peer.accept()
        await handler.until("connected")
        assert len(list(connector.connections)) == 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.accept(), 0.1)


async def test_start_returns_at_once_though_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> socket.socket:
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr("engine.mllp.connector.dial", never)
    peer, handler = Peer(), Recorder()
    async with connecting(peer, handler, connect_timeout=0.05):
        await eventually(lambda: handler.refusals[:1] == ["connect timed out"])


async def test_it_can_be_closed_and_started_again() -> None:
    peer, handler = Peer(), Recorder()
    async with connecting(peer, handler) as connector:
        await peer.accept()
        await handler.until("connected")
        await connector.close()
        assert handler.said[-1] == ("closed",)
        assert list(connector.connections) == []
        await connector.start()
        conn = await peer.accept()
        conn.sendall(encode(b"1"))
        await peer.receive(conn, b"ack 1")


async def test_close_with_grace_waits_for_the_answer() -> None:
    peer, handler = Peer(), Recorder(answer=False)
    async with connecting(peer, handler) as connector:
        conn = await peer.accept()
        conn.sendall(encode(b"1"))
        await handler.until("frame", b"1")
        closing = asyncio.create_task(connector.close(grace=5), name="close")
        await asyncio.sleep(0.02)
        assert not closing.done()
        handler.conns[0].send(b"answer")
        await peer.receive(conn, b"answer")
        await closing


async def test_an_idle_connection_is_made_anew() -> None:
    peer, handler = Peer(), Recorder()
    async with connecting(peer, handler, sockets=Sockets(idle=0.05)):
        await peer.accept()
        await peer.accept()
        assert ("closed",) in handler.said


async def test_it_connects_from_the_source_address() -> None:
    peer, handler = Peer(), Recorder()
    async with connecting(peer, handler, source_address="127.0.0.2"):
        assert (await peer.accept()).getpeername()[0] == "127.0.0.2"


async def test_tls_both_ways(tmp_path: Path) -> None:
    """The peer is a listener here that transmits to whoever connects."""
    authority = Authority(tmp_path)
    theirs, mine = authority.issue("peer"), authority.issue("us")
    peer, handler = Recorder(), Recorder()
    listener = Listener(
        Address("127.0.0.1", 0), lambda: peer, tls=ServerTls(Tls(theirs.certificate, theirs.key, authority.ca))
    )
    await listener.start()
    settings = Connect(Address("127.0.0.1", listener.port), tls=Tls(mine.certificate, mine.key, authority.ca))
    connector = Connector(settings, lambda: handler)
    await connector.start()
    await peer.until("connected")
    peer.conns[0].transmit(b"a result")
    await handler.until("frame", b"a result")
    await peer.until("frame", b"ack a result")
    await connector.close()
    await listener.close()


async def test_a_peer_that_is_not_trusted_is_told(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b", "Another Authority")
    pair = authority.issue("peer")
    listener = Listener(Address("127.0.0.1", 0), Recorder, tls=ServerTls(Tls(pair.certificate, pair.key)))
    await listener.start()
    handler = Recorder()
    connect = Connect(Address("127.0.0.1", listener.port), reconnect=0.02)
    connector = Connector(connect, lambda: handler, tls=ClientTls(Tls(ca=other.ca)))
    await connector.start()
    await eventually(lambda: handler.refusals[:1] == ["tls: certificate not trusted"])
    assert handler.said == []
    await connector.close()
    await listener.close()
