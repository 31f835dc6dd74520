"""What only shows when all files are looked at together: ids, ports and folders that are taken twice, and `via:`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from yaml.nodes import Node

from engine.config.address import Address
from engine.config.answers import ack_socket
from engine.config.edge import Directory, Files, Sftp
from engine.config.endpoints import Endpoints
from engine.config.feeds import feed_named
from engine.config.kinds import guessed
from engine.config.model import Channel
from engine.config.nodes import Findings, where
from engine.config.tables import Section
from engine.config.taps import WILDCARD, own_host, tap_socket

WILDCARDS = (WILDCARD, "::")

Socket = tuple[Node, int, str, str]
"""Where it stands, port, host, and who has it: `the channel 'acme' has`."""


def check_ids(sections: Iterable[Section], findings: Findings) -> None:
    """sections: of channels and feeds."""
    seen: dict[str, Node] = {}
    for section in sections:
        name = section.get("id")
        if name is None:
            continue
        if name in seen:
            found = f"the id '{name}' a second time (first at {where(seen[name])})"
            findings.problem(section.place("id"), found, "an id of its own for each channel and feed")
        seen.setdefault(name, section.place("id"))


def check_ports(
    http: Address | None,
    endpoints: Endpoints,
    feeds: Mapping[str, Section],
    channels: Iterable[Section],
    findings: Findings,
) -> None:
    """Two sockets clash on one port where the hosts are equal or one of them is all addresses."""
    taken: dict[int, list[tuple[str, str]]] = {}
    if http:
        taken[http.port] = [(http.host, "http of the settings has")]
    for place, port, host, who in _sockets(endpoints, feeds, channels):
        for other_host, other in taken.get(port, []):
            if host == other_host or host in WILDCARDS or other_host in WILDCARDS:
                findings.problem(place, f"port {port}, which {other} too", "a port of its own")
                break
        taken.setdefault(port, []).append((host, who))


def _sockets(endpoints: Endpoints, feeds: Mapping[str, Section], channels: Iterable[Section]) -> Iterator[Socket]:
    """Everything that listens."""
    for name, section in endpoints.sections.items():
        on = endpoints.named[name].answers.listen
        if on:
            given = section.get("answers_on")
            place = given.place("port") if isinstance(given, Section) else section.place("answers_on")
            yield place, on.port, on.host, f"answers_on: of the endpoint '{name}' has"
    for feed in feeds.values():
        yield from _own(feed, "the feed")
        yield from _acks(feed, own_host(feed), "the feed")
    for channel in channels:
        yield from _own(channel, "the channel")
        yield from _acks(channel, own_host(channel), "the channel")
        legacy = channel.get("legacy")
        for tap in legacy.get("taps", ()) if legacy else ():
            place, port, host = tap_socket(tap, own_host(channel, feeds.get(feed_named(channel)[1] or "")))
            if port is not None:
                yield place, port, host, f"a tap of the channel '{channel.get('id')}' has"


def _own(section: Section, what: str) -> Iterator[Socket]:
    listen = section.get("listen")
    port = listen.get("port") if listen else None
    if port is not None:
        yield listen.place("port"), port, own_host(section), f"{what} '{section.get('id')}' has"


def _acks(section: Section, host: str, what: str) -> Iterator[Socket]:
    """Where its senders hear our answers."""
    socket = ack_socket(section, host)
    if socket is not None and socket[1] is not None:
        yield socket[0], socket[1], socket[2], f"ack.listen of {what} '{section.get('id')}' has"


def check_folders(channels: Iterable[tuple[Section, Channel]], findings: Findings) -> None:
    """A file is read once: no two may look for the same names in the same folder."""
    seen: dict[tuple[Directory | Sftp, str], str] = {}
    for section, channel in channels:
        for place, files in _folders(section, channel):
            key = (files.place, files.pattern)
            if key in seen:
                found = f"the folder and the pattern that the channel '{seen[key]}' reads"
                findings.problem(place, found, "a folder or a pattern of its own")
            seen.setdefault(key, channel.id)


def _folders(section: Section, channel: Channel) -> Iterator[tuple[Node, Files]]:
    if isinstance(channel.source, Files):
        yield section.place("files"), channel.source
    for tap in channel.taps:
        if isinstance(tap.source, Files):
            yield section.place("legacy"), tap.source


def check_through(endpoints: Endpoints, channels: Mapping[str, Section], every: bool, findings: Findings) -> None:
    """`via:` names a channel on whose senders' connections something can be sent. every: all files could be read."""
    for place, name in endpoints.through:
        channel = channels.get(name)
        if channel is None:
            if every:
                wanted = guessed(name, sorted(channels), "the id of a channel with listen: or connect:")
                findings.problem(place, f"the unknown channel '{name}'", wanted)
        elif not {"listen", "connect"} & set(channel.places):
            found = f"the channel '{name}', which has no connection of its own"
            findings.problem(place, found, "a channel with listen: or connect:")
        elif _one_message(channel):
            found = f"the channel '{name}', whose connections end after one message"
            findings.problem(place, found, "a channel whose senders stay connected: without one_message: true")


def _one_message(channel: Section) -> bool:
    listen = channel.get("listen")
    connections = listen.get("connections") if listen else None
    return bool(connections and connections.get("one_message"))


def check_file_names(endpoints: Endpoints, channels: Iterable[tuple[Section, Channel]], findings: Findings) -> None:
    """Two channels that write to one folder need their id in the names of the files."""
    first: dict[str, str] = {}
    for _, channel in channels:
        written = [each.endpoint for each in channel.target.destinations] if channel.target else []
        for endpoint in (*written, channel.legacy.endpoint if channel.legacy else None):
            if endpoint is None or endpoint.place is None or "{channel}" in endpoint.file_name:
                continue
            other = first.setdefault(endpoint.name, channel.id)
            if other != channel.id:
                section = endpoints.sections[endpoint.name]
                found = f"'{endpoint.file_name}', for files of '{other}' and of '{channel.id}'"
                findings.problem(section.place("name"), found, "{channel} in it: a sequence is one channel's")
