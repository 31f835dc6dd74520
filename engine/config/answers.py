"""What a sender is answered: `ack:` of a channel or a feed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from yaml.nodes import Node

from engine.config.edge import Ack, AckForm, Listen, Source
from engine.config.endpoints import Endpoints
from engine.config.kinds import guessed
from engine.config.nodes import Findings
from engine.config.sockets import read_listen
from engine.config.tables import Section, note_unused

AUTHORITATIVE, STORED = "authoritative", "stored"
BYTE = "it left out: the answer is one byte, on the sender's own connection, yes or no"
NOBODY = "nobody waits for an answer"


def read_ack(
    section: Section | None, default: str, source: Source | None, root: Path, endpoints: Endpoints, findings: Findings
) -> Ack:
    """default: whose answer it is where the section does not say. source: where its messages come in."""
    if section is None:
        return Ack(default)
    values = section.given("on_relay_timeout", "mode")
    ours = (STORED,) if default == AUTHORITATIVE else (STORED, AUTHORITATIVE)  # without an old engine
    if section.get("from", default) in ours:
        note_unused(section, "on_relay_timeout", "where we answer ourselves", findings)
    if section.get("bare"):
        values["mode"] = "original"
        for key in ("mode", "codes", "type", "err", "text", "to", "listen"):
            if key in section.places and section.get(key) not in ("original", "none", False):  # these say the same
                findings.problem(section.place(key), f"{key}: with bare: true", BYTE)
    to = endpoints.address(section.place("to"), section.get("to"), findings) if section.get("to") else None
    listen = _listen(section, source, root, findings)
    return Ack(section.get("from", default), **values, form=_form(section), to=to, listen=listen)


def _listen(section: Section, source: Source | None, root: Path, findings: Findings) -> Listen | None:
    """Our port for the answers, in the frames of the messages."""
    on = section.get("listen")
    if on is None:
        return None
    place = section.place("listen")
    if "to" in section.places:
        findings.problem(place, "listen: beside to:", "one of them: an answer goes to one place")
    if source is None:
        return None
    if not isinstance(source, Listen):
        findings.problem(place, "listen: for a sender that we connect to", "to:, or its own connection")
        return None
    listen = read_listen(on, root, findings, source.host) if isinstance(on, Section) else Listen(on, source.host)
    return replace(listen, framing=source.framing) if listen else None


def ack_socket(section: Section, host: str) -> tuple[Node, int | None, str] | None:
    """(where the port stands, port, host) of `ack.listen`. host: of the channel or feed."""
    ack = section.get("ack")
    on = ack.get("listen") if ack else None
    if isinstance(on, Section):
        return on.place("port"), on.get("port"), on.get("host", host)
    return (ack.place("listen"), on, host) if on is not None else None


def _form(section: Section) -> AckForm:
    values = section.given("err", "text", "bare", kind="type")
    codes = section.get("codes")
    return AckForm(**values, codes=MappingProxyType(codes.values)) if codes else AckForm(**values)


def check_from(section: Section | None, others: Iterable[str], findings: Findings) -> None:
    """others: what `from:` may be besides the two words: the channel's destinations."""
    name = section.get("from") if section else None
    known = [AUTHORITATIVE, STORED, *others]
    if section is None or name is None or name in known:
        return
    findings.problem(section.place("from"), f"'{name}'", guessed(name, known, "one of " + ", ".join(known)))


def check_unanswered(section: Section | None, findings: Findings) -> None:
    """Nobody waits for an answer where messages come as files."""
    for key, place in section.places.items() if section else ():
        if key != "from":
            findings.problem(place, f"'{key}' in ack: of a channel with files:", f"no {key}: {NOBODY}")
        elif section and section.get("from", STORED) != STORED:
            findings.problem(place, f"from: {section.get('from')} in a channel with files:", f"{STORED}: {NOBODY}")
