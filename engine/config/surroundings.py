"""What a channel may refer to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.config.endpoints import Endpoints
from engine.config.feeds import ReadFeed, feed_named
from engine.config.tables import Section


@dataclass(frozen=True, slots=True)
class Surroundings:
    """root: the folder of the settings file. all_feeds_read: an unknown name is none of a feed that has a mistake.

    mappings, v2_mappings: None where nobody knows which there are.
    """

    root: Path
    endpoints: Endpoints
    feeds: Mapping[str, ReadFeed]
    all_feeds_read: bool
    mappings: frozenset[str] | None
    medplum: bool
    v2_mappings: frozenset[str] | None = None

    def feed_of(self, channel: Section) -> ReadFeed | None:
        """The feed of a channel; None where it has none or names one that is not there."""
        _, name = feed_named(channel)
        return self.feeds.get(name) if name else None
