"""`drain`, `cutover` and `rollback`: the verbs that start the runs behind barriers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import takewhile
from typing import Any

from engine.config.model import Channel
from engine.ledger.course import ChannelBook
from engine.ledger.routing import LEGACY, Mode
from engine.migration import drain
from engine.migration.conductor import Conductor
from engine.migration.drain import NOBODY, Carried
from engine.migration.gate.check import Finding, When
from engine.migration.gate.examine import examine, passed
from engine.migration.gate.words import SECOND
from engine.migration.phases import Phase
from engine.migration.refused import Refused
from engine.migration.replay import replay
from engine.migration.runs import Failed
from engine.migration.selection import Group
from engine.migration.switching import counted, replayed
from engine.migration.verbs.copies import copied
from engine.migration.verbs.front import to_take_over
from engine.migration.verbs.verb import Acted, Asked, Plan, begun, books, new_run, span, standing_against, until

TIME = 300.0  # seconds that a cutover or a rollback may wait
DRAINED = 15 * 60.0  # seconds that the barrier of a drain stays


async def _begin(
    conductor: Conductor, verb: str, plan: Plan, asked: Asked, deadline: int, step: str, options: dict[str, Any]
) -> Acted:
    row = new_run(conductor, verb, plan, asked, deadline, step, options)
    shut = _shut if verb == "rollback" else _nothing
    try:
        await conductor.begin(row, shut=shut)
    except Failed as failed:
        raise Refused(str(failed)) from failed
    return begun(row)


def _shut(book: ChannelBook) -> frozenset[str]:
    return frozenset(course.name for course in drain.real(book))


def _nothing(book: ChannelBook) -> frozenset[str]:
    return frozenset()


class DrainVerb:
    """Wait until what is on the way is settled; let nothing new begin meanwhile."""

    name = "drain"
    whole = True

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        plan = Plan(group)
        running = [row for row in conductor.runs.of(channel.id for channel in group.channels) if row.verb == "drain"]
        if running:
            plan.already = f"run {running[0].id} drains {group.connection} already"
            return plan
        for channel, book in books(conductor, group):
            plan.refused += standing_against(conductor, channel, book)
            plan.lines.append(_barrier_line(conductor, channel, book, NOBODY))
        seconds = (until(conductor, asked, DRAINED) - conductor.world.now()) / SECOND
        plan.lines.append(f"the barriers stay for {span(seconds)} at most, or until: interlock release --connection"
                          f" {group.connection}")  # fmt: skip
        return plan

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        return await _begin(conductor, self.name, plan, asked, until(conductor, asked, DRAINED), "drain", {})


class CutoverVerb:
    """From parallel to live, for all channels of a connection."""

    name = "cutover"
    whole = True

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        plan = _plan(conductor, group, lambda phase: phase != Phase.LIVE.value)
        if plan is None:
            return Plan(group, already=_live_since(conductor, group))
        carried = Carried(frozenset(asked.options.get("carry", ())))
        for channel, book in books(conductor, plan.group):
            against = [*standing_against(conductor, channel, book), *_not_ready(channel, book)]
            against += copied(channel, conductor.world.feeds, _live_with(conductor, plan.group))
            plan.refused += against
            if against:
                continue
            await conductor.gather(channel)
            plan.refused += [
                f"{channel.id}: not met ({found.outcome.value}): {found.title}: {found.said}"
                for found in gate(conductor, channel, carried)
                if not passed([found])
            ]
            plan.lines += self._lines(conductor, channel, book, carried)
        limit = (until(conductor, asked, TIME) - conductor.world.now()) / SECOND
        plan.lines.append(f"if it is not through after {span(limit)}, the barriers are lifted and nothing has changed")
        return plan

    def _lines(self, conductor: Conductor, channel: Channel, book: ChannelBook, carried: Carried) -> list[str]:
        settle = conductor.world.settle_time(channel)
        routing = conductor.world.routing(channel, Phase.LIVE)
        sends = [route.destination for route in routing.routes if route.mode is Mode.SEND]
        until_ = f"; a rollback needs no override for {span(channel.rollback.until)}" if channel.rollback else ""
        policy = channel.rollback.replay if channel.rollback else "-"
        lines = [
            _barrier_line(conductor, channel, book, carried),
            f"{channel.id}: then the old engine has to be quiet for {span(settle)}",
            f"{channel.id}: from number {book.seq + 1} on (or what has come by then): sent to {' and '.join(sends)} by"
            f" Interlock; nothing goes to the old engine; acknowledged by Interlock",
        ]
        if routing.taps:
            lines.append(f"{channel.id}: what the old engine still sends for numbers up to {book.seq} is forwarded; for"
                         " later ones it is kept and not sent")  # fmt: skip
        lines.append(f"{channel.id}: nothing is sent twice, and nothing is left out (rollback: {policy}{until_})")
        for course, work in drain.carriable(book, book.seq):
            name = f"{channel.id}/{work.seq}"
            how = "carried" if carried.covers(course, work) else f"wants --carry {name}, or to be settled"
            lines.append(f"{name} is {work.state.label} at {course.name}: {how}")
        return lines

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        options = {"carry": list(asked.options.get("carry", ()))}
        return await _begin(conductor, self.name, plan, asked, until(conductor, asked, TIME), "drain", options)


class RollbackVerb:
    """From live back to parallel, with a policy for what the old engine has missed."""

    name = "rollback"
    whole = True

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        plan = _plan(conductor, group, lambda phase: phase == Phase.LIVE.value)
        if plan is None:
            phases = {book.epoch.phase for _, book in books(conductor, group)}
            return Plan(group, already=f"{group.connection} is {' and '.join(sorted(phases))}, not live")
        total: Counter[str] = Counter()
        for channel, book in books(conductor, plan.group):
            against = [*standing_against(conductor, channel, book), *self._against(conductor, channel, book, asked)]
            plan.refused += against
            if not against:
                policy = conductor.policy(channel, dict(asked.options))
                done = replay(book, book.seq, policy, 0)
                total.update(counted(done))
                pace = conductor.world.pace(channel, LEGACY)
                time = f", about {span(done.again * pace)} at the measured pace" if pace and done.again else ""
                shut = " and ".join(sorted(_shut(book))) or "real endpoints"
                plan.lines += [
                    f"{channel.id}: nothing more goes to {shut}; waits until nothing is on its way there",
                    f"{channel.id}: from number {book.seq + 1} on (or what has come by then) the old engine sends",
                    f"{channel.id}: replay {policy}: {replayed(Counter(counted(done)))}{time}",
                ]
        plan.counts = dict(total)
        return plan

    def _against(self, conductor: Conductor, channel: Channel, book: ChannelBook, asked: Asked) -> list[str]:
        if book.epoch.phase != Phase.LIVE.value:
            return [f"{channel.id} is {book.epoch.phase}: only a live channel can go back"]
        until_ = _rollback_until(book)
        if until_ and until_ < conductor.world.now() and not asked.options.get("override_until"):
            age = span((conductor.world.now() - until_) / SECOND)
            return [f"{channel.id}: the time for a rollback was over {age} ago: --override-until, if it must be"]
        try:
            policy = conductor.policy(channel, dict(asked.options))
        except Failed as failed:
            return [f"{failed}: --replay guarded | undelivered | all | none"]
        if policy == "guarded" and not channel.taps:
            return [f"{channel.id}: replay guarded needs taps: --replay undelivered | all | none"]
        live = takewhile(lambda epoch: epoch.phase == Phase.LIVE.value, reversed(book.epochs))
        first = min(epoch.first for epoch in live)
        if policy != "none" and conductor.world.ledger.kept[book.id].bytes_gone(first):
            return [f"{channel.id}: the bytes of {first} and later are not kept any more: --replay none"]
        return []

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        options: dict[str, Any] = {"replay": asked.options["replay"]} if asked.options.get("replay") else {}
        return await _begin(conductor, self.name, plan, asked, until(conductor, asked, TIME), "stop", options)


def gate(
    conductor: Conductor, channel: Channel, carried: Carried = NOBODY, when: When | None = None
) -> tuple[Finding, ...]:
    """Every check of a channel, on what is recorded and on the ledger's numbers of this moment."""
    book = conductor.book(channel.id)
    flight = drain.flight(book, book.seq, carried)
    return examine(conductor.subject(channel, conductor.world.now(), flight), when)


