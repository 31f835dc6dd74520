"""Who is connected to a port: the kernel's tables, and what people bring along."""

from __future__ import annotations

import asyncio
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from engine.migration.peers import Here, Socket, here, kernel, plain, read_peers
from engine.migration.refused import Refused

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def words(address: str) -> str:
    """An address as this machine's kernel prints it."""
    raw = ip_address(address).packed
    return "".join(f"{int.from_bytes(raw[at : at + 4], sys.byteorder):08X}" for at in range(0, len(raw), 4))


def row(local: str, port: int, remote: str, remote_port: int, state: str) -> str:
    return (
        f"   0: {words(local)}:{port:04X} {words(remote)}:{remote_port:04X} {state} 00000000:00000000 00:00000000"
        " 00000000     0        0 1060 1 00000000bb926a93 100 0 0 10 0\n"
    )


def test_listening_and_established_sockets_are_read_and_others_passed_over() -> None:
    text = HEAD + "".join((
        row("0.0.0.0", 6101, "0.0.0.0", 0, "0A"),
        row("10.0.0.5", 6101, "10.20.1.7", 51514, "01"),
        row("10.0.0.5", 6101, "10.20.1.8", 51515, "06"),
        row("10.0.0.5", 6101, "10.20.1.9", 51516, "08"),
    ))  # fmt: skip
    assert list(kernel(text)) == [Socket("0.0.0.0", 6101, None), Socket("10.0.0.5", 6101, "10.20.1.7")]


def test_the_tables_of_a_little_endian_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "little")
    line = (
        "   1: 0100007F:17D5 0714140A:C93A 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0"
    )
    assert list(kernel(HEAD + line)) == [Socket("127.0.0.1", 6101, "10.20.20.7")]
    six = "   1: 000080FE00000000FF005450B6AD1DFE:17D5 B80D0120000000000000000001000000:C93A 01 00000000:00000000 0 0"
    assert list(kernel(HEAD + six)) == [Socket("fe80::5054:ff:fe1d:adb6", 6101, "2001:db8::1")]


def test_an_ipv4_peer_of_a_socket_of_both_kinds_is_that_peer() -> None:
    text = HEAD + row("::", 6101, "::", 0, "0A") + row("::ffff:10.0.0.5", 6101, "::ffff:10.20.1.7", 51514, "01")
    assert here(kernel(text), "0.0.0.0", 6101) == Here(True, frozenset({"10.20.1.7"}))


@pytest.mark.parametrize(
    ("listens", "host", "found"),
    [
        ("0.0.0.0", "10.0.0.5", True),
        ("10.0.0.5", "0.0.0.0", True),
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.6", "10.0.0.5", False),
        ("::", "10.0.0.5", True),
        ("10.0.0.6", "lab.example", True),
    ],
)
def test_a_listener_at_another_address_is_none_of_ours(listens: str, host: str, found: bool) -> None:
    sockets = [Socket(listens, 6101, None), Socket("10.0.0.9", 6102, None)]
    assert here(sockets, host, 6101).listens is found


def table(name: str) -> str:
    return Path("/proc/net", name).read_text()


async def test_what_this_machines_kernel_prints_is_understood() -> None:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
    assert here(kernel(table("tcp")), "127.0.0.1", port) == Here(True, frozenset({"127.0.0.9"}))
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
async def test_so_is_its_table_of_ipv6() -> None:
    with socket.socket(socket.AF_INET6) as listening:
        try:
            listening.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 loopback")
        listening.listen()
        port = listening.getsockname()[1]
        assert here(kernel(table("tcp6")), "::1", port) == Here(True, frozenset())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("[::1]", "::1"), ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0::1", "2001:db8::1"), ("lab.example", None), ("10.0.0", None), ("", None),
    ],
)  # fmt: skip
def test_an_address_has_one_form(text: str, address: str | None) -> None:
    assert plain(text) == address


SS = """\
State     Recv-Q Send-Q Local Address:Port   Peer Address:Port  Process
LISTEN    0      128          0.0.0.0:6101        0.0.0.0:*
ESTAB     0      0           10.0.0.5:6101      10.20.1.7:51514
ESTAB     0      0           10.0.0.5:6101      10.20.1.7:51515
ESTAB     0      0      [::ffff:10.0.0.5]:6102 [::ffff:10.20.1.8]:51516 users:(("mirth",pid=7,fd=9))
ESTAB     0      0        [2001:db8::5]:6102  [2001:db8::7]:51514
ESTAB     0      0      10.0.0.5%eth0:6101      10.20.1.9:51517
TIME-WAIT 0      0           10.0.0.5:6101     10.20.1.10:51518
"""
FILTERED = """\
Recv-Q Send-Q Local Address:Port Peer Address:Port
0      0           10.0.0.5:6101    10.20.1.7:51514
"""
NETSTAT = """\
Active Internet connections (w/o servers)
Proto Recv-Q Send-Q Local Address           Foreign Address         State
tcp        0      0 0.0.0.0:6101            0.0.0.0:*               LISTEN
tcp        0      0 10.0.0.5:6101           10.20.1.7:51514         ESTABLISHED
tcp        0      0 10.0.0.5:6101           10.20.1.8:51515         CLOSE_WAIT
tcp6       0      0 ::ffff:10.0.0.5:6102    ::ffff:10.20.1.9:51516  ESTABLISHED
tcp6       0      0 2001:db8::5:6102        2001:db8::7:51516       ESTABLISHED
udp        0      0 10.0.0.5:123            10.0.0.6:123            ESTABLISHED
"""
WINDOWS = """\

Active Connections

  Proto  Local Address          Foreign Address        State
  TCP    0.0.0.0:6101           0.0.0.0:0              LISTENING
  TCP    10.0.0.5:6101          10.20.1.7:51514        ESTABLISHED
  TCP    [::1]:6101             [::1]:51514            ESTABLISHED
  TCP    10.0.0.5:6101          10.20.1.8:51514        TIME_WAIT
"""
LIST = """\
# the vendors of the results port
10.20.1.7
acme-orders=10.20.1.8
6101=::ffff:10.20.1.9

[2001:db8::7]
10.20.1.10:51514
10.20.1.7
"""
FILES = {
    "ss": (SS, ["6101=10.20.1.7", "6102=10.20.1.8", "6102=2001:db8::7", "6101=10.20.1.9"]),
    "ss, filtered": (FILTERED, ["6101=10.20.1.7"]),
    "netstat": (NETSTAT, ["6101=10.20.1.7", "6102=10.20.1.9", "6102=2001:db8::7"]),
    "netstat of Windows": (WINDOWS, ["6101=10.20.1.7", "6101=::1"]),
    "one a line": (LIST, ["10.20.1.7", "acme-orders=10.20.1.8", "6101=10.20.1.9", "2001:db8::7", "10.20.1.10"]),
    "nobody": ("none\n", ["none"]),
    "empty": ("", []),
}


@pytest.mark.parametrize("name", FILES)
def test_what_people_bring_along(name: str) -> None:
    text, found = FILES[name]
    assert read_peers(text, "peers.txt") == found


def test_every_line_that_is_none_is_told() -> None:
    with pytest.raises(Refused) as refused:
        read_peers("10.0.0.1\nlab.example\nESTAB 0 0 lab:http 10.0.0.1:51514\n", "peers.txt")
    wanted = "found neither an address nor a connection; expected an IP address, or a line of `ss -tn` or `netstat -tn`"
    assert refused.value.sentences == (f"peers.txt:2: {wanted}", f"peers.txt:3: {wanted}")
