"""The demo's figures, in tables and words. Pure but for what it reads of a world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from engine.cli.console import table
from engine.simulate.world import World


@dataclass(frozen=True, slots=True)
class Found:
    """One discrepancy that the service has found. `count`: the messages that show it."""

    id: int
    path: str
    kind: str
    severity: str
    count: int


def many(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


SO_FAR = (
    "COMMITTED: in so many messages. SO FAR: so many have been compared; the newest are still on their way,\n"
    "and one that does not come is missed only when its time is over."
)


def fault_table(seeded: Mapping[str, tuple[str, int]], found: Mapping[str, list[Found]]) -> str:
    """One row a fault. seeded: by connection, the fault and how many messages met it; found: by connection."""
    rows = []
    for fault in dict.fromkeys(fault for fault, _ in seeded.values()):
        where = [connection for connection, (name, _) in seeded.items() if name == fault]
        clinical = {one: [row for row in found.get(one, []) if row.severity == "clinical"] for one in where}
        rows.append(
            [
                fault.replace("_", " "),
                str(sum(seeded[connection][1] for connection in where)),
                f"{sum(map(bool, clinical.values()))} of {len(where)}",
                _places([row for some in clinical.values() for row in some]),
            ]
        )
    told = table(["SEEDED FAULT", "COMMITTED", "FOUND WITH", "SEEN AS (SO FAR)"], rows, right=["COMMITTED"])
    return f"{told}\n{SO_FAR}"


def _places(found: list[Found]) -> str:
    """`OBX-6 transformation (7)`, the most frequent first."""
    sums: Counter[str] = Counter()
    for one in found:
        sums[f"{one.path} {one.kind}"] += one.count
    return ", ".join(f"{place} ({count})" for place, count in sums.most_common(4)) or "nothing"


FIGURES = (
    "connections",
    "acknowledged to senders",
    "arrived at receivers",
    "  by the old engine",
    "  by Interlock",
    "  by both",
    "lost",
    "dropped by the old engine*",
    "doubled by the old engine*",
    "repeated by senders",
    "negative answers",
    "connections cut off",
    "slowest acknowledgement",
)


def endpoint_table(world: World, groups: Mapping[str, list[str]]) -> str:
    """A column for each group of connections, and their sum: what senders have acknowledged, what receivers got."""
    some = {name: connections for name, connections in groups.items() if connections}
    figures = [_figures(world, connections) for connections in some.values()]
    columns = [
        *(
            [*map(str, each), seconds(world.slowest(connections=of))]
            for each, of in zip(figures, some.values(), strict=True)
        ),
        [*(str(sum(values)) for values in zip(*figures, strict=True)), seconds(world.slowest())],
    ]
    head = ["", *(name.upper() for name in some), "ALL"]
    told = table(head, [*zip(FIGURES, *columns, strict=True)], right=head[1:])
    return f"{told}\n* as seeded, or when it went again after a repeat"


def _figures(world: World, connections: list[str]) -> list[int]:
    count = world.count(connections)
    return [
        len(connections),
        count.acknowledged,
        count.arrived,
        count.by_legacy,
        count.by_target,
        len(count.both),
        len(count.lost),
        len(count.dropped),
        len(count.doubled),
        len(count.repeated),
        world.negative(connections),
        world.drops(connections),
    ]
