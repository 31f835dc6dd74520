"""A TCP connection to a peer, or the short name of why there is none."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from engine.config.address import Address
from engine.config.pem import TlsError
from engine.mllp.decrypted import Decrypted
from engine.mllp.handshake import HANDSHAKE, why_not
from engine.mllp.sockets import KEEPALIVE, tune
from engine.mllp.tls import ClientTls

P = TypeVar("P", bound=asyncio.Protocol)

GOODBYE = 2.0
"""Seconds that a peer may take to end its side of a TLS connection."""

_NAMES = {
    errno.ECONNRESET: "connection reset",
    errno.ETIMEDOUT: "connect timed out",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
}


class NoSource(OSError):
    """The address that the connection is to be made from is not one of this machine's."""


class OtherFamily(NoSource):
    """It is of another family than every address of the peer: IPv4 and IPv6 do not reach each other."""


async def dial(address: Address, *, source: str | None = None, keepalive: float = KEEPALIVE) -> socket.socket:
    """A connected socket that does not block. `source`: the IP address to connect from. OSError, see `why`."""
    loop = asyncio.get_running_loop()
    places = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    failure: OSError = NoSource("no address")
    if source is not None:
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        places = [place for place in places if place[0] == family]
        failure = OtherFamily(source)
    for family, kind, protocol, _, place in places:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            tune(sock, keepalive)
            _bind(sock, source)
            await loop.sock_connect(sock, place)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


def _bind(sock: socket.socket, source: str | None) -> None:
    if source is not None:
        try:
            sock.bind((source, 0))
        except OSError as error:
            raise NoSource(str(error)) from error


def why(error: OSError) -> str:
    """A short, stable name for why there is no connection; of a file of ours, which one."""
    if isinstance(error, TlsError):
        return str(error)
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "host name not resolved"
    if isinstance(error, OtherFamily):
        return "source address is of another family than the peer's"
    if isinstance(error, NoSource):
        return "source address is not this machine's"
    if isinstance(error, ssl.SSLError):
        return why_not(error)
    if isinstance(error, TimeoutError) and not error.errno:
        return "connect timed out"
    if isinstance(error, ConnectionError) and not error.errno:
        return why_not(error)  # asyncio's word for a handshake without an end
    return _NAMES.get(error.errno or 0) or f"connect failed ({errno.errorcode.get(error.errno or 0, 'unknown')})"


async def connect(
    sock: socket.socket,
    make: Callable[[], P],
    host: str,
    tls: ClientTls | None,
    *,
    goodbye: float,
) -> P:
    """The protocol that `make` gives, on a connected socket; with `tls`, after a handshake in which the peer has shown
    a certificate for `host`. `goodbye`: seconds that a peer may take to end TLS. OSError, see `why`; then `sock` is
    closed."""
    loop = asyncio.get_running_loop()
    made: Coroutine[Any, Any, tuple[asyncio.Transport, asyncio.BaseProtocol]]
    if tls is None:
        made = loop.create_connection(make, sock=sock)
    else:
        try:
            context = tls.context
        except TlsError:
            sock.close()
            raise
        made = loop.create_connection(
            lambda: Decrypted(make()), sock=sock, ssl=context, server_hostname=tls.name(host),
            ssl_handshake_timeout=HANDSHAKE, ssl_shutdown_timeout=goodbye,
        )  # fmt: skip
    # Cancelled at the wrong moment, an event loop closes a connection that it has announced and never says so.
    making = loop.create_task(made, name="mllp connection")
    try:
        _, protocol = await asyncio.shield(making)
    except asyncio.CancelledError:
        await _undone(making, sock)
        raise
    except BaseException:
        sock.close()
        raise
    return cast(P, protocol.inner if isinstance(protocol, Decrypted) else protocol)


async def _undone(making: asyncio.Task[tuple[asyncio.Transport, asyncio.BaseProtocol]], sock: socket.socket) -> None:
    """Let it come to its end, which is near without a peer, and leave nothing of it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    await asyncio.wait([making])
    if making.exception() is None:
        making.result()[0].abort()
    else:
        sock.close()
