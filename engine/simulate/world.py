"""Everything around the engine in one process: clinics that order, laboratories that report, the old engine between.

An order's life: the clinic sends it to the engine's port of `…-orders`; from there it comes to the laboratory, through
the old engine and a tap, or directly. Who gets an order for the first time reports on it, in stages, after a while, on
the engine's port of `…-results`; the reports come to the clinic by the same two ways. Each sender goes on with a
message until it is acknowledged; each receiver remembers what reached it, and from which side.

    world = World(layout, Plan(rate=0.5), folder=tmp_path)   # folder: journals
    await world.start(); world.rate = 5.0; …; await world.finish(); world.count().clean
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from engine.config.address import Address
from engine.simulate.counting import Count, count
from engine.simulate.forwarding import Alteration, ForwardingEngine, Route
from engine.simulate.journal import Journal
from engine.simulate.layout import Layout, Link, Way
from engine.simulate.mischief import DROPPED, NONE, Mischief
from engine.simulate.orders import Orders
from engine.simulate.outbox import Acknowledged, Outbox
from engine.simulate.receiver import Arrival, Receiver
from engine.simulate.wire import LOOPBACK

ACKNOWLEDGED = "acknowledged.ndjson"
ARRIVED = "arrived.ndjson"
FORWARDED = "forwarded.ndjson"
"""The journals' names. Rows: outbox.Acknowledged, receiver.Arrival, and what forwarding.py writes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the world behaves.

    rate: orders a second of each connection, at the start. turnaround: seconds from an order or report to the next
    report, from … to. delay: seconds that a message waits inside the old engine. timeout: seconds that senders wait
    for an answer; pause: before they try again. mischief: by channel. habits: what the old engine does to every
    message of a channel, and `alterations`, by the names that the mischief uses, to those it spoils.
    """

    rate: float = 0.0
    turnaround: tuple[float, float] = (0.2, 1.0)
    delay: float = 0.02
    timeout: float = 30.0
    pause: float = 0.2
    seed: int = 1
    mischief: Mapping[str, Mischief] = field(default_factory=dict)
    habits: Mapping[str, tuple[Alteration, ...]] = field(default_factory=dict)
    alterations: Mapping[str, Alteration] = field(default_factory=dict)


class Partner:
    """One connection's two senders: the clinic's orders, the laboratory's reports."""

    def __init__(self, link: Link, orders: Orders, place: Outbox, report: Outbox) -> None:
        self.link = link
        self.orders = orders
        self.place = place
        self.report = report
        self.placed = 0
        """Orders made so far."""
        self.reported = 0
        self.due = 0
        """Reports that the laboratory still works on."""

    @property
    def outboxes(self) -> tuple[Outbox, Outbox]:
        return self.place, self.report

    def order(self) -> None:
        """The clinic sends its next order."""
        self.placed += 1
        self.place.put(self.orders.order_id(self.placed), self.orders.order(self.placed))

    def tell(self, order: int, stage: int) -> None:
        """The laboratory sends its next report."""
        self.reported += 1
        self.report.put(self.orders.report_id(self.reported), self.orders.report(self.reported, order, stage))


