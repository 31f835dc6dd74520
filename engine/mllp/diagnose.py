"""The connectivity test: one connection, at most one message, and what came of it in words.

It sends what it is given to a real peer, so the caller chooses a message that does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from engine.config.address import Address
from engine.config.edge import MLLP, Framing
from engine.mllp.dial import connect, dial
from engine.mllp.finding import Finding, of_bytes, of_connecting, of_handshake, sentence_of
from engine.mllp.framing import MAX_BYTES, NOT_STORED, STORED, Bare, Commit, Decoder, Frame, encode
from engine.mllp.handshake import refused_us
from engine.mllp.tls import ClientTls

SETTLE = 0.3
"""Seconds for which an open connection is watched: a peer that does not want it closes it at once."""
ASK_TLS = 1.0
"""Seconds that a peer gets to show that it speaks TLS: one that does answers within a round trip."""

Final = Callable[[bytes], bool]


class _Ear(asyncio.Protocol):
    """Hears until the answer is there or the connection is gone."""

    def __init__(self, framing: Framing, final: Final) -> None:
        self.decoder = Decoder(MAX_BYTES, framing)
        self.heard = bytearray()  # as long as there is no frame
        self.final = final
        self.before: bytes | None = None  # a frame that is not the last word
        self.frame: bytes | None = None
        self.more: bytes | None = None  # a frame behind it
        self.stored: bool | None = None  # what it says of our message on the transport level, in release 2
        self.lost: Exception | None = None
        self.over = asyncio.Event()  # a frame is there, or nothing more will come
        self.closed = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard += data[: 65536 - len(self.heard)]
        for event in self.decoder.feed(data):
            if isinstance(event, Commit):
                self.stored = event.stored
            elif isinstance(event, Frame):
                self._sort(event.payload)
        if self.frame is not None or self.stored is False or self.decoder.stopped:
            self.over.set()

    def _sort(self, payload: bytes) -> None:
        if self.frame is not None:
            self.more = self.more or payload
        elif self.final(payload):
            self.frame = payload
        else:
            self.before = payload

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        self.closed.set()
        self.over.set()

    @property
    def gone(self) -> bool:
        return self.closed.is_set()


async def diagnose(
    address: Address,
    *,
    framing: Framing = MLLP,
    tls: ClientTls | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109  of each step, and a finding of its own
    message: bytes | None = None,
    source: str | None = None,
    final: Final = lambda payload: True,
    expects: bool = True,
) -> Finding:
    """Connect, and send `message` if there is one. `timeout`: seconds for each step. `source`: IP address to connect
    from. `final`: whether a frame is the answer that is waited for; where none is, the last one counts. `expects`:
    whether there will be one at all. The codes are those of engine.mllp.finding; `answered` means a whole frame,
    whatever stands in it."""
    return await _Test(address, framing, tls, timeout, source, final, expects).run(message)


@dataclass(frozen=True, slots=True)
class _Test:
    address: Address
    framing: Framing
    tls: ClientTls | None
    timeout: float
    source: str | None
    final: Final
    expects: bool

    async def run(self, message: bytes | None) -> Finding:
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self.timeout):
                sock = await dial(self.address, source=self.source)
        except OSError as error:
            return self._found(*of_connecting(error))
        ear = _Ear(self.framing, self.final)
        try:
            async with asyncio.timeout(self.timeout):
                await connect(sock, lambda: ear, self.address.host, self.tls, goodbye=SETTLE)
        except OSError as error:
            return self._found(*self._of_tls(error))
        took = (asyncio.get_running_loop().time() - begun) * 1000
        assert ear.transport is not None
        try:
            return await (self._watch(ear, took) if message is None else self._ask(ear, took, message))
        finally:
            ear.transport.abort()

    async def _watch(self, ear: _Ear, took: float) -> Finding:
        """No message is sent: does the peer keep the connection, and does it expect TLS where we speak none?"""
        await _wait(ear.over, SETTLE)
        if not ear.gone:
            assert ear.transport is not None
            ear.transport.abort()  # a peer may have room for one connection only
            tls = self.tls is None and await self._speaks_tls()
            return self._found("peer_speaks_tls" if tls else "connected", connect_ms=took)
        if refused_us(ear.lost):
            return self._found(*self._of_tls(ear.lost))
        return self._found("reset" if ear.lost is not None else "closed_at_once", connect_ms=took)

    async def _ask(self, ear: _Ear, took: float, message: bytes) -> Finding:
        loop = asyncio.get_running_loop()
        assert ear.transport is not None
        written = loop.time()
        ear.transport.write(encode(message, self.framing))
        await _wait(ear.over, self.timeout if self.expects else SETTLE)
        answered = ear.frame or ear.before
        if ear.frame in (STORED, NOT_STORED) and not isinstance(ear.frame, Bare):
            return self._found("peer_speaks_release_2", connect_ms=took)
        if answered is not None:
            answer_ms = (loop.time() - written) * 1000
            if self.framing.release == 2:
                ear.transport.write(encode(STORED, self.framing))
            await _wait(ear.closed, SETTLE)  # a peer for whom a connection is for one message closes it soon
            found = self._found("answered", connect_ms=took, answer_ms=answer_ms, payload=answered)
            return replace(found, more=ear.more, closes=ear.gone)
        if not self.expects and not ear.gone and not ear.heard:
            return self._found("written", connect_ms=took)
        found = self._found(*await self._unanswered(ear), connect_ms=took)
        if found.code == "reset" and self.tls is not None:  # what we sent may have swept the peer's alert away
            again = await self.run(None)
            return found if again.good or again.code == "closed_at_once" else again
        return found

    async def _unanswered(self, ear: _Ear) -> tuple[str, str]:
        if ear.stored is not None:
            return "stored_unanswered" if ear.stored else "not_stored", ""
        if ear.heard:
            return of_bytes(bytes(ear.heard), self.framing)
        if refused_us(ear.lost):
            return self._of_tls(ear.lost)
        if self.tls is None and await self._speaks_tls():
            return "peer_speaks_tls", ""
        if not ear.gone:
            return "no_acknowledgement", ""
        return ("reset" if ear.lost is not None else "closed_without_answer"), ""

    async def _speaks_tls(self) -> bool:
        """Whether a second connection gets a TLS answer to a TLS handshake. No message is sent."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            async with asyncio.timeout(ASK_TLS):
                sock = await dial(self.address, source=self.source)
                with contextlib.closing(sock):
                    transport, _ = await asyncio.get_running_loop().create_connection(
                        asyncio.Protocol, sock=sock.dup(), ssl=context, server_hostname=""
                    )
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")
        except OSError:
            return False
        transport.abort()
        return True

    def _of_tls(self, error: Exception | None) -> tuple[str, str]:
        shows_one = self.tls is not None and self.tls.tls.certificate is not None
        return of_handshake(error, certificate=shows_one)

    def _found(
        self,
        code: str,
        detail: str = "",
        *,
        connect_ms: float | None = None,
        answer_ms: float | None = None,
        payload: bytes | None = None,
    ) -> Finding:
        sentence = sentence_of(code, self.address, self.timeout, detail)
        return Finding(code, sentence, connect_ms, answer_ms, payload)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
