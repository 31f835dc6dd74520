"""The certificates of a service: read when it starts, read again when their files change, watched until they expire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.config.edge import Tls
from engine.config.pem import TlsError
from engine.mllp.tls import ClientTls, ServerTls
from engine.observe import service_events as events
from engine.observe.events import emit

LOOK_EVERY = 10.0  # seconds


class Certificates:
    """Every TLS of a service, by who has it: a channel, a feed, a tap or an endpoint. Whose files cannot be used is
    down until they can, and nobody else is."""

    def __init__(self, now: Callable[[], int]) -> None:
        """`now`: microseconds since 1970."""
        self._now = now
        self._servers: dict[tuple[str, Tls], ServerTls] = {}
        self._clients: dict[tuple[str, Tls], ClientTls] = {}
        self._broken: set[tuple[str, Tls]] = set()

    def server(self, owner: str, tls: Tls | None) -> ServerTls | None:
        if tls is None:
            return None
        made = self._servers[owner, tls] = ServerTls(tls)
        return made

    def client(self, owner: str, tls: Tls | None) -> ClientTls | None:
        if tls is None:
            return None
        if (owner, tls) not in self._clients:
            self._clients[owner, tls] = ClientTls(tls)
        return self._clients[owner, tls]

    async def watch(self) -> None:
        """For as long as the service runs. A changed file that is wrong is told once, and the old one stays in use."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY)

    def look(self) -> None:
        for (owner, tls), held in self._all():
            try:
                if held.refresh():
                    self._broken.discard((owner, tls))
                    emit(events.CertificateRead(owner))
            except TlsError as error:
                if (owner, tls) not in self._broken:
                    self._broken.add((owner, tls))
                    emit(events.CertificateBroken(owner, str(error)))
        for owner, days in self.days.items():
            events.CERTIFICATE_DAYS.of(owner).n = round(days, 2)

    def _all(self) -> list[tuple[tuple[str, Tls], ServerTls | ClientTls]]:
        """A channel and an endpoint may have the same name."""
        return [*self._servers.items(), *self._clients.items()]

    @property
    def expired(self) -> list[str]:
        """Who has a certificate that has ended."""
        return [owner for owner, days in self.days.items() if days < 0]

    @property
    def days(self) -> dict[str, float]:
        """Days until the earliest certificate of each owner expires; below 0 it has."""
        earliest: dict[str, float] = {}
        for (owner, _), held in self._all():
            days = held.days_left(self._now())
            if days is not None:
                earliest[owner] = min(days, earliest.get(owner, days))
        return earliest
