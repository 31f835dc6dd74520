"""The JSON Schema for editors: it takes every shipped file, tells the commonest mistakes, and has all keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from engine.mapping import files
from engine.mapping.editor_schema import editor_schema
from engine.mapping.examples import KEYS
from tests.mapping.folders import SHIPPED

SCHEMA = editor_schema()
FILES = sorted(path for path in SHIPPED.rglob("*.yaml") if path.relative_to(SHIPPED).parts[0] != "v2")
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(path: Path) -> Iterator[Any]:
    """As an editor sees them: keys are texts."""
    for node in yaml.compose_all(path.read_text(encoding="utf-8"), Loader=Loader):
        if node is not None:
            yield plain(node)


def plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {key.value: plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain(value) for value in node.value]
    return yaml.constructor.SafeConstructor().construct_document(node)


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SHIPPED)))
def test_every_shipped_file_is_right(path: Path, validator: Any) -> None:
    found = [
        (list(error.absolute_path), error.message) for one in documents(path) for error in validator.iter_errors(one)
    ]
    assert found == []


MAP = {"map": "PID[Patient]", "rows": ["PID-7 -> birthDate"]}
EXAMPLE = {"name": "a", "message": "MSH", "expect": {"Patient": {}}}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"mapp": "PID[Patient]", "rows": []},
        {"map": "PID[Patient]"},
        MAP | {"needz": "x"},
        MAP | {"map": "Patient"},
        MAP | {"rows": ["PID-7"]},
        MAP | {"rows": [{"PID-7 -> name": {}, "PID-8 -> name": {}}]},
        MAP | {"rows": [{"PID-7 -> nothing": ["a"]}]},
        MAP | {"rows": ["PID-7 -> birthDate wen PID-8 is valued"]},
        MAP | {"rows": ["PID-8 -> gender tabel Sex"]},
        MAP | {"rows": ["PID-3 -> identifier as CX[Identifier ('patient')"]},
        MAP | {"rows": [{"PID-7 -> birthDate wen PID-8 is valued": []}]},
        MAP | {"rows": [{"name need family": []}]},
        MAP | {"key": "patient '{PID-3:{PID-4}'"},
        MAP | {"keyless": "keep"},
        {"table": "Sex", "codes": {"F": ["a", "b", "c", "d"]}},
        {"decision": "D", "inputs": ["a"], "rows": [["x"]], "otherwise": ""},
        {"message": "ZZZ", "groups": [], "resources": {}},
        {"message": "ZZZ", "use": "ORU_R01", "resources": {"patient": "nobody"}},
        {"message": "ZZZ", "use": "ORU_R01", "resources": {"patient": {"make": "Patiend"}}},
        {"message": "ZZZ", "use": "ORU_R01", "groups": ["pid"]},
        {"options": {"a": {"of": ["x"]}}},
        {"options": {"a": {"of": "x", "default": "x", "about": "x"}}},
        {"csv": "Tests", "file": "tests.csv", "delimiter": ";;"},
        {"table": "Sex", "system": "marital", "codes": {}},
        {"systems": {"a": "notauri"}},
        EXAMPLE | {"expect": {"Patiend": {}}},
        EXAMPLE | {"expct": {}},
        EXAMPLE | {"unmapped": "lose"},
        {"name": "a", "message": "MSH"},
    ],
)
def test_a_mistake_is_told(document: Any, validator: Any) -> None:
    assert list(validator.iter_errors(document)) != []


@pytest.mark.parametrize(
    "document",
    [
        MAP | {"rows": "PID-7 -> birthDate"},
        MAP | {"rows": [{"PID-7 -> nothing": "why"}, {"PV1-20 -> kept when PV1-2 = 'I'": "why"}]},
        MAP
        | {"rows": [{"switch PID-8": {"F": "gender = female", "else": []}}, {"first": ["a = b", {"c": ["d = e"]}]}]},
        MAP | {"rows": [{"when PID-8 is valued": ["include PID[Patient-Person]"]}]},
        {"message": "ZZZ", "use": "ORU_R01", "resources": {"patient": "none"}},
        MAP | {"rows": ["PID-3 -> . as CX[Identifier]('a', PID-4) table T needs a or b, c when PID-8 = 'x'"]},
        MAP | {"rows": ["'{PID-5.2}\n{PID-5.1}' -> name.extension('https://x/y').valueString", "a.b(c).d = x#y 'z'"]},
        MAP
        | {
            "rows": [
                {
                    "PID-13 -> telecom needs value, use or system when PID-8 is valued": [],
                },
                {"a.b needs c": []},
            ]
        },
        MAP | {"key": ["identifier MR", "patient '{PID-3}:{PID-4?}'"]},
        {"csv": "Tests", "file": "tests.csv", "delimiter": "\t"},
        {"guide": {"PID[Account]": "why", "PID[Patient]": {"PID-8 -> gender": "why"}}},
        EXAMPLE | {"override": {"PID[Patient]": {"rows": ["PID-7 -> nothing"]}, "fields": {"PID-3": "PID-2"}}},
    ],
)
def test_what_is_right_is_taken(document: Any, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(document)] == []


def test_it_has_the_keys_that_are_read() -> None:
    parts = SCHEMA["$defs"]
    assert set(parts["map"]["properties"]) == set(files._MAP_KEYS)
    assert set(parts["block"]["properties"]) == {*files._BLOCK_KEYS, "before"}
    assert set(parts["message"]["properties"]) == set(files._MESSAGE_KEYS)
    assert set(parts["example"]["properties"]) == set(KEYS)
    assert set(files._KINDS) <= set(parts)


def test_every_key_is_described() -> None:
    bare = [
        f"{name}.{key}"
        for name, part in SCHEMA["$defs"].items()
        for key, value in part.get("properties", {}).items()
        if "description" not in value and "$ref" not in value
    ]
    assert bare == []


def test_it_is_json() -> None:
    assert orjson.loads(orjson.dumps(SCHEMA)) == SCHEMA
