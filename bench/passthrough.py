"""Relayed pass-through, against two that keep nothing: windows in turn, the same old engine behind all of them.

`unkept`: the same service, whose ledger counts and writes nothing, so that the difference is the store's alone. `bare`
(bench.load.bare): a forwarder with the same listener, header reader and client, and nothing else between them: no
order, no phases, no equation, no metrics. Goal: at least 0.5 times the same without a store.
"""

from __future__ import annotations

from bench.running import Figures, fdatasync, load, process, ratio, summed


def figures(rounds: int, seconds: float, count: int = 250) -> Figures:
    result: Figures = {"fdatasync_per_s": round(fdatasync())}
    with (
        process("bench.load.mllp_sink") as (sink, _),
        process("bench.load.bare", f"--listeners={count}", f"--sink={sink['port']}") as (bare, _),
        process("bench.service", f"--channels={count}", "--out=relay", f"--sink={sink['port']}") as (ready, _),
        process("bench.service", f"--channels={count}", "--out=relay", f"--sink={sink['port']}", "--unkept") as (
            unkept,
            _,
        ),
    ):
        kinds = {"bare": ",".join(map(str, bare["ports"])), "unkept": unkept["ports"], "relayed": ready["ports"]}
        for ports in kinds.values():
            load(ports, connections=count, seconds=0.5)
        rows: dict[str, list[Figures]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, ports in kinds.items():
                rows[name].append(load(ports, connections=count, seconds=seconds))
    result |= {name: summed(found) for name, found in rows.items()}
    for other in ("unkept", "bare"):
        result[f"of_{other}"] = ratio(result["relayed"]["msg_per_s"], result[other]["msg_per_s"])
    return result
