"""What TLS costs: the service's CPU for a message, on connections that stay, in windows that take turns with plain.

One service, half of its channels over TLS; closed loop, so that neither side counts what a waiting service does.
Goal: at most 2.2 times plain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.running import Ask, Figures, load, process, ratio, summed


def figures(rounds: int, seconds: float, count: int = 50) -> Figures:
    with process("bench.service", f"--channels={2 * count}", f"--secured={count}") as (ready, ask):
        ports = ready["ports"].split(",")
        kinds: dict[str, dict[str, Any]] = {
            "plain": {"ports": ",".join(ports[:count])},
            "tls": {"ports": ",".join(ports[count:]), "ca": ready["ca"]},
        }
        for options in kinds.values():
            load(connections=count, seconds=0.5, **options)
        rows: dict[str, list[Figures]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, options in kinds.items():
                rows[name].append(_window(ask, lambda o=options: load(connections=count, seconds=seconds, **o)))  # type: ignore[misc]
    result: Figures = {name: summed(found, sum(row["engine_cpu_s"] for row in found)) for name, found in rows.items()}
    costs = [result[name]["engine_cpu_us_per_msg"] for name in ("tls", "plain")]
    return result | {"cpu_ratio": ratio(costs[0], costs[1])}


def _window(ask: Ask, run: Callable[[], Figures]) -> Figures:
    """Connecting belongs to it: a handshake each, and then hundreds of messages."""
    before = ask()["cpu_s"]
    row = run()
    return row | {"engine_cpu_s": ask()["cpu_s"] - before}
