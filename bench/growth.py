"""A ledger with many messages against an empty one: `python -m bench.growth --messages 1000000`. JSON on stdout.

The same service on both files, in turn: ingest over 250 connections while two destinations settle, the time from exec
to open ports, and the bytes a message takes. Then, on the full one: acknowledgements at 200 messages a second while a
backup is made, and while old messages are removed. The full ledger is made by SQL in the shape that intake gives it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import tempfile
import threading
import time
import zlib
from contextlib import closing
from pathlib import Path

from bench.__main__ import message
from bench.running import Figures, load, process
from engine.ledger.sqlite import backup, schema

CHANNELS = 250
BATCH = 20_000
RATE = 200


def service(ledger: Path, *flags: str) -> tuple[str, ...]:
    return ("bench.service", f"--channels={CHANNELS}", "--out=instant", f"--ledger={ledger}", *flags)


def fill(path: Path, messages: int, still_open: int) -> None:
    """Put `messages` into a ledger that the service has made, all delivered at both destinations but the last ones."""
    raw = message()
    crc = zlib.crc32(raw)
    with closing(sqlite3.connect(path, isolation_level=None)) as ledger:
        ledger.execute("pragma synchronous = off")
        channels = [id for (id,) in ledger.execute("select id from channel order by id")]
        first = [id for (id,) in ledger.execute("select id from destination order by id")]
        done = messages - still_open
        for begin in range(1, messages + 1, BATCH):
            ids = range(begin, min(messages, begin + BATCH - 1) + 1)
            places = [(id, channels[(id - 1) % len(channels)], (id - 1) // len(channels) + 1) for id in ids]
            ledger.execute("begin")
            ledger.executemany(
                schema.INSERT_MESSAGE,
                ((*place, 1, time.time_ns() // 1000, os.urandom(8).hex(), None, crc, raw) for place in places),
            )
            ledger.executemany(
                "insert into receipt (message, channel, seq, destination, part, delivery, revision, epoch, state, at,"
                " term) values (?,?,?,?,1,1,1,1,10,?,1)",
                ((*place, where, 1) for place in places if place[0] <= done for where in first),
            )
            ledger.execute("commit")
        ledger.execute("begin")
        for n, channel in enumerate(channels):  # the n-th has the messages n + 1, n + 1 + their number …
            seq, there = (len(range(n + 1, upto + 1, len(channels))) for upto in (messages, done))
            at = n + 1 + (there - 1) * len(channels) if there else 0
            ledger.execute("update channel set seq = ? where id = ?", (seq, channel))
            ledger.execute(
                "update progress set claim = ?, frontier = ?, frontier_id = ?, delivered = ? where channel = ?",
                (there, there, at, there, channel),
            )
        ledger.execute("commit")
        ledger.execute("pragma wal_checkpoint(truncate)")


def start(ledger: Path, *flags: str) -> float:
    """Seconds from exec to open ports."""
    began = time.perf_counter()
    with process(*service(ledger, *flags)):
        return time.perf_counter() - began


def ingest(empty: Path, full: Path, rounds: int, seconds: float) -> Figures:
    rates: dict[str, list[float]] = {"empty": [], "full": []}
    for _ in range(rounds):
        for name, ledger in (("empty", empty), ("full", full)):
            with process(*service(ledger)) as (ready, _):
                load(ready["ports"], connections=CHANNELS, seconds=0.5)
                rates[name].append(load(ready["ports"], connections=CHANNELS, seconds=seconds)["per_second"])
    middle = {name: round(statistics.median(found)) for name, found in rates.items()}
    return middle | {"full_of_empty": round(middle["full"] / middle["empty"], 3)}


def beside(full: Path, folder: Path, seconds: float) -> Figures:
    """Acknowledgements at RATE: alone, while a backup is made, and while old messages are removed."""
    result: Figures = {}
    with process(*service(full)) as (ready, _):
        load(ready["ports"], connections=CHANNELS, seconds=1, rate=RATE)
        result["alone"] = _latency(ready["ports"], seconds)
        made: Figures = {}

        def copy() -> None:
            began = time.perf_counter()
            manifest = backup.backup(full, folder / "copy.db", lambda: time.time_ns() // 1000)
            made.update(seconds=round(time.perf_counter() - began, 1), messages=manifest.messages)

        log, most = full.with_name(full.name + "-wal"), 0
        copying = threading.Thread(target=copy)
        copying.start()
        rows = []
        while copying.is_alive():
            rows.append(_latency(ready["ports"], 2.0))
            most = max(most, log.stat().st_size)
        copying.join()
        result["backup"] = made | {"p99_ms": max(row["p99_ms"] for row in rows), "log_mib": round(most / 2**20, 1)}
    before = full.stat().st_size
    with process(*service(full, "--pruned")) as (ready, _):
        result["pruning"] = _latency(ready["ports"], max(10.0, seconds))
    with closing(sqlite3.connect(full)) as ledger:
        (gone,) = ledger.execute("select count(*) from message where length(raw) = 0").fetchone()
    result["pruning"] |= {"bytes_of": gone, "file_mib": [round(size / 2**20) for size in (before, full.stat().st_size)]}
    return result


def _latency(ports: str, seconds: float) -> Figures:
    found = load(ports, connections=CHANNELS, seconds=seconds, rate=RATE)
    return {"p50_ms": found["p50_ms"], "p99_ms": found["p99_ms"], "per_second": found["per_second"]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--open", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="interlock-growth-", dir=".") as name:
        folder = Path(name)
        empty, full = folder / "empty.db", folder / "full.db"
        for ledger in (empty, full):
            start(ledger)
        fill(full, options.messages, 0)
        size = full.stat().st_size / options.messages - len(message())
        result: Figures = {"messages": options.messages, "above_raw_kb": round(size / 1000, 3)}
        opened = folder / "opened.db"
        start(opened)
        fill(opened, min(options.messages, 1_000_000), options.open)
        starts = {"empty": [], "opened": []}
        for turn in range(options.rounds):
            for which, path in (("empty", empty), ("opened", opened)):
                copy = folder / f"start-{which}-{turn}.db"  # a name that no later process has had
                shutil.copy(path, copy)
                os.sync()  # else the start waits for the disk to have the copy
                starts[which].append(start(copy))
                copy.unlink()
        middle = {which: round(statistics.median(found), 3) for which, found in starts.items()}
        result["start_s"] = middle | {"more": round(middle["opened"] - middle["empty"], 3)}
        opened.unlink()
        result["ingest_per_s"] = ingest(empty, full, options.rounds, options.seconds)
        result["at_200_per_s"] = beside(full, folder, options.seconds * 2)
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