def _plan(conductor: Conductor, group: Group, moves: Callable[[str], bool]) -> Plan | None:
    """A plan for the channels of a connection that are where the verb takes them from: all that have an old engine,
    unless one was added later. None where there is none."""
    mine = [(channel, book) for channel, book in books(conductor, group) if channel.legacy]
    moving = tuple(channel for channel, book in mine if moves(book.epoch.phase))
    if not moving:
        return None
    stays = [f"{channel.id} is {book.epoch.phase}, and stays so" for channel, book in mine if channel not in moving]
    return Plan(Group(group.connection, moving, group.added), stays)


def _not_ready(channel: Channel, book: ChannelBook) -> list[str]:
    if book.epoch.phase == Phase.LIVE.value:
        return []
    if book.epoch.phase != Phase.PARALLEL.value:
        return [f"{channel.id} is {book.epoch.phase}: a cutover begins in parallel"]
    against = []
    if channel.observed:
        way = to_take_over(channel, book.epoch.phase)
        against.append(f"{channel.id}: only a copy of the traffic reaches us: {way}")
    if channel.rollback is None:
        against.append(f"{channel.id} has no rollback: in its file, without which it may not go live")
    for destination in channel.destinations:
        if destination.endpoint and destination.endpoint.on_unknown is None:
            against.append(
                f"{channel.id}: the endpoint {destination.endpoint.name} must say on_unknown: resend or park"
            )
    return against


