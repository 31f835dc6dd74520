"""Feeds: one socket, many channels. Read here, checked against the channels in routes.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yaml.nodes import Node

from engine.config.answers import AUTHORITATIVE, STORED, check_from, read_ack
from engine.config.declared.feed import FEED
from engine.config.edge import Ack, Connect, Listen, Takes
from engine.config.endpoint import Endpoint
from engine.config.endpoints import Endpoints
from engine.config.nodes import Findings
from engine.config.sockets import read_connect, read_listen, read_takes
from engine.config.tables import Section


@dataclass(frozen=True, slots=True)
class ReadFeed:
    """A feed file that was read, as far as its channels need it. whole: nothing is wrong in what they need."""

    id: str
    section: Section
    source: Listen | Connect | None
    takes: Takes
    ack: Ack
    legacy: Endpoint | None
    file: str
    whole: bool


def read_feed(node: Node, file: str, root: Path, endpoints: Endpoints, findings: Findings) -> ReadFeed | None:
    """None where it is no feed at all, or nobody can name it."""
    before = findings.count
    section = FEED.read(node, findings)
    if not isinstance(section, Section):
        return None
    listen, connect, legacy = section.get("listen"), section.get("connect"), section.get("legacy")
    source: Listen | Connect | None = None
    if listen:
        source = read_listen(listen, root, findings)
    elif connect:
        source = read_connect(connect, root, findings)
    name = legacy.get("mllp") if legacy else None
    endpoint = endpoints.address(legacy.place("mllp"), name, findings) if name else None
    check_from(section.get("ack"), (), findings)
    default = AUTHORITATIVE if "legacy" in section.places else STORED
    ack = read_ack(section.get("ack"), default, source, root, endpoints, findings)
    if section.get("id") is None:
        return None
    whole = findings.count == before
    return ReadFeed(section.get("id"), section, source, read_takes(listen or connect), ack, endpoint, file, whole)


def feed_named(channel: Section) -> tuple[Node, str | None]:
    """Where a channel names its feed, and which."""
    given = channel.get("feed")
    if isinstance(given, Section):
        return given.place("name"), given.get("name")
    return channel.place("feed"), given
