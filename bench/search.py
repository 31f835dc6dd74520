"""What search keys cost and give: intake with and without the follower in turn, and a ledger of a million messages.

`ingest`: durable and acknowledged, 250 channels, windows in turn: a service that keeps search keys, and the same
without them; each in a burst, and at 200 messages a second, then also while it catches up after the burst.

`million`: a ledger that has the messages already, as after an upgrade: how long the follower takes over it, what the
keys add to the file, and how long searches take, each in milliseconds.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from bench.running import Figures, load, process, ratio, read, summed
from engine.hl7.search_keys import Kind, wanted
from engine.ledger.routing import LEGACY, Mode, Route, Routing
from engine.ledger.sqlite import schema
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.search import PLACES, Selection
from engine.service.follower import Follower
from engine.simulate.messages import Messages

CHANNELS = 250
SECONDS_APART = 1.0  # of two messages, as received
TABLES = ("search_bucket", "search_block")
ASKED = 20  # searches of each kind


def figures(rounds: int, seconds: float, count: int) -> Figures:
    return {"ingest": _ingest(rounds, seconds), "million": _million(count)}


def _ingest(rounds: int, seconds: float) -> Figures:
    rows: dict[str, list[Figures]] = {"without": [], "with": []}
    used = dict.fromkeys(rows, 0.0)
    calm: dict[str, list[Figures]] = {"without": [], "with": [], "catching up": []}
    with (
        process("bench.service", f"--channels={CHANNELS}", "--unfollowed") as (without, ask_without),
        process("bench.service", f"--channels={CHANNELS}") as (followed, ask),
    ):
        asks = {"without": ask_without, "with": ask}
        ports = {"without": without["ports"], "with": followed["ports"]}
        for each in ports.values():
            load(each, connections=CHANNELS, seconds=0.5)
        for _ in range(rounds):
            for name, found in rows.items():
                used[name] -= asks[name]()["cpu_s"]
                found.append(load(ports[name], connections=CHANNELS, seconds=seconds))
                used[name] += asks[name]()["cpu_s"]
            behind = ask()["unread"]
            calm["catching up"].append(load(ports["with"], connections=CHANNELS, seconds=seconds, rate=200))
            began = time.monotonic()
            read(ask)  # what it still has to do must not be in the windows of the other
            caught_up = time.monotonic() - began
            for name in rows:
                calm[name].append(load(ports[name], connections=CHANNELS, seconds=seconds, rate=200))
    result: Figures = {name: summed(found, used[name]) for name, found in rows.items()}
    result["of_without"] = ratio(result["with"]["msg_per_s"], result["without"]["msg_per_s"])
    result |= {f"{name} at 200/s": summed(found) for name, found in calm.items()}
    return result | {"behind_after_a_burst": behind, "caught_up_s": round(seconds + caught_up, 1)}


def _million(count: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as folder:
        path = Path(folder) / "ledger.db"
        found = asyncio.run(_over(path, count))
        return found | {
            "key_bytes_per_message": round(_bytes(path) / (count // PLACES * PLACES), 1),
            "file_bytes_per_message": round(path.stat().st_size / count),
        }


async def _over(path: Path, count: int) -> Figures:
    await _filled(path, count)
    ledger = SqliteLedger(path, lambda: 0)
    follower = Follower(ledger)
    ledger.start(follower.committed)
    await follower.open()
    began, used = time.monotonic(), time.process_time()
    following = asyncio.create_task(follower.run())
    while follower.lag:  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0.05)
    took, cpu = time.monotonic() - began, time.process_time() - used
    searches = {name: await _asked(follower, selections) for name, selections in _searches(count).items()}
    following.cancel()
    await ledger.close()
    return {
        "messages": count,
        "read_per_s": round(count / took),
        "cpu_us_per_message": round(cpu / count * 1e6, 1),
        "ms": searches,
    }


async def _filled(path: Path, count: int) -> None:
    """Messages put straight into the table: intake is measured elsewhere."""
    ledger = SqliteLedger(path, lambda: 0)
    ledger.start(lambda commit: None)
    for number in range(CHANNELS):
        routing = Routing((Route(LEGACY, "legacy", Mode.SEND, "channel"),))
        await ledger.switch(f"c{number:04}", "legacy", routing, {}, who="bench", why="bench")
    await ledger.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma synchronous = off")
    connection.execute("begin")
    connection.executemany(schema.INSERT_MESSAGE, _rows(count))
    connection.execute("commit")
    connection.close()


def _rows(count: int) -> Iterator[tuple[Any, ...]]:
    """Every message has numbers of its own, of 200,000 patients; one in ten thousand is of a rare type."""
    template = Messages("oru", seed=1).message(1)
    own, patient = b"0010000001", template.split(b"\rPID|1||", 1)[1].split(b"^", 1)[0]
    for number in range(1, count + 1):
        raw = template.replace(own, b"%010d" % number).replace(patient, b"%06d" % (number * 7919 % 200_000))
        if number % 10_000 == 0:
            raw = raw.replace(b"ORU^R01", b"ORU^R30")
        at = int(number * SECONDS_APART * 1e6)
        yield number, 1 + number % CHANNELS, 1 + number // CHANNELS, 1, at, f"SIM{number:010}", None, crc32(raw), raw


def _searches(count: int) -> dict[str, list[Selection]]:
    numbers = [1 + count * n // ASKED for n in range(ASKED)]

    def of(kind: Kind, *values: str, **options: Any) -> list[Selection]:
        return [Selection(frozenset({(kind, wanted(kind, value))}), **options) for value in values]

    whole = int(count * SECONDS_APART * 1e6)
    return {
        "control id, one message": of("control_id", *(f"SIM{n:010}" for n in numbers)),
        "order, one message": of("order", *(f"SIMP{n:010}" for n in numbers)),
        "order that is nowhere": of("order", *(f"NO{n:010}" for n in numbers)),
        "patient, all messages": of("patient", *(f"{n * 7919 % 200_000:06}" for n in numbers)),
        "rare type, newest 50": of("type", *["ORU^R30"] * ASKED),
        "common type, newest 50": of("type", *["ORU^R01"] * ASKED),
        "common type on one channel, newest 50": of("type", *["ORU^R01"] * ASKED, channels=frozenset({7})),
        "an hour of a channel, in the middle": [
            Selection(channels=frozenset({9}), since=whole // 2, until=whole // 2 + 3_600_000_000)
        ]
        * ASKED,
    }


async def _asked(follower: Follower, selections: list[Selection]) -> Figures:
    took, found = [], 0
    for selection in selections:
        began = time.perf_counter()
        found += len(await follower.find(selection, 50))
        took.append((time.perf_counter() - began) * 1000)
    return {"median": round(statistics.median(took), 1), "worst": round(max(took), 1), "found": found / len(selections)}


def _bytes(path: Path) -> int:
    """Of the tables' pages."""
    connection = sqlite3.connect(path)
    try:
        marks = ",".join("?" * len(TABLES))
        query = f"select sum(pgsize) from dbstat where name in ({marks})"
        return int(connection.execute(query, TABLES).fetchone()[0])
    except sqlite3.OperationalError:  # built without it: what was written, without the pages around it
        return int(connection.execute("select sum(length(keys) + 8) from search_bucket").fetchone()[0])
    finally:
        connection.close()
