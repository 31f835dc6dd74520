"""Which channels a frame of a feed belongs to. Pure.

The first rule whose fields all have one of their values decides, then the table, then the feed's default. Values are
compared as text, blanks around them left out; a field without a component means its first one, and MSH-9 the message
code with its trigger event (`ORU^R01`). A batch is routed by its messages; where they do not all belong to the
same channels, it goes to the default whole, since no part of it may reach a channel that it does not concern.

A frame is read as on a channel of its own: behind blank lines and a byte order mark, in wide characters, and in the
charset that the feed or MSH-18 names. What is no text in it is read as Latin-1, so that its plain fields still count.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from engine.config.edge import Takes
from engine.config.feed import Feed
from engine.hl7.batch import read_batch
from engine.hl7.charset import readable
from engine.hl7.message import Message, parse_path
from engine.hl7.peek import Peek, after_junk, peek

Fields = Callable[[str], str]


class Router:
    """One feed's routes."""

    def __init__(self, feed: Feed) -> None:
        self._takes = feed.takes
        self._rules = feed.rules
        self._table = feed.table
        self._default = (feed.default,)

    def route(self, head: Peek, frame: bytes) -> tuple[str, ...]:
        """The channels that get a copy, at least one."""
        batch = read_batch(frame) if head.problem else None
        if batch is None:
            return self._one(head, frame)
        found = {self._one(peek(message), message) for message in batch.messages}
        return found.pop() if len(found) == 1 else self._default

    def _one(self, head: Peek, frame: bytes) -> tuple[str, ...]:
        value = _fields(head, frame, self._takes)
        for rule in self._rules:
            if all(value(path) in wanted for path, wanted in rule.when):
                return rule.to
        if self._table is not None:
            return self._table.of.get(value(self._table.by), self._default)
        return self._default


def _fields(head: Peek, frame: bytes, takes: Takes) -> Fields:
    """Reads fields of a frame, each once; what lies beyond the header only when it is asked for."""

    @cache
    def read(all_of_it: bool) -> Message:
        end = -1 if all_of_it or head.wide is not None else frame.find(b"\r", after_junk(frame))
        return Message(readable(frame if end < 0 else frame[:end], takes.encoding, takes.undeclared))

    @cache
    def value(path: str) -> str:
        if not head.ok:
            return ""
        if path == "MSH-9":
            return f"{head.type}^{head.trigger}"
        return _first(read(not path.startswith("MSH")), path)

    return value


def _first(message: Message, path: str) -> str:
    """A field's first component, unless another one is named."""
    segment, field, repetition, component, subcomponent, nth = parse_path(path)
    found = message.segments(segment)
    if nth > len(found):
        return ""
    return (found[nth - 1].get(field, repetition, component or 1, subcomponent) or "").strip()
