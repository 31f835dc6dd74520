"""What went back to senders on their own connections before this process began. They may still say what became of it:
that is an answer and no message of theirs, whichever process hears it."""

from __future__ import annotations

from engine.config.model import Channel, Configuration, Destination
from engine.ledger.sqlite import lately
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.mapping.v2.emission import control_id
from engine.mllp.back import MOST_REMEMBERED, Back
from engine.service.doors import Doors


async def remind(configuration: Configuration, ledger: SqliteLedger, doors: Doors) -> None:
    """Tell each line back what it has sent, before its port is opened."""
    for channel in configuration.channels:
        for destination in channel.destinations:
            if destination.endpoint is not None and destination.endpoint.via is not None:
                _tell(doors, destination.endpoint.via, await _sent(ledger, channel, destination))
        for tap in channel.taps:
            if tap.forward.via is not None:
                id, name = ledger.channels[channel.id].id, tap.name
                found = await ledger.read(lambda r: lately.forwarded(r.connection, id, name, MOST_REMEMBERED))  # noqa: B023
                _tell(doors, tap.forward.via, found)


def _tell(doors: Doors, via: str, names: list[str]) -> None:
    line = doors.back(via)
    if isinstance(line, Back):
        line.sent_before(names)


async def _sent(ledger: SqliteLedger, channel: Channel, destination: Destination) -> list[str]:
    """The control ids of what may have been sent to a destination, newest first: those that came with the messages, and
    those that we give."""
    course = ledger.channels[channel.id].course(destination.name)
    if course is None:
        return []
    id, to, claim = course.channel.id, course.id, course.claim
    emit, incarnation = destination.emit, ledger.incarnations.of
    names: dict[str, None] = {}
    for one in await ledger.read(lambda r: lately.sent(r.connection, id, to, claim, MOST_REMEMBERED)):
        own = control_id(
            incarnation(one.message), channel.id, one.seq, destination.name, one.part, one.delivery,
            prefix=emit.prefix, length=emit.length,
        )  # fmt: skip
        names[own] = None
        if one.control_id:
            names[one.control_id.strip()] = None
    return list(names)
