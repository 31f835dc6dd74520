"""Servers that others wrote, as endpoints of ours: each keeps what came, and answers in its own way."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from hl7.mllp import start_hl7_server
from hl7apy.core import Message
from hl7apy.mllp import AbstractHandler, MLLPRequestHandler, MLLPServer
from hl7apy.parser import parse_message

from engine.config.edge import Tls
from engine.mllp.tls import ServerTls
from tests.peers.node import Node
from tests.peers.senders import BIG, HOST, files
from tests.peers.texts import control_id
from tests.support.house import until

PYTHON_HL7 = "python-hl7"
HL7APY = "hl7apy"
MEDPLUM = "@medplum/hl7"
NODE_HL7 = "node-hl7-server"
RECEIVERS = (PYTHON_HL7, HL7APY, MEDPLUM, NODE_HL7)
RECEIVERS_WITH_TLS = (PYTHON_HL7, NODE_HL7)


class Receiver(Protocol):
    """A listener of a peer's, on the same port whenever it starts. `texts`: what came, in order, as the peer has it."""

    port: int
    texts: list[str]

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Close the port and every connection."""

    async def answer(self, code: str) -> None:
        """What is said from now on."""

    async def close(self) -> None: ...


class PythonHl7:
    """`hl7.mllp.start_hl7_server`, with the loop that its documentation shows."""

    def __init__(self, encoding: str, tls: Tls | None) -> None:
        self.port, self.texts = 0, list[str]()
        self._encoding, self._tls, self._code = encoding, tls, "AA"
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        context = ServerTls(self._tls).context if self._tls else None
        options: dict[str, Any] = {"limit": BIG, "encoding": self._encoding, "ssl": context}
        self._server = await start_hl7_server(self._connected, HOST, self.port, **options)
        self.port = self._server.sockets[0].getsockname()[1]

    def _connected(self, reader: Any, writer: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: Any, writer: Any) -> None:
        try:
            while True:
                message = await reader.readmessage()
                self.texts.append(str(message))
                writer.writemessage(message.create_ack(self._code))
                await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def stop(self) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def answer(self, code: str) -> None:
        self._code = code

    close = stop


class _Acknowledging(AbstractHandler):
    """Answers as hl7apy's documentation shows: a message of its own, made by the library."""

    def __init__(self, message: str, peer: Hl7apy) -> None:
        super().__init__(message)
        self._peer = peer

    def reply(self) -> str:
        header = parse_message(self.incoming_message, find_groups=False).msh
        ack = Message("ACK", version=header.msh_12.value)
        ack.msh.msh_9 = "ACK"
        ack.msh.msh_10 = f"H{header.msh_10.value}"
        ack.msa.msa_1 = self._peer.code
        ack.msa.msa_2 = header.msh_10.value
        framed: str = ack.to_mllp()
        self._peer.texts.append(self.incoming_message)  # now: what comes is told when its answer is decided
        return framed


class Hl7apy:
    """`hl7apy.mllp.MLLPServer`, which has threads of its own. Its charset is an attribute of its handler's class."""

    def __init__(self, encoding: str) -> None:
        self.port, self.texts, self.code = 0, list[str](), "AA"
        self._handling = type("Handling", (MLLPRequestHandler,), {"encoding": encoding})

    async def start(self) -> None:
        handlers = dict.fromkeys(("ORU^R01^ORU_R01", "OML^O21^OML_O21"), (_Acknowledging, self))
        self._server = MLLPServer(HOST, self.port, handlers, request_handler_class=self._handling)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    async def stop(self) -> None:
        await asyncio.to_thread(self._server.shutdown)
        await asyncio.to_thread(self._server.server_close)
        await asyncio.to_thread(self._thread.join)

    async def answer(self, code: str) -> None:
        self.code = code

    close = stop


class InNode:
    """@medplum/hl7's `Hl7Server` or node-hl7-server, in a process of its own."""

    def __init__(self, peer: str, encoding: str, tls: Tls | None, enhanced: bool) -> None:
        self.port, self.texts = 0, list[str]()
        self._node = Node("receiver.mjs", lambda name, text: self.texts.append(text))
        self._options = {"peer": peer, "encoding": encoding, "enhanced": enhanced, "tls": files(tls)}
        self._open = False

    async def start(self) -> None:
        if not self._open:
            await self._node.start()
            self._open = True
        self.port = await self._node.ask("listen", {**self._options, "port": self.port})

    async def stop(self) -> None:
        await self._node.ask("stop")

    async def answer(self, code: str) -> None:
        await self._node.ask("answer", code)

    async def close(self) -> None:
        if self._open:
            await self._node.close()


@asynccontextmanager
async def receiver(
    peer: str, *, encoding: str = "utf-8", tls: Tls | None = None, enhanced: bool = False
) -> AsyncIterator[Receiver]:
    """A peer that listens. `tls` as we have it for our own listeners. enhanced: @medplum/hl7's mode of that name."""
    it: Receiver
    if peer == PYTHON_HL7:
        it = PythonHl7(encoding, tls)
    elif peer == HL7APY:
        it = Hl7apy(encoding)
    else:
        it = InNode(peer, {"latin-1": "latin1"}.get(encoding, encoding), tls, enhanced)
    await it.start()
    try:
        yield it
    finally:
        await it.close()


async def arrived(it: Receiver, count: int) -> list[str]:
    """The control ids of all that came, once there are so many."""
    await until(lambda: len(it.texts) >= count)
    return [control_id(text) for text in it.texts]
