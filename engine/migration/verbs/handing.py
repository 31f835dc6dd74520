"""`takeover` and `give-back`: the verbs that hand ports over, from the old listener to us and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.config.edge import Connect, Files, Listen
from engine.config.feed import Feed
from engine.config.kinds import address
from engine.config.model import Channel
from engine.ledger.course import ChannelBook
from engine.ledger.routing import LEGACY
from engine.ledger.sqlite.journal import RunRow
from engine.migration.conductor import Conductor
from engine.migration.doors import Door, doors, expected, not_probes, shut_out
from engine.migration.gate.words import SECOND, listed
from engine.migration.phases import Phase
from engine.migration.refused import Refused
from engine.migration.runs import GIVE_BACK, TAKEOVER, Failed
from engine.migration.selection import Group
from engine.migration.steps import FIRST
from engine.migration.verbs.front import to_take_over
from engine.migration.verbs.verb import Acted, Asked, Plan, begun, books, new_run, span, standing_against, until

TIME = 600.0  # seconds until the ports are handed back
HOW = "--peers ADDRESS for each that is to come back, --peers-from FILE, or --peers none"
WAY_BACK = {Phase.PARALLEL.value: "end the parallel run first (interlock legacy)"}
"""From where a give-back needs another verb first. A channel that is elsewhere stays there."""


@dataclass(slots=True)
class Who:
    """Who is to come back at each door, and whether the old listener was seen on this machine."""

    peers: dict[str, list[str]] = field(default_factory=dict)
    here: dict[str, bool] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def options(self) -> dict[str, object]:
        return {"peers": self.peers, "back": {name: [] for name in self.peers}, "here": self.here}


class TakeoverVerb:
    """From outside to legacy: the vendors' ports become ours, and the old engine works behind them. A channel whose old
    engine is in front has no vendor's port: it stays where it is."""

    name = TAKEOVER
    whole = True

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        found = books(conductor, group)
        moving = tuple(
            channel for channel, book in found if book.epoch.phase == Phase.OUTSIDE.value and not channel.observed
        )
        if not moving:
            already = f"{group.connection} is {_phases(found)}: its ports are ours already"
            in_front = [_in_front(channel, book.epoch.phase) for channel, book in found if channel.observed]
            return Plan(group, refused=in_front, already=None if in_front else already)
        plan = Plan(Group(group.connection, moving, group.added), _staying(found, moving))
        for channel, book in books(conductor, plan.group):
            against = [*standing_against(conductor, channel, book), *_no_way(channel)]
            plan.refused += against
            plan.lines += [] if against else [_onward(conductor, channel, book)]
        plan.refused += left_out(conductor, moving)
        who = await _expected(conductor, moving, asked)
        plan.lines += who.lines
        plan.refused += who.refused
        seconds = (until(conductor, asked, TIME) - conductor.world.now()) / SECOND
        plan.lines.append(f"if it is not through after {span(seconds)}: what was begun is answered, the ports are given"
                          " back, and the channels are outside again")  # fmt: skip
        plan.counts = {"peers": sum(len(addresses) for addresses in who.peers.values())}
        plan.options = {**who.options()}
        return plan

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        return await _begin(conductor, self.name, plan, asked)


