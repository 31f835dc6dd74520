"""The declarations as a whole: one entry for each key drives parsing, checks and the JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, get_args

import orjson

from engine.config import model
from engine.config.declared import CHANNEL, ENDPOINT, SETTINGS, json_schema
from engine.config.kinds import Either, Kind, ListOf, MapOf, Table


def tables(kind: Kind) -> Iterator[Table]:
    if isinstance(kind, Table):
        yield kind
        for field in kind.fields.values():
            yield from tables(field.kind)
    elif isinstance(kind, ListOf):
        yield from tables(kind.item)
    elif isinstance(kind, MapOf):
        yield from tables(kind.value)
    elif isinstance(kind, Either):
        yield from tables(kind.table)


ALL = [table for root in (CHANNEL, ENDPOINT, SETTINGS) for table in tables(root)]


def test_every_key_says_what_it_means() -> None:
    assert [f"{table.what}.{key}" for table in ALL for key, field in table.fields.items() if not field.doc] == []


def test_the_schema_has_every_key_that_this_version_takes_and_no_other() -> None:
    channel = json_schema()["$defs"]["channel"]
    assert set(channel["properties"]) == {key for key, field in CHANNEL.fields.items() if not field.refused}
    assert set(channel["required"]) == {"id", "connection", "direction", "timezone", "listen"}
    assert channel["additionalProperties"] is False
    assert channel["properties"]["listen"]["properties"]["port"]["maximum"] == 65535


def test_the_schema_is_json() -> None:
    assert orjson.loads(orjson.dumps(json_schema())) == json_schema()


def test_what_is_read_into_a_model_fits_it() -> None:
    listen = set(CHANNEL.fields["listen"].kind.fields)  # type: ignore[attr-defined]
    assert {field.name for field in fields(model.Listen)} == listen - {"tls"}
    endpoint = {key for key, field in ENDPOINT.fields.items() if not field.refused and not field.noted}
    assert {field.name for field in fields(model.Endpoint)} == endpoint | {"name"}
    for name, fits in (("compare", model.Compare), ("gate", model.Gate), ("rollback", model.Rollback)):
        table: Any = CHANNEL.fields[name].kind
        assert {field.name for field in fields(fits)} == set(table.fields)


def test_the_schema_takes_a_tap_as_a_port_and_as_a_table() -> None:
    tap = json_schema()["$defs"]["channel"]["properties"]["legacy"]["properties"]["taps"]["items"]
    assert set(tap["required"]) == {"listen", "forward"}
    port, table = tap["properties"]["listen"]["anyOf"]
    assert (port["maximum"], table["required"]) == (65535, ["port"])


def test_words_of_the_model_stand_in_the_schema() -> None:
    compare = json_schema()["$defs"]["channel"]["properties"]["compare"]["properties"]
    assert compare["tolerate"]["items"]["properties"]["how"]["enum"] == list(get_args(model.Tolerance))


def test_defaults_that_are_declared_are_those_of_the_model() -> None:
    for name, built in (("compare", model.Compare()), ("gate", model.Gate())):
        table: Any = CHANNEL.fields[name].kind
        assert {key: field.default for key, field in table.fields.items()} == asdict(built)
