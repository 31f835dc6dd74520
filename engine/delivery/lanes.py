"""What stands behind what: work in its lanes, in order. A lane is an order key; most work stands in one of them, the
merge of two patients in both. Work may go when nothing stands before it in any of its lanes. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.delivery.work import Work


class Lanes:
    """The lanes of one course. Empty lanes are not kept."""

    __slots__ = ("_joined", "_known", "_lanes")

    def __init__(self) -> None:
        self._lanes: dict[bytes, deque[Work]] = {}
        self._known: dict[tuple[int, int], Work] = {}  # by number and delivery: of these one part is at work at a time
        self._joined = 0

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def __contains__(self, work: Work) -> bool:
        return self._known.get(_name(work)) is work

    def __iter__(self) -> Iterator[Work]:
        """All work, each once, in the order in which it joined."""
        return iter(self._known.values())

    def get(self, key: tuple[int, int, int]) -> Work | None:
        """The work with this number, part and delivery."""
        work = self._known.get((key[0], key[2]))
        return work if work is not None and work.key == key else None

    def join(self, work: Work) -> None:
        """Stand at the end."""
        self._known[_name(work)] = work
        self._joined = work.joined = self._joined + 1
        for key in work.lanes:
            lane = self._lanes.get(key)
            if lane is None:
                self._lanes[key] = deque((work,))
            else:
                lane.append(work)

    def widen(self, work: Work, lanes: Iterable[bytes]) -> None:
        """It stands in these as well, in its place among those that wait there: as though it had joined them when it
        joined the others. So nobody ever waits for somebody who waits for him. Who waits for nothing may be on its way,
        and stays before it."""
        for key in lanes:
            if key in work.lanes:
                continue
            lane = self._lanes.setdefault(key, deque())
            at = next(
                (n for n, each in enumerate(lane) if each.joined > work.joined and not self.first(each)), len(lane)
            )
            lane.insert(at, work)
            work.lanes += (key,)

    def first(self, work: Work) -> bool:
        """Whether nothing stands before it."""
        return all(self._lanes[key][0] is work for key in work.lanes)

    def before(self, work: Work) -> Iterator[Work]:
        """What stands directly before one that has just joined, in each of its lanes."""
        for key in work.lanes:
            lane = self._lanes[key]
            if len(lane) > 1:
                yield lane[-2]

    def leave(self, work: Work) -> list[Work]:
        """It is through, or gone. Those that may go now."""
        free: list[Work] = []
        del self._known[_name(work)]
        for key in work.lanes:
            lane = self._lanes[key]
            was_first = lane[0] is work
            if was_first:
                lane.popleft()
            else:
                lane.remove(work)
            if not lane:
                del self._lanes[key]
            elif was_first and lane[0] not in free and self.first(lane[0]):
                free.append(lane[0])
        return free

    def behind(self, work: Work) -> list[Work]:
        """All that waits for it, also through others."""
        found: list[Work] = []
        looked = [work]
        known = {id(work)}
        while looked:
            one = looked.pop()
            for key in one.lanes:
                after = False
                for each in self._lanes[key]:
                    if after and id(each) not in known:
                        known.add(id(each))
                        found.append(each)
                        looked.append(each)
                    after = after or each is one
        return found


def _name(work: Work) -> tuple[int, int]:
    return work.message.seq, work.delivery
