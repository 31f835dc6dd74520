"""A peer whose answers are the test's: it listens, keeps what comes and on which connection, says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from engine.hl7.ack import acknowledge
from engine.hl7.peek import peek
from engine.mllp.framing import encode
from engine.simulate.wire import Listener, Socket

Says = Callable[[bytes], Iterable[bytes | bytearray | float | None]]
"""What is said to a message: payloads; a bytearray is written as it is, without framing; a number is a pause in
seconds, None closes the connection."""


def ack(payload: bytes, code: str = "AA", control_id: str | None = None, **options: str) -> bytes:
    """An acknowledgement in the peer's own name. `control_id`: MSA-2, the message's own unless given."""
    answer = acknowledge(peek(payload), code, control_id=options.get("own", "THEIRS"), at=0)  # type: ignore[arg-type]
    if control_id is None:
        return answer
    own = peek(payload).raw(10)
    return answer.replace(b"|" + own + b"\r", b"|" + control_id.encode() + b"\r", 1)


def acknowledges(payload: bytes) -> tuple[bytes]:
    return (ack(payload),)


def at_first(*first: Says, then: Says = acknowledges) -> Says:
    """One of these for each of the first messages, and `then` from there on."""
    says = iter(first)
    return lambda payload: next(says, then)(payload)


class Scripted:
    """One listening peer. `says` is asked of each message; nothing is said where it gives nothing."""

    def __init__(self, says: Says = acknowledges, port: int = 0) -> None:
        self.says = says
        self.payloads: list[bytes] = []
        self.sockets: list[int] = []  # the connection of each message, numbered from 1
        self.open: list[Socket] = []
        self._listener = Listener(self._take, port)
        self._saying: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Scripted:
        await self._listener.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._saying:
            task.cancel()
        await asyncio.gather(*self._saying, return_exceptions=True)
        await self._listener.stop()

    @property
    def port(self) -> int:
        return self._listener.ports[0]

    @property
    def connected(self) -> int:
        return self._listener.connected

    @property
    def control_ids(self) -> list[str]:
        return [peek(payload).control_id or "" for payload in self.payloads]

    def _take(self, socket: Socket, payload: bytes) -> None:
        self.payloads.append(payload)
        self.sockets.append(socket.number)
        if socket not in self.open:
            self.open.append(socket)
        task = asyncio.get_running_loop().create_task(self._say(socket, payload), name="a peer's answer")
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)

    async def _say(self, socket: Socket, payload: bytes) -> None:
        for said in self.says(payload):
            if said is None:
                socket.close()
            elif isinstance(said, bytes | bytearray):
                socket.write(encode(said) if isinstance(said, bytes) else bytes(said))
            else:
                await asyncio.sleep(said)
