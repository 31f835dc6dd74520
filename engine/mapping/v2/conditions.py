"""What expressions are made of: names, functions, and tests of one value or several."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from engine.hl7.message import NULL
from engine.mapping.v2.draft import Draft, leaf
from engine.mapping.v2.path import Here, Read
from engine.mapping.v2.pattern import Pattern

Value = Callable[[Draft, Here | None], str]
"""The text; `` where there is none."""
Test = Callable[[Draft, Here | None], bool]


def _received(draft: Draft, here: Here | None) -> str:
    """When the message came, in the channel's time zone, to the second."""
    at = datetime.fromtimestamp(draft.context.received // 1_000_000, UTC)
    return at.astimezone(ZoneInfo(draft.context.timezone)).strftime("%Y%m%d%H%M%S%z")


NAMES: dict[str, Value] = {
    "received": _received,
    "channel": lambda draft, here: draft.context.channel,
    "connection": lambda draft, here: draft.context.connection,
    "sequence": lambda draft, here: str(draft.context.seq),
    "part": lambda draft, here: str(draft.part),
    "parts": lambda draft, here: str(draft.parts),
}
"""What a value may name besides paths. `part` of `parts`: of a message that was split."""

FUNCTIONS: Final[dict[str, tuple[int, Callable[..., str]]]] = {
    "upper": (1, str.upper),
    "lower": (1, str.lower),
    "trim": (1, str.strip),
    "digits": (1, lambda text: "".join(char for char in text if char.isdecimal() and char.isascii())),
    "left": (2, lambda text, count: text[:count]),
    "right": (2, lambda text, count: text[max(len(text) - count, 0) :]),
    "pad": (3, lambda text, count, fill: text.rjust(count, fill)),
}
"""Functions of values: how many arguments, and what they do. The second one is a number."""


def negated(test: Test | None, negated: bool) -> Test | None:
    """The contrary of a test."""
    if test is None or not negated:
        return test
    return lambda draft, here: not test(draft, here)


class Subject:
    """The raw values that a test is about: one, or those of a path with [*]."""

    def __init__(self, one: Read | None, every: Callable[[Draft, Here | None], list[str]] | None) -> None:
        self._one, self._every = one, every

    def test(self, good: Callable[[str, Draft, Here | None], bool]) -> Test:
        """Whether the value is good, or one of several is."""
        one, every = self._one, self._every
        if one is not None:
            return lambda draft, here: good(one(draft, here), draft, here)
        assert every is not None
        return lambda draft, here: any(good(value, draft, here) for value in every(draft, here))


def state(subject: Subject, kind: str) -> Test:
    """`is valued`, `is empty`, `is null`."""
    if kind == "empty":
        some = subject.test(lambda raw, draft, here: raw != "")
        return lambda draft, here: not some(draft, here)
    if kind == "null":
        return subject.test(lambda raw, draft, here: raw == NULL)
    return subject.test(lambda raw, draft, here: raw not in ("", NULL))


def among(subject: Subject, options: list[Value | None]) -> Test | None:
    """Whether the value is one of some."""
    found = [option for option in options if option is not None]
    if len(found) < len(options):
        return None
    if len(found) == 1:
        one = found[0]
        return subject.test(lambda raw, draft, here: leaf(raw, draft) == (one(draft, here) or None))
    return subject.test(
        lambda raw, draft, here: leaf(raw, draft) in [text for each in found if (text := each(draft, here))]
    )


def matching(subject: Subject, pattern: Pattern | None) -> Test | None:
    """Whether a pattern fits the value."""
    if pattern is None:
        return None
    fits = pattern.fits
    return subject.test(lambda raw, draft, here: fits(leaf(raw, draft)))