def _live_with(conductor: Conductor, group: Group) -> set[str]:
    """The channels of a connection that are live once these have moved, and go back together."""
    mine = [channel.id for channel in conductor.world.channels if channel.connection == group.connection]
    live = {name for name in mine if conductor.book(name).epoch.phase == Phase.LIVE.value}
    return live | {channel.id for channel in group.channels}


def _barrier_line(conductor: Conductor, channel: Channel, book: ChannelBook, carried: Carried) -> str:
    left = [found for course in book.courses if (found := drain.left(course, book.seq, carried)).count]
    seconds = [
        found.count * pace for found in left if (pace := conductor.world.pace(channel, found.destination)) is not None
    ]
    waits = "; ".join(found.said(channel.id) for found in left) or "nothing is on the way"
    time = f", about {span(max(seconds))} at the measured pace" if seconds else ""
    rate = conductor.world.rate(channel)
    coming = f" (about {rate:.1f} a second)" if rate else ""
    return (
        f"{channel.id}: messages after {book.seq} are stored, acknowledged by Interlock and wait{coming}; waited for:"
        f" {waits}{time}"
    )


def _rollback_until(book: ChannelBook) -> int:
    """Until when a rollback needs no override, as the cutover said; a changed routing table is no new cutover. By the
    wall clock: people plan by its date, and it only decides whether they have to say that they mean it."""
    for epoch in reversed(book.epochs):
        if epoch.phase != Phase.LIVE.value:
            return 0
        if epoch.evidence:
            return int(json.loads(epoch.evidence).get("rollback_until", 0))
    return 0


def _live_since(conductor: Conductor, group: Group) -> str:
    firsts = ", ".join(f"{book.name} from {book.epoch.first}" for _, book in books(conductor, group))
    return f"{group.connection} is live already: {firsts}"
