"""A message for people: each segment, field and component by its name in the message's own version (MSH-12)."""

from __future__ import annotations

from collections.abc import Iterator

from engine.cli.console import printable

MOST = 160  # characters of one value that are shown
NAMED = 30  # columns for a name


def named(raw: bytes) -> list[str]:
    """The lines of a message. What is no HL7 is shown as it is."""
    from engine.hl7.charset import Undecodable, decode
    from engine.hl7.message import Message

    try:
        text = decode(raw)
    except Undecodable:
        text = raw.decode("latin-1")
    message = Message(text)
    version = (message.get("MSH-12") or "").partition(message.delimiters.component)[0]
    lines: list[str] = []
    for segment in message:
        lines += _segment(segment, version)
    return [printable(line) for line in lines]


def _segment(segment: object, version: str) -> Iterator[str]:
    from engine.hl7.message import HEADERS, Segment
    from engine.hl7.names import field_name, segment_name

    assert isinstance(segment, Segment)
    known = segment_name(segment.name, version)
    yield f"{segment.name}  {known}" if known else segment.name
    kind = segment.get(2) if segment.name == "OBX" else None
    for number in range(1, len(segment.fields)):
        if segment.name in HEADERS and number <= 2:
            continue
        name = field_name(segment.name, number, version) or ""
        for repetition, value in enumerate(segment.repetitions(number)):
            place = f"{number}" if not repetition else f"{number}[{repetition + 1}]"
            yield f"  {place:>5}  {name if not repetition else '':<{NAMED}}  {_cut(value)}".rstrip()
            yield from _components(segment, number, value, version, kind)


def _components(segment: object, number: int, value: str, version: str, kind: str | None) -> Iterator[str]:
    from engine.hl7.escape import unescape
    from engine.hl7.message import Segment
    from engine.hl7.names import component_name

    assert isinstance(segment, Segment)
    parts = value.split(segment.delimiters.component)
    if len(parts) < 2:
        return
    for index, part in enumerate(parts, 1):
        name = component_name(segment.name, number, index, version, kind)
        if part and name:
            yield f"         .{index} {name:<{NAMED - 2}}  {_cut(unescape(part, segment.delimiters))}".rstrip()


def _cut(value: str) -> str:
    return value if len(value) <= MOST else f"{value[:MOST]}… ({len(value):,} characters)"
