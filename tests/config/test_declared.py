"""The declarations as a whole: one entry for each key drives parsing, checks and the JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, get_args

import orjson
import pytest

from engine.config import edge, model
from engine.config.declared import json_schema
from engine.config.declared.answers import ACK
from engine.config.declared.channel import CHANNEL
from engine.config.declared.edge import CONNECT, CONNECTIONS, FILES, LISTEN, READ_AS, SOCKET, TAKES
from engine.config.declared.endpoint import ACKNOWLEDGING, ENDPOINTS
from engine.config.declared.feed import FEED
from engine.config.declared.profile import PROFILE
from engine.config.declared.settings import SETTINGS
from engine.config.endpoint import Endpoint
from engine.config.kinds import Kind, ListOf, OneOrMore, OrNone, Parsed
from engine.config.tables import Either, MapOf, Table


def tables(kind: Kind) -> Iterator[Table]:
    if isinstance(kind, Table):
        yield kind
        for field in kind.fields.values():
            yield from tables(field.kind)
    elif isinstance(kind, ListOf | OneOrMore):
        yield from tables(kind.item)
    elif isinstance(kind, MapOf):
        yield from tables(kind.value)
    elif isinstance(kind, OrNone):
        yield from tables(kind.kind)
    elif isinstance(kind, Either):
        yield from tables(kind.table)


ROOTS = (CHANNEL, FEED, PROFILE, SETTINGS, *ENDPOINTS.values())
ALL = [table for root in ROOTS for table in tables(root)]


def test_every_key_says_what_it_means() -> None:
    assert [f"{table.what}.{key}" for table in ALL for key, field in table.fields.items() if not field.doc] == []


def test_what_one_of_must_be_there_is_declared() -> None:
    assert [table.what for table in ALL if set(table.one_of) - set(table.fields)] == []


def test_the_schema_has_every_key_that_this_version_takes_and_no_other() -> None:
    channel = json_schema()["$defs"]["channel"]
    assert set(channel["properties"]) == {key for key, field in CHANNEL.fields.items() if not field.refused}
    assert set(channel["required"]) == {"id", "connection", "direction", "timezone"}
    assert channel["oneOf"] == [{"required": [source]} for source in ("listen", "connect", "feed", "files")]
    assert channel["additionalProperties"] is False
    assert channel["properties"]["listen"]["properties"]["port"]["maximum"] == 65535


def test_the_schema_has_every_file() -> None:
    assert set(json_schema()["$defs"]) == {"channel", "endpoints", "feed", "profiles", "settings"}


def test_the_schema_is_json() -> None:
    assert orjson.loads(orjson.dumps(json_schema())) == json_schema()


def names(dataclass: Any) -> set[str]:
    return {field.name for field in fields(dataclass)}


RENAMED = {"max": "most", "directory": "place", "sftp": "place", "to": "address"}


def test_what_is_read_into_a_model_fits_it() -> None:
    """A field that no key fills has no user; a key without a field is read and lost."""
    assert names(model.Listen) == set(LISTEN.fields) - set(TAKES) - {"connections"} | {"sockets"}
    assert names(edge.Takes) == set(TAKES)
    assert names(edge.Sockets) == {RENAMED.get(key, key) for key in CONNECTIONS.kind.fields}  # type: ignore[attr-defined]
    connect = {RENAMED.get(key, key) for key in CONNECT.fields} - set(TAKES)
    assert names(edge.Connect) == connect - {"idle", "keepalive"} | {"sockets"}
    assert names(edge.Files) == {RENAMED.get(key, key) for key in FILES.fields} - set(TAKES)
    assert names(edge.Ack) | names(edge.AckForm) == (set(ACK.fields) - {"from", "type"} | {"source", "form", "kind"})
    for name, fits in (("compare", model.Compare), ("gate", model.Gate), ("rollback", model.Rollback)):
        table: Any = CHANNEL.fields[name].kind
        assert names(fits) == set(table.fields)


def test_every_field_of_an_endpoint_can_be_set() -> None:
    keys = {key for table in ENDPOINTS.values() for key in table.fields}
    of_places = {"directory", "sftp", "user", "key", "password", "known_hosts", "timeout"}
    of_answers = {"accept", "reject", "check_control_id", "answers_on", "ack_mode"}
    renamed = {"name": "file_name", "deliver": "hours"}
    keys = {renamed.get(key, key) for key in keys - of_places - of_answers - {"profile"}}
    assert names(Endpoint) == keys | {"name", "place"}


def test_the_schema_takes_a_tap_as_a_port_and_as_a_table() -> None:
    tap = json_schema()["$defs"]["channel"]["properties"]["legacy"]["properties"]["taps"]["items"]
    assert tap["required"] == ["forward"]
    assert tap["oneOf"] == [{"required": [source]} for source in ("listen", "on_link", "files")]
    port, table = tap["properties"]["listen"]["anyOf"]
    assert (port["maximum"], table["required"]) == (65535, ["port"])


def test_nothing_must_be_there_in_a_profile() -> None:
    profile = json_schema()["$defs"]["profiles"]["additionalProperties"]
    assert "required" not in profile
    assert "oneOf" not in profile
    assert "required" not in profile["properties"]["listen"]
    assert "required" not in profile["properties"]["listen"]["properties"]["tls"]
    assert "id" not in profile["properties"]


def test_words_of_the_model_stand_in_the_schema() -> None:
    compare = json_schema()["$defs"]["channel"]["properties"]["compare"]["properties"]
    assert compare["tolerate"]["items"]["properties"]["how"]["enum"] == list(get_args(model.Tolerance))


def defaults(declared: Any) -> dict[str, Any]:
    return {key: field.default for key, field in declared.items() if field.default is not None}


@pytest.mark.parametrize(
    ("declared", "built"),
    [
        (CHANNEL.fields["compare"].kind.fields, model.Compare()),  # type: ignore[attr-defined]
        (CHANNEL.fields["gate"].kind.fields, model.Gate()),  # type: ignore[attr-defined]
        (TAKES, edge.Takes()),
        (READ_AS, edge.Takes()),
        ({key: field for key, field in SOCKET.items() if key != "framing"}, edge.Listen(1)),
        (CONNECTIONS.kind.fields, edge.Sockets()),  # type: ignore[attr-defined]
        (ACKNOWLEDGING | dict(ENDPOINTS["mllp"].fields), Endpoint("a", None)),
    ],
    ids=["compare", "gate", "takes", "read as", "listen", "connections", "endpoint"],
)
def test_defaults_that_are_declared_are_those_of_the_model(declared: Any, built: Any) -> None:
    has = asdict(built) | (asdict(built.answers) if isinstance(built, Endpoint) else {})
    renamed = {"max": "most", "accept": "accepted", "reject": "rejected", "check_control_id": "check"}
    said = {renamed.get(key, key): value for key, value in defaults(declared).items()}
    said.pop("framing", None)  # `mllp`, a word for a value
    if isinstance(built, Endpoint):
        assert said.pop("answers") is has["expected"]
    assert {key: has[key] for key in said} == said
    assert said


def test_only_the_window_of_repeats_may_be_of_no_length() -> None:
    """Anything else would end at once, or go round without a pause."""
    found = [
        f"{table.what}.{key}"
        for table in ALL
        for key, field in table.fields.items()
        for kind in (field.kind.kind if isinstance(field.kind, OrNone) else field.kind,)
        if isinstance(kind, Parsed) and kind.parse("30s") == 30.0 and kind.parse("0s") is not None
    ]
    assert set(found) == {"duplicates.window"}
