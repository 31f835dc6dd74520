"""`note`, `attest` and `waive`: what people say, kept with their name."""

from __future__ import annotations

from engine.ledger.book import Book
from engine.migration.conductor import Conductor
from engine.migration.gate.check import Fact, Waiver
from engine.migration.gate.examine import ATTESTABLE, CHECKS
from engine.migration.gate.words import iso
from engine.migration.selection import Group
from engine.migration.verbs.verb import Acted, Asked, Plan, books, entry, span, until

WAIVED = 24 * 3600.0  # seconds that a waiver counts unless said otherwise


class NoteVerb:
    """A remark in the audit record."""

    name = "note"
    whole = False

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        return Plan(group, [f"{channel.id}: a remark is written into the audit record" for channel in group.channels])

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        def act(book: Book) -> None:
            for channel in plan.group.channels:
                book.audit(entry(conductor, "note", channel.id, asked))

        await conductor.world.ledger.transaction(act)
        return Acted([f"noted: {', '.join(channel.id for channel in plan.group.channels)}"])


class AttestVerb:
    """A person states what no machine can measure."""

    name = "attest"
    whole = True

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        check = asked.options.get("check")
        if check not in ATTESTABLE:
            wanted = ", ".join(ATTESTABLE)
            return Plan(group, refused=[f"'{check}' is nothing that a person can attest: one of {wanted}"])
        return Plan(group, [f"{channel.id}: {asked.who} attests {check}" for channel in group.channels])

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        name, now = str(asked.options["check"]), conductor.world.now()
        limit = until(conductor, asked, 0.0) if asked.options.get("for_s") else 0
        for channel, _ in books(conductor, plan.group):
            version = "" if name == "old_queue" else conductor.world.version(channel)
            fact = Fact(name, {"attested": True, "why": asked.why}, now, asked.who, limit, version)
            await conductor.record(channel, [fact], entry(conductor, "attest", channel.id, asked, "", name))
        return Acted([f"attested by {asked.who}: {name} of {', '.join(c.id for c in plan.group.channels)}"])


class WaiveVerb:
    """A person lets a check pass for a time."""

    name = "waive"
    whole = True

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        check = next((check for check in CHECKS if check.name == asked.options.get("check")), None)
        if check is None:
            wanted = ", ".join(check.name for check in CHECKS)
            return Plan(group, refused=[f"'{asked.options.get('check')}' is no check of the gate: one of {wanted}"])
        if not check.waivable:
            return Plan(group, refused=[f"{check.title} cannot be waived: {check.instead}"])
        time = span((until(conductor, asked, WAIVED) - conductor.world.now()) / 1e6)
        return Plan(group, [f"{channel.id}: {check.title} need not pass for {time}" for channel in group.channels])

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        waiver = Waiver(str(asked.options["check"]), asked.who, asked.why, conductor.world.now(),
                        until(conductor, asked, WAIVED))  # fmt: skip

        def act(book: Book) -> None:
            for _, mine in books(conductor, plan.group):
                book.put("add_waiver", mine.id, waiver.name, waiver.who, waiver.why, waiver.at, waiver.until)
                book.audit(entry(conductor, "waive", mine.name, asked, "", f"{waiver.name} until {iso(waiver.until)}"))

        await conductor.world.ledger.transaction(act)
        for channel in plan.group.channels:
            known = conductor.waivers.get(channel.id, {})
            conductor.waivers[channel.id] = {**known, waiver.name: waiver}
        return Acted([f"waived by {waiver.who}: {waiver.name} of {', '.join(c.id for c in plan.group.channels)}"])
