"""What a file may say of the bytes around a message is what the decoder can work with, and nothing else."""

from __future__ import annotations

import itertools

import pytest
import yaml

from engine.config.declared.edge import FRAMING
from engine.config.edge import Framing
from engine.config.nodes import Findings
from engine.config.sockets import read_framing
from engine.config.tables import Section, Table
from engine.mllp.framing import Decoder

BYTES = ("0x00", "0x02", "0x06", "0x0A", "0x0B", "0x0D", "0x1C")
ENDS = [*BYTES, *(f"{one} {two}" for one, two in itertools.product(BYTES, BYTES))]


def taken(start: str, end: str, release: int) -> Framing | None:
    """What the keys become; None where they are refused."""
    findings = Findings({})
    node = yaml.compose(f"framing: {{start: {start}, end: '{end}', release: {release}}}")
    section = Table("a socket", {"framing": FRAMING}).read(node, findings)
    assert isinstance(section, Section)
    framing = read_framing(section, findings)
    return None if findings.count else framing


def works(framing: Framing) -> bool:
    try:
        Decoder(framing=framing)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("start", ["none", *BYTES])
def test_it_may_be_said_exactly_where_it_works(start: str) -> None:
    for end, release in itertools.product(ENDS, (1, 2)):
        first = b"" if start == "none" else bytes.fromhex(start[2:])
        meant = Framing(first, bytes.fromhex(end.replace("0x", "")), release)
        assert taken(start, end, release) == (meant if works(meant) else None)


@pytest.mark.parametrize(
    ("end", "may"),
    [
        ("0x0D 0x0D", True),  # a blank line
        ("0x0A 0x0D", True),  # a blank line where lines end in CR LF
        ("0x0A", True),
        ("0x0D 0x1C", True),
        ("0x0D", False),
        ("0x0D 0x0A", False),  # many a peer ends its segments so
    ],
)
def test_only_what_ends_segments_may_not_end_a_message(end: str, may: bool) -> None:
    assert (taken("none", end, 1) is not None) is may
