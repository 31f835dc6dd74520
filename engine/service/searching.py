"""A search as people ask for it, in the ledger's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.config.model import Channel
from engine.hl7.search_keys import Key, Kind, wanted
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.search import Selection
from engine.migration.refused import Refused
from engine.migration.selection import Selector, select

ALWAYS = Selection()


class Searching:
    """Channels are looked up among the configured ones, and by name among those that the ledger knows."""

    def __init__(self, ledger: SqliteLedger, channels: Sequence[Channel]) -> None:
        self._ledger = ledger
        self._channels = channels

    def selection(
        self,
        *,
        keys: Mapping[Kind, str],
        selector: Selector,
        channel: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Selection | None:
        """What is meant; None where it can be no message, as there is no such channel. An empty selector means every
        channel. since, until: in microseconds since 1970. Raises Refused."""
        chosen: set[int] | None = None
        if selector not in (Selector(), Selector(everything=True)):
            names = {each.id for each in select(selector, self._channels)}
            chosen = {book.id for name, book in self._ledger.channels.items() if name in names}
        if channel is not None:
            book = self._ledger.channels.get(channel)
            named = {book.id} if book else set()
            chosen = named if chosen is None else chosen & named
        if chosen == set():
            return None
        return Selection(
            frozenset(_key(kind, typed) for kind, typed in keys.items()),
            frozenset(chosen or ()),
            ALWAYS.since if since is None else since,
            ALWAYS.until if until is None else until,
        )

    async def id_of(self, channel: str, seq: int) -> int:
        """The id of a message. Raises Refused where it is not there."""
        book = self._ledger.channels.get(channel)
        id = await self._ledger.read(lambda reader: reader.id_of(book.id, seq)) if book else None
        if id is None:
            raise Refused(f"There is no message {channel}/{seq}.")
        return id


def _key(kind: Kind, typed: str) -> Key:
    value = wanted(kind, typed)
    if not value:
        raise Refused(f"What was given as {kind.replace('_', ' ')} has no letter or digit to search for.")
    return kind, value
