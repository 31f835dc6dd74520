"""The way to the old engine: `legacy:` of a channel."""

from __future__ import annotations

from engine.config.declared.channel import SOURCES
from engine.config.endpoint import Endpoint
from engine.config.feeds import ReadFeed
from engine.config.model import Legacy, Target
from engine.config.nodes import Findings
from engine.config.surroundings import Surroundings
from engine.config.tables import Section, one_of
from engine.config.taps import read_taps

OBSERVED = "only a copy reaches us: this channel may go to parallel, and live only after a takeover with mllp:"


def has_legacy(channel: Section, feed: ReadFeed | None) -> bool:
    """A channel of a feed that has a way to the old engine has it too."""
    return "legacy" in channel.places or (feed is not None and "legacy" in feed.section.places)


def read_legacy(
    channel: Section, target: Target | None, around: Surroundings, feed: ReadFeed | None, findings: Findings
) -> Legacy | None:
    """None where there is no old engine, or something is wrong with the way to it. feed: the channel's."""
    section = channel.get("legacy")
    if section is None:
        return Legacy(feed.legacy) if feed and feed.legacy and "legacy" not in channel.places else None
    before = findings.count
    sources = [source for source in SOURCES if source in channel.places]  # more or less than one: told already
    if sources == ["feed"]:
        endpoint = _of_the_feed(section, feed, findings)
    elif sources == ["files"]:
        endpoint = _own(section, "file", around, findings)
    else:
        endpoint = _own(section, "mllp", around, findings)
    if "observed" in section.places and findings.count == before:
        findings.note(section.place("observed"), OBSERVED)
    taps = read_taps(channel, endpoint, target, around, findings)
    return Legacy(endpoint, section.get("settle", 600.0), taps) if findings.count == before else None


def _own(section: Section, way: str, around: Surroundings, findings: Findings) -> Endpoint | None:
    other, source = ("file", "files") if way == "mllp" else ("mllp", "listen")
    if other in section.places:
        right = "mllp: where the old engine listens" if way == "mllp" else "file: the folder that the old engine reads"
        where = "without files:" if source == "files" else "with files:"
        findings.problem(section.place(other), f"{other}: in legacy: of a channel {where}", right)
        return None
    if one_of(section, "legacy", (way, "observed"), findings) != way or section.get(way) is None:
        return None
    find = around.endpoints.folder if way == "file" else around.endpoints.address
    return find(section.place(way), section.get(way), findings)


def _of_the_feed(section: Section, feed: ReadFeed | None, findings: Findings) -> Endpoint | None:
    for way in ("mllp", "file"):
        if way in section.places:
            found = f"{way}: in legacy: of a channel with feed:"
            findings.problem(section.place(way), found, "it in the feed's file: its channels share one connection")
            return None
    if feed is None:
        return None
    if "observed" in section.places and feed.legacy:
        found = f"observed: in a channel of the feed '{feed.id}', which has legacy:"
        findings.problem(section.place("observed"), found, "one of the two")
    elif "observed" not in section.places and "legacy" not in feed.section.places:
        found = f"legacy: in a channel of the feed '{feed.id}', which has none"
        findings.problem(section.node, found, "legacy: {mllp: …} in the feed's file, or observed: true here")
    return feed.legacy
