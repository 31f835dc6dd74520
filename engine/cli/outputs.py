"""What the MLLP and file destinations of a channel would get: for `map`, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.config.model import Channel, Destination
    from engine.mapping.library import Context
    from engine.mapping.v2.library import V2Library, V2Mapping

Output = dict[str, Any]
Fail = Callable[[str, str, str, str], None]
"""Told of a message that a destination cannot have: the destination, what was found, where, what was expected."""


class Outputs:
    """The destinations of one channel."""

    def __init__(self, channel: Channel, library: V2Library) -> None:
        """Raises `MappingError` where one of their filters is wrong."""
        from engine.mapping.problems import Problems
        from engine.mapping.v2.filters import Filter

        problems = Problems()
        self._channel, self._library = channel, library
        destinations = channel.target.destinations if channel.target else ()
        self._each = [(each, Filter.of(each.filter, problems)) for each in destinations]
        problems.check()

    @property
    def to_medplum(self) -> bool:
        """Whether one of them is Medplum."""
        return any(each.kind == "medplum" for each, _ in self._each)

    def filtered(self, raw: bytes) -> str | None:
        """Why Medplum does not get the message. Raises `Unmappable`."""
        takes = self._channel.takes
        reasons = [
            filter.verdict(raw, takes.encoding, takes.undeclared)
            for each, filter in self._each
            if each.kind == "medplum"
        ]
        return reasons[0] if reasons and all(reasons) else None

    def of(self, raw: bytes, context: Context, fail: Fail) -> Iterator[Output]:
        """A value for each message that each destination but Medplum gets, or with the reason why it does not."""
        from engine.mapping.library import Unmappable

        for destination, filter in self._each:
            if destination.kind == "medplum":
                continue
            try:
                reason = filter.verdict(raw, context.encoding, context.undeclared)
                if reason is None:
                    yield from self._made(destination, raw, context)
                else:
                    yield {"destination": destination.name, "filtered": reason}
            except Unmappable as error:
                fail(destination.name, error.code, error.where, error.wanted)

    def _made(self, destination: Destination, raw: bytes, context: Context) -> Iterator[Output]:
        from engine.mapping.v2.emission import emitted

        shown = {"destination": destination.name}
        if destination.mapping is None:
            yield shown | {"part": 1, "parts": 1, "message": _text(raw, context)}
            return
        made = as_values(self._library.mapping(destination.mapping), raw, context)
        if isinstance(made, str):
            yield shown | {"filtered": made}
            return
        sent = emitted(
            made, destination.emit, incarnation=context.incarnation, channel=context.channel, seq=context.seq,
            destination=destination.name,
        )  # fmt: skip
        for part, each in enumerate(sent, 1):
            yield shown | {"part": part, "parts": len(sent), "message": _text(each, context)}


def as_values(mapping: V2Mapping, raw: bytes, context: Context) -> list[bytes] | str:
    """The messages that one becomes, or why it is filtered. Raises `Unmappable`."""
    from engine.mapping.v2.library import Filtered

    made = mapping.run(raw, context)
    return made.reason if isinstance(made, Filtered) else made


def named(mapping: V2Mapping, raw: bytes, context: Context) -> Iterator[Output]:
    """A value for each message that a mapping makes. Raises `Unmappable`."""
    made = as_values(mapping, raw, context)
    if isinstance(made, str):
        yield {"filtered": made}
        return
    for part, each in enumerate(made, 1):
        yield {"part": part, "parts": len(made), "message": _text(each, context)}


def _text(raw: bytes, context: Context) -> str:
    from engine.hl7.charset import Undecodable, decode

    try:
        return decode(raw, context.encoding, context.undeclared)
    except Undecodable:
        return raw.decode("latin-1")
