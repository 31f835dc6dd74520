"""What a running service tells of itself: the answers to the API's questions (`engine.api.reading.Reading`).

Counts come from the ledger's rows, each answer from one moment; who is connected and what is held back comes from the
process.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from typing import Any

from engine.config.edge import Files, FromFeed
from engine.config.model import Channel
from engine.config.problem import Problem
from engine.hl7.ack import parse_ack
from engine.hl7.peek import peek
from engine.intake.told import committed, told
from engine.ledger.course import ChannelBook, Course
from engine.ledger.model import OPEN, Message, OpenWork, State
from engine.ledger.routing import LEGACY, Epoch
from engine.ledger.sqlite import copies, later, parked, retention
from engine.ledger.sqlite.reader import Receipt
from engine.migration.refused import Refused
from engine.remedy.choosing import waits_for_a_person, why_open
from engine.service.moments import iso, now_us
from engine.service.searching import Searching
from engine.service.service import Service

_OPEN = {state.label for state in OPEN}


class View:
    """Answers about one service."""

    def __init__(self, service: Service, version: str) -> None:
        self._service = service
        self._ledger = service.ledger
        self._version = version
        self._channels = {channel.id: channel for channel in service.configuration.channels}

    # -- the whole

    async def status(self) -> dict[str, Any]:
        books = [book for book in self._ledger.channels.values() if book.epochs]
        rows = await self._ledger.read(lambda reader: reader.balance(books))
        newest = await self._ledger.read(lambda reader: {book.id: reader.messages(book.id, None, 1) for book in books})
        kept = await self._ledger.read(lambda reader: parked.counts(reader.connection))
        by_channel: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            by_channel.setdefault(row["channel"], []).append(row)
        channels = [
            await self._channel(book, by_channel.get(book.name, []), newest[book.id], kept.get(book.id, {}))
            for book in books
        ]
        return {
            "version": self._version,
            "started": iso(self._service.started_at),
            "incarnation": self._ledger.incarnation,
            "term": self._ledger.term,
            "ledger": str(self._ledger.path),
            "writable": self._ledger.unwritable is None,
            "balanced": all(row["balanced"] for row in rows),
            "delivering": self._service.delivery.held,
            "workers": workers.told if (workers := self._service.ways.workers) else {},
            "channels": channels,
            "answers": [
                {
                    "endpoint": port.endpoint, "listening": port.down is None, "down": port.down,
                    "address": str(port.address), "peers": [each.peer for each in port.listener.connections],
                }
                for port in self._service.ways.answer_ports.values()
            ],
            "expired": self._service.ways.certificates.expired,
            "mappings_broken": _broken(self._service.ways.mistakes),
        }  # fmt: skip

    async def _channel(
        self, book: ChannelBook, rows: list[dict[str, Any]], newest: list[tuple[Any, ...]], kept: dict[str, int]
    ) -> dict[str, Any]:
        channel = self._channels.get(book.name)
        port = self._service.doors.port_of(channel) if channel else None
        files = self._service.doors.files.get(book.name)
        return {
            "id": book.name,
            "connection": channel.connection if channel else "",
            "title": channel.title if channel else "no longer configured",
            "phase": book.epoch.phase,
            "listening": (port is not None and port.down is None) or (files is not None and files.down is None),
            "down": port.down if port else files.down if files else None,
            "address": _address(channel) if channel else "",
            "peers": [connection.peer for connection in port.listener.connections] if port else [],
            "stored": book.seq,
            "last_received": iso(newest[0][3]) if newest else None,
            "hold": _hold(book),
            "run": next((row.id for row in self._service.conductor.runs.of([book.name])), None),
            "taps": self._taps(book.name),
            "parked": kept,
            "destinations": [
                await self._destination(book, course, [row for row in rows if row["destination"] == course.name])
                for course in book.courses
            ],
        }

    def _taps(self, channel: str) -> list[dict[str, Any]]:
        comparisons = self._service.comparisons
        tapped = comparisons.channels.get(channel)
        return [
            {
                "name": name, "listening": port.down is None, "down": port.down, "address": port.address,
                "forward": str(port.tap.forward),
                "peers": [connection.peer for connection in port.listener.connections] if port.listener else [],
            }
            for name, port in (tapped.ports.items() if tapped else ())
        ]  # fmt: skip

    async def _destination(self, book: ChannelBook, course: Course, rows: list[dict[str, Any]]) -> dict[str, Any]:
        counts: Counter[str] = Counter()
        for row in rows:
            counts.update(row["states"])
        again: Counter[str] = Counter()
        for row in rows:
            again.update({k: n for k, n in row.get("replayed", {}).get("states", {}).items() if k in _OPEN})
        route = book.epoch.routing.route(course.name)
        still_open = sum(count for state, count in counts.items() if state in _OPEN)
        return {
            "name": course.name,
            "kind": route.kind if route else "",
            "mode": route.mode.value if route else "off",
            "counts": dict(counts),
            "replayed": dict(again),
            "wanted": dict(
                Counter(work.state.label for work in course.open.values() if waits_for_a_person(course, work))
            ),
            "frontier": course.frontier,
            "claim": course.claim,
            "open": still_open,
            "oldest_s": await self._oldest(course) if still_open else None,
            "breaker": self._why_nothing_is_sent(course, still_open),
            "next_trial_s": course.runner.destination.breaker.asks_in if course.runner else None,
            "rests_until": _rests_until(course),
            "balanced": all(row["balanced"] for row in rows),
        }

    def _why_nothing_is_sent(self, course: Course, still_open: int) -> str | None:
        if course.runner is None:
            return "it is no longer configured" if still_open else None
        breaker = course.runner.destination.breaker
        return breaker.reason if breaker.open and breaker.rests_until is None else None

    async def _oldest(self, course: Course) -> float | None:
        """Age of the oldest message not settled, in seconds."""
        works = list(course.open.values())
        if works:
            id: int | None = min(work.message for work in works)
        else:
            following = await self._ledger.backlog(course, course.frontier, 1)
            id = following[0].id if following else None
        if id is None:
            return None
        wanted = id
        received = await self._ledger.read(lambda reader: reader.received(wanted))
        return max(0.0, (now_us() - received) / 1e6)

    async def channels(self) -> list[dict[str, Any]]:
        return [
            {
                "id": channel.id, "connection": channel.connection, "title": channel.title,
                "direction": channel.direction, "owner": channel.owner, "labels": dict(channel.labels),
                "phase": self._ledger.channels[channel.id].epoch.phase, "address": _address(channel),
                "source": channel.file,
            }
            for channel in self._service.configuration.channels
        ]  # fmt: skip

    async def readiness(self) -> dict[str, Any]:
        comparisons = self._service.comparisons
        failed = {**self._service.doors.down, **comparisons.down, **self._service.ways.down}
        taps = [f"{name}/{tap}" for name, tapped in comparisons.channels.items() for tap in tapped.ports]
        doors = self._service.doors
        answers = [port.name for port in self._service.ways.answer_ports.values()]
        listeners = {name: failed.get(name, "") for name in [*doors.ports, *doors.files, *taps, *answers]}
        breakers = self._service.ways.breakers
        unwritable = self._ledger.unwritable
        return {
            "ready": not failed and unwritable is None,
            "ledger": unwritable or "",
            "listeners": listeners,
            "destinations": {name: breaker.reason if breaker.open else "" for name, breaker in breakers.items()},
            "workers": workers.told if (workers := self._service.ways.workers) else {},
        }

    def scraped(self, agent: str) -> None:
        self._service.moves.scraped(agent)

    # -- messages

    async def messages(self, *, channel: str | None, before: int | None, limit: int) -> list[dict[str, Any]] | None:
        book = self._ledger.channels.get(channel) if channel else None
        if channel and book is None:
            return None
        id = book.id if book else None
        rows = await self._ledger.read(lambda reader: reader.messages(id, before, limit))
        return await self._rows(rows)

    async def search(self, *, before: tuple[str, int] | None, limit: int, **asked: Any) -> list[dict[str, Any]] | None:
        if asked.get("channel") and asked["channel"] not in self._ledger.channels:
            return None
        searching = Searching(self._ledger, self._service.configuration.channels)
        selection = searching.selection(**asked)
        if selection is None:
            return []
        below = await searching.id_of(*before) if before else None
        found = await self._service.follower.find(selection, limit, below)
        return await self._rows(await self._ledger.read(lambda reader: reader.heads([row.id for row in found])))

    async def _rows(self, rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
        settled = await self._ledger.read(lambda reader: reader.settled([row[0] for row in rows]))
        by_id = {book.id: book for book in self._ledger.channels.values()}
        opened = _Opened()
        result = []
        for id, channel, seq, received, control_id, size, first in rows:
            book = by_id[channel]
            epoch = _epoch(book, seq)
            head = peek(first)
            result.append(
                {
                    "channel": book.name, "seq": seq, "received": iso(received), "control_id": control_id,
                    "type": head.event, "size": size, "phase": epoch.phase,
                    "states": _states(book, epoch, seq, settled[id], opened),
                }
            )  # fmt: skip
        return result

    async def message(self, channel: str, seq: int) -> dict[str, Any] | None:
        book = self._ledger.channels.get(channel)
        id = await self._ledger.read(lambda reader: reader.id_of(book.id, seq)) if book else None
        if book is None:
            return None
        number = book.id
        gone = await self._ledger.read(lambda reader: retention.told(reader.connection, number, seq))
        removed = [f"{rule}: removed {iso(at)[:10]}" for _, at, rule in gone]
        if id is None:
            if removed:
                raise Refused(f"{channel}/{seq} is no longer kept: {'; '.join(removed)}. It is still counted.")
            return None
        wanted = id
        message = await self._ledger.message(book, wanted)
        head = (wanted, book.id, seq, message.received, message.control_id, len(message.raw), message.raw[:1024])
        receipts = await self._ledger.read(lambda reader: reader.receipts(wanted))
        answers = await self._ledger.read(lambda reader: later.answers(reader.connection, wanted))
        elsewhere = await self._elsewhere(channel, wanted)
        (row,) = await self._rows([head])
        return row | {
            "connection_number": message.socket,
            "epoch": _epoch(book, seq).number,
            "acknowledged": self._acknowledged(channel, _epoch(book, seq), message, receipts, elsewhere),
            "raw": base64.b64encode(message.raw).decode(),
            "removed": removed,
            "damaged": message.damaged,
            "receipts": [*map(_receipt, receipts), *_open_rows(book, message.id)],
            "later": [
                {"at": iso(at), "reason": reason, "answer": base64.b64encode(answer).decode()}
                for at, reason, answer in answers
            ],
        }

    async def _elsewhere(self, channel: str, id: int) -> list[tuple[Epoch, list[Receipt]]]:
        """Of the copies of a feed's frame in other channels: epoch and receipts."""
        found = self._channels.get(channel)
        if found is None or found.feed is None:
            return []
        by_id = {book.id: book for book in self._ledger.channels.values()}
        others = await self._ledger.read(
            lambda reader: [
                (by_id[number], seq, reader.receipts(reader.id_of(number, seq) or 0))
                for number, seq in copies.others(reader.connection, id)
            ]
        )
        return [(_epoch(book, seq), receipts) for book, seq, receipts in others]

    def _acknowledged(
        self, name: str, epoch: Epoch, message: Message, receipts: Sequence[Receipt],
        elsewhere: Sequence[tuple[Epoch, Sequence[Receipt]]],
    ) -> str | None:  # fmt: skip
        """What the sender has heard, as far as it is known. One answer is given for all copies of a frame, and the old
        engine gives it as long as it is asked about any."""
        authority, channel = epoch.routing.answer_from, self._channels.get(name)
        relayed = next(filter(None, (_relayed(*copy) for copy in [(epoch, receipts), *elsewhere])), None)
        if channel is None or LEGACY in (authority, *(each.routing.answer_from for each, _ in elsewhere)):
            return relayed
        if isinstance(channel.source, Files):
            return "nothing: it came as a file"
        if not message.raw:
            return relayed or "not known: the message itself is no longer kept"
        feed = next((each for each in self._service.configuration.feeds if each.id == channel.feed), None)
        ack, batch = (feed or channel).ack, (feed or channel).takes.batch
        if authority is None:
            return told(message.raw, ack, batch)
        return ", then ".join(filter(None, (committed(message.raw, ack), relayed))) or None


