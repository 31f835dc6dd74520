"""A type says once what JSON looks like: `schema` writes it into the OpenAPI document, `misfit` checks a body by it.

Known are str, int, float, bool, None, Any, Literal, lists, dicts with text as keys, unions, TypedDicts, and `Within`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

Schema = dict[str, Any]
WHOLE = "the body"


@dataclass(frozen=True, slots=True)
class Within:
    """Limits of a number, or of the length of a text: `Annotated[int, Within(1, 1000)]`."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.10g} to {self.high:.10g}"


PLAIN: dict[Any, tuple[Schema, str]] = {
    str: ({"type": "string"}, "text"),
    int: ({"type": "integer"}, "a whole number"),
    float: ({"type": "number"}, "a number"),
    bool: ({"type": "boolean"}, "true or false"),
    NoneType: ({"type": "null"}, "null"),
    Any: ({}, "anything"),
}
"""Type → its schema, and its name in a sentence."""


# -- for the document


def schema(kind: Any, named: dict[str, Schema]) -> Schema:
    """The JSON Schema of a type; TypedDicts become components under their names. Raises TypeError for another kind."""
    if kind in PLAIN:
        return PLAIN[kind][0]
    if is_typeddict(kind):
        return _object(kind, named)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return schema(arguments[0], named) | _limits(arguments[0], arguments[1])
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": schema(arguments[0], named)}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema(arguments[1], named)}
    if origin in (UnionType, Union):
        return {"anyOf": [schema(argument, named) for argument in arguments]}
    raise TypeError(f"no schema for {kind}")


def _object(kind: Any, named: dict[str, Schema]) -> Schema:
    if kind.__name__ not in named:
        named[kind.__name__] = {}  # a place for it before its fields are looked at: they may name it too
        fields = _fields(kind)
        properties = {name: schema(field, named) for name, (field, _) in fields.items()}
        required = [name for name, (_, required) in fields.items() if required]
        named[kind.__name__] = {"type": "object", "properties": properties, "required": required}
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _limits(kind: Any, within: Within) -> Schema:
    low, high = ("minLength", "maxLength") if kind is str else ("minimum", "maximum")
    return {low: within.low, high: within.high}


@cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Name → (type, whether it is required)."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: (get_args(hint)[0], False) if get_origin(hint) is NotRequired else (hint, True)
        for name, hint in hints.items()
    }


# -- for a body


def misfit(value: Any, kind: Any, where: str = WHOLE) -> str | None:
    """A sentence on what is wrong with `value`, which came as JSON; None where it is of that kind."""
    if is_typeddict(kind):
        return _misfit_object(value, kind, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return misfit(value, arguments[0], where) or _beyond(value, arguments[1], where)
    if origin is Literal:
        return None if value in arguments else f"{where} must be one of {', '.join(arguments)}"
    if origin is list:
        if not isinstance(value, list):
            return f"{where} must be a list"
        return _first((item, arguments[0], f"{where}[{at}]") for at, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            return f"{where} must be an object"
        return _first((item, arguments[1], f"{where}.{key[:40]}") for key, item in value.items())
    if origin in (UnionType, Union):
        found = [misfit(value, argument, where) for argument in arguments]
        return None if None in found else found[0]
    return None if _plain(value, kind) else f"{where} must be {PLAIN[kind][1]}"


def _misfit_object(value: Any, kind: Any, where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where} must be an object"
    fields = _fields(kind)
    for name in value:
        if name not in fields:
            return f"{where} holds '{name[:40]}', which is not known; known are {', '.join(fields) or 'none'}"
    for name, (_, required) in fields.items():
        if required and name not in value:
            return f"{where} must hold {name}"
    lead = "" if where == WHOLE else f"{where}."
    return _first((item, fields[name][0], lead + name) for name, item in value.items())


def _first(parts: Iterable[tuple[Any, Any, str]]) -> str | None:
    """The first misfit of (value, kind, where)."""
    return next((found for part in parts if (found := misfit(*part))), None)


def _beyond(value: Any, within: Within, where: str) -> str | None:
    if isinstance(value, str):
        if within.low <= len(value.strip()) and len(value) <= within.high:
            return None
        return f"{where} must have {within} characters"
    return None if within.low <= value <= within.high else f"{where} must be from {within}"


def _plain(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if isinstance(value, bool):
        return kind is bool  # a bool is an int to Python, not to JSON
    return isinstance(value, (int, float) if kind is float else kind)
