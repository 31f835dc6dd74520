"""One channel file: read, checked in itself and against endpoints, feeds and mappings, and built."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from yaml.nodes import Node

from engine.config.answers import AUTHORITATIVE, STORED, check_from, check_unanswered, read_ack
from engine.config.declared.channel import CHANNEL
from engine.config.edge import Ack, FromFeed, Source, Takes
from engine.config.endpoint import Endpoint
from engine.config.feeds import ReadFeed, feed_named
from engine.config.folders import read_files
from engine.config.kinds import guessed
from engine.config.legacy import has_legacy, read_legacy
from engine.config.model import Channel, Duplicates, Rollback, Target
from engine.config.moves import check_rollback, read_compare, read_gate, read_retention, read_window
from engine.config.nodes import Findings, plain
from engine.config.sockets import read_connect, read_listen, read_takes
from engine.config.surroundings import Surroundings
from engine.config.tables import Section
from engine.config.targets import read_remember, read_target

WORDS = (
    "the old engine answers by a byte; what we answer ourselves is a message, unless ack: {bare: true} says otherwise"
)
NO_ANSWERS = "ack: in a channel with feed:"


@dataclass(frozen=True, slots=True)
class Read:
    """A channel file that was read: its section for checks across channels, and the channel if it is right."""

    section: Section
    channel: Channel | None


def read_channel(node: Node, file: str, around: Surroundings, findings: Findings) -> Read | None:
    before = findings.count
    section = CHANNEL.read(node, findings)
    if not isinstance(section, Section):
        return None
    feed = around.feed_of(section)
    source = _source(section, feed, around, findings)
    target = read_target(section, around, findings)
    legacy = read_legacy(section, target, around, feed, findings)
    _check_ack(section, target, findings)
    phase = _phase(section, feed, findings)
    _check_phase(section, phase, target, feed, findings)
    check_rollback(section.get("rollback"), legacy, findings)
    window = read_window(section.get("window"), findings)
    retention = read_retention(section.get("retention"), findings)
    if source is None or findings.count != before:
        return Read(section, None)
    get = section.get
    channel = Channel(
        id=get("id"),
        connection=get("connection"),
        title=get("title", get("id")),
        direction=get("direction"),
        labels=MappingProxyType(get("labels", {})),
        owner=get("owner", ""),
        timezone=get("timezone"),
        phase=phase,
        source=source,
        takes=_takes(section, feed),
        ack=_ack(section, feed, source, around, findings, by_old=legacy is not None and legacy.endpoint is not None),
        identity=MappingProxyType(get("identity", {})),
        legacy=legacy,
        target=target,
        rollback=Rollback(**get("rollback").values) if get("rollback") else None,
        file=file,
        raw=plain(node),
        duplicates=_duplicates(get("duplicates")),
        compare=read_compare(get("compare")),
        gate=read_gate(get("gate")),
        window=window,
        retention=retention,
        remember=read_remember(section.get("remember", ())),
    )
    if feed is None and legacy and legacy.endpoint and legacy.endpoint.framing.bare and not channel.ack.form.bare:
        findings.note(section.place("legacy"), WORDS)
    return Read(section, channel)


def _source(section: Section, feed: ReadFeed | None, around: Surroundings, findings: Findings) -> Source | None:
    listen, connect, files = section.get("listen"), section.get("connect"), section.get("files")
    if listen:
        return read_listen(listen, around.root, findings)
    if connect:
        return read_connect(connect, around.root, findings)
    if files:
        return read_files(files, around.root, around.endpoints, findings)
    place, name = feed_named(section)
    if name and feed is None and around.all_feeds_read:
        wanted = "the id of a file in channels/feeds"
        findings.problem(place, f"the unknown feed '{name}'", guessed(name, sorted(around.feeds), wanted))
    return FromFeed(name) if name else None


def _takes(section: Section, feed: ReadFeed | None) -> Takes:
    """Of a channel with `feed:`, what it leaves out is as the feed has it."""
    if feed:
        given = section.get("feed")
        return read_takes(given if isinstance(given, Section) else None, feed.takes)
    return read_takes(section.get("listen") or section.get("connect") or section.get("files"))


def _ack(
    section: Section,
    feed: ReadFeed | None,
    source: Source,
    around: Surroundings,
    findings: Findings,
    *,
    by_old: bool,
) -> Ack:
    if feed:
        return feed.ack
    default = AUTHORITATIVE if by_old and "files" not in section.places else STORED
    return read_ack(section.get("ack"), default, source, around.root, around.endpoints, findings)


def _check_ack(section: Section, target: Target | None, findings: Findings) -> None:
    ack, legacy = section.get("ack"), section.get("legacy")
    if "feed" in section.places and "ack" in section.places:
        findings.problem(section.place("ack"), NO_ANSWERS, "it in the feed's file: a sender gets one answer")
    elif "files" in section.places:
        check_unanswered(ack, findings)
    elif legacy and "observed" in legacy.places and ack and ack.get("from") == AUTHORITATIVE:
        wanted = f"{STORED}: the old engine answers its sender itself"
        findings.problem(ack.place("from"), "from: authoritative in a channel whose old engine is observed", wanted)
    elif target or "target" not in section.places:
        check_from(ack, [each.name for each in target.destinations] if target else (), findings)


def _phase(section: Section, feed: ReadFeed | None, findings: Findings) -> str:
    legacy = has_legacy(section, feed)
    phase = section.get("phase")
    unknown = feed is None and "feed" in section.places  # its mistake is told elsewhere
    if phase in ("legacy", "parallel") and not legacy and not unknown:
        findings.problem(
            section.place("phase"),
            f"phase {phase} in a channel without legacy:",
            "outside or live, or legacy: with mllp:",
        )
    return phase or ("legacy" if legacy else "live")


def _check_phase(
    section: Section, phase: str, target: Target | None, feed: ReadFeed | None, findings: Findings
) -> None:
    """What `parallel` and `live` need and nothing else does."""
    if phase in ("parallel", "live") and "target" not in section.places:
        findings.problem(
            section.place("phase"), f"phase {phase} in a channel without target:", "target: with destinations:"
        )
    if phase != "live":
        return
    if has_legacy(section, feed) and "rollback" not in section.places:
        findings.problem(
            section.place("phase"),
            "phase live in a channel with legacy: and without rollback:",
            "rollback: {replay: guarded | undelivered | all | none}, which has no default",
        )
    legacy = section.get("legacy")
    if legacy and "observed" in legacy.places:
        found = "phase live in a channel whose old engine is observed"
        findings.problem(section.place("phase"), found, "a takeover first: legacy: with mllp: or file:")
    destinations = section.get("target").get("destinations", ()) if section.get("target") else ()
    for item, destination in zip(destinations, target.destinations if target else (), strict=False):
        if destination.kind == "mllp" and destination.endpoint and destination.endpoint.on_unknown is None:
            findings.problem(
                item.place("mllp"),
                f"the endpoint '{destination.endpoint.name}' without on_unknown: in a channel that is live",
                _unknown_wanted(destination.endpoint),
            )


def _unknown_wanted(endpoint: Endpoint) -> str:
    if endpoint.via:
        return f"an entry {{via: {endpoint.via}, on_unknown: resend}}, or on_unknown: park, in endpoints.yaml"
    return "on_unknown: resend, or on_unknown: park, in endpoints.yaml"


def _duplicates(section: Section | None) -> Duplicates:
    return Duplicates(**section.given("window", "ignore")) if section else Duplicates()
