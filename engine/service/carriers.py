"""What carries messages to a Medplum project, in this process or from workers, and what a worker is told to do it."""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from engine.config.model import Channel, Configuration
from engine.config.shipped import shipped_mappings
from engine.delivery.attempt import Attempt
from engine.delivery.carrier import AT_ONCE, LocalCarrier
from engine.fhir.client import FhirClient
from engine.fhir.deliverer import Deliverer
from engine.fhir.output import Output
from engine.ledger.sqlite.mappings import read_from
from engine.mapping.effective import Effective
from engine.mapping.library import Library
from engine.mapping.v2.library import V2Library
from engine.mapping.versions import Versions


def _read_only(values: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(values)


copyreg.pickle(MappingProxyType, lambda proxy: (_read_only, (dict(proxy),)))  # pickle does not know them


def carrier_to(
    project: str, configuration: Configuration, versions: Versions, incarnations: Sequence[str]
) -> LocalCarrier:
    """One that works in this process. incarnations: of the ledger, oldest first. ValueError where the settings say
    nothing of Medplum."""
    settings = configuration.service.medplum
    if settings is None:
        raise ValueError("a channel delivers to Medplum, and the settings have no medplum: section")
    client = FhirClient(
        settings.base_url, settings.client_id, settings.client_secret, connections=AT_ONCE, timeout=settings.time_limit
    )
    deliverer = Deliverer(client, endpoint=project, server_limit=settings.time_limit, incarnations=incarnations)
    return LocalCarrier(partial(_mapped, versions), deliverer)


def _mapped(versions: Versions, attempt: Attempt) -> Sequence[Output]:
    """By the mapping that the attempt names. Raises Unmappable and NotKept."""
    by = versions.load(attempt.mapping)
    assert by.fhir is not None
    context = by.context(attempt.channel, received=attempt.received, incarnation=attempt.incarnation, seq=attempt.seq)
    return by.fhir.run(attempt.raw, context)


def versions_of(configuration: Configuration, library: Library) -> Versions:
    """Of a worker: what its channels send to Medplum now is at hand, and earlier ones are in the ledger."""
    versions, none = Versions(partial(read_from, configuration.service.ledger)), V2Library({}, {})
    present = [
        Effective.of(channel, each, library, none)
        for channel in configuration.channels
        for each in channel.destinations
        if each.kind == "medplum"
    ]
    for each in present:
        each.prepare()
    versions.use(present)
    return versions


def is_mapped(channel: Channel) -> bool:
    """Whether a channel's messages become FHIR resources."""
    return any(each.kind == "medplum" for each in channel.destinations)


def setup(configuration: Configuration, library: Library, incarnations: Sequence[str]) -> bytes:
    """What a worker has to know. The mappings go along as they are here, whatever has become of their files."""
    needed = replace(configuration, channels=tuple(filter(is_mapped, configuration.channels)), endpoints={}, feeds=())
    return pickle.dumps((needed, library.data(), tuple(incarnations)))


def from_setup(data: bytes) -> tuple[Configuration, Library, Sequence[str]]:
    """What `setup` was made of."""
    configuration, mappings, incarnations = pickle.loads(data)
    return configuration, Library.of(mappings, shipped_mappings(), configuration.service.mappings), incarnations