class GiveBackVerb:
    """From legacy to outside: the old listener has the ports again."""

    name = GIVE_BACK
    whole = True

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        found = books(conductor, group)
        moving = tuple(channel for channel, book in found if book.epoch.phase == Phase.LEGACY.value)
        ways = {channel.id: way for channel, book in found if (way := WAY_BACK.get(book.epoch.phase))}
        if not moving and not ways:
            return Plan(group, already=f"{group.connection} is {_phases(found)}, not legacy")
        plan = Plan(Group(group.connection, moving, group.added), _staying(found, moving))
        plan.refused += [f"{name} is {conductor.book(name).epoch.phase}: {way}" for name, way in ways.items()]
        for channel, book in books(conductor, plan.group):
            plan.refused += standing_against(conductor, channel, book)
            left = sum(course.unsettled() for course in book.courses)
            on = "" if channel.observed else f"; what is open goes on to the old engine ({left} now)"
            plan.lines.append(f"{channel.id}: from number {book.seq + 1} on nothing comes to us{on}")
        plan.refused += _kept(conductor, moving)
        watch = str(asked.options.get("watch") or "")
        if watch and address(watch) is None:
            plan.refused.append(f"--watch {watch}: wanted is HOST:PORT")
        peers = {door.name: _connected(conductor, door) for door in doors(moving, conductor.world.feeds)}
        here = _was_here(conductor, moving)
        for door in doors(moving, conductor.world.feeds):
            plan.lines.append(_farewell(door, peers[door.name], watched=here.get(door.name, False), watch=watch))
        plan.counts = {"peers": sum(len(addresses) for addresses in peers.values())}
        plan.options = {**Who(peers, here).options(), "watch": watch}
        return plan

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        return await _begin(conductor, self.name, plan, asked)


async def _begin(conductor: Conductor, verb: str, plan: Plan, asked: Asked) -> Acted:
    deadline = until(conductor, asked, TIME)
    row: RunRow = new_run(conductor, verb, plan, asked, deadline, FIRST[verb], plan.options)
    try:
        await conductor.handover.begin(row)
    except Failed as failed:
        raise Refused(str(failed)) from failed
    return begun(row)


def _staying(found: Sequence[tuple[Channel, ChannelBook]], moving: Sequence[Channel]) -> list[str]:
    return [f"{channel.id} is {book.epoch.phase}, and stays so" for channel, book in found if channel not in moving]


def _phases(found: Sequence[tuple[Channel, ChannelBook]]) -> str:
    return listed(sorted({book.epoch.phase for _, book in found}))


# -- takeover


def _no_way(channel: Channel) -> list[str]:
    if channel.legacy is None:
        return [f"{channel.id} has no legacy: there is no old engine that its messages could be passed on to"]
    return []


def _in_front(channel: Channel, phase: str) -> str:
    copies = "; for copies: interlock legacy" if phase == Phase.OUTSIDE.value else ""
    return (
        f"{channel.id} is {phase}, and the old engine is in front (legacy: observed): what came in would be passed on"
        f" to nobody. For its vendors' port: {to_take_over(channel, phase)}{copies}"
    )


def left_out(conductor: Conductor, moving: Sequence[Channel]) -> list[str]:
    """Channels of a feed cannot be left outside while others come in on its socket."""
    names = {channel.id for channel in moving}
    by_id = {channel.id: channel for channel in conductor.world.channels}
    problems = []
    for feed in _feeds(conductor, moving):
        others = [
            name for name in feed.channels
            if name not in names and name in by_id and conductor.book(name).epoch.phase == Phase.OUTSIDE.value
        ]  # fmt: skip
        if others:
            connections = sorted({by_id[name].connection for name in others})
            named = " ".join(f"--connection {name}" for name in connections)
            problems.append(f"the feed {feed.id} also carries {listed(others)}, which would stay outside: move them"
                            f" together, with {named}")  # fmt: skip
    return problems


def _feeds(conductor: Conductor, channels: Sequence[Channel]) -> list[Feed]:
    names = dict.fromkeys(channel.feed for channel in channels if channel.feed)
    return [conductor.world.feeds[name] for name in names]


def _onward(conductor: Conductor, channel: Channel, book: ChannelBook) -> str:
    routing = conductor.world.routing(channel, Phase.LEGACY)
    answer = "whose answers its senders get" if routing.answer_from == LEGACY else "its senders get our answer"
    taps = "; what the old engine sends to its taps is forwarded" if routing.taps else ""
    return f"{channel.id}: from number {book.seq + 1} on: stored, and passed on to the old engine, {answer}{taps}"


