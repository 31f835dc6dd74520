"""TLS handshakes, one after the other.

A handshake costs a thousand times what a message does, and after a network failure hundreds of peers want theirs at
once. So each waits until its peer has really begun one, and then for its turn: between two of them, whoever else has
something to do gets at it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from weakref import WeakKeyDictionary

HANDSHAKE = 10.0
"""Seconds that a peer may take to begin its handshake, and again to end it."""
PACE = 0.004
"""Seconds from the beginning of one handshake to that of the next."""

LINGER = 2.0
"""Seconds for which a peer that is turned away may go on sending: closing on its bytes would take our alert with it."""
LAST_WORDS = "alert"
"""The attribute of an error of a handshake of ours that holds the alert for the peer."""

_CLIENT_HELLO = 0x16  # content type "handshake" (RFC 8446, 5.1)
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH

_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no certificate",
    "UNSUPPORTED_PROTOCOL": "its version is too old",
    "VERSION_TOO_LOW": "its version is too old",
    "NO_SHARED_CIPHER": "no cipher in common",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "no cipher in common",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not trust our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not trust our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says our certificate has expired",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refused the handshake",
    "WRONG_VERSION_NUMBER": "not TLS",
    "HTTP_REQUEST": "not TLS",
}


_JUDGED = frozenset(
    f"{prefix}_ALERT_{alert}"
    for prefix in ("SSLV3", "TLSV1", "TLSV13")
    for alert in (
        "ACCESS_DENIED", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_REQUIRED", "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN", "DECRYPT_ERROR", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "UNSUPPORTED_CERTIFICATE",
    )
)  # fmt: skip
"""Alerts with which a peer ends a handshake (RFC 8446, 6.2)."""


class NotTls(OSError):
    """The peer's first byte begins no TLS handshake."""


class _Turns:
    """Who is next, of one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._busy = False

    async def mine(self) -> None:
        if self._busy:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        else:
            self._begin()

    def _begin(self) -> None:
        self._busy = True
        asyncio.get_running_loop().call_later(PACE, self._end)

    def _end(self) -> None:
        self._busy = False
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # its peer may have gone meanwhile
                turn.set_result(None)
                self._begin()
                return


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


async def hello(sock: socket.socket) -> bool:
    """Wait until the peer has begun a handshake and it is its turn. False where it went without a byte.

    `sock` does not block and is not read. TimeoutError, NotTls or another OSError where there will be no handshake.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(HANDSHAKE):
        await _readable(loop, sock)
    first = sock.recv(1, socket.MSG_PEEK)
    if not first:
        return False
    if first[0] != _CLIENT_HELLO:
        raise NotTls
    await _turns.setdefault(loop, _Turns()).mine()
    return True


async def turn_away(sock: socket.socket, error: OSError) -> None:
    """Tell a peer whose handshake has failed why, as TLS has it (RFC 8446, 6.2)."""
    loop = asyncio.get_running_loop()
    try:
        alert = error.__dict__.get(LAST_WORDS, b"")
        if alert:
            async with asyncio.timeout(LINGER):
                await loop.sock_sendall(sock, alert)
                sock.shutdown(socket.SHUT_WR)
                while await loop.sock_recv(sock, 65536):
                    continue
    except OSError:
        return


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready = loop.create_future()
    loop.add_reader(sock, _ring, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _ring(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def refused_us(error: Exception | None) -> bool:
    """Whether a connection ended because the peer did not let us in, and so has read nothing that we wrote."""
    return isinstance(error, ssl.SSLError) and error.reason in _JUDGED


def why_not(error: BaseException | None) -> str:
    """A short, stable name for a handshake that failed: `tls: certificate not trusted`. Nothing of it is the peer's."""
    return f"tls: {_reason(error)}"


def _reason(error: BaseException | None) -> str:
    if isinstance(error, NotTls):
        return "not TLS"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return "certificate is for another name"
        return "certificate expired" if error.verify_code == _EXPIRED else "certificate not trusted"
    if isinstance(error, ssl.SSLError) and error.reason:
        return _REASONS.get(error.reason, f"handshake failed ({error.reason})")
    if isinstance(error, TimeoutError) or "taking longer" in str(error):
        return "no handshake in time"
    return "closed in the handshake"
