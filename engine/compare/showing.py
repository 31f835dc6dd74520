"""Examples of a discrepancy, for people who may see them: made again from the stored messages, each time.

No value is kept anywhere. Where a rule or a mapping has changed since, a message may no longer show what it did; then
it has no values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from engine.compare.answers import compare_answers
from engine.compare.diff import Comparison, compare
from engine.compare.keys import Keys, body
from engine.compare.pairs import pair
from engine.compare.rules import Rules
from engine.compare.severity import MORE, WHOLE
from engine.config.model import Channel
from engine.hl7.peek import peek
from engine.intake.judge import Flaw
from engine.ledger.course import ChannelBook
from engine.ledger.routing import LEGACY
from engine.ledger.sqlite import comparisons
from engine.ledger.sqlite.reader import Reader

SHOWN: Final = 10  # examples
NOTHING: Final = (None, None)


@dataclass(frozen=True, slots=True)
class Example:
    """One message that shows a discrepancy. seq: 0 where its output belongs to no input; at: microseconds. legacy,
    target: what each side says there; None where it says nothing. For a whole message: its control ids."""

    seq: int
    at: int
    control_id: str | None
    legacy: str | None
    target: str | None


class Showing:
    """Makes examples, on the reading thread."""

    def __init__(
        self,
        reader: Reader,
        channel: Channel,
        book: ChannelBook,
        judge: Callable[[bytes], Flaw | None] = lambda raw: None,
    ) -> None:
        """judge: as the channel's comparer has it."""
        self._reader = reader
        self._channel = channel
        self._book = book
        self._judge = judge
        self._rules = Rules.of(channel.compare)
        self._keys = Keys.of(channel.compare, channel.direction)
        self._answer_rules = Rules.of_answers(channel.compare)

    def examples(self, row: comparisons.DiscrepancyRow, limit: int = SHOWN) -> list[Example]:
        """The newest messages of a discrepancy."""
        found = comparisons.examples(self._reader.connection, row.id, limit)
        return [self._example(row, seq, output, at) for seq, output, at in found]

    def _example(self, row: comparisons.DiscrepancyRow, seq: int, output: int, at: int) -> Example:
        id = self._reader.id_of(self._book.id, seq) if seq else None
        message = self._reader.message(id) if id else None
        control_id, raw = (message.control_id, message.raw) if message else (None, None)
        if row.tap == "":
            return self._of_answers(row.path, seq, at, id, control_id, raw)
        ours = self._ours(row.tap, id)
        if row.path in WHOLE:
            legacy = comparisons.output(self._reader.connection, output) if output else None
            if row.path == MORE and row.kind == "missing_in_legacy":
                return Example(seq, at, control_id, None, _control_id(ours[-1] if ours else None))
            return Example(seq, at, control_id, _control_id(legacy), _control_id(ours[0] if ours else None))
        for legacy, target in self._pairs(row.tap, seq, output, ours):
            found = compare(legacy, target, self._rules, self._channel.takes)
            if (values := _values(found, row.path)) != NOTHING:
                return Example(seq, at, control_id, *values)
        return Example(seq, at, control_id, *NOTHING)

    def _pairs(self, tap: str, seq: int, output: int, ours: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """What the old engine made of an input beside what we did. output: the first, and the only one that counts
        unless the tap's inputs may have several."""
        connection = self._reader.connection
        several = any(one.name == tap and one.shape == "1:n" for one in self._channel.taps)
        ids = comparisons.outputs(connection, self._book.id, tap, seq) if several else [output]
        came = {body(raw): raw for id in reversed(ids) if (raw := comparisons.output(connection, id)) is not None}
        theirs = list(reversed(came.values()))  # what came twice is one output
        for one, other in pair(theirs, ours, self._keys.read).both:
            yield theirs[one], ours[other]

    def _of_answers(
        self, path: str, seq: int, at: int, id: int | None, control_id: str | None, raw: bytes | None
    ) -> Example:
        receipts = self._reader.receipts(id) if id else []
        answer = next((row.answer for row in reversed(receipts) if row.destination == LEGACY and row.answer), None)
        if answer is None or raw is None:
            return Example(seq, at, control_id, None, None)
        found = compare_answers(raw, answer, self._judge(raw), self._answer_rules, at // 1_000_000)
        return Example(seq, at, control_id, *_values(found, path))

    def _ours(self, tap: str, id: int | None) -> list[bytes]:
        forward = next((one.forward.name for one in self._channel.taps if one.name == tap), None)
        destinations = self._channel.destinations
        name = next((one.name for one in destinations if one.endpoint and one.endpoint.name == forward), "")
        course = self._book.course(name)
        return comparisons.captured(self._reader.connection, id, course.id) if course and id else []


def _values(found: Comparison, path: str) -> tuple[str | None, str | None]:
    return next(((one.legacy, one.target) for one in found.differences if one.path == path), NOTHING)


def _control_id(raw: bytes | None) -> str | None:
    return peek(raw).control_id if raw else None
