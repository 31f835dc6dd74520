"""We connect, the peer sends: the other way round than a listener, with connections of the same kind."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial

from engine.config.edge import Connect
from engine.mllp.budget import Budget
from engine.mllp.connection import LINGER, Connection
from engine.mllp.dial import connect, dial, why
from engine.mllp.framing import MAX_BYTES
from engine.mllp.handler import Handler, Manner
from engine.mllp.peers import Peers
from engine.mllp.tls import ClientTls

JITTER = 0.2
"""How far the time between attempts is spread, so that many connectors do not come at the same moment."""


class Connector(Peers):
    """One connection to a peer that sends on it, made anew whenever it ends. It may be closed and started again."""

    def __init__(
        self,
        connect: Connect,
        handler_factory: Callable[[], Handler],
        *,
        max_bytes: int = MAX_BYTES,
        tls: ClientTls | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`max_bytes`: limit of one message. `tls`: made from `connect.tls` unless given. The handler's `refused` hears
        of each attempt that fails, and why."""
        sockets = connect.sockets
        manner = Manner(
            connect.framing, max_bytes, connect.frame_timeout, sockets.idle, sockets.keepalive, budget=budget
        )  # fmt: skip
        super().__init__(handler_factory, manner)
        self.address = connect.address
        self._connect = connect
        self._tls = tls or (ClientTls(connect.tls) if connect.tls is not None else None)
        self._ended = asyncio.Event()
        self._settled = asyncio.Event()  # no connection is just being made
        self._running: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The peer's port."""
        return self.address.port

    async def start(self) -> None:
        """Begin to connect, unless that is being done. Returns at once, whether the peer is there or not."""
        if self._running is not None and not self._running.done():
            return
        name = f"mllp connector {self.address}"
        self._running = asyncio.get_running_loop().create_task(self._keep_connected(), name=name)

    async def close(self, grace: float = 0.0) -> None:
        """Connect no more, then close the connection: at once, or when what it has begun is answered, for at most
        `grace` seconds. Returns when no task and no socket is left."""
        if self._running is not None:
            if self._open:
                await self._settled.wait()  # a turn or two of the event loop
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
            self._running = None
        await super().close(grace)

    async def _keep_connected(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._connect.connect_timeout):
                    await self._make()
            except OSError as error:
                self._factory().refused(str(self.address), why(error))
            else:
                await self._ended.wait()
            await asyncio.sleep(self._connect.reconnect * random.uniform(1 - JITTER, 1 + JITTER))

    async def _make(self) -> None:
        settings = self._connect
        self._ended.clear()
        sock = await dial(self.address, source=settings.source_address, keepalive=settings.sockets.keepalive)
        make = partial(Connection, self, self._factory(), asyncio.get_running_loop(), str(self.address), 0.0)
        self._settled.clear()
        try:
            await connect(sock, make, self.address.host, self._tls, goodbye=LINGER)
        finally:
            self._settled.set()

    # -- from a connection (engine.mllp.handler.Owner)

    def forget(self, connection: Connection) -> None:
        super().forget(connection)
        self._ended.set()
