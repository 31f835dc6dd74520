"""The ways out of the channels: which destinations a configuration asks for, and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from engine.config.edge import ACKNOWLEDGES, Ack, AckMode, Answers, Place
from engine.config.endpoint import Endpoint
from engine.config.model import Channel, Configuration, Destination
from engine.config.problem import Problem
from engine.config.shipped import shipped_mappings
from engine.delivery.answer_port import AnswerPort
from engine.delivery.attempt import Carrier
from engine.delivery.breaker import Breaker
from engine.delivery.carrier import AT_ONCE
from engine.delivery.decision import Manner
from engine.delivery.destinations.file import FileDestination
from engine.delivery.destinations.medplum import WINDOW, MedplumDestination, Project
from engine.delivery.destinations.mllp import Later, MllpDestination
from engine.delivery.destinations.whole import Wholes
from engine.delivery.feed import FeedDestination, FeedLink
from engine.delivery.hours import Schedule
from engine.delivery.line import Line
from engine.delivery.outputs import Memory, Outputs
from engine.delivery.pace import Pace
from engine.delivery.sender import Sender
from engine.delivery.work import Destination as Way
from engine.delivery.workers.lock import DeliveryLock
from engine.delivery.workers.pool import AHEAD, Workers
from engine.files.folder import Folder
from engine.files.places import folder_of
from engine.hl7.ack import parse_ack
from engine.ledger.course import ChannelBook, Course
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome
from engine.ledger.routing import LEGACY
from engine.ledger.sqlite.incarnations import Incarnations
from engine.ledger.sqlite.mappings import KeptMapping, read_from
from engine.ledger.sqlite.remembered import Kept
from engine.ledger.turns import Turns
from engine.mapping.effective import Effective
from engine.mapping.library import Library
from engine.mapping.packing import Packer, Sources
from engine.mapping.problems import MappingError, Problems
from engine.mapping.v2.channels import check
from engine.mapping.v2.library import TableNews, V2Library
from engine.mapping.v2.memory import Memories
from engine.mapping.versions import Versions
from engine.mllp.back import Back
from engine.mllp.client import Client
from engine.observe.delivery_events import StrayAnswer
from engine.observe.events import emit
from engine.observe.service_events import (
    MAPPINGS_BROKEN,
    TABLE_BROKEN,
    TABLE_STALE,
    MappingsBroken,
    MappingsRead,
    TableBroken,
    TableRead,
    TableStale,
    count,
)
from engine.service.carriers import carrier_to, is_mapped, setup
from engine.service.certificates import Certificates
from engine.service.moments import now_us
from engine.service.opening import keep_opening, opened
from engine.service.remembering import Rule
from engine.service.rereading import Fresh, MappingFiles

# The old engine gets everything again that it may not have taken, and a message that it will never take stops nobody:
# it answered its sender itself before, and the sender went on.
LEGACY_MANNER = Manner("goes_on")


KeepMappings = Callable[[Iterable[str], Callable[[str], KeptMapping]], Awaitable[None]]


def _nowhere(channel: str) -> Line:
    raise ValueError(f"no line back to the senders of {channel}")


async def _unknown(message: Message) -> Outcome | None:
    return None


def _unheard(destination: str, message: Message, reply: Any, answer: bytes) -> None:
    raise ValueError(f"nobody hears the later answers of {destination}")


async def _kept_nowhere(versions: Iterable[str], made: Callable[[str], KeptMapping]) -> None:
    raise ValueError("mappings are kept nowhere")


def _all(present: Mapping[str, Mapping[str, Effective]]) -> Iterable[Effective]:
    return (each for of_channel in present.values() for each in of_channel.values())


def _says_no(answer: bytes) -> bool:
    parsed = parse_ack(answer)
    return parsed is not None and parsed.code not in ("AA", "CA")


def _untold(turns: Turns) -> None:
    raise ValueError("no ledger looks whose turn it is")


def _no_books(feed: str) -> Iterable[ChannelBook]:
    return ()


def _window(destination: Destination) -> int:
    """Where messages go in lanes, as many as its connections take, and one that waits for its turn."""
    if destination.kind == "medplum":
        return WINDOW
    if destination.kind == "file" or destination.order_by == "channel" or destination.endpoint is None:
        return 1
    return destination.endpoint.connections + 1


def _rule(channel: Channel) -> Rule:
    problems = Problems()
    memories = Memories(channel.remember, problems)
    problems.check()
    keep = {each.name: each.keep for each in channel.remember}
    takes = channel.takes

    def brings(_: str, raw: bytes) -> list[Kept]:
        found = memories.remembered(raw, takes.encoding, takes.undeclared)
        return [Kept(store, key, values, keep[store]) for store, key, values in found]

    return brings


def _has_v2(configuration: Configuration) -> bool:
    """Whether a channel has a mapping from v2 to v2."""
    return any(each.mapping for channel in configuration.channels for each in channel.destinations)


class Ways:
    """Builds the destinations of a configuration. `prepare` first: it loads the mappings."""

    def __init__(self, configuration: Configuration) -> None:
        self.certificates = Certificates(now_us)
        self.projects: dict[str, Project] = {}
        self.links: dict[str, Sender] = {}  # to the old engine, by channel or feed
        self.feeds: dict[str, FeedLink] = {}
        self.answer_ports: dict[str, AnswerPort] = {}  # by endpoint
        # What only the service has, set before the first destination is built.
        self.back: Callable[[str], Line] = _nowhere
        self.later: Callable[[str, Message, Any, bytes], None] = _unheard  # destination, and as `Later`
        self.answered: Callable[[Message], Awaitable[Outcome | None]] = _unknown
        self.books: Callable[[str], Iterable[ChannelBook]] = _no_books
        self.take_turns: Callable[[Turns], None] = _untold
        self.wholes: Wholes | None = None
        self.incarnations: Sequence[str] = ()  # of the ledger, oldest first
        self.kept: KeepMappings = _kept_nowhere
        self.v2 = V2Library({}, {})
        self.mappings = Versions(partial(read_from, configuration.service.ledger))
        self.workers: Workers | None = None  # None: messages are mapped in this process
        self.memory: Memory | None = None
        self.mistakes: Sequence[Problem] = ()  # in the mapping files as they are now, which are not used therefore
        self._broken: set[str] = set()  # tables whose file is gone or broken, and this was said
        self._stale: set[str] = set()  # tables that are too old, and this was said
        self._configuration = configuration
        settings, v2 = configuration.service, _has_v2(configuration)
        self._cache = settings.ledger.with_suffix(".mappings")  # beside the ledger, like the token: this user's alone
        tables = settings.ledger.with_suffix(".tables") if v2 else None
        self._files = MappingFiles(shipped_mappings(), settings.mappings, self._cache, tables)
        self._breakers: dict[str, Breaker] = {}
        self._schedules: list[Schedule] = []
        self._paces: dict[str, Pace] = {}
        self._senders: dict[str, Sender] = {}
        self._turns: dict[str, Turns] = {}
        self._feeds: dict[str, MllpDestination] = {}
        self._folders: dict[Place, Folder] = {}

    def prepare(self) -> None:
        """Raises MappingError."""
        settings = self._configuration.service
        if any(map(is_mapped, self._configuration.channels)):
            self.library = Library.load(shipped_mappings(), settings.mappings, self._cache)
        else:
            self.library = Library.empty()
        if _has_v2(self._configuration):
            self.v2 = V2Library.load(shipped_mappings(), settings.mappings, settings.ledger.with_suffix(".tables"))
            self._tell(self.v2.news)
        if problems := check(self._configuration.channels, self.v2):
            raise MappingError(problems)
        self._sources = Sources(shipped_mappings(), settings.mappings)
        self._present = self._effective(self.library, self.v2)
        self.mappings.use(_all(self._present))

    @property
    def rereads(self) -> bool:
        """Whether there are files that may change while the service runs."""
        return self.v2.reads_files or self._files.has_site

    def hire(self, lock: DeliveryLock) -> None:
        """Have as many workers as the settings say, where there is something to map. They start with `open`."""
        count = self._configuration.service.workers
        if count and any(map(is_mapped, self._configuration.channels)):
            told = setup(self._configuration, self.library, self.incarnations)
            self.workers = Workers(count, "engine.service.worker", told, lock)

    async def keep(self) -> None:
        """Have what makes outputs kept, before an epoch names it. After `prepare`."""
        await self._keep(self._present)

    async def _keep(self, present: Mapping[str, Mapping[str, Effective]]) -> None:
        by_version = {each.version: each for each in _all(present) if each.version}
        await self.kept(by_version, Packer(by_version, self._sources))

    def _effective(self, library: Library, v2: V2Library) -> dict[str, dict[str, Effective]]:
        """Channel → destination → what makes the outputs there. Raises MappingError."""
        found = {
            channel.id: {each.name: Effective.of(channel, each, library, v2) for each in channel.destinations}
            for channel in self._configuration.channels
        }
        if not self._configuration.service.workers:  # else it is they who map
            for one in _all(found):
                one.prepare()
        return found

    def versions(self, channel: Channel) -> dict[str, str]:
        """Destination → the version of what makes its outputs; not where it gets messages as they came."""
        return {name: each.version for name, each in self._present.get(channel.id, {}).items() if each.version}

    def windows(self, channel: Channel) -> dict[str, int]:
        """Destination → how many messages may be on the way at once."""
        return {each.name: _window(each) for each in channel.target.destinations} if channel.target else {}

    def remembers(self) -> dict[str, Rule]:
        """Channel → what its messages bring that others may look up."""
        return {each.id: _rule(each) for each in self._configuration.channels if each.remember}

    def _outputs(self, channel: Channel, destination: Destination, incarnations: Incarnations) -> Outputs:
        return Outputs(channel.id, destination.name, self.mappings, incarnations, self.memory)

    async def refresh(self) -> bool:
        """Read the mappings, and the tables of v2 mappings, anew where their files have changed. Whether a mapping is
        another one now."""
        new = await self._reread()
        fresh, news = await asyncio.to_thread((new.v2 if new and new.v2 else self.v2).refreshed)
        self._tell(news)
        if changed := new is not None or fresh is not self.v2:
            library = new.library if new else self.library
            present = await asyncio.to_thread(self._effective, library, fresh)
            self._sources = new.sources if new else self._sources
            await self._keep(present)
            self.library, self.v2, self._present = library, fresh, present
            self.mappings.use(_all(present))
        stale = {each.table for each in fresh.stale(now_us())}
        for table in stale - self._stale:
            emit(TableStale(table))
        count(TABLE_STALE, self._stale, stale)
        self._stale = stale
        return changed

    async def _reread(self) -> Fresh | None:
        """The mapping files, if they have changed and have no mistake, nor any channel with them."""
        try:
            new = await asyncio.to_thread(self._checked)
        except MappingError as error:
            emit(MappingsBroken(len(error.problems), str(error.problems[0])))
            MAPPINGS_BROKEN.of().n = 1
            self.mistakes = error.problems
            return None
        if new is not None:
            emit(MappingsRead())
            MAPPINGS_BROKEN.of().n = 0
            self.mistakes = ()
        return new

    def _checked(self) -> Fresh | None:
        new = self._files.changed()
        if new is not None:
            v2 = new.v2 or self.v2
            if problems := check(self._configuration.channels, v2):
                raise MappingError(problems)
            self._effective(new.library, v2)
        return new

    def _tell(self, news: Sequence[TableNews]) -> None:
        """What is broken is told at each look; it is said once."""
        broken: set[str] = set()
        for each in news:
            if each.kind == "read":
                emit(TableRead(each.table))
            elif each.table not in broken:
                broken.add(each.table)
                if each.table not in self._broken:
                    emit(TableBroken(each.table, each.text))
        count(TABLE_BROKEN, self._broken, broken)
        self._broken = broken

    def accepts(self, channel: Channel) -> frozenset[str] | None:
        """The message types that `live` takes; None where nothing is mapped and any will do."""
        if channel.takes.accepts:
            return frozenset(channel.takes.accepts)
        fhir = (each.fhir for each in self._present.get(channel.id, {}).values())
        return next((each.accepts for each in fhir if each is not None), None)

    def destination(self, channel: Channel, name: str, incarnations: Incarnations) -> Way | None:
        """The way to a destination of a channel; None where the configuration no longer has it."""
        if name == LEGACY:
            return self._legacy(channel, incarnations)
        found = next((each for each in channel.destinations if each.name == name), None)
        if found is None:
            return None
        endpoint = found.endpoint
        if endpoint is None:
            return self._medplum(channel, found, incarnations)
        manner = Manner(found.dead, endpoint.on_unknown == "park")
        outputs = self._outputs(channel, found, incarnations)
        if found.kind == "file":
            return self._file(channel, endpoint, manner, incarnations, outputs)
        return MllpDestination(
            name, endpoint, self.sender(endpoint), self.breaker(endpoint), manner, self._later(name), outputs=outputs,
            order_by=found.order_by,
        )  # fmt: skip

    def _legacy(self, channel: Channel, incarnations: Incarnations) -> Way | None:
        """The way to the old engine: a connection of the channel's own, or of its feed."""
        endpoint = channel.legacy.endpoint if channel.legacy else None
        if endpoint is None:
            return None
        if endpoint.place is not None:
            return self._file(channel, endpoint, LEGACY_MANNER, incarnations, wholes=self.wholes)
        if feed := channel.feed:
            carrier = self._feeds.get(feed)
            if carrier is None:
                carrier = self._feeds[feed] = self._old_engine(feed, endpoint, self._mode(feed, channel.ack))
                tick = asyncio.get_running_loop().time
                self.feeds[feed] = FeedLink(carrier, partial(self.books, feed), self.answered, tick)
            return FeedDestination(self.feeds[feed], carrier)
        return self._old_engine(channel.id, endpoint, channel.ack.mode)

    def _mode(self, feed: str, ack: Ack) -> AckMode:
        """How a feed answers; as its channel does where there is no such feed."""
        return next((each.ack.mode for each in self._configuration.feeds if each.id == feed), ack.mode)

    def _old_engine(self, owner: str, endpoint: Endpoint, mode: AckMode) -> MllpDestination:
        sender = self.links.get(owner)
        if sender is None:
            sender = self.links[owner] = self._sender(endpoint, 1)
        return MllpDestination(
            LEGACY, endpoint, sender, self.breaker(endpoint), LEGACY_MANNER, self._later(LEGACY), mode, transparent=True
        )

    def meanings(self, channel: str, destination: str) -> Answers:
        """What the answers of a channel's destination mean."""
        found = next(each for each in self._configuration.channels if each.id == channel)
        endpoint = found.endpoint(destination)
        return endpoint.answers if endpoint else ACKNOWLEDGES

    def _later(self, destination: str) -> Later:
        return lambda message, reply, answer: self.later(destination, message, reply, answer)

    def link(self, channel: Channel) -> Sender | None:
        """The connection to the old engine on which it answers a channel's messages."""
        name = channel.door
        if name not in self.links and channel.legacy and channel.legacy.endpoint:
            self.links[name] = self._sender(channel.legacy.endpoint, 1)
        return self.links.get(name)

    def _file(
        self, channel: Channel, endpoint: Endpoint, manner: Manner, incarnations: Incarnations,
        outputs: Outputs | None = None, wholes: Wholes | None = None,
    ) -> Way:  # fmt: skip
        assert endpoint.place is not None
        folder, breaker = self.place(endpoint.place), self.breaker(endpoint)
        return FileDestination(channel.id, endpoint, folder, breaker, manner, outputs, wholes, incarnations)

    def place(self, place: Place) -> Folder:
        """A folder, one for all who use it."""
        if place not in self._folders:
            self._folders[place] = folder_of(place)
        return self._folders[place]

    def sender(self, endpoint: Endpoint) -> Sender:
        """The one sender of an endpoint, for all channels and taps."""
        found = self._senders.get(endpoint.name)
        if found is None:
            found = self._senders[endpoint.name] = self._sender(endpoint, endpoint.connections)
        return found

    def share(self, channel: Channel, course: Course, way: Way) -> None:
        """Have a course that goes through its endpoint's one sender take turns with the others. The old engine's have
        senders of their own, and what a feed's paths have claimed waits there for each other."""
        found = next((each for each in channel.destinations if each.name == course.name), None)
        if found is not None and found.endpoint is not None and isinstance(way, MllpDestination):
            self._turns_of(found.endpoint).join(course)

    def _turns_of(self, endpoint: Endpoint) -> Turns:
        turns = self._turns.get(endpoint.name)
        if turns is None:
            sender = self.sender(endpoint)
            turns = self._turns[endpoint.name] = Turns(sender.room)
            sender.has_room = lambda: turns.waiting and self.take_turns(turns)
        return turns

    def _pace(self, endpoint: Endpoint) -> Pace:
        """The one pace of an endpoint."""
        if endpoint.name not in self._paces:
            self._paces[endpoint.name] = Pace(endpoint.rate)
        return self._paces[endpoint.name]

    def _sender(self, endpoint: Endpoint, connections: int) -> Sender:
        sender = Sender(self._pace(endpoint))
        if endpoint.via is not None:
            line = self.back(endpoint.via)
            if isinstance(line, Back):
                line.came = self.breaker(endpoint).here
                line.later = lambda payload: _says_no(payload) and sender.came_elsewhere(payload)
            sender.use([line])
            return sender
        lines = [self._line(endpoint, sender) for _ in range(connections)]
        sender.use(lines)
        if endpoint.answers.listen is not None:
            self._answer_port(endpoint).senders.append(sender)
        return sender

    def _answer_port(self, endpoint: Endpoint) -> AnswerPort:
        """The one port for an endpoint's answers, whoever of us sends to it."""
        port = self.answer_ports.get(endpoint.name)
        if port is None:
            tls = endpoint.answers.listen.tls if endpoint.answers.listen else None
            server = self.certificates.server(f"{endpoint.name}/answers", tls)
            port = self.answer_ports[endpoint.name] = AnswerPort(endpoint, server)
        return port

    def _line(self, endpoint: Endpoint, sender: Sender) -> Client:
        assert endpoint.mllp is not None
        line = Client(
            endpoint.mllp,
            connect_timeout=endpoint.connect_timeout,
            framing=endpoint.framing,
            tls=self.certificates.client(endpoint.name, endpoint.tls),
            source_address=endpoint.source_address,
            persistent=endpoint.persistent,
            idle=endpoint.idle,
            keepalive=endpoint.keepalive,
            elsewhere=endpoint.answers.listen is not None,
            unasked=lambda payload: sender.came(line, payload),
            stray=lambda data: emit(StrayAnswer(endpoint.name, len(data))),
        )
        return line

    async def open(self, spawn: Callable[[Any, str], Any]) -> None:
        """Start the workers, and open the ports where endpoints answer; one that cannot be had is tried again until it
        can."""
        if self.workers is not None:
            self.workers.start()
        for port in self.answer_ports.values():
            if not await opened(port):
                spawn(keep_opening(port), port.name)

    @property
    def down(self) -> dict[str, str]:
        """Which answers cannot come, and why."""
        return {port.name: port.down for port in self.answer_ports.values() if port.down}

    def breaker(self, endpoint: Endpoint) -> Breaker:
        """The one breaker of an endpoint; it rests outside the endpoint's hours."""
        breaker = self._breakers.get(endpoint.name)
        if breaker is None:
            breaker = self._breakers[endpoint.name] = Breaker(endpoint.name)
            if endpoint.hours is not None:
                schedule = Schedule(breaker, endpoint.hours, now_us)
                self._schedules.append(schedule)
                schedule.look()
        return breaker

    @property
    def breakers(self) -> dict[str, Breaker]:
        return {**self._breakers, **{name: project.breaker for name, project in self.projects.items()}}

    async def reach(self, name: str) -> tuple[bool | None, str]:
        """Whether a project answers and lets us in, and why not. None where no channel has used it yet."""
        project = self.projects.get(name)
        return await project.reach() if project else (None, "nothing has gone there yet")

    async def close(self) -> None:
        for schedule in self._schedules:
            schedule.stop()
        for breaker in self._breakers.values():
            breaker.stop()
        for port in self.answer_ports.values():
            await port.close()
        for link in self.feeds.values():
            await link.close()
        for pace in self._paces.values():
            pace.stop()
        for sender in (*self._senders.values(), *self.links.values()):
            await sender.aclose()
        for folder in self._folders.values():
            await folder.close()
        for project in self.projects.values():
            await project.close()
        if self.workers is not None:
            await self.workers.close()

    def _medplum(self, channel: Channel, destination: Destination, incarnations: Incarnations) -> Way:
        name = destination.project or "medplum"
        project = self.projects.get(name)
        if project is None:
            project = self.projects[name] = self._project(name)
        return MedplumDestination(
            destination.name, project, incarnations, self._outputs(channel, destination, incarnations),
            order_by=destination.order_by, dead=destination.dead,
        )  # fmt: skip

    def _project(self, name: str) -> Project:
        settings = self._configuration.service.medplum
        if settings is None:
            raise ValueError("a channel delivers to Medplum, and the settings have no medplum: section")
        carrier: Carrier
        if self.workers is not None:
            carrier, at_once = self.workers.carrier(name), AHEAD
        else:
            carrier, at_once = carrier_to(name, self._configuration, self.mappings, self.incarnations), AT_ONCE
        return Project(name, carrier, settle_time=settings.time_limit, at_once=at_once)
