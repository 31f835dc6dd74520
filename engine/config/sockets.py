"""What faces a peer: from the sections of a file to ports, connections and folders as values."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from engine.config.address import Address
from engine.config.edge import MLLP, Connect, Framing, Listen, Sockets, Takes, Tls
from engine.config.nodes import Findings
from engine.config.paths import file_in
from engine.config.pem import TlsError, ends, identify, trust
from engine.config.tables import Section, note_unused

TAKES = ("accepts", "encoding", "undeclared", "max_bytes", "batch")


def read_listen(section: Section, root: Path, findings: Findings, host: str = "0.0.0.0") -> Listen | None:
    """A port of ours; None where it is wrong. host: where the section names none."""
    before = findings.count
    values = section.given("port", "host", "allow", "probes", "frame_timeout")
    framing, tls = read_framing(section, findings), _server_tls(section.get("tls"), root, findings)
    if findings.count != before or "port" not in values:
        return None
    sockets = _sockets(section.get("connections"), findings)
    return Listen(**{"host": host} | values, framing=framing, sockets=sockets, tls=tls)


def read_connect(section: Section, root: Path, findings: Findings) -> Connect | None:
    """A peer that we connect to; None where it is wrong."""
    before = findings.count
    values = section.given("reconnect", "connect_timeout", "frame_timeout", "source_address")
    framing, tls = read_framing(section, findings), read_client_tls(section.get("tls"), root, findings)
    check_source(section, section.get("to"), findings)
    if findings.count != before or section.get("to") is None:
        return None
    sockets = Sockets(**section.given("idle", "keepalive"))
    return Connect(section.get("to"), **values, framing=framing, sockets=sockets, tls=tls)


def read_takes(section: Section | None, beneath: Takes = Takes()) -> Takes:  # noqa: B008 – frozen
    if section is None:
        return beneath
    return Takes(**{key: getattr(beneath, key) for key in TAKES} | section.given(*TAKES))


def read_framing(section: Section, findings: Findings) -> Framing:
    inner = section.get("framing")
    if not isinstance(inner, Section):
        return MLLP
    framing = Framing(**inner.given("start", "end", "release"))
    if framing.flaw:
        key, found, wanted = framing.flaw
        findings.problem(inner.place(key), found, wanted)
    return framing


def check_source(section: Section, peer: Address | None, findings: Findings) -> None:
    """`source_address` is to be of the peer's family, where that is no name that may stand for either."""
    source, there = (_version(text) for text in (section.get("source_address"), peer.host if peer else None))
    if source and there and source != there and peer:
        found = f"'{section.get('source_address')}', an IPv{source} address, towards {peer.host}, an IPv{there} address"
        findings.problem(section.place("source_address"), found, f"an IPv{there} address")


def _version(text: str | None) -> int | None:
    try:
        return ip_address(text).version if text else None
    except ValueError:
        return None


def _sockets(section: Section | None, findings: Findings) -> Sockets:
    if section is None:
        return Sockets()
    sockets = Sockets(**section.given("per_address", "newest_wins", "idle", "keepalive", "one_message", most="max"))
    if sockets.per_address > sockets.most:
        note_unused(section, "per_address", f"above max:, which is {sockets.most}", findings)
    return sockets


def _server_tls(section: Section | None, root: Path, findings: Findings) -> Tls | None:
    if section is None:
        return None
    if section.get("names") and "ca" not in section.places:
        wanted = "ca: with the authority that has signed the peers' certificates"
        findings.problem(section.place("names"), "names: without ca:, so that anybody could have them", wanted)
    return _tls(section, root, findings)


def read_client_tls(section: Section | None, root: Path, findings: Findings) -> Tls | None:
    if section is None:
        return None
    for one, other in (("certificate", "key"), ("key", "certificate")):
        if one in section.places and other not in section.places:
            findings.problem(section.place(one), f"{one}: without {other}:", "both of them, or none")
    return _tls(section, root, findings)


def _tls(section: Section, root: Path, findings: Findings) -> Tls:
    before = findings.count
    certificate, key, ca = (file_in(section, key, root, findings) for key in ("certificate", "key", "ca"))
    tls = Tls(certificate, key, ca, **section.given("names", "server_name"))
    if findings.count == before:
        _check_files(section, tls, findings)
    return tls


def _check_files(section: Section, tls: Tls, findings: Findings) -> None:
    """Whether the files can be used: nobody is to learn it from a port that does not open."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls.ca:
        _usable(section, "ca", partial(trust, context, tls.ca), findings)
    if tls.certificate and tls.key and _usable(section, "certificate", partial(ends, tls.certificate), findings):
        _usable(section, "key", partial(identify, context, tls.certificate, tls.key), findings)


def _usable(section: Section, key: str, read: Callable[[], object], findings: Findings) -> bool:
    try:
        read()
    except TlsError as error:
        findings.problem(section.place(key), f"{error.file}, which {error.what}", error.wanted)
        return False
    return True
