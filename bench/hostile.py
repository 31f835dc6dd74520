"""What another channel feels of an attack on one: its acknowledgement at 200 messages a second, windows in turn.

Each attack against the windows without any between its own. Goal: p99 at most 1.5 times as high.
"""

from __future__ import annotations

import time

from bench.running import CALM, Ask, Figures, compared, load, process

KINDS = ("loris", "flood", "garbage")
RATE = 200
LONGEST = 20.0
"""Seconds of a window; an attack ends by itself after 30."""


def figures(rounds: int, seconds: float, kinds: tuple[str, ...] = KINDS) -> Figures:
    with process("bench.service", "--channels=2", "--stalls") as (ready, ask):
        attacked, other = ready["ports"].split(",")
        load(other, connections=1, seconds=0.5, rate=RATE)
        return {kind: _attack(rounds, min(seconds, LONGEST), kind, attacked, other, ask) for kind in kinds}


def _attack(rounds: int, seconds: float, kind: str, attacked: str, other: str, ask: Ask) -> Figures:
    quiet, disturbed, counts = [], [], []
    for _ in range(rounds):
        ask()
        quiet.append(load(other, connections=1, seconds=seconds, rate=RATE) | ask())
        with process("bench.load.attack", kind, f"--port={attacked}") as (_, counted):
            disturbed.append(load(other, connections=1, seconds=seconds, rate=RATE) | ask())
            counts.append(counted())
        time.sleep(CALM)
    lasted = sum(count["seconds"] for count in counts)
    return compared(quiet, disturbed) | {
        "connections_per_s": round(sum(count["connections"] for count in counts) / lasted, 1),
        "kib_per_s": round(sum(count["bytes"] for count in counts) / lasted / 1024, 1),
        "failed": sum(count["failed"] for count in counts),
        "rss_peak_mib": disturbed[-1]["rss_peak_mib"],
        "ledger_mib": round(disturbed[-1]["file_bytes"] / 2**20),
    }
