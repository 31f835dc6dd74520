"""What only shows when all channels are looked at together: ids and ports that are taken twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from yaml.nodes import Node

from engine.config.address import Address
from engine.config.kinds import Section
from engine.config.nodes import Findings, where
from engine.config.taps import tap_socket

WILDCARDS = ("0.0.0.0", "::")


def check_ids(channels: Iterable[Section], findings: Findings) -> None:
    seen: dict[str, Node] = {}
    for section in channels:
        name = section.get("id")
        if name is None:
            continue
        if name in seen:
            found = f"the id '{name}' a second time (first at {where(seen[name])})"
            findings.problem(section.place("id"), found, "an id of its own for each channel")
        seen.setdefault(name, section.place("id"))


def check_ports(channels: Iterable[Section], http: Address | None, findings: Findings) -> None:
    """Two sockets clash on one port where the hosts are equal or one of them is all addresses."""
    taken: dict[int, list[tuple[str, str]]] = {}
    if http:
        taken[http.port] = [(http.host, "http of the settings has")]
    for section in channels:
        for place, port, host, who in _sockets(section):
            for other_host, other in taken.get(port, []):
                if host == other_host or host in WILDCARDS or other_host in WILDCARDS:
                    findings.problem(place, f"port {port}, which {other} too", "a port of its own")
                    break
            taken.setdefault(port, []).append((host, who))


def _sockets(channel: Section) -> Iterator[tuple[Node, int, str, str]]:
    """(where it stands, port, host, who has it) of everything that the channel listens on."""
    listen = channel.get("listen")
    own = listen.get("host", WILDCARDS[0]) if listen else WILDCARDS[0]
    port = listen.get("port") if listen else None
    if port is not None:
        yield listen.place("port"), port, own, f"the channel '{channel.get('id')}' has"
    legacy = channel.get("legacy")
    for tap in legacy.get("taps", ()) if legacy else ():
        place, port, host = tap_socket(tap, own)
        if port is not None:
            yield place, port, host, f"a tap of the channel '{channel.get('id')}' has"
