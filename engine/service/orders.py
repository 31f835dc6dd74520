"""The verbs and runs of a service, as the API asks for them (`engine.api.moving.Moving`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.config.model import Channel
from engine.ledger.sqlite import journal
from engine.ledger.sqlite.journal import RunRow
from engine.migration.conductor import Conductor
from engine.migration.refused import Refused
from engine.migration.runs import Live
from engine.migration.selection import Group, Selector, by_connection, by_socket, select
from engine.migration.verbs.all import BY_SOCKET, VERBS
from engine.migration.verbs.verb import Acted, Asked, Plan, Verb
from engine.service.moments import iso


class Orders:
    """What people want done, for one service."""

    def __init__(self, conductor: Conductor, channels: Sequence[Channel]) -> None:
        self._conductor = conductor
        self._channels = channels

    async def verb(
        self, verb: str, selector: Selector, *, options: dict[str, Any], reason: str, who: str, origin: str,
        dry_run: bool,
    ) -> dict[str, Any]:  # fmt: skip
        """All plans first: where one of them is refused, nothing is done at all."""
        wanted = VERBS[verb]
        asked = Asked(who, reason, origin, options)
        plans = [await wanted.plan(self._conductor, group, asked) for group in self._groups(wanted, selector, options)]
        acted = Acted()
        if not dry_run:
            if refused := [text for plan in plans for text in plan.refused]:
                raise Refused(*refused)
            for plan in plans:
                await self._act(wanted, plan, asked, acted)
        runs = [self._conductor.runs.get(id) for id in acted.runs]
        return {
            "verb": verb, "dry_run": dry_run, "plans": [plan.as_dict() for plan in plans],
            "runs": [_run(live.row, live.version) for live in runs if live], "said": acted.said,
        }  # fmt: skip

    async def _act(self, verb: Verb, plan: Plan, asked: Asked, acted: Acted) -> None:
        if plan.already is not None:
            acted.said.append(f"{plan.already}; nothing is changed")
            return
        try:
            done = await verb.act(self._conductor, plan, asked)
        except Refused as refused:  # something came in between; what was begun for other connections is told
            acted.said += [f"{plan.group.connection}: {sentence}" for sentence in refused.sentences]
            if not acted.runs and not acted.said[: -len(refused.sentences)]:
                raise
            return
        acted.said += done.said
        acted.runs += done.runs

    def _groups(self, verb: Verb, selector: Selector, options: dict[str, Any]) -> Sequence[Group]:
        if options.get("run") is not None:
            return self._of_run(int(options["run"]))
        chosen = select(selector, self._channels)
        groups = (by_socket if verb.name in BY_SOCKET else by_connection)(chosen, self._channels)
        if verb.whole:
            return groups
        ids = {channel.id for channel in chosen}
        return [
            Group(group.connection, tuple(channel for channel in group.channels if channel.id in ids))
            for group in groups
        ]

    def _of_run(self, id: int) -> Sequence[Group]:
        live = self._conductor.runs.get(id)
        if live is None:
            raise Refused(f"There is no run {id} that goes on.")
        names = set(live.row.channels)
        return [Group(live.row.connection, tuple(channel for channel in self._channels if channel.id in names))]

    async def runs(self, *, active: bool) -> list[dict[str, Any]]:
        rows = await self._conductor.world.ledger.read(lambda reader: journal.runs(reader.connection, active=active))
        return [self._newest(row) for row in rows]

    async def run(self, id: int, *, after: int | None, wait: float) -> dict[str, Any] | None:
        live = self._conductor.runs.get(id)
        if live is not None and after is not None:
            live = await self._conductor.runs.wait(id, after, wait)
        if live is not None:
            return _run(live.row, live.version)
        row = await self._conductor.world.ledger.read(lambda reader: journal.run(reader.connection, id))
        return _run(row, 1) if row else None

    def _newest(self, row: RunRow) -> dict[str, Any]:
        live: Live | None = self._conductor.runs.get(row.id)
        return _run(live.row, live.version) if live else _run(row, 1)


def _run(row: RunRow, version: int) -> dict[str, Any]:
    return {
        "id": row.id, "verb": row.verb, "connection": row.connection, "channels": list(row.channels),
        "state": row.state, "step": row.step, "said": row.said, "who": row.who, "why": row.why,
        "started": iso(row.started), "deadline": iso(row.deadline), "ended": iso(row.ended) if row.ended else None,
        "version": version,
    }  # fmt: skip
