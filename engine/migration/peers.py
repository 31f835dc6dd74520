"""Who is connected to a port: from the kernel's own tables, or from what `ss` and `netstat` printed elsewhere. Pure.

Peers are known by their IP address alone: with each new connection their port is another one. An IPv4 address that a
socket of both kinds shows as IPv6 (`::ffff:10.0.0.1`) is the IPv4 address.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from engine.migration.refused import Refused

NOBODY = "none"
"""What is said where nobody is expected."""

ESTABLISHED, LISTENING = "01", "0A"  # as /proc/net/tcp writes them
CONNECTED = frozenset({"ESTAB", "ESTABLISHED"})
OTHER_STATES = frozenset({
    "LISTEN", "LISTENING", "UNCONN", "TIME-WAIT", "CLOSE-WAIT", "FIN-WAIT-1", "FIN-WAIT-2", "FIN-WAIT1", "FIN-WAIT2",
    "SYN-SENT", "SYN-RECV", "SYN-RECEIVED", "LAST-ACK", "CLOSING", "CLOSE", "CLOSED",
})  # fmt: skip
"""As `ss` and the two kinds of `netstat` write them, with dashes."""
HEADINGS = frozenset({"State", "Netid", "Recv-Q", "Active", "Proto"})
MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Socket:
    """A TCP socket of a machine. peer: the other end's address; None where it listens."""

    host: str
    port: int
    peer: str | None


@dataclass(frozen=True, slots=True)
class Here:
    """What this machine knows of a port: whether somebody listens on it, and who is connected to it."""

    listens: bool
    peers: frozenset[str]


def plain(text: str) -> str | None:
    """An IP address in its usual form, without a zone; None where it is none."""
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


# -- the kernel's tables


def kernel(text: str) -> Iterator[Socket]:
    """The listening and the established sockets of /proc/net/tcp or /proc/net/tcp6 (proc(5))."""
    for line in text.splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if state in (ESTABLISHED, LISTENING):
            host, port = _end(local)
            yield Socket(host, port, _end(remote)[0] if state == ESTABLISHED else None)


def _end(text: str) -> tuple[str, int]:
    """Address and port from `0100007F:17D5`: words of 32 bits, each as this machine's processor has it in memory."""
    words, _, port = text.partition(":")
    raw = b"".join(int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    return plain(str(ip_address(raw))) or "", int(port, 16)


def here(sockets: Iterable[Socket], host: str, port: int) -> Here:
    """What is known of a port at an address; one of all interfaces is at every address."""
    mine = [socket for socket in sockets if socket.port == port and _meet(socket.host, plain(host))]
    peers = frozenset(socket.peer for socket in mine if socket.peer is not None)
    return Here(any(socket.peer is None for socket in mine), peers)


def _meet(one: str, other: str | None) -> bool:
    """Whether two sockets could not both listen here. A host that is no IP address is taken for every address."""
    return other is None or one == other or any(ip_address(each).is_unspecified for each in (one, other))


# -- what people bring along


def read_peers(text: str, name: str) -> list[str]:
    """`ADDRESS`, `WHERE=ADDRESS` or `PORT=ADDRESS` from a file, each once: one a line, or what `ss -tn` or
    `netstat -tn` printed, of which the established connections count. Raises Refused with every line that is neither.
    """
    found: dict[str, None] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0] in HEADINGS or words[0].startswith("#") or words[0].lower().startswith("udp"):
            continue
        token = _single(words[0]) if len(words) == 1 else _connection(words)
        if token is None:
            wanted = "an IP address, or a line of `ss -tn` or `netstat -tn`"
            problems.append(f"{name}:{number}: found neither an address nor a connection; expected {wanted}")
        elif token:
            found[token] = None
    if problems:
        more = [f"{name}: and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        raise Refused(*problems[:MOST_PROBLEMS], *more)
    return list(found)


def _single(word: str) -> str | None:
    where, equals, rest = word.rpartition("=")
    address = NOBODY if rest == NOBODY else plain(rest) or (_ended(rest) or (None,))[0]
    return f"{where}{equals}{address}" if address else None


def _connection(words: Sequence[str]) -> str | None:
    """`PORT=ADDRESS` of an established connection; empty for another one; None where it is none at all."""
    states = {word.upper().replace("_", "-") for word in words}
    ends = [end for word in words if (end := _ended(word))]
    if len(ends) < 2:
        return "" if states & OTHER_STATES else None
    if states & OTHER_STATES and not states & CONNECTED:
        return ""
    (_, port), (peer, _) = ends[:2]
    return "" if ip_address(peer).is_unspecified else f"{port}={peer}"


def _ended(word: str) -> tuple[str, int] | None:
    """Address and port from `10.0.0.1:6101` or `[::1]:6101`."""
    host, colon, port = word.rpartition(":")
    address = plain(host.partition("%")[0]) if colon and port.isdecimal() else None
    return (address, int(port)) if address else None
