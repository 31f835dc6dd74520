"""The service as the world in which connections move: what it measures, and how it follows a changed epoch."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config.address import Address
from engine.config.edge import Connect, Files, Listen
from engine.config.endpoint import Endpoint
from engine.config.feed import Feed
from engine.config.model import Channel, Destination, Tap
from engine.ledger.course import POLICY, ChannelBook
from engine.ledger.model import Settlement
from engine.ledger.routing import LEGACY, Routing
from engine.ledger.sqlite import journal
from engine.migration.doors import source_of
from engine.migration.gate.check import Fact
from engine.migration.gate.watch import is_monitoring
from engine.migration.gate.window import inside
from engine.migration.peers import Here, Socket, here, kernel, plain
from engine.migration.phases import Phase, routing
from engine.migration.runs import ABORTED, HANDOVERS
from engine.migration.world import Seen
from engine.observe.events import emit
from engine.observe.migration_events import ChannelStopped

if TYPE_CHECKING:
    from engine.service.service import Service

LEAST_SETTLE = 0.2  # seconds of quiet at a tap, however short its lag
UNMEASURED_SETTLE = 5.0  # where no lag has been measured yet
LAGS = 3.0
RETURN = 30.0  # seconds from our start within which an old engine that still has outputs comes back to a tap
RATES_OVER = 60  # seconds
PROBE_TIME = 2.0  # seconds
PAGE_EVERY = 60.0  # seconds between pages of a hold that is overdue
KERNEL = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))  # of this machine, or of this container; Linux alone has them


class Moves:
    """A `engine.migration.world.World` over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.ledger = service.ledger
        self.channels: Sequence[Channel] = service.configuration.channels
        self.feeds: Mapping[str, Feed] = {feed.id: feed for feed in service.configuration.feeds}
        self.last_scrape = 0  # microseconds since 1970
        self.scraper = ""
        self.other_reader = ""
        self._counts: deque[tuple[float, dict[str, int]]] = deque(maxlen=RATES_OVER + 1)
        self._versions: dict[str, str] = {}

    def now(self) -> int:
        return time.time_ns() // 1000

    def tick(self) -> float:
        return time.monotonic()

    def routing(self, channel: Channel, phase: Phase) -> Routing:
        return routing(channel, phase, self._service.ways.versions(channel))

    def windows(self, channel: Channel) -> dict[str, int]:
        return self._service.ways.windows(channel)

    def version(self, channel: Channel) -> str:
        if channel.id not in self._versions:
            carried = self.feeds[channel.feed].written_for(channel.id) if channel.feed else None
            written = [channel.raw, carried, self._service.ways.versions(channel)]
            content = json.dumps(written, sort_keys=True, default=str)
            self._versions[channel.id] = hashlib.sha256(content.encode()).hexdigest()[:16]
        return self._versions[channel.id]

    # -- measured

    def sample(self) -> None:
        """Once a second: how many messages each channel has."""
        self._counts.append((time.monotonic(), {name: book.seq for name, book in self.ledger.channels.items()}))

    def rate(self, channel: Channel) -> float:
        if len(self._counts) < 2:
            return 0.0
        (began, before), (ended, after) = self._counts[0], self._counts[-1]
        return max(0.0, (after.get(channel.id, 0) - before.get(channel.id, 0)) / max(ended - began, 1.0))

    def pace(self, channel: Channel, destination: str) -> float | None:
        course = self._book(channel).course(destination)
        runner = course.runner if course else None
        return runner.pace if runner is not None and runner.last else None

    def quiet_for(self, channel: Channel) -> float:
        came = self._service.comparisons.quiet_since(channel.id)
        if came is None:
            return 0.0
        began = self._service.began
        if not came and self._service.comparisons.inherits(channel.id):
            began += RETURN  # our restart has cut the old engine off from us, perhaps in the middle of its outputs
        old = self._book(channel).course(LEGACY)
        sent = old.runner.last if old and old.runner else 0.0
        return max(0.0, asyncio.get_running_loop().time() - max(came, sent, began))

    def settle_time(self, channel: Channel) -> float:
        if channel.legacy is None:
            return 0.0
        if not channel.taps:
            return channel.legacy.settle
        return max(self._tap_settle(channel, tap) for tap in channel.taps)

    def _tap_settle(self, channel: Channel, tap: Tap) -> float:
        if tap.settle is not None:
            return tap.settle
        lag = self._service.comparisons.lag(channel.id, tap.name)
        seconds = UNMEASURED_SETTLE if lag is None else max(LEAST_SETTLE, LAGS * lag)
        if isinstance(tap.source, Files):  # a file is seen at the next look, and taken when it has stayed as it is
            seconds += tap.source.poll + tap.source.stable
        return seconds

    def unpaired(self, channel: Channel) -> int:
        return self._service.comparisons.unpaired(channel.id)

    # -- seen

    def scraped(self, agent: str) -> None:
        """Somebody has read the metrics; what reads them once is no monitoring."""
        if is_monitoring(agent):
            self.last_scrape, self.scraper = self.now(), agent[:40]
        else:
            self.other_reader = agent[:40] or "a client without a name"

    async def facts(self, channel: Channel) -> list[Fact]:
        destinations = await self._destinations(channel)
        now = self.now()
        scrape = {"last_scrape": self.last_scrape or None, "agent": self.scraper, "other": self.other_reader}
        return [
            Fact("vendor", await self._vendor(channel), now),
            Fact("destinations", destinations, now),
            Fact("monitoring", scrape, now),
            Fact("would_refuse", {"undecided": await self._would_refuse(channel)}, now),
        ]

    async def _vendor(self, channel: Channel) -> dict[str, Any]:
        book, inlet = self._book(channel), self._service.doors.inlets.get(channel.id)
        port, files = self._service.doors.port_of(channel), self._service.doors.files.get(channel.id)
        received = inlet.last_received if inlet else files.last_received if files else 0
        count = book.seq - book.epoch.first + 1
        seconds = (self.now() - book.epoch.at) / 1e6
        return {
            "peers": sum(1 for _ in port.listener.connections) if port else 0,
            "last_received": received or await self._newest(book),
            "since_phase": count,
            "usual_gap_s": seconds / count if count > 1 else None,
        }

    async def _newest(self, book: ChannelBook) -> int | None:
        rows = await self.ledger.read(lambda reader: reader.messages(book.id, None, 1))
        return int(rows[0][3]) if rows else None

    async def _would_refuse(self, channel: Channel) -> int:
        book = self._book(channel)
        return await self.ledger.read(
            lambda reader: journal.would_refuse(reader.connection, book.id, book.epoch.at)
        )  # fmt: skip

    async def _destinations(self, channel: Channel) -> dict[str, Any]:
        found = await asyncio.gather(*(self._reach(channel, destination) for destination in channel.destinations))
        return {destination.name: seen for destination, seen in zip(channel.destinations, found, strict=True)}

    def _in_window(self, channel: Channel) -> bool:
        return channel.window is None or inside(channel.window, channel.timezone, self.now())

    async def _reach(self, channel: Channel, destination: Destination) -> dict[str, Any]:
        endpoint = destination.endpoint
        if endpoint is not None and endpoint.probe == "window" and not self._in_window(channel):
            return {"reachable": None, "why": "it may be asked inside the window only", "probe": endpoint.probe}
        if endpoint is not None:
            return await _connect(endpoint)
        reachable, why = await self._service.ways.reach(destination.project or "medplum")
        return {"reachable": reachable, "why": why, "probe": "always"}

    # -- handing ports over

    async def open_door(self, channel: Channel) -> str | None:
        return await self._service.doors.open_door(channel.door)

    async def shut_door(self, channel: Channel, grace: float) -> None:
        await self._service.doors.close_door(channel.door, grace)

    def is_open(self, channel: Channel) -> bool:
        return self._service.doors.is_open(channel.door)

    def seen(self, channel: Channel) -> Mapping[str, Seen]:
        port, source = self._service.doors.port_of(channel), source_of(channel, self.feeds)
        if port is None:
            return {}
        connected = Counter(plain(connection.host) or connection.host for connection in port.listener.connections)
        answered = Counter({plain(host) or host: count for host, count in port.sent.items()})
        if isinstance(source, Connect):
            return {source.address.host: Seen(connected.total(), answered.total())}
        return {host: Seen(connected[host], answered[host]) for host in connected | answered}

    async def here(self, channel: Channel) -> Here:
        source = source_of(channel, self.feeds)
        if not isinstance(source, Listen):
            return Here(False, frozenset())
        host, port = source.host, source.port
        return await asyncio.to_thread(lambda: here(_kernel(), host, port))  # there may be thousands of sockets

    async def answers(self, address: Address) -> str | None:
        return await _try(address)

    # -- following

    def frozen(self, channel: Channel) -> None:
        book, inlet = self._book(channel), self._service.doors.inlets.get(channel.id)
        if inlet is None or book.relay is None or book.relay.runner is None or book.hold is None:
            return  # behind a barrier, what awaits an answer goes on
        inlet.answer_awaited(book.relay.runner.taken)

    def died(self, settlement: Settlement) -> None:
        """A message is dead. Where that has stopped its channel, what goes on with the channel ends, as by a hold of a
        person, and who awaits a relayed answer hears ours."""
        course, hold = settlement.course, settlement.course.channel.hold
        if hold is None or (hold.who, hold.at) != (POLICY, settlement.at):
            return
        name = course.channel.name
        emit(ChannelStopped(name, course.name, settlement.seq))
        conductor = self._service.conductor
        for row in conductor.runs.of([name]):
            if row.verb not in HANDOVERS:
                self.spawn(conductor.end(row.id, ABORTED, f"{name} stopped: {hold.why}"), f"end of run {row.id}")
        if channel := next((each for each in self.channels if each.id == name), None):
            self.frozen(channel)

    def resumed(self, channel: Channel) -> None:
        for course in self._book(channel).courses:
            if course.runner is not None:
                course.runner.resume()

    async def moved(self, channel: Channel, *, rebuilt: Sequence[str] = ()) -> None:
        for course in self._book(channel).courses:
            if course.name in rebuilt and course.runner is not None:
                course.runner.forget()
        await self._service.follow(channel)

    def spawn(self, work: Any, name: str) -> None:
        self._service.spawn(work, name)

    def _book(self, channel: Channel) -> ChannelBook:
        return self.ledger.channels[channel.id]


async def _connect(endpoint: Endpoint) -> dict[str, Any]:
    """Whether an endpoint takes a connection, where it may be asked."""
    if endpoint.probe == "none" or endpoint.mllp is None:
        return {"reachable": None, "why": "it may not be asked (probe: none)", "probe": endpoint.probe}
    why = await _try(endpoint.mllp)
    return {"reachable": why is None, "why": why or "", "probe": endpoint.probe}


async def _try(address: Address) -> str | None:
    """Connect, and go at once; why that was not possible, or None."""
    try:
        async with asyncio.timeout(PROBE_TIME):
            _, writer = await asyncio.open_connection(address.host, address.port)
        writer.close()
    except OSError as error:
        return error.strerror or "no connection"
    except TimeoutError:
        return f"no connection in {PROBE_TIME:.0f} s"
    return None


def _kernel() -> Iterator[Socket]:
    for table in KERNEL:
        with contextlib.suppress(OSError):
            yield from kernel(table.read_text())
