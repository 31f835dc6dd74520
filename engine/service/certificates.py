"""The certificates of a service: read when it starts, read again when their files change, watched until they expire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.config.edge import Tls
from engine.mllp.tls import ClientTls, ServerTls, TlsError
from engine.observe import service_events as events
from engine.observe.events import emit

LOOK_EVERY = 10.0  # seconds


class Certificates:
    """Every TLS of a service, by who has it: a channel, a feed, a tap or an endpoint."""

    def __init__(self, now: Callable[[], int]) -> None:
        """`now`: microseconds since 1970."""
        self._now = now
        self._all: dict[str, ServerTls | ClientTls] = {}
        self._broken: set[str] = set()

    def server(self, owner: str, tls: Tls | None) -> ServerTls | None:
        """Raises TlsError where a file is not what it should be."""
        if tls is None:
            return None
        made = self._all[owner] = ServerTls(tls)
        return made

    def client(self, owner: str, tls: Tls | None) -> ClientTls | None:
        """Raises TlsError where a file is not what it should be."""
        if tls is None:
            return None
        known = self._all.get(owner)
        if not isinstance(known, ClientTls):
            known = self._all[owner] = ClientTls(tls)
        return known

    async def watch(self) -> None:
        """For as long as the service runs. A changed file that is wrong is told once, and the old one stays in use."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY)

    def look(self) -> None:
        for owner, tls in self._all.items():
            try:
                if tls.refresh():
                    self._broken.discard(owner)
                    emit(events.CertificateRead(owner))
            except TlsError as error:
                if owner not in self._broken:
                    self._broken.add(owner)
                    emit(events.CertificateBroken(owner, str(error)))
            days = tls.days_left(self._now())
            if days is not None:
                events.CERTIFICATE_DAYS.of(owner).n = round(days, 2)

    @property
    def days(self) -> dict[str, float]:
        """Days until the earliest certificate of each owner expires; below 0 it has."""
        found = {owner: tls.days_left(self._now()) for owner, tls in self._all.items()}
        return {owner: days for owner, days in found.items() if days is not None}
