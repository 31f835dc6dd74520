"""Which channels a verb is about: by id, connection or label, in the order of the configuration. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from engine.config.model import Channel
from engine.migration.refused import Refused

NOTHING = "No channel is named: name ids, a connection or labels, or say that all are meant."
BOTH = "All channels are meant, and some are named as well: one of the two."


@dataclass(frozen=True, slots=True)
class Selector:
    """What somebody asked for. Ids and connections add up; labels narrow what they give, or all channels.

    labels: every one must be there with this value. everything: said in words, as an empty selector is a mistake.
    """

    ids: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """The channels of one connection, which move together. added: ids that came along without being selected."""

    connection: str
    channels: tuple[Channel, ...]
    added: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """What came along, as a sentence; empty where nothing did."""
        if not self.added:
            return ""
        verb = "moves" if len(self.added) == 1 else "move"
        return f"{', '.join(self.added)} {verb} too: the channels of the connection {self.connection} move together."


def select(selector: Selector, channels: Sequence[Channel]) -> tuple[Channel, ...]:
    """The channels that are meant, each once, in the order given. Raises Refused with every mistake."""
    problems = _problems(selector, channels)
    if problems:
        raise Refused(*problems)
    named = set(selector.ids)
    connections = set(selector.connections)
    whole = not named and not connections
    found = tuple(
        channel
        for channel in channels
        if (whole or channel.id in named or channel.connection in connections) and _labelled(channel, selector.labels)
    )
    if not found:
        raise Refused(_unlabelled(selector.labels, channels))
    return found


def by_connection(chosen: Iterable[Channel], channels: Sequence[Channel]) -> tuple[Group, ...]:
    """Whole connections: one chosen channel brings all channels of its connection, and the group says which."""
    ids = {channel.id for channel in chosen}
    wanted = dict.fromkeys(channel.connection for channel in channels if channel.id in ids)
    groups = []
    for connection in wanted:
        members = tuple(channel for channel in channels if channel.connection == connection)
        added = tuple(channel.id for channel in members if channel.id not in ids)
        groups.append(Group(connection, members, added))
    return tuple(groups)


def by_socket(chosen: Iterable[Channel], channels: Sequence[Channel]) -> tuple[Group, ...]:
    """As `by_connection`, and connections of one feed in one group: their channels come in on one socket."""
    joined: list[Group] = []
    for group in by_connection(chosen, channels):
        mine = _feeds_of(group)
        same = [other for other in joined if _feeds_of(other) & mine]
        for other in same:
            joined.remove(other)
        joined.append(_join([*same, group]) if same else group)
    return tuple(joined)


def _feeds_of(group: Group) -> set[str]:
    return {channel.feed for channel in group.channels if channel.feed}


def _join(groups: Sequence[Group]) -> Group:
    channels = tuple(channel for group in groups for channel in group.channels)
    added = tuple(name for group in groups for name in group.added)
    return Group(", ".join(group.connection for group in groups), channels, added)


def _problems(selector: Selector, channels: Sequence[Channel]) -> list[str]:
    if selector.everything and (selector.ids or selector.connections):
        return [BOTH]
    if not (selector.everything or selector.ids or selector.connections or selector.labels):
        return [NOTHING]
    return [
        *_unknown("channel", selector.ids, [channel.id for channel in channels]),
        *_unknown("connection", selector.connections, [channel.connection for channel in channels]),
    ]


def _unknown(what: str, names: Iterable[str], known: Sequence[str]) -> list[str]:
    return [f"There is no {what} '{name}'{_guess(name, known)}." for name in names if name not in known]


def _guess(name: str, known: Sequence[str]) -> str:
    lowered = {word.lower(): word for word in known}
    close = get_close_matches(name.lower(), lowered, 1, 0.6)
    return f"; '{lowered[close[0]]}', perhaps" if close else ""


def _labelled(channel: Channel, labels: Mapping[str, str]) -> bool:
    return all(channel.labels.get(key) == value for key, value in labels.items())


def _unlabelled(labels: Mapping[str, str], channels: Sequence[Channel]) -> str:
    if not channels:
        return "There are no channels."
    asked = ", ".join(f"{key}={value}" for key, value in labels.items())
    known = sorted({f"{key}={value}" for channel in channels for key, value in channel.labels.items()})
    return f"No channel that is meant has the label {asked}{_guess(asked, known)}."