class _Opened:
    """Open work by its message's number; of several deliveries the newest."""

    def __init__(self) -> None:
        self._found: dict[Course, dict[int, OpenWork]] = {}

    def of(self, course: Course, seq: int) -> OpenWork | None:
        found = self._found.get(course)
        if found is None:
            works = sorted(course.open.values(), key=lambda work: work.delivery)
            found = self._found[course] = {work.seq: work for work in works}
        return found.get(seq)


def _states(book: ChannelBook, epoch: Epoch, seq: int, settled: dict[str, str], opened: _Opened) -> dict[str, str]:
    """Destination → state, where something is due."""
    result = {}
    for route in epoch.routing.due():
        course = book.course(route.destination)
        if course is None:
            continue
        work = opened.of(course, seq)
        if work is not None:
            state = work.state.label
        elif route.destination in settled:
            state = settled[route.destination]
        else:
            state = State.SENDING.label if seq <= course.claim else State.WAITING.label
        result[route.destination] = state
    return result


def _open_rows(book: ChannelBook, message: int) -> list[dict[str, Any]]:
    return [
        {
            "destination": course.name, "part": work.part, "delivery": work.delivery,
            "revision": work.revision, "state": work.state.label,
            "at": iso(work.due) if work.due else "", "reason": why_open(course, work), "answer": None,
        }
        for course in book.courses
        for work in list(course.open.values())
        if work.message == message
    ]  # fmt: skip


