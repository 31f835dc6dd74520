"""What became of each value of a message, and where each element of the output is from."""

from __future__ import annotations

from typing import Any

Where = list[tuple[Any, int, int, int, int]]
"""Places in a message: (a segment's fields, field, repetition, component, subcomponent); 0 is all of them."""


def inside(where: Where, number: int) -> Where:
    """A part of each value: a component, or of a component a subcomponent."""
    return [
        (fields, field, repetition, component or number, number if component else 0)
        for fields, field, repetition, component, _ in where
    ]


def turn(where: Where, number: int) -> Where:
    """A repetition of each field."""
    return [
        (fields, field, repetition or number, component, sub) for fields, field, repetition, component, sub in where
    ]


def leaves(where: Where) -> Where:
    """The first leaf of each value."""
    return [
        (fields, field, repetition or 1, component or 1, sub or 1)
        for fields, field, repetition, component, sub in where
    ]
