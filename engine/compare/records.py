"""From verdicts to rows: totals, discrepancies, what is written and what a gate will read. Pure.

`put` makes the rows of a batch and changes nothing; `accept` takes the batch over once it is durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from engine.compare.diff import Difference
from engine.compare.discrepancies import Discrepancy, Signature, State, Totals, explained, seen, summed, unseen
from engine.compare.severity import MESSAGE
from engine.ledger.course import Compared
from engine.ledger.sqlite.comparisons import DiscrepancyRow

Word: TypeAlias = Literal["matched", "different", "not_comparable", "missing_in_legacy", ""]

MOST_EXAMPLES: Final = 100  # messages kept for a difference that a rule covers

Row: TypeAlias = tuple[str, tuple[Any, ...]]  # a statement's name, and its values


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one input at one tap; or, without a `word`, what else was found.

    seq: 0 where an output belongs to no input. output: 0 where there is none. late: it takes the place of
    `missing_in_legacy`.
    """

    tap: str
    seq: int
    output: int
    word: Word
    differences: tuple[Difference, ...]
    at: int
    late: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Inputs at or below `seq` have their verdict; `id`: a message at which reading those above may start.

    late: how many are past their time without one.
    """

    seq: int = 0
    id: int = 0
    late: int = 0


@dataclass(slots=True)
class Batch:
    """The rows of some verdicts, and what will hold once they are durable. recount: taps whose different messages are
    to be counted again, since a discrepancy was opened again or a message came late."""

    rows: list[Row] = field(default_factory=list)
    known: dict[Signature, Discrepancy] = field(default_factory=dict)
    totals: dict[str, Totals] = field(default_factory=dict)
    compared: dict[str, Compared] = field(default_factory=dict)
    opened: list[Discrepancy] = field(default_factory=list)
    recount: set[str] = field(default_factory=set)


class Records:
    """One channel's discrepancies and totals."""

    def __init__(self, channel: int, owner: str) -> None:
        """channel: the ledger's number of it. owner: whose a new discrepancy is."""
        self.totals: dict[str, Totals] = {}
        self.known: dict[Signature, Discrepancy] = {}
        self._channel = channel
        self._owner = owner

    def load(self, totals: Mapping[str, Totals], rows: Iterable[DiscrepancyRow]) -> None:
        """What the ledger holds."""
        self.totals = dict(totals)
        self.known = {one.signature: one for one in map(from_row, rows)}

    def put(self, verdicts: Sequence[Verdict], marks: Mapping[str, Mark]) -> Batch:
        """The rows of verdicts, and the totals and watermarks of all taps in `marks`."""
        batch = Batch(known=dict(self.known), totals=dict(self.totals))
        rows: list[Row] = []
        changed: dict[Signature, None] = {}
        for verdict in verdicts:
            rows += self._verdict(batch, verdict, changed)
        batch.rows += [put_discrepancy(self._channel, batch.known[signature]) for signature in changed]
        batch.rows += rows  # after the discrepancies, which they look up
        for tap, mark in marks.items():
            self.sum_up(batch, tap, mark)
        return batch

    def sum_up(self, batch: Batch, tap: str, mark: Mark) -> None:
        """A tap's totals, as a row and as a gate reads them."""
        totals = batch.totals.setdefault(tap, Totals())
        batch.compared[tap] = summed(
            totals, mark.late, [one for one in batch.known.values() if one.signature.tap == tap]
        )
        counted = (totals.matched, totals.explained, totals.unexplained, totals.not_comparable)
        batch.rows.append(("put_compared", (self._channel, tap, *counted, mark.seq, mark.id)))

    def changed(self, one: Discrepancy, totals: Totals, mark: Mark) -> Batch:
        """The rows of a discrepancy that a person has changed, and the tap's totals after it."""
        tap = one.signature.tap
        batch = Batch(known={**self.known, one.signature: one}, totals={**self.totals, tap: totals})
        batch.rows.append(put_discrepancy(self._channel, one))
        self.sum_up(batch, tap, mark)
        return batch

    def recounted(self, tap: str, totals: Totals, mark: Mark) -> Batch:
        """A tap's totals, counted again."""
        batch = Batch(known=self.known, totals={**self.totals, tap: totals})
        self.sum_up(batch, tap, mark)
        return batch

    def accept(self, batch: Batch) -> None:
        """The batch is durable."""
        self.known, self.totals = batch.known, batch.totals

    def _verdict(self, batch: Batch, verdict: Verdict, changed: dict[Signature, None]) -> Iterator[Row]:
        if verdict.late:
            yield from self._came(batch, verdict, changed)
        for difference in verdict.differences:
            signature = Signature(verdict.tap, difference.path, difference.kind)
            changed[signature] = None
            now = self._seen(batch, signature, difference, verdict)
            if difference.kind != "expected" or now.count <= MOST_EXAMPLES:
                yield "add_difference", (verdict.seq, verdict.output, verdict.at, self._channel, *signature)
        if verdict.word:
            yield "put_pair", (self._channel, verdict.tap, verdict.seq, verdict.output, verdict.word, verdict.at)
            totals = batch.totals.get(verdict.tap, Totals())
            batch.totals[verdict.tap] = _counted(totals, verdict, batch.known)

    def _seen(self, batch: Batch, signature: Signature, difference: Difference, verdict: Verdict) -> Discrepancy:
        known = batch.known.get(signature)
        now = batch.known[signature] = seen(known, verdict.tap, difference, self._owner, verdict.at)
        if now.state is State.OPEN and (known is None or known.state is not State.OPEN):
            batch.opened.append(now)
            if known is not None:
                batch.recount.add(verdict.tap)
        return now

    def _came(self, batch: Batch, verdict: Verdict, changed: dict[Signature, None]) -> Iterator[Row]:
        """A message that was missed. Its earlier verdict was counted; only a recount can say as what."""
        batch.recount.add(verdict.tap)
        missed = (Signature(verdict.tap, MESSAGE, kind) for kind in ("missing_in_legacy", "expected"))
        signature = next((one for one in missed if one in batch.known), None)
        if signature is not None:
            batch.known[signature] = unseen(batch.known[signature], verdict.at)
            changed[signature] = None
        yield "drop_missing", (self._channel, verdict.seq, self._channel, verdict.tap)


def _counted(totals: Totals, verdict: Verdict, known: Mapping[Signature, Discrepancy]) -> Totals:
    if verdict.word == "matched":
        return replace(totals, matched=totals.matched + 1)
    if verdict.word == "not_comparable":
        return replace(totals, not_comparable=totals.not_comparable + 1)
    if explained(verdict.differences, known, verdict.tap):
        return replace(totals, explained=totals.explained + 1)
    return replace(totals, unexplained=totals.unexplained + 1)


def put_discrepancy(channel: int, one: Discrepancy) -> Row:
    """The row of a discrepancy, as a statement."""
    values = (
        channel, *one.signature, one.severity, one.state.value, one.owner, one.first_at, one.last_at, one.count,
        one.due, one.why, one.who, one.settled_at,
    )  # fmt: skip
    return "put_discrepancy", values


def from_row(row: DiscrepancyRow) -> Discrepancy:
    """A discrepancy as the ledger has it."""
    signature = Signature(row.tap, row.path, row.kind)
    return Discrepancy(
        signature, row.severity, State(row.state), row.owner, row.first_at, row.last_at, row.count, row.due, row.why,  # type: ignore[arg-type]
        row.who, row.settled_at,
    )  # fmt: skip
