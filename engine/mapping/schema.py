"""The shapes of FHIR R4: which elements a type has, of which type, how often, with which codes.

Read from r4.json, made from the R4 definitions (HL7, CC0) and cut to the resource types that HL7 v2 maps to. A
mapping file is checked against it when it is loaded, so that a path that does not exist is no surprise at run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

_PRIMITIVES = """
    base64Binary boolean canonical code date dateTime decimal id instant integer markdown oid positiveInt string time
    unsignedInt uri url uuid
"""
PRIMITIVES = frozenset(_PRIMITIVES.split())


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a type. `choice` is `value` for valueQuantity; `codes` is None where no binding is required."""

    name: str
    type: str
    many: bool
    needed: bool
    choice: str
    targets: tuple[str, ...]
    codes: frozenset[str] | None

    @property
    def primitive(self) -> bool:
        """Whether its value is a single JSON value."""
        return self.type in PRIMITIVES


class Schema:
    """All types."""

    def __init__(self, data: dict[str, Any]) -> None:
        sets = {name: frozenset(codes) for name, codes in data["sets"].items()}
        self.types: dict[str, dict[str, Element]] = {
            owner: {name: _element(name, raw, sets) for name, raw in elements.items()}
            for owner, elements in data["types"].items()
        }

    def element(self, owner: str, name: str) -> Element | None:
        """An element of a type, or None."""
        return self.types.get(owner, {}).get(name)

    def is_resource(self, name: str) -> bool:
        """Whether a type stands for itself and has identity."""
        return "implicitRules" in self.types.get(name, {})

    def required(self, owner: str) -> list[str]:
        """The elements that a value of this type must have; a choice by its common name."""
        return sorted({e.choice or e.name for e in self.types.get(owner, {}).values() if e.needed})


@cache
def r4() -> Schema:
    """The schema, read once."""
    return Schema(orjson.loads(files("engine.mapping").joinpath("r4.json").read_bytes()))


def _element(name: str, raw: dict[str, Any], sets: dict[str, frozenset[str]]) -> Element:
    codes = sets.get(raw.get("in", ""))
    targets = tuple(raw.get("to", ()))
    return Element(name, raw["t"], bool(raw.get("many")), bool(raw.get("need")), raw.get("of", ""), targets, codes)
