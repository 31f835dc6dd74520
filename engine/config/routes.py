"""Which channels a feed's messages go to: its routes, its table and its default, checked against the channels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from yaml.nodes import MappingNode, Node

from engine.config.declared.feed import ROUTED_TYPE, WILD
from engine.config.feed import Feed, Rule, Table
from engine.config.feeds import ReadFeed, feed_named
from engine.config.kinds import OneOrMore, guessed
from engine.config.nodes import Findings, Place, keys, plain, where
from engine.config.rows import read_rows
from engine.config.tables import Section

WHERE_TO = ("routes", "table", "default")
TYPE = "MSH-9"

COPIES = (
    "messages of '{}' go to this channel as well: without taps in legacy:, or endpoints with sink: true, it can be live"
    " only together with it"
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A channel that a feed names, and where."""

    place: Place
    channel: str


@dataclass(frozen=True, slots=True)
class Routes:
    """Where a feed's messages go. mentions: every channel that is named, each time. groups: those of one message."""

    rules: tuple[Rule, ...]
    table: Table | None
    mentions: tuple[Mention, ...]

    @property
    def groups(self) -> Iterator[tuple[str, ...]]:
        yield from (rule.to for rule in self.rules)
        yield from self.table.of.values() if self.table else ()


def build_feed(
    read: ReadFeed, channels: Mapping[str, Section], folder: Path, every: bool, findings: Findings
) -> Feed | None:
    """The feed, or None and its problems. folder: of the feed files. every: all channel files could be read."""
    before = findings.count
    section = read.section
    routes = _routes(section, folder, findings)
    named = {mention.channel for mention in routes.mentions}
    for mention in routes.mentions:
        _check_mention(mention, read.id, channels, every, findings)
    if read.whole and findings.count == before:
        _check_unnamed(read.id, named, channels, findings)
        _check_links(read.id, named, channels, findings)
    _note_copies(read, routes, channels, findings)
    default = section.get("default")
    if read.source is None or default is None or findings.count != before or not read.whole:
        return None
    return Feed(
        id=read.id,
        source=read.source,
        takes=read.takes,
        ack=read.ack,
        legacy=read.legacy,
        rules=routes.rules,
        table=routes.table,
        default=default,
        channels=tuple(sorted(named)),
        file=read.file,
        raw={key: value for key, value in plain(section.node).items() if key not in WHERE_TO},
    )


def _routes(section: Section, folder: Path, findings: Findings) -> Routes:
    rules: list[Rule] = []
    mentions: list[Mention] = []
    before: list[tuple[Rule, Node]] = []
    for route in section.get("routes", ()):
        to = route.get("to", ())
        if "when" in route.places and not route.place("when").value:
            findings.problem(route.place("when"), "a route without a field", "at least one, such as MSH-4: LAB1")
        rule = Rule(tuple(route.get("when", {}).items()), to)
        _check_types(route, findings)
        _check_reached(rule, route.place("when"), before, findings)
        rules.append(rule)
        before.append((rule, route.node))
        mentions += [Mention(route.place("to"), channel) for channel in to]
    table = None
    if section.get("table"):
        table, of_table = _table(section.get("table"), folder, findings)
        mentions += of_table
    if section.get("default"):
        mentions.append(Mention(section.place("default"), section.get("default")))
    return Routes(tuple(rules), table, tuple(mentions))


def _check_types(route: Section, findings: Findings) -> None:
    when = route.place("when")
    for _, key, value in keys(when) if isinstance(when, MappingNode) else ():
        if key == TYPE and TYPE in route.get("when"):
            OneOrMore(ROUTED_TYPE).read(value, findings)


def _check_reached(rule: Rule, place: Node, before: list[tuple[Rule, Node]], findings: Findings) -> None:
    """before: the rules that come first, and where each stands."""
    for other, there in before:
        if rule.when and other.when and _covers(other, rule):
            found = f"a route whose messages all go by the one at {where(there)}, which stands before it"
            findings.problem(place, found, "it before that one, or one route with the channels of both in to:")
            return


def _covers(first: Rule, later: Rule) -> bool:
    """Whether what fits the later one fits the first as well."""
    wanted = dict(later.when)
    return all(path in wanted and set(wanted[path]) <= set(values) for path, values in first.when)


def _table(table: Section, folder: Path, findings: Findings) -> tuple[Table, list[Mention]]:
    of: dict[str, tuple[str, ...]] = {}
    by = table.get("by", "")
    if "of" in table.places:
        of, there = table.get("of", {}), table.place("of")
        for node, value, _ in keys(there) if isinstance(there, MappingNode) else ():
            _check_value(by, value, node, findings)
        mentions = [Mention(table.place("of"), channel) for to in of.values() for channel in to]
    else:
        rows = read_rows(table, folder, findings)
        for row in rows:
            _check_value(by, row.value, row.at, findings)
            of[row.value] = (*of.get(row.value, ()), row.channel)
        mentions = [Mention(row.place, row.channel) for row in rows]
    return Table(by, MappingProxyType(of)), mentions


def _check_value(by: str, value: str, place: Place, findings: Findings) -> None:
    """A value of a table. Codes of laboratories may have stars, so those are only noted."""
    if by == TYPE and not re.fullmatch(ROUTED_TYPE.pattern, value):
        findings.problem(place, f"'{value}'", ROUTED_TYPE.wanted)
    elif set(value) & set(WILD):
        findings.note(place, f"'{value}' is compared as it stands: there are no wildcards")


def _check_mention(
    mention: Mention, feed: str, channels: Mapping[str, Section], every: bool, findings: Findings
) -> None:
    channel = channels.get(mention.channel)
    wanted = f"a channel with feed: {feed}"
    if channel is None:
        if every:
            found = f"the unknown channel '{mention.channel}'"
            findings.problem(mention.place, found, guessed(mention.channel, sorted(channels), wanted))
    elif feed_named(channel)[1] != feed:
        findings.problem(mention.place, f"the channel '{mention.channel}', which does not take from this feed", wanted)


def _check_unnamed(feed: str, named: set[str], channels: Mapping[str, Section], findings: Findings) -> None:
    for name, channel in channels.items():
        place, its = feed_named(channel)
        if its == feed and name not in named:
            found = f"the feed '{feed}', which sends this channel nothing"
            findings.problem(place, found, "the channel's id in routes:, table: or default: of the feed")


def _check_links(feed: str, named: set[str], channels: Mapping[str, Section], findings: Findings) -> None:
    """All channels of a feed share its connection to the old engine: only one may take what comes on it."""
    first = ""
    for name in sorted(named & set(channels)):
        legacy = channels[name].get("legacy")
        for tap in legacy.get("taps", ()) if legacy else ():
            if "on_link" in tap.places and first:
                found = f"on_link: in a second channel of the feed '{feed}', after '{first}'"
                findings.problem(tap.place("on_link"), found, "one: nothing tells whose an output is")
            first = name if "on_link" in tap.places else first


def _note_copies(read: ReadFeed, routes: Routes, channels: Mapping[str, Section], findings: Findings) -> None:
    """A copy goes to the old engine as long as one of its channels needs it; for one that is live that is a mirror."""
    for group in routes.groups if read.legacy else ():
        for name in group if len(group) > 1 else ():
            channel = channels.get(name)
            legacy = channel.get("legacy") if channel else None
            if channel and not (legacy and legacy.get("taps")):
                other = next(each for each in group if each != name)
                findings.note(feed_named(channel)[0], COPIES.format(other))
