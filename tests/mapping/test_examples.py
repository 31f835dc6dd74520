"""The shipped mappings keep what their examples promise."""

from __future__ import annotations

import pytest

from engine.mapping import examples
from engine.mapping.examples import Example
from engine.mapping.library import Library
from tests.mapping.folders import SHIPPED

EXAMPLES = examples.load(SHIPPED / "examples")


@pytest.fixture(scope="module")
def library() -> Library:
    return Library.load(SHIPPED)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"{one.file.stem}: {one.name}")
def test_the_example_holds(example: Example, library: Library) -> None:
    assert examples.check(example, library).faults == []


def test_an_example_that_does_not_hold_says_where(library: Library) -> None:
    wrong = Example(
        EXAMPLES[0].file,
        "wrong",
        EXAMPLES[0].message,
        {"Patient": {"gender": "x"}, "Flag": [{}]},
        ["y"],
        EXAMPLES[0].context,
    )
    faults = examples.check(wrong, library).faults
    assert faults[0].startswith("Patient[0].gender: expected 'x', found ")
    assert faults[1] == "Flag: expected 1, found 0"
    assert faults[2].startswith("diagnostics: expected ['y'], found")
