"""What was acknowledged, against what arrived: counted at the endpoints, from nobody's word but theirs. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.simulate.mischief import DROPPED
from engine.simulate.outbox import Acknowledged
from engine.simulate.receiver import Arrival, Side


@dataclass(frozen=True, slots=True)
class Count:
    """The figures of one or more channels. Lists are control ids of the first senders, in the order of their sending.

    acknowledged, arrived: messages, not sendings. by_legacy, by_target: messages that each side brought.
    lost: acknowledged, and never arrived. dropped: the same, but the old engine was told to lose them.
    both: arrived from both sides. repeated: from one side, more than once with one number (a sender that was not sure).
    doubled: from the old engine with several numbers. late: arrived after a later message of its channel.
    unknown: arrivals that name no message of ours. unacknowledged: arrived, though the sender has no answer (yet).
    """

    acknowledged: int = 0
    arrived: int = 0
    by_legacy: int = 0
    by_target: int = 0
    lost: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    both: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    unacknowledged: tuple[str, ...] = ()
    unknown: int = 0

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing sent by both sides."""
        return not self.lost and not self.both


def count(
    acknowledged: Iterable[Acknowledged], arrivals: Iterable[Arrival], seeded: Mapping[str, str] | None = None
) -> Count:
    """`seeded`: by control id, the fault that the old engine was told to commit."""
    seeded = seeded or {}
    told = [one.control_id for one in acknowledged]
    arrived: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        arrived[arrival.origin].append(arrival)
    unknown = len(arrived.pop("", ()))
    sides = {origin: {one.side for one in some} for origin, some in arrived.items()}
    missing = [one for one in told if one not in arrived]
    return Count(
        acknowledged=len(told),
        arrived=len(arrived),
        by_legacy=_only(sides, "legacy"),
        by_target=_only(sides, "target"),
        lost=tuple(one for one in missing if seeded.get(one) != DROPPED),
        dropped=tuple(one for one in missing if seeded.get(one) == DROPPED),
        both=tuple(origin for origin, which in sides.items() if len(which) > 1),
        repeated=tuple(origin for origin, some in arrived.items() if _repeats(some)),
        doubled=tuple(origin for origin, some in arrived.items() if _numbers(some) > 1),
        late=tuple(_late(arrived)),
        unacknowledged=tuple(set(arrived) - set(told)),
        unknown=unknown,
    )


def _only(sides: Mapping[str, set[Side]], side: Side) -> int:
    return sum(which == {side} for which in sides.values())


def _repeats(some: list[Arrival]) -> bool:
    return max(Counter(one.control_id for one in some).values()) > 1


def _numbers(some: list[Arrival]) -> int:
    """Under how many numbers the old engine sent one message."""
    return len({one.control_id for one in some if one.side == "legacy"})


def _late(arrived: Mapping[str, list[Arrival]]) -> list[str]:
    """Control ids, which grow in each channel, that came for the first time after a higher one of their channel."""
    highest: dict[str, str] = {}
    late = []
    for origin in arrived:  # in the order of first arrival
        channel = origin[:-8]
        if origin < highest.get(channel, ""):
            late.append(origin)
        else:
            highest[channel] = origin
    return late
