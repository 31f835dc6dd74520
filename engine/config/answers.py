"""What a sender is answered: `ack:` of a channel or a feed."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from engine.config.edge import Ack, AckForm
from engine.config.endpoints import Endpoints
from engine.config.kinds import guessed
from engine.config.nodes import Findings
from engine.config.tables import Section

AUTHORITATIVE, STORED = "authoritative", "stored"
NOBODY = "nobody waits for an answer"


def read_ack(section: Section | None, default: str, endpoints: Endpoints, findings: Findings) -> Ack:
    """default: whose answer it is where the section does not say."""
    if section is None:
        return Ack(default)
    values = section.given("on_relay_timeout", "mode")
    to = endpoints.address(section.place("to"), section.get("to"), findings) if section.get("to") else None
    return Ack(section.get("from", default), **values, form=_form(section), to=to)


def _form(section: Section) -> AckForm:
    values = section.given("err", "text", kind="type")
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
