"""The OpenAPI document, made from the shapes in reading.py, so that it cannot say anything else than the code."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from engine.api.reading import ChannelInfo, MessageDetail, MessageRow, Readiness, Status

Schema = dict[str, Any]

PLAIN: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
}


def schema(kind: Any, named: dict[str, Schema]) -> Schema:
    """The JSON Schema of a type; TypedDicts become components under their names."""
    if kind in PLAIN:
        return PLAIN[kind]
    if is_typeddict(kind):
        if kind.__name__ not in named:
            named[kind.__name__] = {}
            properties = {key: schema(value, named) for key, value in get_type_hints(kind).items()}
            named[kind.__name__] = {"type": "object", "properties": properties, "required": list(properties)}
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    arguments = get_args(kind)
    if get_origin(kind) is list:
        return {"type": "array", "items": schema(arguments[0], named)}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": schema(arguments[1], named)}
    if get_origin(kind) in (UnionType, Union):
        return {"anyOf": [schema(argument, named) for argument in arguments]}
    raise TypeError(f"no schema for {kind}")


def _parameter(name: str, place: str, kind: str, text: str) -> Schema:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": kind}, "description": text}


CHANNEL = _parameter("channel", "query", "string", "only this channel")
LIMIT = _parameter("limit", "query", "integer", "at most so many, 1 to 1000; 50 unless given")
BEFORE = _parameter("before", "query", "integer", "only sequence numbers below it; wants channel")
PATH = [
    _parameter("channel", "path", "string", "the channel's id"),
    _parameter("seq", "path", "integer", "the sequence number"),
]
SEARCH: Schema = {
    "type": "object",
    "properties": {
        "control_id": {"type": "string", "description": "MSH-10, whole"},
        "channel": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    },
    "required": ["control_id"],
    "additionalProperties": False,
}


def document(version: str) -> Schema:
    named: dict[str, Schema] = {
        "Problem": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
            },
        }
    }

    def answer(kind: Any, summary: str, parameters: list[Schema], **more: Any) -> Schema:
        content = {"application/json": {"schema": schema(kind, named)}}
        failed = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses = {
            "200": {"description": summary, "content": content},
            "default": {"description": "what was wrong", "content": failed},
        }
        return {"summary": summary, "parameters": parameters, "responses": responses, **more}

    search = {"required": True, "content": {"application/json": {"schema": SEARCH}}}
    paths = {
        "/api/v1/status": {"get": answer(Status, "Every channel and destination, counted", [])},
        "/api/v1/channels": {"get": answer(list[ChannelInfo], "The channels as configured", [])},
        "/api/v1/messages": {"get": answer(list[MessageRow], "The newest messages", [CHANNEL, LIMIT, BEFORE])},
        "/api/v1/messages/search": {
            "post": answer(
                list[MessageRow], "Messages by control id, which never stands in a URL", [], requestBody=search
            )
        },
        "/api/v1/messages/{channel}/{seq}": {"get": answer(MessageDetail, "One message and its history", PATH)},
        "/healthz": {"get": {"summary": "200 while the process answers", "responses": {"200": {"description": "ok"}}}},
        "/readyz": {"get": answer(Readiness, "200 while ports are open and the ledger is writable, else 503", [])},
        "/metrics": {"get": {"summary": "For Prometheus", "responses": {"200": {"description": "text"}}}},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Interlock", "version": version},
        "paths": paths,
        "components": {"schemas": named, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }
