"""What a feed copies to several channels. Pure.

A frame goes to the old engine once, as long as one of its channels needs it there. For a channel that is live already
that is a `mirror`: the old engine goes on making that channel's outputs too, so each of its real endpoints must stand
behind a forwarding tap, or be a sink. Channels of one connection go live, and back, together: between them there is no
such time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from engine.config.feed import Feed
from engine.config.model import Channel


def copied(channel: Channel, feeds: Mapping[str, Feed], together: Collection[str]) -> list[str]:
    """What stands against a channel's being live without those that get copies of its frames, a sentence or none.
    `together`: the channels that are live with it."""
    feed = feeds.get(channel.feed) if channel.feed else None
    if feed is None or feed.legacy is None:
        return []
    others = sorted({name for row in _rows(feed) if channel.id in row for name in row} - {channel.id, *together})
    bare = _bare(channel)
    if not others or not bare:
        return []
    return [
        f"{channel.id}: the feed {feed.id} copies its frames to {', '.join(others)} as well, for which they go on to"
        f" the old engine: {', '.join(bare)} needs a tap that forwards to it, or sink: true"
    ]


def _rows(feed: Feed) -> Iterator[tuple[str, ...]]:
    yield from (rule.to for rule in feed.rules)
    yield from feed.table.of.values() if feed.table else ()


def _bare(channel: Channel) -> list[str]:
    """The real endpoints that the old engine would reach past us."""
    tapped = {tap.forward.name for tap in channel.taps}
    endpoints = [each.endpoint for each in channel.destinations]
    return [each.name for each in endpoints if each is not None and not each.sink and each.name not in tapped]
