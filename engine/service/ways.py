"""The ways out of the channels: which destinations a configuration asks for, and what they share."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from engine.config.edge import ACKNOWLEDGES, Ack, AckMode, Answers, Place
from engine.config.endpoint import Endpoint
from engine.config.filtering import AS_IT_CAME
from engine.config.model import Channel, Configuration, Destination, Target
from engine.config.shipped import shipped_mappings
from engine.delivery.answer_port import AnswerPort
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.destinations.file import FileDestination
from engine.delivery.destinations.medplum import AT_ONCE, WINDOW, MedplumDestination, Project
from engine.delivery.destinations.mllp import Later, MllpDestination
from engine.delivery.feed import FeedDestination, FeedLink
from engine.delivery.hours import Schedule
from engine.delivery.line import Line
from engine.delivery.outputs import Memory, Outputs
from engine.delivery.sender import Sender
from engine.delivery.work import Destination as Way
from engine.fhir.client import FhirClient
from engine.fhir.deliverer import Deliverer
from engine.fhir.output import Output
from engine.files.folder import Folder
from engine.files.places import folder_of
from engine.hl7.ack import parse_ack
from engine.hl7.batch import read_batch
from engine.hl7.peek import Peek, peek
from engine.ledger.course import ChannelBook
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome
from engine.ledger.routing import LEGACY
from engine.ledger.sqlite.incarnations import Incarnations
from engine.ledger.sqlite.remembered import Kept
from engine.mapping.library import Context, Library, Mapping, Unmappable
from engine.mapping.problems import MappingError, Problems
from engine.mapping.v2.channels import check
from engine.mapping.v2.filters import Filter
from engine.mapping.v2.library import V2Library
from engine.mapping.v2.memory import Memories
from engine.mllp.back import Back
from engine.mllp.client import Client
from engine.observe.delivery_events import StrayAnswer
from engine.observe.events import emit
from engine.observe.service_events import TableBroken, TableRead, TableStale
from engine.service.certificates import Certificates
from engine.service.moments import now_us
from engine.service.opening import keep_opening, opened
from engine.service.remembering import Rule

# The old engine gets everything again that it may not have taken, and a message that it will never take stops nobody:
# it answered its sender itself before, and the sender went on.
LEGACY_MANNER = Manner(waits_for_dead=False)


def _nowhere(channel: str) -> Line:
    raise ValueError(f"no line back to the senders of {channel}")


async def _unknown(message: Message) -> Outcome | None:
    return None


def _unheard(destination: str, message: Message, reply: Any, answer: bytes) -> None:
    raise ValueError(f"nobody hears the later answers of {destination}")


def _says_no(answer: bytes) -> bool:
    parsed = parse_ack(answer)
    return parsed is not None and parsed.code not in ("AA", "CA")


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
        self.v2 = V2Library({}, {})
        self.memory: Memory | None = None
        self._stale: set[str] = set()  # tables that are too old, and this was said
        self._configuration = configuration
        self._breakers: dict[str, Breaker] = {}
        self._schedules: list[Schedule] = []
        self._senders: dict[str, Sender] = {}
        self._feeds: dict[str, MllpDestination] = {}
        self._folders: dict[Place, Folder] = {}

    def prepare(self) -> None:
        """Raises MappingError."""
        if any(self._maps(channel) for channel in self._configuration.channels):
            settings = self._configuration.service
            cache = settings.ledger.with_suffix(".mappings")  # beside the ledger, like the token: this user's alone
            self.library = Library.load(shipped_mappings(), settings.mappings, cache)
        else:
            self.library = Library({})
        self.v2 = V2Library.load(shipped_mappings(), self._configuration.service.mappings)
        if problems := check(self._configuration.channels, self.v2):
            raise MappingError(problems)

    def versions(self, channel: Channel) -> dict[str, str]:
        """Destination → content hash of what maps for it."""
        if channel.target is None:
            return {}
        found = {each.name: self._version(channel.target, each) for each in channel.target.destinations}
        return {name: version for name, version in found.items() if version}

    def _version(self, target: Target, destination: Destination) -> str:
        """Of all that makes the outputs for a destination; empty where it gets messages as they came."""
        parts: list[str] = []
        if destination.kind == "medplum":
            used = [target.mapping] if target.mapping else self.library.names
            parts += [self.library.mapping(each).version for each in used]
        if destination.mapping:
            parts.append(self.v2.mapping(destination.mapping).version)
        parts += [f"{rule.drop} {rule.when.text} {rule.reason}" for rule in destination.filter]
        if destination.emit != AS_IT_CAME:
            parts.append(repr(destination.emit))
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16] if parts else ""

    def windows(self, channel: Channel) -> dict[str, int]:
        """Destination → how many messages may be on the way at once."""
        return {each.name: _window(each) for each in channel.target.destinations} if channel.target else {}

    def remembers(self) -> dict[str, Rule]:
        """Channel → what its messages bring that others may look up."""
        return {each.id: _rule(each) for each in self._configuration.channels if each.remember}

    def _outputs(self, channel: Channel, destination: Destination, incarnations: Incarnations) -> Outputs | None:
        """What makes the outputs for a destination; None where it gets messages as they came."""
        if not (destination.mapping or destination.filter or destination.emit != AS_IT_CAME):
            return None
        problems = Problems()
        keep = Filter.of(destination.filter, problems)
        problems.check()
        name, mapping, memory = destination.mapping, None, None
        if name:
            mapping = lambda: self.v2.mapping(name)  # noqa: E731 - its tables change
            memory = self.memory if self.v2.mapping(name).recalls else None
        return Outputs(channel, destination.name, keep, mapping, destination.emit, incarnations, memory)

    async def refresh(self) -> bool:
        """Read the tables of v2 mappings anew where their files have changed. Whether a mapping is another one now."""
        fresh, news = await asyncio.to_thread(self.v2.refreshed)
        for each in news:
            emit(TableRead(each.table) if each.kind == "read" else TableBroken(each.table, each.text))
        changed, self.v2 = fresh is not self.v2, fresh
        stale = {each.table for each in fresh.stale(now_us())}
        for table in stale - self._stale:
            emit(TableStale(table))
        self._stale = stale
        return changed

    def accepts(self, channel: Channel) -> frozenset[str] | None:
        """The message types that `live` takes; None where nothing is mapped and any will do."""
        if channel.takes.accepts:
            return frozenset(channel.takes.accepts)
        if channel.target is None or not self._maps(channel):
            return None
        names = [channel.target.mapping] if channel.target.mapping else self.library.names
        return frozenset(kind for name in names for kind in self.library.mapping(name).accepts)

    def _maps(self, channel: Channel) -> bool:
        return channel.target is not None and any(each.kind == "medplum" for each in channel.target.destinations)

    def destination(self, channel: Channel, name: str, incarnations: Incarnations) -> Way | None:
        """The way to a destination of a channel; None where the configuration no longer has it."""
        if name == LEGACY:
            return self._legacy(channel)
        target = channel.target
        found = next((each for each in target.destinations if each.name == name), None) if target else None
        if found is None or target is None:
            return None
        endpoint = found.endpoint
        if endpoint is None:
            return self._medplum(channel, found, incarnations)
        manner = Manner(parks_unknown=endpoint.on_unknown == "park")
        outputs = self._outputs(channel, found, incarnations)
        if found.kind == "file":
            return self._file(channel, endpoint, manner, outputs)
        return MllpDestination(
            name, endpoint, self.sender(endpoint), self.breaker(endpoint), manner, self._later(name), outputs=outputs,
            order_by=found.order_by,
        )  # fmt: skip

    def _legacy(self, channel: Channel) -> Way | None:
        """The way to the old engine: a connection of the channel's own, or of its feed."""
        endpoint = channel.legacy.endpoint if channel.legacy else None
        if endpoint is None:
            return None
        if endpoint.place is not None:
            return self._file(channel, endpoint, LEGACY_MANNER)
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
        if destination == LEGACY:
            endpoint = found.legacy.endpoint if found.legacy else None
        else:
            target = found.target.destinations if found.target else ()
            endpoint = next((each.endpoint for each in target if each.name == destination), None)
        return endpoint.answers if endpoint else ACKNOWLEDGES

    def _later(self, destination: str) -> Later:
        return lambda message, reply, answer: self.later(destination, message, reply, answer)

    def link(self, channel: Channel) -> Sender | None:
        """The connection to the old engine on which it answers a channel's messages."""
        name = channel.door
        if name not in self.links and channel.legacy and channel.legacy.endpoint:
            self.links[name] = self._sender(channel.legacy.endpoint, 1)
        return self.links.get(name)

    def _file(self, channel: Channel, endpoint: Endpoint, manner: Manner, outputs: Outputs | None = None) -> Way:
        assert endpoint.place is not None
        folder, breaker = self.place(endpoint.place), self.breaker(endpoint)
        return FileDestination(channel.id, endpoint, folder, breaker, manner, outputs)

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

    def _sender(self, endpoint: Endpoint, connections: int) -> Sender:
        sender = Sender(rate=endpoint.rate)
        if endpoint.via is not None:
            line = self.back(endpoint.via)
            if isinstance(line, Back):
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
        """Open the ports where endpoints answer; one that cannot be had is tried again until it can."""
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
        for sender in (*self._senders.values(), *self.links.values()):
            await sender.aclose()
        for folder in self._folders.values():
            await folder.close()
        for project in self.projects.values():
            await project.close()

    def _medplum(self, channel: Channel, destination: Destination, incarnations: Incarnations) -> Way:
        name = destination.project or "medplum"
        project = self.projects.get(name)
        if project is None:
            project = self.projects[name] = self._project(name)
        return MedplumDestination(
            project, self._mapper(channel, incarnations), incarnations, order_by=destination.order_by,
            outputs=self._outputs(channel, destination, incarnations),
        )  # fmt: skip

    def _project(self, name: str) -> Project:
        settings = self._configuration.service.medplum
        if settings is None:
            raise ValueError("a channel delivers to Medplum, and the settings have no medplum: section")
        client = FhirClient(
            settings.base_url,
            settings.client_id,
            settings.client_secret,
            connections=AT_ONCE,
            timeout=settings.time_limit,
        )
        deliverer = Deliverer(client, endpoint=name, server_limit=settings.time_limit)
        return Project(name, deliverer, settle_time=settings.time_limit)

    def _mapper(self, channel: Channel, incarnations: Incarnations) -> Callable[[Message], list[Output]]:
        assert channel.target is not None
        chosen = self.library.mapping(channel.target.mapping) if channel.target.mapping else None

        accepts = self.accepts(channel)

        def one(raw: bytes, message: Message) -> Output:
            head = peek(raw)
            if accepts is not None and f"{head.type}^{head.trigger}" not in accepts:
                raise Unmappable("not-accepted", "MSH-9", ", ".join(sorted(accepts)))  # `live` would refuse it
            mapping = chosen or self._by_type(head)
            context = Context(
                channel=channel.id, connection=channel.connection, identity=channel.identity, timezone=channel.timezone,
                encoding=channel.takes.encoding, received=message.received,
                incarnation=incarnations.of(message.id), seq=message.seq,
                undeclared=channel.takes.undeclared,
            )  # fmt: skip
            return mapping.run(raw, context)

        def run(message: Message) -> list[Output]:
            batch = read_batch(message.raw)
            return [one(raw, message) for raw in (batch.messages if batch else (message.raw,))]

        return run

    def _by_type(self, head: Peek) -> Mapping:
        mapping = self.library.for_message(head.type, head.trigger) if head.ok else None
        if mapping is None:
            raise Unmappable("no-mapping", "MSH-9", "a message type that a mapping accepts")
        return mapping
