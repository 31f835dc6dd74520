"""What only shows when all channels are looked at together: ids and ports that are taken twice."""

from __future__ import annotations

from collections.abc import Iterable

from yaml.nodes import Node

from engine.config.kinds import Section
from engine.config.model import Address
from engine.config.nodes import Findings, where

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
        listen = section.get("listen")
        port = listen.get("port") if listen else None
        if port is None:
            continue
        host = listen.get("host", "0.0.0.0")
        for other_host, who in taken.get(port, []):
            if host == other_host or host in WILDCARDS or other_host in WILDCARDS:
                findings.problem(listen.place("port"), f"port {port}, which {who} too", "a port of its own")
                break
        taken.setdefault(port, []).append((host, f"the channel '{section.get('id')}' has"))