class World:
    """All partners, endpoints and the old engine of a layout."""

    def __init__(self, layout: Layout, plan: Plan | None = None, *, folder: Path | None = None) -> None:
        """`folder`: where the journals go; none are written without it."""
        self.layout = layout
        self.plan = plan or Plan()
        self._journals = {name: Journal(folder / name if folder else None) for name in (ACKNOWLEDGED, ARRIVED)}
        self._moved = asyncio.Event()
        self.partners = {link.connection: self._partner(index, link) for index, link in enumerate(layout.links)}
        self._by_code = {partner.link.code: partner for partner in self.partners.values()}
        self.receivers = {name: self._receiver(name, port) for name, port in layout.endpoints.items()}
        self.old_engine = ForwardingEngine(
            [self._route(way) for way in layout.ways],
            alterations=self.plan.alterations,
            pause=self.plan.pause,
            journal=folder / FORWARDED if folder else None,
            moved=self._moved.set,
        )
        self._rate = self.plan.rate
        self._flowing = asyncio.Event()
        self._clinics: list[asyncio.Task[None]] = []
        self._reporting: dict[tuple[str, int], asyncio.TimerHandle] = {}
        self._random = Random(self.plan.seed)
        self._seen: set[str] = set()
        self._missing: set[str] = set()
        """Acknowledged, and not arrived yet."""

    def _partner(self, index: int, link: Link) -> Partner:
        orders = Orders(link.code, self.plan.seed, "oml" if index % 3 == 2 else "orm")
        return Partner(link, orders, self._outbox(link.orders), self._outbox(link.results))

    def _outbox(self, way: Way) -> Outbox:
        return Outbox(
            way.channel,
            Address(LOOPBACK, way.listen),
            timeout=self.plan.timeout,
            pause=self.plan.pause,
            journal=self._journals[ACKNOWLEDGED],
            taken=self._taken,
            moved=self._moved.set,
        )

    def _receiver(self, name: str, port: int) -> Receiver:
        return Receiver(name, port, taken=self._arrived, journal=self._journals[ARRIVED])

    def _route(self, way: Way) -> Route:
        return Route(
            way.channel,
            way.old,
            Address(LOOPBACK, way.tap),
            self.plan.habits.get(way.channel, ()),
            self.plan.mischief.get(way.channel, NONE),
            self.plan.delay,
        )

    # -- running

    @property
    def rate(self) -> float:
        """Orders a second of each connection. 0: no new orders; reports on old ones still come."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = rate
        if rate > 0:
            self._flowing.set()
        else:
            self._flowing.clear()

    async def start(self) -> None:
        """Endpoints and old engine listen; senders connect, and go on trying. OSError where a port is taken."""
        raise_file_limit()
        for journal in self._journals.values():
            journal.open()
        for receiver in self.receivers.values():
            await receiver.start()
        await self.old_engine.start()
        for outbox in self.outboxes():
            await outbox.start()
        self.rate = self._rate
        for connection, partner in self.partners.items():
            self._clinics.append(asyncio.create_task(self._order(partner), name=f"clinic {connection}"))

    async def stop(self) -> None:
        """End everything. What was counted stays readable."""
        for task in self._clinics:
            task.cancel()
        await asyncio.gather(*self._clinics, return_exceptions=True)
        for timer in self._reporting.values():
            timer.cancel()
        for outbox in self.outboxes():
            await outbox.stop()
        await self.old_engine.stop()
        for receiver in self.receivers.values():
            await receiver.stop()
        for journal in self._journals.values():
            journal.close()

    async def finish(self, within: float = 60.0) -> Count:
        """No more orders; wait until all that is on its way has arrived, and count. TimeoutError after so many seconds
        says where messages still are."""
        self.rate = 0
        await self.until(self.settled, within)
        return self.count()

    def settled(self) -> bool:
        """Nothing waits anywhere: no sender, no laboratory, not the old engine, and nothing acknowledged is missing."""
        return not any(self.waiting().values())

    def waiting(self) -> dict[str, int]:
        """Messages by where they are: at a sender, on a laboratory's bench, in the old engine, in between."""
        return {
            "senders": sum(outbox.waiting for outbox in self.outboxes()),
            "laboratory": sum(partner.due for partner in self.partners.values()),
            "old engine": self.old_engine.queue_length(),
            "in between": self._in_between(),
        }

    async def until(self, condition: Callable[[], bool], within: float) -> None:
        """Wait for something to become true of this world; TimeoutError after so many seconds says where messages
        are."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            where = ", ".join(f"{number} {place}" for place, number in self.waiting().items())
            raise TimeoutError(f"not within {within:.0f} s; messages on their way: {where}") from None

    # -- looking

    def outboxes(self, connections: Iterable[str] | None = None) -> Iterator[Outbox]:
        for partner in self._partners(connections):
            yield from partner.outboxes

    def acknowledged(self, connections: Iterable[str] | None = None) -> list[Acknowledged]:
        """What the engine has taken, by channel."""
        return [one for outbox in self.outboxes(connections) for one in outbox.acknowledged]

    def arrivals(self, connections: Iterable[str] | None = None) -> list[Arrival]:
        """What reached the endpoints, each endpoint's in its order."""
        every = [arrival for receiver in self.receivers.values() for arrival in receiver.arrivals]
        if connections is None:
            return every
        codes = {partner.link.code for partner in self._partners(connections)}
        return [arrival for arrival in every if arrival.origin[:-9] in codes]

    def count(self, connections: Iterable[str] | None = None) -> Count:
        """Acknowledged against arrived: of all connections, or of some."""
        chosen = None if connections is None else list(connections)
        return count(self.acknowledged(chosen), self.arrivals(chosen), self.seeded())

    def seeded(self) -> dict[str, str]:
        """The fault that the old engine committed, by control id."""
        return {seeded.control_id: seeded.fault for seeded in self.old_engine.seeded}

    def slowest(self, since: float = 0.0, connections: Iterable[str] | None = None) -> float:
        """The slowest acknowledgement, in seconds, given after a moment (seconds since 1970) or still awaited."""
        return max(outbox.slowest(since) for outbox in self.outboxes(connections))

    def drops(self, connections: Iterable[str] | None = None) -> int:
        """How often a sender's connection was ended by the other side."""
        return sum(outbox.drops for outbox in self.outboxes(connections))

    def negative(self, connections: Iterable[str] | None = None) -> int:
        """Negative acknowledgements that senders got."""
        return sum(outbox.negative for outbox in self.outboxes(connections))

    def _partners(self, connections: Iterable[str] | None) -> Iterable[Partner]:
        return self.partners.values() if connections is None else [self.partners[name] for name in connections]

    def _in_between(self) -> int:
        """Messages that were acknowledged, have not arrived, and were not dropped on purpose."""
        dropped = {seeded.control_id for seeded in self.old_engine.seeded if seeded.fault == DROPPED}
        return len(self._missing - dropped)

    # -- what the partners do

    async def _order(self, partner: Partner) -> None:
        """A clinic sends at its rate, at uneven intervals, from a moment of its own on."""
        early = self._random.random()
        while True:
            await self._flowing.wait()
            interval = 1 / self._rate
            await asyncio.sleep(interval * early if early else interval * self._random.uniform(0.5, 1.5))
            early = 0.0
            if self._flowing.is_set():
                partner.order()

    def _taken(self, one: Acknowledged) -> None:
        if one.control_id not in self._seen:
            self._missing.add(one.control_id)

    def _arrived(self, arrival: Arrival, _: bytes) -> None:
        """An endpoint got something. A laboratory that gets an order for the first time sets to work."""
        if arrival.origin not in self._seen:
            self._seen.add(arrival.origin)
            self._missing.discard(arrival.origin)
            partner = self._by_code.get(arrival.origin[:-9])
            if partner is not None and arrival.endpoint == partner.link.laboratory:
                self._examine(partner, int(arrival.origin[-8:]), 0)
        self._moved.set()

    def _examine(self, partner: Partner, order: int, stage: int) -> None:
        """Report a stage of an order after a while, if there is one; then the next."""
        if stage >= len(partner.orders.stages(order)):
            return
        partner.due += 1
        delay = self._random.uniform(*self.plan.turnaround)
        timer = asyncio.get_running_loop().call_later(delay, self._report, partner, order, stage)
        self._reporting[partner.link.code, order] = timer

    def _report(self, partner: Partner, order: int, stage: int) -> None:
        del self._reporting[partner.link.code, order]
        partner.due -= 1
        partner.tell(order, stage)
        self._examine(partner, order, stage + 1)
        self._moved.set()


def raise_file_limit() -> None:
    """As many sockets as the system allows: a thousand channels want some thousands."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
