"""Which of the simulated connections have an old engine that errs, and which habits it has with whom. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from engine.simulate.alterations import FAULTS, HABITS
from engine.simulate.forwarding import Alteration
from engine.simulate.layout import Layout
from engine.simulate.mischief import CONDUCT, Mischief

SEEDED: Final = (
    *CONDUCT,
    "wrong_unit",
    "wrong_flag",
    "wrong_value",
    "wrong_patient",
    "truncated_note",
    "damaged_charset",
    "shifted_time",
)
"""The faults that are seeded, each in the results of its own connections."""

SHARE: Final = 0.35
"""Of the messages of a channel with a fault, so many meet it."""

USUAL: Final = ("padding", "precision", "segment_order", "escapes", "finer_times")
"""The habits that connections have by turns; none of them can hurt anybody."""

assert set(SEEDED) - set(CONDUCT) <= set(FAULTS)
assert set(USUAL) <= set(HABITS)


@dataclass(frozen=True, slots=True)
class Roles:
    """faulty: the fault of a connection, by connection; it is in its results. The rest is for a world's plan."""

    faulty: Mapping[str, str]
    mischief: Mapping[str, Mischief]
    habits: Mapping[str, tuple[Alteration, ...]]


def cast(layout: Layout, seed: int) -> Roles:
    """At most every third connection has a fault, and each fault two connections; the others have habits only."""
    links = layout.links[1::3][: 2 * len(SEEDED)]
    faulty = {link.connection: fault for link, fault in zip(links, cycle(SEEDED), strict=False)}
    mischief = {link.results.channel: Mischief({faulty[link.connection]: SHARE}, seed) for link in links}
    names = [(), *((name,) for name in USUAL), USUAL]
    habits = {
        way.channel: tuple(HABITS[name] for name in some)
        for link, some in zip(layout.links, cycle(names), strict=False)
        for way in link.ways
    }
    return Roles(faulty, mischief, habits)
