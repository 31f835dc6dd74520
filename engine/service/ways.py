"""The ways out of the channels: which destinations a configuration asks for, and what they share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from engine.config.endpoint import Endpoint
from engine.config.model import Channel, Configuration, Destination
from engine.config.shipped import shipped_mappings
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.destinations.medplum import AT_ONCE, WINDOW, MedplumDestination, Project
from engine.delivery.destinations.mllp import MllpDestination
from engine.delivery.work import Destination as Way
from engine.fhir.client import FhirClient
from engine.fhir.deliverer import Deliverer
from engine.fhir.output import Output
from engine.hl7.peek import Peek, peek
from engine.ledger.model import Message
from engine.ledger.routing import LEGACY
from engine.mapping.library import Context, Library, Mapping, Unmappable

# The old engine gets everything again that it may not have taken, and a message that it will never take stops nobody:
# it answered its sender itself before, and the sender went on.
LEGACY_MANNER = Manner(waits_for_dead=False)


class Ways:
    """Builds the destinations of a configuration. `prepare` first: it loads the mappings."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._breakers: dict[str, Breaker] = {}
        self.projects: dict[str, Project] = {}

    def prepare(self) -> None:
        """Raises MappingError."""
        if any(self._maps(channel) for channel in self._configuration.channels):
            settings = self._configuration.service
            cache = settings.ledger.with_suffix(".mappings")  # beside the ledger, like the token: this user's alone
            self.library = Library.load(shipped_mappings(), settings.mappings, cache)
        else:
            self.library = Library({})

    def versions(self, channel: Channel) -> dict[str, str]:
        """Destination → content hash of what maps for it."""
        if channel.target is None:
            return {}
        name = channel.target.mapping
        used = [name] if name else self.library.names
        version = hashlib.sha256("".join(self.library.mapping(each).version for each in used).encode()).hexdigest()[:16]
        return {each.name: version for each in channel.target.destinations if each.kind == "medplum"}

    def windows(self, channel: Channel) -> dict[str, int]:
        """Destination → how many messages may be on the way at once."""
        if channel.target is None:
            return {}
        return {each.name: WINDOW if each.kind == "medplum" else 1 for each in channel.target.destinations}

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

    def destination(self, channel: Channel, name: str, incarnation: str) -> Way | None:
        """The way to a destination of a channel; None where the configuration no longer has it."""
        if name == LEGACY:
            old = channel.legacy.endpoint if channel.legacy else None
            return self._mllp(channel, old, LEGACY_MANNER) if old else None
        target = channel.target
        found = next((each for each in target.destinations if each.name == name), None) if target else None
        if found is None or target is None:
            return None
        if found.kind == "mllp" and found.endpoint:
            return self._mllp(channel, found.endpoint, Manner(parks_unknown=found.endpoint.on_unknown == "park"))
        return self._medplum(channel, found, incarnation)

    @property
    def breakers(self) -> dict[str, Breaker]:
        return {**self._breakers, **{name: project.breaker for name, project in self.projects.items()}}

    async def reach(self, name: str) -> tuple[bool | None, str]:
        """Whether a project answers and lets us in, and why not. None where no channel has used it yet."""
        project = self.projects.get(name)
        return await project.reach() if project else (None, "nothing has gone there yet")

    async def close(self) -> None:
        for breaker in self._breakers.values():
            breaker.stop()
        for project in self.projects.values():
            await project.close()

    def _mllp(self, channel: Channel, endpoint: Endpoint, manner: Manner) -> Way:
        breaker = self._breakers.get(endpoint.name)
        if breaker is None:
            breaker = self._breakers[endpoint.name] = Breaker(endpoint.name)
        return MllpDestination(channel.id, endpoint, breaker, manner)

    def _medplum(self, channel: Channel, destination: Destination, incarnation: str) -> Way:
        name = destination.project or "medplum"
        project = self.projects.get(name)
        if project is None:
            project = self.projects[name] = self._project(name)
        return MedplumDestination(
            project, self._mapper(channel, incarnation), incarnation, order_by=destination.order_by
        )

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

    def _mapper(self, channel: Channel, incarnation: str) -> Callable[[Message], Output]:
        assert channel.target is not None
        chosen = self.library.mapping(channel.target.mapping) if channel.target.mapping else None

        accepts = self.accepts(channel)

        def run(message: Message) -> Output:
            head = peek(message.raw)
            if accepts is not None and f"{head.type}^{head.trigger}" not in accepts:
                raise Unmappable("not-accepted", "MSH-9", ", ".join(sorted(accepts)))  # `live` would refuse it
            mapping = chosen or self._by_type(head)
            context = Context(
                channel=channel.id, connection=channel.connection, identity=channel.identity, timezone=channel.timezone,
                encoding=channel.takes.encoding, received=message.received, incarnation=incarnation, seq=message.seq,
            )  # fmt: skip
            return mapping.run(message.raw, context)

        return run

    def _by_type(self, head: Peek) -> Mapping:
        mapping = self.library.for_message(head.type, head.trigger) if head.ok else None
        if mapping is None:
            raise Unmappable("no-mapping", "MSH-9", "a message type that a mapping accepts")
        return mapping
