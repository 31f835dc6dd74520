"""What people want to know before they decide, of one service (`engine.api.evidence.Evidence`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from engine.compare.comparer import Comparer
from engine.compare.discrepancies import SettleError, State
from engine.compare.rules import Rule
from engine.compare.showing import Example, Showing
from engine.config.model import Channel
from engine.ledger.audit import Entry, Row
from engine.ledger.course import ChannelBook, Compared
from engine.ledger.sqlite import comparisons, journal, listing, parked, recount, search
from engine.ledger.sqlite.comparisons import DiscrepancyRow
from engine.ledger.sqlite.reader import Reader
from engine.migration.conductor import Conductor
from engine.migration.gate.check import Finding
from engine.migration.gate.examine import passed
from engine.migration.gate.matching import match
from engine.migration.reconcile import Ours, reconcile
from engine.migration.refused import Refused
from engine.migration.selection import Selector, select
from engine.migration.verbs.moving import gate
from engine.service.comparing import Comparisons, Tapped
from engine.service.moments import iso

CHECKED: Final = 1024  # messages whose bytes are read at a time, to see whether they are those that were stored


class Evidence:
    """Answers about the channels of one service."""

    def __init__(self, conductor: Conductor, comparing: Comparisons, channels: Sequence[Channel]) -> None:
        self._conductor = conductor
        self._ledger = conductor.world.ledger
        self._comparing = comparing
        self._channels = channels

    # -- the gate

    async def gate(self, selector: Selector) -> list[dict[str, Any]]:
        rows = []
        for channel in select(selector, self._channels):
            await self._conductor.gather(channel)
            findings = gate(self._conductor, channel)
            checks = [_check(finding) for finding in findings]
            rows.append({"channel": channel.id, "passed": passed(findings), "checks": checks})
        return rows

    # -- the comparison

    async def compare(self, selector: Selector) -> list[dict[str, Any]]:
        rows = []
        for channel in select(selector, self._channels):
            tapped = self._comparing.channels.get(channel.id)
            if tapped is None:
                continue
            await tapped.comparer.flush()
            for tap, counts in tapped.comparer.counts().items():
                totals = counts.totals
                share = match(Compared(totals.matched, totals.explained, totals.unexplained))
                rows.append({
                    "channel": channel.id, "tap": tap, "matched": totals.matched, "explained": totals.explained,
                    "unexplained": totals.unexplained, "not_comparable": totals.not_comparable,
                    "pending": counts.pending, "match": share, "lag_s": counts.lag,
                    "rules": [_rule(rule) for rule in tapped.comparer.rules_of(tap)],
                })  # fmt: skip
        return rows

    async def discrepancies(self, selector: Selector, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        chosen = select(selector, self._channels)
        for channel in chosen:
            if tapped := self._comparing.channels.get(channel.id):
                await tapped.comparer.flush()
        ids = [self._ledger.channels[channel.id].id for channel in chosen]
        rows = await self._ledger.read(
            lambda reader: comparisons.listing(reader.connection, ids, state, limit)
        )  # fmt: skip
        return [self._discrepancy(row) for row in rows]

    async def discrepancy(self, id: int) -> dict[str, Any] | None:
        row = await self._ledger.read(lambda reader: comparisons.discrepancy(reader.connection, id))
        if row is None:
            return None
        tapped = self._comparing.channels.get(self._name(row.channel))
        shown = await self._ledger.read(lambda reader: _shown(reader, tapped, row)) if tapped else []
        examples = [
            {"seq": each.seq, "at": iso(each.at), "control_id": each.control_id, "legacy": each.legacy,
             "target": each.target}
            for each in shown
        ]  # fmt: skip
        return {**self._discrepancy(row), "examples": examples}

    async def settle_discrepancy(
        self, id: int, *, state: str, reason: str, owner: str | None, who: str, origin: str
    ) -> dict[str, Any] | None:
        row = await self._ledger.read(lambda reader: comparisons.discrepancy(reader.connection, id))
        if row is None:
            return None
        comparer = self._comparer(row)
        if comparer is None:
            raise Refused("Its channel has no taps any more, so that nothing can be settled about it.")
        entry = Entry(
            self._conductor.world.now(), who, origin, "discrepancy", f"{self._name(row.channel)} {id}", reason,
            row.state, state,
        )  # fmt: skip
        try:
            await comparer.settle(row, State(state), reason, who, owner, also=lambda book: book.audit(entry))
        except SettleError as error:
            raise Refused(str(error)) from error
        changed = await self._ledger.read(lambda reader: comparisons.discrepancy(reader.connection, id))
        return self._discrepancy(changed) if changed else None

    def _comparer(self, row: DiscrepancyRow) -> Comparer | None:
        tapped = self._comparing.channels.get(self._name(row.channel))
        return tapped.comparer if tapped else None

    def _name(self, id: int) -> str:
        return next(book.name for book in self._ledger.channels.values() if book.id == id)

    def _discrepancy(self, row: DiscrepancyRow) -> dict[str, Any]:
        return {
            "id": row.id, "channel": self._name(row.channel), "tap": row.tap, "path": row.path, "kind": row.kind,
            "severity": row.severity, "state": row.state, "owner": row.owner or None, "count": row.count,
            "first": iso(row.first_at), "last": iso(row.last_at), "due": iso(row.due) if row.due else None,
            "reason": row.why or None,
        }  # fmt: skip

    # -- reconciliation

    async def reconcile(self, selector: Selector, manifest: list[tuple[str, str | None]] | None) -> dict[str, Any]:
        books = [self._ledger.channels[channel.id] for channel in select(selector, self._channels)]
        equation = await self._ledger.read(lambda reader: reader.balance(books))
        rebuilt = await self._ledger.read(lambda reader: reader.rebuilt()) + await self._damaged()
        phases = {(book.name, epoch.number): epoch.phase for book in books for epoch in book.epochs}
        ours = await self._ours(books) if manifest is not None else []
        kept = await self._ledger.read(lambda reader: parked.counts(reader.connection))
        waiting = [(book.name, tap, count) for book in books for tap, count in kept.get(book.id, {}).items()]
        return reconcile(equation, rebuilt, phases, manifest, ours, waiting).as_dict()

    async def _damaged(self) -> list[str]:
        """The messages whose bytes the disk has changed. All are read, a few at a time: deliveries read as well."""
        low, high = await self._ledger.read(lambda reader: search.bounds(reader.connection))
        found: list[str] = []
        for first in range(low, high + 1, CHECKED):
            last = min(high, first + CHECKED - 1)
            found += await self._ledger.read(partial(_damaged, first, last))
        return found

    async def _ours(self, books: list[ChannelBook]) -> list[Ours]:
        by_id = {book.id: book for book in books}
        ids = list(by_id)
        rows = await self._ledger.read(lambda reader: list(listing.control_ids(reader.connection, ids)))
        settled = await self._ledger.read(lambda reader: listing.settled(reader.connection, ids))
        return [
            Ours(by_id[id].name, seq, control_id, by_id[id].epoch_of(seq).phase, settled.get((id, seq), {}))
            for id, seq, control_id in rows
        ]

    # -- the audit chain

    async def audit(self, *, limit: int, before: int | None) -> list[dict[str, Any]]:
        rows = await self._ledger.read(
            lambda reader: journal.audit(reader.connection, limit=limit, before=before)
        )  # fmt: skip
        return [_audited(row) for row in rows]

    async def verify_audit(self) -> dict[str, Any]:
        rows, head, problems = await self._ledger.read(lambda reader: journal.verify_audit(reader.connection))
        return {"ok": not problems, "rows": rows, "head": head, "problems": problems}


def _shown(reader: Reader, tapped: Tapped, row: DiscrepancyRow) -> list[Example]:
    return Showing(reader, tapped.channel, tapped.book, tapped.flaw).examples(row)


def _check(finding: Finding) -> dict[str, Any]:
    waiver = finding.waiver
    return {
        "check": finding.check, "title": finding.title, "outcome": finding.outcome.value, "said": finding.said,
        "at": iso(finding.at) if finding.at else None,
        "when": sorted(when.value for when in finding.when),
        "waiver": {"who": waiver.who, "why": waiver.why, "until": iso(waiver.until)} if waiver else None,
    }  # fmt: skip


def _rule(rule: Rule) -> dict[str, Any]:
    return {"path": rule.path, "how": rule.how, "reason": rule.reason}


def _audited(row: Row) -> dict[str, Any]:
    entry = row.entry
    return {
        "id": row.id, "at": iso(entry.at), "who": entry.who, "origin": entry.origin, "verb": entry.verb,
        "subject": entry.subject, "why": entry.why, "before": entry.before, "after": entry.after, "hash": row.hash,
    }  # fmt: skip


def _damaged(first: int, last: int, reader: Reader) -> list[str]:
    return recount.damaged(reader.connection, first, last)
