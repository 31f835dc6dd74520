"""What every MLLP socket is set to, and the sockets that are listened on."""

from __future__ import annotations

import ipaddress
import socket

from engine.config.address import Address

KEEPALIVE = 60.0
"""Seconds of silence after which the kernel begins to ask whether the peer is still there."""
PROBES = 4
"""How often it asks, a third of that time apart, before it gives the connection up. Not every system knows these."""
BACKLOG = 512


def tune(sock: socket.socket | None, keepalive: float = KEEPALIVE) -> None:
    """Let the kernel notice dead peers, and send small messages at once. A socket that is gone is left alone.

    `keepalive` in seconds: with 60, a peer that vanished without a word is noticed after 140, also where it vanished
    before it had what was sent to it: then the kernel asks nothing, and only repeats (RFC 5482).
    """
    if sock is None:
        return
    times = {"TCP_KEEPIDLE": round(keepalive), "TCP_KEEPINTVL": round(keepalive / 3), "TCP_KEEPCNT": PROBES}
    unheard = round(1000 * keepalive * (1 + PROBES / 3))  # milliseconds
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in times.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), min(max(value, 1), 32767))
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(max(unheard, 1), 2**31 - 1))
    except OSError:
        return  # the event loop will report the loss


def listening(address: Address) -> list[socket.socket]:
    """Sockets that listen at every address that the host stands for; an empty host is every interface.

    OSError where one of them cannot be had; then none is left open. Blocks where the host is a name.
    """
    opened: list[socket.socket] = []
    try:
        for family, place in _places(address):
            sock = socket.socket(family, socket.SOCK_STREAM)
            opened.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(place)
            sock.listen(BACKLOG)
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


def _places(address: Address) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        version = ipaddress.ip_address(address.host).version
    except ValueError:
        found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return list({(family, place): None for family, _, _, _, place in found})  # type: ignore[misc]
    return [(socket.AF_INET if version == 4 else socket.AF_INET6, (address.host, address.port))]


def peer_of(name: object) -> str:
    """`ip:port` of a socket's other end, from what the kernel calls it."""
    if isinstance(name, tuple) and len(name) >= 2:
        return str(Address(str(name[0]), int(name[1])))
    return ""


def host_of(peer: str) -> str:
    """The IP address of an `ip:port`."""
    return peer.rpartition(":")[0].strip("[]")
