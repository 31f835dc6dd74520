"""`abort`: end runs as they stand, or have them turn back."""

from __future__ import annotations

from engine.ledger.sqlite.journal import RunRow
from engine.migration.conductor import Conductor
from engine.migration.runs import ABORTED, HANDOVERS, TAKEOVER
from engine.migration.selection import Group
from engine.migration.steps import BACK, Ends
from engine.migration.verbs.verb import Acted, Asked, Plan


class AbortVerb:
    """End runs. One that hands a port over is not ended at once: it turns back, and is followed to its end."""

    name = "abort"
    whole = True

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        plan = Plan(group)
        rows = self._rows(conductor, group, asked)
        if not rows:
            plan.already = f"no run of {group.connection} goes on"
        for row in rows:
            if row.verb in HANDOVERS:
                plan.lines.append(f"run {row.id}: {_turning(row)}")
            elif row.step == "replay":
                plan.lines.append(f"run {row.id}: the rollback has happened; the rest of the replay goes on by itself")
            else:
                plan.lines.append(f"run {row.id}: {row.verb} ends, the barriers are lifted, and nothing has changed")
        return plan

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        done = Acted()
        for row in self._rows(conductor, plan.group, asked):
            if row.verb in HANDOVERS:
                ends = Ends(ABORTED, f"aborted by {asked.who}", asked.who, asked.why, asked.origin)
                said, going = _turning(row), await conductor.handover.abort(row.id, ends)
                done.runs += [row.id] if going else []
            else:
                said = f"aborted by {asked.who}; " + (
                    "the replay goes on by itself"
                    if row.step == "replay"
                    else "the barrier is lifted, and nothing has changed"
                )
                ended = await conductor.end(row.id, ABORTED, said, who=asked.who, why=asked.why, origin=asked.origin)
                going = ended is not None
            known = conductor.runs.get(row.id)
            how = f"run {row.id} had ended: {known.row.said}" if known else f"run {row.id} never began"
            done.said.append(f"run {row.id}: {said}" if going else how)
        return done

    def _rows(self, conductor: Conductor, group: Group, asked: Asked) -> list[RunRow]:
        rows = conductor.runs.of(channel.id for channel in group.channels)
        wanted = asked.options.get("run")
        return [row for row in rows if wanted in (None, row.id)]


def _turning(row: RunRow) -> str:
    if row.step == BACK:
        return f"{row.verb} turns back already"
    if row.verb == TAKEOVER:
        return "takeover turns back: what was begun is answered, and the ports are given back"
    return "give-back turns back: the ports are to be ours again"
