"""`legal-hold` and `legal-release`: nothing of a channel is removed by age until somebody says that it may be."""

from __future__ import annotations

from engine.ledger.book import Book
from engine.ledger.keeping import LegalHold
from engine.migration.conductor import Conductor
from engine.migration.selection import Group
from engine.migration.verbs.verb import Acted, Asked, Plan, books, entry


class LegalHoldVerb:
    """Keep everything of single channels, whatever its age."""

    name = "legal-hold"
    whole = False

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        plan = Plan(group)
        for channel, book in books(conductor, group):
            held = conductor.world.ledger.kept[book.id].legal
            if held is None:
                plan.lines.append(
                    f"{channel.id}: nothing is removed by age, until: interlock legal-release {channel.id}"
                )
        if not plan.lines:
            plan.already = f"all of {group.connection} that was named is under a legal hold"
        return plan

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        hold = LegalHold(asked.who, asked.why, conductor.world.now())
        held = []
        for channel, book in books(conductor, plan.group):
            kept, id = conductor.world.ledger.kept[book.id], book.id
            if kept.legal is not None:
                continue
            kept.legal = hold  # at once: what is being removed stops, though the row is not durable yet

            def act(ledger: Book, id: int = id, name: str = channel.id) -> None:
                ledger.put("put_legal_hold", id, hold.who, hold.why, hold.at)
                ledger.audit(entry(conductor, "legal-hold", name, asked))

            try:
                await conductor.world.ledger.transaction(act)
            except BaseException:
                kept.legal = None
                raise
            held.append(channel.id)
        return Acted([f"under a legal hold: {', '.join(held)}"])


class LegalReleaseVerb:
    """Let age count again."""

    name = "legal-release"
    whole = False

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        plan = Plan(group)
        for channel, book in books(conductor, group):
            if held := conductor.world.ledger.kept[book.id].legal:
                plan.lines.append(f"{channel.id}: what is old enough is removed again (held by {held.who}: {held.why})")
        if not plan.lines:
            plan.already = f"nothing of {group.connection} is under a legal hold"
        return plan

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        ledger = conductor.world.ledger
        held = [(channel, book) for channel, book in books(conductor, plan.group) if ledger.kept[book.id].legal]

        def act(changing: Book) -> None:
            for channel, book in held:
                changing.put("drop_legal_hold", book.id)
                changing.audit(entry(conductor, "legal-release", channel.id, asked))

        await ledger.transaction(act)
        for _, book in held:
            ledger.kept[book.id].legal = None
        return Acted([f"legal hold lifted: {', '.join(channel.id for channel, _ in held)}"])
