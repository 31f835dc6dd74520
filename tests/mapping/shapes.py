"""Checks an output against FHIR R4's shapes as a server that validates would, as far as the schema here knows them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from engine.fhir.output import Output
from engine.mapping.schema import Element, r4

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?"
FORMS = {
    "code": r"\S+( \S+)*",
    "uri": r"\S+",
    "url": r"\S+",
    "date": r"\d{4}(-\d\d(-\d\d)?)?",
    "dateTime": rf"\d{{4}}(-\d\d(-\d\d)?)?|{TIME}([+-]\d\d:\d\d|Z)?",
    "instant": rf"{TIME}([+-]\d\d:\d\d|Z)",
    "time": r"\d\d:\d\d:\d\d(\.\d+)?",
    "string": r"[\s\S]*\S[\s\S]*",
    "markdown": r"[\s\S]*\S[\s\S]*",
    "base64Binary": r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
}
KINDS: dict[str, Any] = {
    "boolean": bool,
    "integer": int,
    "positiveInt": int,
    "unsignedInt": int,
    "decimal": (int, float),
}


def faults(output: Output) -> list[str]:
    """Everything that is wrong with an output."""
    names = {entry.reference["reference"] for entry in output.entries}
    found = [] if len(names) == len(output.entries) else ["two entries of one name"]
    keys = [(entry.type, *entry.key[0]) for entry in output.entries if entry.key]
    if len(set(keys)) != len(keys):
        found.append("two entries of one key")
    for entry in output.entries:
        if entry.role != "provenance" and not entry.key:
            found.append(f"{entry.name}: no key")
        if any(not system for system, _ in entry.key):
            found.append(f"{entry.name}: a key without a system")
        own = names | {f"#{one['id']}" for one in entry.resource.get("contained", ())}
        found.extend(f"{entry.name}: {fault}" for fault in _object(entry.resource, entry.type, entry.type, own))
    return found


def _object(value: dict[str, Any], type: str, path: str, names: set[str]) -> Iterator[str]:
    if not value:
        yield f"{path}: empty"
    elements = r4().types[type]
    for name, one in value.items():
        if name == "resourceType":
            continue
        if name == "contained":
            for inner in one:
                yield from _object(inner, inner["resourceType"], f"{path}.contained", names)
            continue
        if name.startswith("_"):
            continue
        if name not in elements:
            yield f"{path}: no element {name}"
            continue
        yield from _element(one, elements[name], f"{path}.{name}", names)
    for need in r4().required(type):
        if not any(name == need or elements.get(name, elements["id"]).choice == need for name in value):
            yield f"{path}: no {need}"
    chosen = [elements[name].choice for name in value if name in elements and elements[name].choice]
    if len(chosen) != len(set(chosen)):
        yield f"{path}: two values of one choice"
    if type == "Reference" and "reference" in value and value["reference"] not in names:
        yield f"{path}: refers to nothing"


def _element(value: Any, element: Element, path: str, names: set[str]) -> Iterator[str]:
    if element.many != isinstance(value, list):
        yield f"{path}: {'one' if element.many else 'many'}"
        return
    for one in value if element.many else [value]:
        if not element.primitive:
            yield from _object(one, element.type, path, names)
            continue
        kind = KINDS.get(element.type, str)
        if not isinstance(one, kind) or (kind is not bool and isinstance(one, bool)):
            yield f"{path}: a {type(one).__name__}"
        elif isinstance(one, str) and not re.fullmatch(FORMS.get(element.type, r"[\s\S]+"), one):
            yield f"{path}: not a {element.type}"
        elif element.codes is not None and one not in element.codes:
            yield f"{path}: not an allowed code"
    if element.many and not value:
        yield f"{path}: empty"
