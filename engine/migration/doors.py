"""The sockets and folders that a connection's messages come in at, and who is expected there. Pure.

Channels that a feed carries share its socket, so it is handed over once, with all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.config.edge import Connect, Files, FromFeed, Listen
from engine.config.feed import Feed
from engine.config.model import Channel
from engine.migration.peers import NOBODY, plain
from engine.mllp.allow import Networks


@dataclass(frozen=True, slots=True)
class Door:
    """One of them. name: the channel's or the feed's. channels: those of the group that come in by it."""

    name: str
    source: Listen | Connect | Files
    channels: tuple[Channel, ...]

    @property
    def copies(self) -> bool:
        """Whether only copies come in, of what the old engine has before us."""
        return all(channel.observed for channel in self.channels)

    @property
    def said(self) -> str:
        """`port 6101`, `the connection to lab:7000`, `the folder of acme-orders`."""
        if isinstance(self.source, Listen):
            return f"port {self.source.port}"
        if isinstance(self.source, Connect):
            return f"the connection to {self.source.address}"
        return f"the folder of {self.name}"


def doors(channels: Iterable[Channel], feeds: Mapping[str, Feed]) -> list[Door]:
    """Each once, in the order of the channels."""
    by_name: dict[str, list[Channel]] = {}
    for channel in channels:
        by_name.setdefault(channel.door, []).append(channel)
    return [Door(name, source_of(found[0], feeds), tuple(found)) for name, found in by_name.items()]


def source_of(channel: Channel, feeds: Mapping[str, Feed]) -> Listen | Connect | Files:
    """Where its messages come in: its own, or its feed's."""
    return feeds[channel.source.name].source if isinstance(channel.source, FromFeed) else channel.source


def expected(
    tokens: Sequence[str], group: Sequence[Door], known: Iterable[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Door → the addresses that were said for it, as far as any were, from `[WHERE=]ADDRESS` or `[WHERE=]none`; and
    what is wrong with them, a sentence each.

    WHERE: a channel, a feed or a port. Other connections' are passed over: one order may name several. `known`: the
    ids of all channels and feeds.
    """
    ids = set(known)
    listening = [door for door in group if isinstance(door.source, Listen)]
    found: dict[str, list[str]] = {}
    problems = []
    for token in tokens:
        where, _, text = token.rpartition("=")
        address = plain(text)
        if address is None and text != NOBODY:
            problems.append(f"--peers {token}: '{text}' is no IP address; wanted is an address, or none")
            continue
        at = [door for door in listening if not where or _is(door, where)]
        if not where and text != NOBODY and len(listening) > 1:
            every = " and ".join(f"{door.said} of {door.name}" for door in listening)
            problems.append(f"--peers {token}: at which of {every}? Such as {listening[0].name}={text}")
        elif where and not at and not where.isdecimal() and where not in ids:
            problems.append(f"--peers {token}: there is no channel or feed '{where}'")
        else:
            for door in at:
                found.setdefault(door.name, []).extend([address] if address else [])
    return {name: list(dict.fromkeys(addresses)) for name, addresses in found.items()}, problems


def _is(door: Door, where: str) -> bool:
    assert isinstance(door.source, Listen)
    if where.isdecimal():
        return int(where) == door.source.port
    return where == door.name or any(where == channel.id for channel in door.channels)


def not_probes(source: Listen, addresses: Iterable[str]) -> list[str]:
    """Of those that are connected, the ones that are no load balancer which only looks whether the port is open."""
    probes = Networks(source.probes)
    return sorted(address for address in addresses if address not in probes)


def shut_out(source: Listen, addresses: Iterable[str]) -> list[str]:
    """Those that `allow:` would not let in."""
    allowed = Networks(source.allow)
    return [address for address in addresses if allowed and address not in allowed]
