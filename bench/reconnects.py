"""250 TLS peers lose their connections and come back at once, while another channel gets 50 messages a second.

They come back again as soon as all of them are acknowledged, for the whole of a window: what the other channel feels is
never diluted by quiet. Goal: its acknowledgement's p99 at most 25 ms meanwhile.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from bench.running import CALM, Ask, Figures, compared, load, process

RATE = 50


def figures(rounds: int, seconds: float, count: int = 250) -> Figures:
    with process("bench.service", f"--channels={count + 1}", f"--secured={count}", "--stalls") as (ready, ask):
        plain, _, secured = ready["ports"].partition(",")
        load(plain, connections=1, seconds=0.5, rate=RATE)
        with process("bench.load.peers", f"--ports={secured}", f"--ca={ready['ca']}") as (_, again):
            return _rounds(rounds, seconds, plain, ask, again)


def _rounds(rounds: int, seconds: float, plain: str, ask: Ask, again: Ask) -> Figures:
    quiet, stormy, storms = [], [], []
    for _ in range(rounds):
        ask()
        quiet.append(load(plain, connections=1, seconds=seconds, rate=RATE) | ask())
        with ThreadPoolExecutor() as pool:
            window = pool.submit(load, plain, connections=1, seconds=seconds, rate=RATE)
            while not window.done():
                storms.append(again())
            stormy.append(window.result() | ask())
        time.sleep(CALM)
    return compared(quiet, stormy) | {
        "reconnects": sum(storm["peers"] for storm in storms),
        "not_reconnected": sum(storm["peers"] - storm["accepted"] for storm in storms),
        "all_back_s": statistics.median(storm["seconds"] for storm in storms),
    }
