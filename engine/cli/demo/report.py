"""The demo's figures, in tables and words. Pure but for what it reads of a world."""

from __future__ import annotations

from collections import Counter, defaultdict
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
    return table(["SEEDED FAULT", "MESSAGES", "FOUND WITH", "AS (MESSAGES)"], rows, right=["MESSAGES"])


def _places(found: list[Found]) -> str:
    """`OBX-6 transformation (7)`, the most frequent first."""
    sums: Counter[str] = Counter()
    for one in found:
        sums[f"{one.path} {one.kind}"] += one.count
    return ", ".join(f"{place} ({count})" for place, count in sums.most_common(4)) or "nothing"


def endpoint_table(world: World, groups: Mapping[str, list[str]]) -> str:
    """One row a group of connections, and their sum: what senders have acknowledged, and what receivers got."""
    head = [
        *("CONNECTIONS", "N", "ACKNOWLEDGED", "ARRIVED", "BY OLD ENGINE", "BY INTERLOCK", "BY BOTH", "LOST"),
        *("DROPPED*", "DOUBLED*", "REPEATED", "NEGATIVE", "CUT OFF", "SLOWEST"),
    ]
    sums: dict[int, int] = defaultdict(int)
    rows = []
    for name, connections in groups.items():
        if not connections:
            continue
        figures = _figures(world, connections)
        for column, value in enumerate(figures):
            sums[column] += value
        rows.append([name, *map(str, figures), seconds(world.slowest(connections=connections))])
    rows.append(["all", *(str(sums[column]) for column in range(len(head) - 2)), seconds(world.slowest())])
    return table(head, rows, right=head[1:]) + "\n* by the old engine, as seeded or when it went again after a repeat"


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
