"""2,000 listeners of a real service, each with a connected peer that has sent a message.

Goals: at most 220 MiB, and 1 second from the first port's opening to the last one's.
"""

from __future__ import annotations

import statistics

from bench.running import Figures, process


def figures(rounds: int, count: int = 2000) -> Figures:
    runs = [_run(count) for _ in range(rounds)]
    return {
        "listeners": count,
        "accepted": min(run["accepted"] for run in runs),
        "open_s": statistics.median(run["open_s"] for run in runs),
        "rss_mib": statistics.median(run["rss_mib"] for run in runs),
        "rss_before_peers_mib": statistics.median(run["before"] for run in runs),
    }


def _run(count: int) -> Figures:
    with process("bench.service", f"--channels={count}") as (ready, ask):
        before = ask()["rss_mib"]
        with process("bench.load.peers", f"--ports={ready['ports']}") as (peers, _):
            after = ask()
            if after["stored"] != peers["accepted"]:
                raise SystemExit(f"{peers['accepted']} messages are acknowledged, and {after['stored']} stored")
            return {
                "open_s": ready["open_s"],
                "rss_mib": after["rss_mib"],
                "before": before,
                "accepted": peers["accepted"],
            }
