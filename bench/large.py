"""20 MB messages, and what everybody else feels of them.

`one after the other`: on one channel, while 200 small messages a second go over all the others; windows without and
with in turn. `together`: every channel gets one at the same time; how much memory the service takes for that, and
whether all are acknowledged. It is ended where the service takes more than half of this machine's memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from bench.running import CALM, Ask, Figures, compared, load, process

RATE = 200
SIZE = 20 * 1024 * 1024


def figures(rounds: int, seconds: float, count: int = 250, size: int = SIZE) -> Figures:
    return {
        "one after the other": _in_turn(rounds, seconds, count, size),
        "together": _together(count, size),
    }


def _in_turn(rounds: int, seconds: float, count: int, size: int) -> Figures:
    with process("bench.service", f"--channels={count}", "--stalls") as (ready, ask):
        one, _, others = ready["ports"].partition(",")
        load(others, connections=count - 1, seconds=0.5, rate=RATE)
        before = ask()["rss_mib"]
        quiet, busy, sent = [], [], []
        for _ in range(rounds):
            ask()
            quiet.append(load(others, connections=count - 1, seconds=seconds, rate=RATE) | ask())
            with process("bench.load.large", f"--ports={one}", f"--size={size}", "--endless") as (_, counted):
                busy.append(load(others, connections=count - 1, seconds=seconds, rate=RATE) | ask())
                sent.append(counted())
            time.sleep(CALM)
        return compared(quiet, busy) | {
            "large_accepted": sum(row["accepted"] for row in sent),
            "large_failed": sum(row["failed"] for row in sent),
            "large_slowest_s": max(row["slowest_s"] for row in sent),
            "rss_before_mib": before,
            "rss_peak_mib": ask()["rss_peak_mib"],
        }


def _together(count: int, size: int) -> Figures:
    needed, free = 3 * count * size, shutil.disk_usage(tempfile.gettempdir()).free  # the file, its log, and some air
    if free < needed:
        raise SystemExit(f"{tempfile.gettempdir()}: {needed >> 20} MiB are needed, and {free >> 20} are free")
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 // 2
    with (
        process("bench.service", f"--channels={count}") as (ready, ask),
        process("bench.load.large", f"--ports={ready['ports']}", f"--size={size}") as (_, send),
        ThreadPoolExecutor() as pool,
    ):
        before = ask()
        sending = pool.submit(send)
        while not sending.done():
            _check(ask, limit)
            time.sleep(0.05)
        after = ask()
        return sending.result() | {
            "messages": count,
            "mib_each": round(size / 2**20, 1),
            "stored": after["stored"],
            "rss_before_mib": before["rss_mib"],
            "rss_peak_mib": after["rss_peak_mib"],
        }


def _check(ask: Ask, limit: int) -> None:
    if (now := ask())["rss_mib"] > limit:
        raise SystemExit(f"ended: the service takes {now['rss_mib']} MiB, half of this machine's memory")
