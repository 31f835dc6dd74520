"""The new way of a channel: its mapping and its destinations."""

from __future__ import annotations

import json
from typing import Any

from engine.config.changes import UNCHANGED, Changes, as_written
from engine.config.filtering import Emit, Remember, Rule
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
    name, place = mapping, section.place("mapping")
    if isinstance(mapping, Section):
        name, place = mapping.get("use"), mapping.place("use")
    known = around.mappings
    if name and known is not None and not {name, name.upper()} & known:
        wanted = "one of " + ", ".join(sorted(known)) if known else "a mapping of your mappings folder"
        findings.problem(place, f"the unknown mapping '{name}'", guessed(name, sorted(known), wanted))
    if section.values.get("destinations") == ():
        findings.problem(
            section.place("destinations"), "an empty list", "at least one destination, such as medplum: {}"
        )
    before = read_rules(section)
    destinations = [_destination(item, before, around, findings) for item in section.get("destinations", ())]
    good = tuple(destination for destination in destinations if destination)
    _names_differ(section.get("destinations", ()), destinations, findings)
    return Target(name, good, _changes(mapping)) if len(good) == len(destinations) else None


def _changes(mapping: Any) -> Changes:
    if not isinstance(mapping, Section):
        return UNCHANGED
    node = mapping.get("override")
    options = tuple(sorted(mapping.get("options", {}).items()))
    said = json.dumps(as_written(node)) if node is not None else ""
    return Changes(said, options, mapping.get("unmapped", "ignore"), node, mapping.places.get("options"))


def _names_differ(sections: Any, destinations: list[Destination | None], findings: Findings) -> None:
    seen = {"legacy"}
    for section, destination in zip(sections, destinations, strict=True):
        if destination is None:
            continue
        if destination.name in seen:
            found = f"a destination named '{destination.name}', as another one is"
            findings.problem(section.node, found, "a name: of its own")
        seen.add(destination.name)


def read_rules(section: Section) -> tuple[Rule, ...]:
    """The `filter:` of a target or a destination; those that are right."""
    rules = []
    for each in section.get("filter", ()):
        drop, keep = each.get("drop"), each.get("keep")
        if (drop is None) != (keep is None) and each.get("reason"):
            rules.append(Rule(drop or keep, drop is not None, each.get("reason")))
    return tuple(rules)


def read_remember(sections: Any) -> tuple[Remember, ...]:
    """The `remember:` of a channel that has no mistakes."""
    return tuple(
        Remember(each.get("as"), each.get("key"), each.get("values"), each.get("keep"), each.get("when"))
        for each in sections
    )


def _destination(
    section: Section, before: tuple[Rule, ...], around: Surroundings, findings: Findings
) -> Destination | None:
    """before: the rules of the target."""
    rules = before + read_rules(section)
    if "medplum" in section.places:
        return _medplum(section, rules, around, findings)
    mapping = section.get("mapping")
    if mapping and around.v2_mappings is not None and mapping not in around.v2_mappings:
        known = sorted(around.v2_mappings)
        wanted = "one of " + ", ".join(known) if known else "a file of v2/ in your mappings folder"
        findings.problem(
            section.place("mapping"), f"the unknown v2 mapping '{mapping}'", guessed(mapping, known, wanted)
        )
    mllp, file = section.get("mllp"), section.get("file")
    if mllp:
        endpoint = around.endpoints.find(section.place("mllp"), mllp, findings)
    else:
        endpoint = around.endpoints.folder(section.place("file"), file, findings) if file else None
    if endpoint is None:
        return None
    name, order_by = section.get("name", endpoint.name), section.get("order_by", "channel")
    if file and order_by != "channel":
        found = f"order_by: {order_by} at a folder"
        findings.problem(section.place("order_by"), found, "order_by: channel: files are written one after the other")
    return Destination(
        name,
        "mllp" if mllp else "file",
        endpoint,
        order_by=order_by,
        mapping=mapping,
        filter=rules,
        emit=_emit(section.get("emit")),
        dead=section.get("dead", "waits"),
    )


def _emit(section: Section | None) -> Emit:
    return Emit(section.get("control_id") == "ours", **section.given("prefix", "length")) if section else Emit()


def _medplum(section: Section, rules: tuple[Rule, ...], around: Surroundings, findings: Findings) -> Destination | None:
    inner = section.get("medplum")
    for key, wanted in (("mapping", "it in target:"), ("emit", "it at a destination with mllp: or file:")):
        if key in section.places:
            findings.problem(section.place(key), f"'{key}' beside medplum:", wanted)
    for key in ("name", "order_by", "dead"):
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
        filter=rules,
        dead=get("dead", "waits"),
    )