def _receipt(row: tuple[Any, ...]) -> dict[str, Any]:
    destination, part, delivery, _, state, at, why, answer, revision = row
    return {
        "destination": destination, "part": part, "delivery": delivery, "revision": revision,
        "state": state.label, "at": iso(at),
        "reason": why or "", "answer": base64.b64encode(answer).decode() if answer else None,
    }  # fmt: skip


def _relayed(epoch: Epoch, receipts: Sequence[Receipt]) -> str | None:
    """The authority's code, where its answer was relayed."""
    for destination, _, _, _, state, _, why, answer, _ in receipts:
        if destination == epoch.routing.answer_from and answer and (why == "relayed" or state is State.REFUSED):
            parsed = parse_ack(answer)
            return parsed.code if parsed else f"0x{answer.hex()}" if len(answer) == 1 else None
    return None


def _address(channel: Channel) -> str:
    """Where a channel's messages come in, for people."""
    source = channel.source
    if isinstance(source, FromFeed):
        return f"feed {source.name}"
    if isinstance(source, Files):
        return str(source.place)
    return str(source.address)


def _rests_until(course: Course) -> str | None:
    until = course.runner.destination.breaker.rests_until if course.runner else None
    return iso(int(until.timestamp() * 1e6)) if until else None


def _hold(book: ChannelBook) -> dict[str, Any] | None:
    hold = book.hold
    if hold is None:
        return None
    return {"stopped": book.stopped, "who": hold.who, "why": hold.why, "since": iso(hold.at), "until": iso(hold.until)}


def _epoch(book: ChannelBook, seq: int) -> Epoch:
    return next(epoch for epoch in reversed(book.epochs) if epoch.first <= seq)


def _broken(mistakes: Sequence[Problem]) -> dict[str, Any] | None:
    """What keeps the mapping files from being used."""
    return {"problems": len(mistakes), "first": str(mistakes[0])} if mistakes else None
