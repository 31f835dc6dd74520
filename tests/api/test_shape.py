"""One type for the document and for the check of a body."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from engine.api.shape import Schema, Within, misfit, schema


class Leaf(TypedDict):
    name: Annotated[str, Within(1, 5)]
    state: NotRequired[Literal["open", "fixed"] | None]


class Tree(Leaf):
    leaves: list[Leaf]
    labels: NotRequired[dict[str, str]]
    limit: NotRequired[Annotated[int, Within(1, 9)]]
    share: NotRequired[float]
    anything: NotRequired[Any]


GOOD: dict[str, Any] = {"name": "oak", "leaves": [{"name": "a", "state": None}, {"name": "b", "state": "open"}]}


@pytest.mark.parametrize("more", [{}, {"labels": {}}, {"limit": 9}, {"share": 1}, {"share": 0.5}, {"anything": [1]}])
def test_what_is_of_the_shape_passes(more: dict[str, Any]) -> None:
    assert misfit(GOOD | more, Tree) is None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([], "the body must be an object"),
        ({"leaves": []}, "the body must hold name"),
        (GOOD | {"nam": 1}, "the body holds 'nam', which is not known; known are name, state, leaves, labels, "
         "limit, share, anything"),
        (GOOD | {"name": 5}, "name must be text"),
        (GOOD | {"name": ""}, "name must have 1 to 5 characters"),
        (GOOD | {"name": "   "}, "name must have 1 to 5 characters"),
        (GOOD | {"name": "longer"}, "name must have 1 to 5 characters"),
        (GOOD | {"state": "new"}, "state must be one of open, fixed"),
        (GOOD | {"leaves": {}}, "leaves must be a list"),
        (GOOD | {"leaves": [{"name": "a"}, {}]}, "leaves[1] must hold name"),
        (GOOD | {"leaves": [{"name": "a", "state": 4}]}, "leaves[0].state must be one of open, fixed"),
        (GOOD | {"labels": []}, "labels must be an object"),
        (GOOD | {"labels": {"region": 1}}, "labels.region must be text"),
        (GOOD | {"limit": True}, "limit must be a whole number"),
        (GOOD | {"limit": 1.5}, "limit must be a whole number"),
        (GOOD | {"limit": 10}, "limit must be from 1 to 9"),
        (GOOD | {"share": "1"}, "share must be a number"),
        (GOOD | {"share": False}, "share must be a number"),
    ],
)  # fmt: skip
def test_what_is_not_is_told_in_a_sentence(value: Any, sentence: str) -> None:
    assert misfit(value, Tree) == sentence


def test_the_schema_says_the_same() -> None:
    named: dict[str, Schema] = {}
    assert schema(Tree, named) == {"$ref": "#/components/schemas/Tree"}
    tree, leaf = named["Tree"], named["Leaf"]
    assert tree["required"] == ["name", "leaves"]
    assert tree["properties"]["leaves"] == {"type": "array", "items": {"$ref": "#/components/schemas/Leaf"}}
    assert tree["properties"]["limit"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert leaf["properties"] == {
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "state": {"anyOf": [{"type": "string", "enum": ["open", "fixed"]}, {"type": "null"}]},
    }


def test_a_type_that_is_not_known_is_a_defect() -> None:
    with pytest.raises(TypeError):
        schema(set, {})
