"""The taps of a channel: where the old engine's output arrives, and which endpoint it belongs to."""

from __future__ import annotations

from yaml.nodes import Node

from engine.config.edge import Files, Listen
from engine.config.endpoint import Endpoint
from engine.config.folders import read_files
from engine.config.model import OnLink, Tap, Target
from engine.config.nodes import Findings
from engine.config.sockets import read_listen
from engine.config.surroundings import Surroundings
from engine.config.tables import Section

UNCOMPARED = "what this tap takes is forwarded and cannot be compared: no destination of target: is '{}'"
WILDCARD = "0.0.0.0"


def own_host(channel: Section, feed: Section | None = None) -> str:
    """Where a channel, or its feed, listens: its taps do so too unless they say more."""
    listen = (feed or channel).get("listen")
    return listen.get("host", WILDCARD) if listen else WILDCARD


def tap_socket(tap: Section, channel_host: str) -> tuple[Node, int | None, str]:
    """(where the port stands, port, host) of a tap; the port is None where it is wrong or left out."""
    listen = tap.get("listen")
    if isinstance(listen, Section):
        return listen.place("port"), listen.get("port"), listen.get("host", channel_host)
    return tap.place("listen"), listen, channel_host


def read_taps(
    channel: Section, old_engine: Endpoint | None, target: Target | None, around: Surroundings, findings: Findings
) -> tuple[Tap, ...]:
    """The taps of `legacy:`, in order; a wrong one is left out, its problem recorded.

    Of each whose output has nothing of ours to be compared with, a note says so: it never passes a gate by itself.
    """
    ours = {destination.endpoint for destination in target.destinations if destination.endpoint} if target else set()
    taps: dict[str, Tap] = {}
    feed = around.feed_of(channel)
    host = own_host(channel, feed.section if feed else None)
    for section in channel.get("legacy").get("taps", ()):
        tap = _tap(section, host, around, findings)
        if tap is None:
            continue
        place = section.place("forward")
        if tap.forward is old_engine:
            found = f"a tap that forwards to '{tap.name}', the old engine itself"
            findings.problem(place, found, "the endpoint that the old engine's output belongs to")
        elif tap.name in taps:
            found = f"a second tap that forwards to '{tap.name}'"
            findings.problem(place, found, "one tap for each endpoint of the old engine")
        elif tap.forward not in ours:
            findings.note(place, UNCOMPARED.format(tap.name))
        if isinstance(tap.source, OnLink):
            _check_link(section, taps, old_engine, findings)
        taps.setdefault(tap.name, tap)
    return tuple(taps.values())


def _check_link(section: Section, others: dict[str, Tap], old_engine: Endpoint | None, findings: Findings) -> None:
    if old_engine is None or old_engine.mllp is None:
        wanted = "listen: or files:, or mllp: in legacy:"
        findings.problem(section.place("on_link"), "on_link: without a connection of ours to the old engine", wanted)
    if any(isinstance(other.source, OnLink) for other in others.values()):
        wanted = "one: nothing tells whose an output is"
        findings.problem(section.place("on_link"), "a second tap on our connection to the old engine", wanted)


def _tap(section: Section, host: str, around: Surroundings, findings: Findings) -> Tap | None:
    before = findings.count
    source = _source(section, host, around, findings)
    given = section.get("forward")
    place = section.place("forward")
    as_files = "files" in section.places
    if as_files and isinstance(given, Section):
        findings.problem(place, "via: for output that comes as files", "an endpoint with directory: or sftp:")
        return None
    find = around.endpoints.folder if as_files else around.endpoints.find
    forward = find(place, given, findings) if given else None
    if forward is None or source is None or findings.count != before:
        return None
    return Tap(forward.name, source, forward, section.get("settle"), section.get("shape", "1:1"))


def _source(section: Section, host: str, around: Surroundings, findings: Findings) -> Listen | OnLink | Files | None:
    listen, files = section.get("listen"), section.get("files")
    if isinstance(listen, Section):
        return read_listen(listen, around.root, findings, host)
    if files:
        return read_files(files, around.root, around.endpoints, findings)
    if section.get("on_link"):
        return OnLink()
    return Listen(listen, host) if listen else None
