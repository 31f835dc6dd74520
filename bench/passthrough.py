"""Relayed pass-through, against a forwarder that does the same and keeps nothing (bench.load.bare): windows in turn.

Both have the same listener, header reader and client, and the same old engine behind them. Goal: at least 0.5 times.
"""

from __future__ import annotations

from bench.running import Figures, fdatasync, load, process, ratio, summed


def figures(rounds: int, seconds: float, count: int = 250) -> Figures:
    result: Figures = {"fdatasync_per_s": round(fdatasync())}
    with (
        process("bench.load.mllp_sink") as (sink, _),
        process("bench.load.bare", f"--listeners={count}", f"--sink={sink['port']}") as (bare, _),
        process("bench.service", f"--channels={count}", "--out=relay", f"--sink={sink['port']}") as (ready, _),
    ):
        kinds = {"without a store": ",".join(map(str, bare["ports"])), "relayed": ready["ports"]}
        for ports in kinds.values():
            load(ports, connections=count, seconds=0.5)
        rows: dict[str, list[Figures]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, ports in kinds.items():
                rows[name].append(load(ports, connections=count, seconds=seconds))
    result |= {name: summed(found) for name, found in rows.items()}
    result["of_bare"] = ratio(result["relayed"]["msg_per_s"], result["without a store"]["msg_per_s"])
    return result
