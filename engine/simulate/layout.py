"""Who is connected with whom in the simulated world, and on which ports: plain values, made before anything starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from engine.simulate.wire import LOOPBACK

FIRST_PORT: Final = 10_000
LAST_PORT: Final = 32_000
"""Below the ports that systems give to outgoing connections, which come and go."""


@dataclass(frozen=True, slots=True)
class Way:
    """One channel. Ports: `listen` and `tap` are the engine's, `old` is the old engine's, `endpoint` names who is at
    the end of it."""

    channel: str
    direction: Literal["orders", "results"]
    listen: int
    tap: int
    old: int
    endpoint: str


@dataclass(frozen=True, slots=True)
class Link:
    """One connection: a clinic whose orders go to a laboratory, whose results come back. `code` begins its numbers."""

    connection: str
    code: str
    clinic: str
    laboratory: str
    orders: Way
    results: Way

    @property
    def ways(self) -> tuple[Way, Way]:
        return self.orders, self.results


@dataclass(frozen=True, slots=True)
class Layout:
    """All of them. `endpoints`: the ports of laboratories and clinics, by name."""

    links: tuple[Link, ...]
    endpoints: Mapping[str, int]

    @property
    def ways(self) -> tuple[Way, ...]:
        return tuple(way for link in self.links for way in link.ways)

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(way.channel for way in self.ways)


def lay_out(connections: int, laboratories: int = 2, *, beside: Collection[int] = ()) -> Layout:
    """So many connections, dealt out to laboratories in turn, on free ports other than `beside`. RuntimeError where
    there are too few."""
    ports = iter(free_ports(connections * 7 + laboratories, beside=beside))
    labs = [f"lab-{number}" for number in range(1, laboratories + 1)]
    links = tuple(_link(number, labs[(number - 1) % laboratories], ports) for number in range(1, connections + 1))
    endpoints = {name: next(ports) for name in [*labs, *(link.clinic for link in links)]}
    return Layout(links, endpoints)


def _link(number: int, laboratory: str, ports: Iterator[int]) -> Link:
    connection = f"clinic-{number:03d}"
    clinic = f"{connection}-emr"
    orders = Way(f"{connection}-orders", "orders", next(ports), next(ports), next(ports), laboratory)
    results = Way(f"{connection}-results", "results", next(ports), next(ports), next(ports), clinic)
    return Link(connection, f"C{number:03d}", clinic, laboratory, orders, results)


def free_ports(count: int, *, beside: Collection[int] = ()) -> list[int]:
    """Ports on which nobody listens at this moment. `beside`: what somebody was promised and does not use yet."""
    start = FIRST_PORT + os.getpid() * 97 % 10_000  # two processes that look at the same time look elsewhere
    ports = (*range(start, LAST_PORT), *range(FIRST_PORT, start))
    found = list(islice((port for port in ports if port not in beside and _is_free(port)), count))
    if len(found) < count:
        raise RuntimeError(f"{count} ports from {FIRST_PORT} to {LAST_PORT} are wanted, only {len(found)} are free")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