async def _expected(conductor: Conductor, moving: Sequence[Channel], asked: Asked) -> Who:
    """Who is to come back, as it was said, or as this machine's kernel knows it."""
    world, who = conductor.world, Who()
    group = doors(moving, world.feeds)
    known = [*(channel.id for channel in world.channels), *world.feeds]
    said, who.refused = expected(list(asked.options.get("peers") or ()), group, known)
    for door in group:
        who.peers[door.name], who.here[door.name] = [], False
        if world.is_open(door.channels[0]):
            who.lines.append(f"{door.said} is ours already, by other channels of {door.name}")
        elif isinstance(door.source, Files):
            who.lines.append(f"{door.said}: its old reader has to be off: {asked.who} attests it with the reason;"
                             " nothing is watched but that the folder can be read")  # fmt: skip
        elif isinstance(door.source, Connect):
            who.peers[door.name] = [door.source.address.host]
            who.lines.append(f"{door.said}: made by us, once the old client is off; watched until the peer has sent")
        else:
            await _listener(conductor, door, door.source, said.get(door.name), who)
    return who


async def _listener(conductor: Conductor, door: Door, source: Listen, said: list[str] | None, who: Who) -> None:
    here = await conductor.world.here(door.channels[0])
    recorded = not_probes(source, here.peers) if here.listens else []
    peers = recorded if said is None else said
    who.peers[door.name], who.here[door.name] = peers, here.listens
    if said is None and not recorded:
        why = "nobody is connected to the old listener now" if here.listens else "no old listener is on this machine"
        who.refused.append(f"{door.said} of {door.name}: who is to come back? Nothing is recorded, since {why}: {HOW}")
        return
    if out := shut_out(source, peers):
        who.refused.append(f"{door.said} of {door.name}: allow: does not let {listed(out)} in")
    how = "recorded from this machine" if said is None else "as said"
    watched = f"watched until each is back and has sent ({how}): {listed(peers)}" if peers else (
        "nobody is expected, so nothing is watched"
    )  # fmt: skip
    who.lines.append(f"{door.said}: opened as soon as the old listener is off; {watched}")


# -- give-back


def _kept(conductor: Conductor, moving: Sequence[Channel]) -> list[str]:
    """Channels of a feed whose socket is closed with it."""
    names = {channel.id for channel in moving}
    problems = []
    for feed in _feeds(conductor, moving):
        others = {
            name: conductor.book(name).epoch.phase for name in feed.channels
            if name not in names and name in conductor.world.ledger.channels
        }  # fmt: skip
        for name, phase in others.items():
            if phase != Phase.OUTSIDE.value:
                problems.append(f"the feed {feed.id} also carries {name}, which is {phase}: one socket cannot be given"
                                " back for some of its channels")  # fmt: skip
    return problems


def _connected(conductor: Conductor, door: Door) -> list[str]:
    return sorted(host for host, seen in conductor.world.seen(door.channels[0]).items() if seen.connected)


def _was_here(conductor: Conductor, moving: Sequence[Channel]) -> dict[str, bool]:
    """Door → whether the old listener was on this machine, as a takeover has seen it."""
    found: dict[str, bool] = {}
    for channel in moving:
        for epoch in conductor.book(channel.id).epochs:
            found.update(json.loads(epoch.evidence or "{}").get("here", {}))
    return found


def _farewell(door: Door, peers: Sequence[str], *, watched: bool, watch: str) -> str:
    connected = f"connected now: {listed(peers)}" if peers else "nobody is connected now"
    if door.copies and not watch:
        return f"{door.said}: closed when what was begun is answered ({connected}); no old listener waits for it"
    if isinstance(door.source, Files):
        return f"{door.said}: read to its end, and then left to the old reader; nothing is watched"
    how = (
        f"watched: {watch}" if watch
        else "watched: the old listener on this machine, and who comes back to it" if watched
        else "not watched, unless the old listener shows on this machine (or --watch HOST:PORT)"
    )  # fmt: skip
    return f"{door.said}: closed when what was begun is answered ({connected}); {how}"
