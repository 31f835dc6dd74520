"""The new way of a channel: its mapping and its destinations."""

from __future__ import annotations

from typing import Any

from engine.config.kinds import guessed
from engine.config.model import Destination, Target
from engine.config.nodes import Findings
from engine.config.surroundings import Surroundings
from engine.config.tables import Section


def read_target(channel: Section, around: Surroundings, findings: Findings) -> Target | None:
    """None where there is none, or it is wrong."""
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
    if "medplum" in section.places:
        return _medplum(section, around, findings)
    mllp, file = section.get("mllp"), section.get("file")
    if mllp:
        endpoint = around.endpoints.find(section.place("mllp"), mllp, findings)
    else:
        endpoint = around.endpoints.folder(section.place("file"), file, findings) if file else None
    if endpoint is None:
        return None
    name, order_by = section.get("name", endpoint.name), section.get("order_by", "channel")
    return Destination(name, "mllp" if mllp else "file", endpoint, order_by=order_by)


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
