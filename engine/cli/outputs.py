"""What the MLLP and file destinations of a channel would get: for `map`, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.config.model import Channel
    from engine.mapping.library import Context, Library
    from engine.mapping.v2.filters import Filtered
    from engine.mapping.v2.library import V2Library, V2Mapping

Output = dict[str, Any]
Fail = Callable[[str, str, str, str], None]
"""Told of a message that a destination cannot have: the destination, what was found, where, what was expected."""


class Outputs:
    """The destinations of one channel."""

    def __init__(self, channel: Channel, library: Library, v2: V2Library) -> None:
        """Raises `MappingError` where one of their filters is wrong."""
        from engine.mapping.effective import Effective

        each = channel.destinations
        self._to_medplum = [Effective.of(channel, one, library, v2) for one in each if one.kind == "medplum"]
        self._others = {one.name: Effective.of(channel, one, library, v2) for one in each if one.kind != "medplum"}

    @property
    def to_medplum(self) -> bool:
        """Whether one of them is Medplum."""
        return bool(self._to_medplum)

    def filtered(self, raw: bytes) -> str | None:
        """Why Medplum does not get the message. Raises `Unmappable`."""
        reasons = [by.held_back(raw) for by in self._to_medplum]
        return reasons[0] if reasons and all(reasons) else None

    def of(self, raw: bytes, context: Context, fail: Fail) -> Iterator[Output]:
        """A value for each message that each destination but Medplum gets, or with the reason why it does not."""
        from engine.mapping.library import Unmappable

        for destination, by in self._others.items():
            try:
                made = by.outputs(raw, context, destination)
            except Unmappable as error:
                fail(destination, error.code, error.where, error.wanted)
                continue
            for shown in _shown([raw] if made is None else made, context):
                yield {"destination": destination} | shown


def named(mapping: V2Mapping, raw: bytes, context: Context) -> Iterator[Output]:
    """A value for each message that a mapping makes. Raises `Unmappable`."""
    yield from _shown(mapping.run(raw, context), context)


def _shown(made: list[bytes] | Filtered, context: Context) -> Iterator[Output]:
    from engine.mapping.v2.filters import Filtered

    if isinstance(made, Filtered):
        yield {"filtered": made.reason}
        return
    for part, each in enumerate(made, 1):
        yield {"part": part, "parts": len(made), "message": _text(each, context)}


def _text(raw: bytes, context: Context) -> str:
    from engine.hl7.charset import Undecodable, decode

    try:
        return decode(raw, context.encoding, context.undeclared)
    except Undecodable:
        return raw.decode("latin-1")
