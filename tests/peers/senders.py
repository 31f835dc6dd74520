"""Clients that others wrote, as vendors of ours: each sends a text, and says what it read in our answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import hl7
from hl7.client import MLLPClient
from hl7.mllp import open_hl7_connection

from engine.config.edge import Tls
from engine.mllp.tls import ClientTls
from tests.peers.node import PATIENCE, Node

HOST = "127.0.0.1"
BIG = 16 << 20  # bytes that a python-hl7 stream may hold
Wait = Literal["first", "application", "both"]
"""What a peer takes for the answer: whatever comes first, the application's, or the two of enhanced mode."""

PYTHON_HL7 = "python-hl7"
BLOCKING = "python-hl7, blocking"
MEDPLUM = "@medplum/hl7"
NODE_HL7 = "node-hl7-client"
SENDERS = (PYTHON_HL7, BLOCKING, MEDPLUM, NODE_HL7)
SENDERS_WITH_TLS = (PYTHON_HL7, NODE_HL7)


class Answer(NamedTuple):
    """MSA-1, MSA-2 and MSH-6 of an answer, as the peer's own parser has them."""

    code: str
    control_id: str
    facility: str = ""


class Sender(Protocol):
    """A connection of a peer's."""

    async def send(self, text: str) -> list[Answer]:
        """Send a message; what the peer takes for its answer. OSError where there is none."""

    async def close(self) -> None: ...


class PythonHl7:
    """The asyncio client of `hl7.mllp`. It does not connect again by itself."""

    def __init__(self, port: int, encoding: str, wait: Wait, tls: Tls | None) -> None:
        self._port, self._encoding, self._wait, self._tls = port, encoding, wait, tls
        self._writer: Any = None

    async def send(self, text: str) -> list[Answer]:
        async with asyncio.timeout(PATIENCE):
            if self._writer is None:
                context = ClientTls(self._tls).context if self._tls else None
                options: dict[str, Any] = {"limit": BIG, "encoding": self._encoding, "ssl": context}
                self._reader, self._writer = await open_hl7_connection(HOST, self._port, **options)
            try:
                self._writer.writemessage(hl7.parse_hl7(text))
                await self._writer.drain()
                return [_read(await self._reader.readmessage()) for _ in range(2 if self._wait == "both" else 1)]
            except (OSError, EOFError) as error:
                await self.close()
                raise ConnectionError(str(error)) from None

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Blocking:
    """`hl7.client.MLLPClient`: connects when it is made, and takes what one `recv` gives for the answer."""

    def __init__(self, port: int, encoding: str) -> None:
        self._port, self._encoding = port, encoding
        self._client: MLLPClient | None = None

    async def send(self, text: str) -> list[Answer]:
        return await asyncio.to_thread(self._send, text)

    def _send(self, text: str) -> list[Answer]:
        if self._client is None:
            self._client = MLLPClient(HOST, self._port, self._encoding)
            self._client.socket.settimeout(PATIENCE)
        data: bytes = self._client.send_message(text)
        if not data:
            self._client.close()
            self._client = None
            raise ConnectionError("closed")
        blocks = data.decode(self._encoding).split("\x1c\r")[:-1]
        return [_read(hl7.parse(block.removeprefix("\x0b"))) for block in blocks]

    async def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _read(message: Any) -> Answer:
    msa = message.segment("MSA")
    return Answer(str(msa(1)), str(msa(2)), str(message.segment("MSH")(6)))


class InNode:
    """@medplum/hl7's `Hl7Client` or node-hl7-client, in a process of its own."""

    def __init__(self, peer: str, port: int, encoding: str, wait: Wait, tls: Tls | None) -> None:
        self._node = Node("sender.mjs")
        self._options = {"peer": peer, "port": port, "encoding": encoding, "wait": wait, "tls": files(tls)}
        self._open = False

    async def send(self, text: str) -> list[Answer]:
        if not self._open:
            self._open = True
            await self._node.start()
            await self._node.ask("open", self._options)
        return [Answer(*fields) for fields in await self._node.ask("send", text)]

    async def close(self) -> None:
        if self._open:
            await self._node.close()


def files(tls: Tls | None) -> dict[str, str] | None:
    """The PEM files, by the names that Node has for them."""
    if tls is None:
        return None
    names: dict[str, Path | None] = {"cert": tls.certificate, "key": tls.key, "ca": tls.ca}
    return {name: str(path) for name, path in names.items() if path is not None}


@asynccontextmanager
async def sender(
    peer: str, port: int, *, encoding: str = "utf-8", wait: Wait = "first", tls: Tls | None = None
) -> AsyncIterator[Sender]:
    """`encoding` by its Python name, of which each peer has its own. `tls` as we have it for our own connections."""
    it: Sender
    if peer == PYTHON_HL7:
        it = PythonHl7(port, encoding, wait, tls)
    elif peer == BLOCKING:
        it = Blocking(port, encoding)
    else:
        it = InNode(peer, port, {"latin-1": "latin1"}.get(encoding, encoding), wait, tls)
    try:
        yield it
    finally:
        await it.close()
