"""One channel file: read, checked in itself and against endpoints and mappings, and built."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from yaml.nodes import Node

from engine.config.declared import CHANNEL
from engine.config.edge import Ack, Listen, Takes
from engine.config.endpoint import Endpoint
from engine.config.endpoints import Endpoints
from engine.config.kinds import Section, guessed
from engine.config.model import Channel, Destination, Legacy, Rollback, Target
from engine.config.moves import check_rollback, read_compare, read_gate, read_window
from engine.config.nodes import Findings, plain
from engine.config.taps import read_taps

TAKEN = ("accepts", "encoding", "max_bytes")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a channel may refer to. mappings: None where nobody knows which there are."""

    endpoints: Endpoints
    mappings: frozenset[str] | None
    medplum: bool


@dataclass(frozen=True, slots=True)
class Read:
    """A channel file that was read: its section for checks across channels, and the channel if it is right."""

    section: Section
    channel: Channel | None


def read_channel(node: Node, source: str, around: Surroundings, findings: Findings) -> Read | None:
    before = findings.count
    section = CHANNEL.read(node, findings)
    if not isinstance(section, Section):
        return None
    target = _target(section, around, findings)
    legacy = _legacy(section, target, around, findings)
    phase = _phase(section, findings)
    _check_phase(section, phase, target, findings)
    check_rollback(section.get("rollback"), legacy, findings)
    window = read_window(section.get("window"), findings)
    if findings.count != before:
        return Read(section, None)
    get = section.get
    channel = Channel(
        id=get("id"),
        connection=get("connection"),
        title=get("title", get("id")),
        direction=get("direction"),
        labels=MappingProxyType(get("labels", {})),
        owner=get("owner", ""),
        timezone=get("timezone"),
        phase=phase,
        source=_listen(get("listen")),
        takes=_takes(get("listen")),
        ack=_ack(get("ack"), has_legacy=legacy is not None),
        identity=MappingProxyType(get("identity", {})),
        legacy=legacy,
        target=target,
        rollback=Rollback(**get("rollback").values) if get("rollback") else None,
        file=source,
        raw=plain(node),
        compare=read_compare(get("compare")),
        gate=read_gate(get("gate")),
        window=window,
    )
    return Read(section, channel)


def _listen(section: Section) -> Listen:
    return Listen(**{key: value for key, value in section.values.items() if key not in TAKEN})


def _takes(section: Section) -> Takes:
    return Takes(**{key: value for key, value in section.values.items() if key in TAKEN})


def _ack(section: Section | None, *, has_legacy: bool) -> Ack:
    default = "authoritative" if has_legacy else "stored"
    if section is None:
        return Ack(default)
    return Ack(section.get("from", default), section.get("on_relay_timeout", "silent"))


def _legacy(channel: Section, target: Target | None, around: Surroundings, findings: Findings) -> Legacy | None:
    section = channel.get("legacy")
    if section is None:
        return None
    name = section.get("mllp")
    endpoint = around.endpoints.find(section.place("mllp"), name, findings) if name else None
    listen = channel.get("listen")
    host = listen.get("host", "0.0.0.0") if listen else "0.0.0.0"
    taps = read_taps(section, endpoint, host, target, around.endpoints, findings)
    return Legacy(endpoint, section.get("settle", 600.0), taps) if endpoint else None


def _phase(section: Section, findings: Findings) -> str:
    has_legacy = "legacy" in section.places
    phase = section.get("phase")
    if phase in ("legacy", "parallel") and not has_legacy:
        findings.problem(
            section.place("phase"),
            f"phase {phase} in a channel without legacy:",
            "outside or live, or legacy: with mllp:",
        )
    return phase or ("legacy" if has_legacy else "live")


def _check_phase(section: Section, phase: str, target: Target | None, findings: Findings) -> None:
    """What `parallel` and `live` need and nothing else does."""
    if phase in ("parallel", "live") and "target" not in section.places:
        findings.problem(
            section.place("phase"), f"phase {phase} in a channel without target:", "target: with destinations:"
        )
    if phase != "live":
        return
    if "legacy" in section.places and "rollback" not in section.places:
        findings.problem(
            section.place("phase"),
            "phase live in a channel with legacy: and without rollback:",
            "rollback: {replay: guarded | undelivered | all | none}, which has no default",
        )
    destinations = section.get("target").get("destinations", ()) if section.get("target") else ()
    for item, destination in zip(destinations, target.destinations if target else (), strict=False):
        if destination.endpoint and destination.endpoint.on_unknown is None:
            findings.problem(
                item.place("mllp"),
                f"the endpoint '{destination.endpoint.name}' without on_unknown: in a channel that is live",
                "on_unknown: resend, or on_unknown: park, in endpoints.yaml",
            )


def _target(channel: Section, around: Surroundings, findings: Findings) -> Target | None:
    section = channel.get("target")
    if section is None:
        return None
    mapping = section.get("mapping")
    name = mapping.get("use") if isinstance(mapping, Section) else mapping
    if name and around.mappings is not None and name.lower() not in around.mappings:
        wanted = (
            "one of " + ", ".join(sorted(around.mappings)) if around.mappings else "a mapping of your mappings folder"
        )
        found = f"the unknown mapping '{name}'"
        findings.problem(section.place("mapping"), found, guessed(name, sorted(around.mappings), wanted))
    if section.values.get("destinations") == ():
        findings.problem(
            section.place("destinations"), "an empty list", "at least one destination, such as medplum: {}"
        )
    destinations = [_destination(item, around, findings) for item in section.get("destinations", ())]
    good = tuple(destination for destination in destinations if destination)
    _names_differ(section.get("destinations", ()), destinations, findings)
    return Target(name, good) if len(good) == len(destinations) else None


def _names_differ(sections: Any, destinations: list[Destination | None], findings: Findings) -> None:
    seen = {"legacy"}
    for section, destination in zip(sections, destinations, strict=True):
        if destination is None:
            continue
        if destination.name in seen:
            found = f"a destination named '{destination.name}', as another one is"
            findings.problem(section.node, found, "a name: of its own")
        seen.add(destination.name)


def _destination(section: Section, around: Surroundings, findings: Findings) -> Destination | None:
    kinds = [kind for kind in ("medplum", "mllp") if kind in section.places]
    if len(kinds) != 1:
        found = "a destination with both medplum: and mllp:" if kinds else "a destination without medplum: or mllp:"
        findings.problem(section.node, found, "one of the two")
        return None
    return _medplum(section, around, findings) if kinds == ["medplum"] else _mllp(section, around, findings)


def _medplum(section: Section, around: Surroundings, findings: Findings) -> Destination | None:
    inner = section.get("medplum")
    for key in ("name", "order_by"):
        if key in section.places:
            findings.problem(section.place(key), f"'{key}' beside medplum:", f"it inside: medplum: {{{key}: …}}")
    if not around.medplum:
        wanted = "medplum: {base_url, client_id, client_secret} in the settings"
        findings.problem(section.place("medplum"), "a medplum destination without a Medplum server", wanted)
    if inner is None:
        return None
    get = inner.get
    return Destination(
        get("name", "medplum"),
        "medplum",
        None,
        strategy=get("strategy", "anchored"),
        order_by=get("order_by", "patient"),
    )


def _mllp(section: Section, around: Surroundings, findings: Findings) -> Destination | None:
    name = section.get("mllp")
    endpoint: Endpoint | None = around.endpoints.find(section.place("mllp"), name, findings) if name else None
    if endpoint is None:
        return None
    return Destination(
        section.get("name", endpoint.name), "mllp", endpoint, order_by=section.get("order_by", "channel")
    )
