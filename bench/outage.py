"""An outage: Medplum is down while the vendors go on sending, and then it is back.

Over 250 channels, at a fixed rate: a window while all is well; the outage, in windows of a minute or a sixth of it;
then until what has gathered is delivered, in windows of ten seconds, the vendors sending all the while; and a window
when that is done. Of each window: what an acknowledgement took, what is not settled at its end, and the memory of the
service (`rss_mib`; the highest so far is `rss_peak_mib`), which must not grow with the backlog.

At the end it is asked at the other side: each message once, and in the order of its lane, which is a patient of a
channel.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from bench.running import Ask, Figures, load, process, settled
from tests.support.sandbox import Sandbox, launch, stop

CHANNELS = 250
MINUTE, WELL = 60.0, 10.0  # seconds of a window
WORKERS = 1  # processes that map and deliver
LONGEST_DRAIN = 4 * 3600.0
KEPT = ("p50_ms", "p99_ms", "max_ms", "late_ms")


class Medplum(Protocol):
    """The other side, which goes down and comes up. `sink`: its port."""

    sink: int

    def down(self) -> None: ...

    def up(self) -> None: ...

    def figures(self) -> Figures:
        """messages: how many it has; doubled: of these more than once; disordered: behind a later one of their lane."""


@dataclass
class Instant:
    """An instant sink (bench.load.fhir_witness), where nobody listens while it is down."""

    sink: int
    pid: int
    ask: Ask

    def down(self) -> None:
        os.kill(self.pid, signal.SIGUSR1)

    def up(self) -> None:
        os.kill(self.pid, signal.SIGUSR2)

    def figures(self) -> Figures:
        return self.ask()


class Real:
    """The sandbox, which drops every connection while it is down."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.sink = int(sandbox.base.rpartition(":")[2])

    def down(self) -> None:
        self._sandbox.faults({"dropConnection": True}, {"dropConnection": True, "target": "token"})

    def up(self) -> None:
        self._sandbox.faults()

    def figures(self) -> Figures:
        stats = self._sandbox.stats()
        reports = [_placed(report) for report in self._sandbox.dump("DiagnosticReport")]
        lanes: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for channel, number, patient, at in reports:
            lanes.setdefault((channel, patient), []).append((number, at))
        disordered = 0
        for lane in lanes.values():
            times = [at for _, at in sorted(lane)]
            disordered += sum(one > other for one, other in pairwise(times))
        return {
            "messages": len({report[:2] for report in reports}),
            "doubled": len(reports) - len({report[:2] for report in reports}),
            "disordered": disordered,
            "duplicates": stats["duplicates"],
            "dangling": len(stats["danglingReferences"]),
        }


def _placed(report: dict[str, Any]) -> tuple[str, int, str, str]:
    """Channel and number of the message that brought a report, its patient, and when it was written."""
    mark = next(tag["code"] for tag in report["meta"]["tag"] if tag["system"] == "urn:interlock:message")
    _, channel, number = mark.split("/")[:3]
    return channel, int(number), report["subject"]["reference"], report["meta"]["lastUpdated"]


@contextmanager
def instant() -> Iterator[Medplum]:
    with process("bench.load.fhir_witness") as (ready, ask):
        yield Instant(ready["port"], ready["pid"], ask)


@contextmanager
def sandbox() -> Iterator[Medplum]:
    running, box = launch("--client-id=bench", "--client-secret=bench")  # as bench.service introduces itself
    try:
        yield Real(box)
    finally:
        stop(running)


def figures(other: Callable[[], Any], seconds: float, rate: float, count: int = CHANNELS) -> Figures:
    """`other`: which Medplum. seconds: how long it is down."""
    with (
        other() as medplum,
        process(
            "bench.service", f"--channels={count}", "--out=medplum", f"--workers={WORKERS}", f"--sink={medplum.sink}"
        ) as (ready, ask),
    ):
        outage = Outage(medplum, ask, ready["ports"], count, rate)
        return outage.run(seconds) | {"channels": count, "rate": rate, "down_s": seconds}


class Outage:
    """One outage."""

    def __init__(self, medplum: Medplum, ask: Ask, ports: str, count: int, rate: float) -> None:
        self._medplum, self._ask, self._ports, self._count, self._rate = medplum, ask, ports, count, rate
        self._not_accepted = 0

    def run(self, seconds: float) -> Figures:
        short = min(WELL, max(1.0, seconds / 6))
        before = [self._window(short)]
        settled(self._ask, WELL)
        self._medplum.down()
        down, until = [], time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0.5:
            down.append(self._window(min(left, MINUTE, max(1.0, seconds / 6))))
        self._medplum.up()
        began = time.monotonic()
        draining = [self._window(short)]
        while draining[-1]["open"] > 2 * self._rate and time.monotonic() < began + LONGEST_DRAIN:
            draining.append(self._window(short))
        drained = time.monotonic() - began
        after = [self._window(short)]
        last = settled(self._ask, LONGEST_DRAIN)
        backlog = down[-1]["open"]
        return {
            "well": before, "down": down, "draining": draining, "well again": after,
            "backlog": backlog, "drain_s": round(drained, 1),
            "drained_per_s": round((backlog + self._rate * drained) / drained),
            "stored": last["stored"], "settled": last["settled"], "not_accepted": self._not_accepted,
            "rss_before_mib": before[-1]["rss_mib"], "rss_down_mib": max(row["rss_mib"] for row in down),
            "rss_peak_mib": last["rss_peak_mib"], "file_mib": last["file_bytes"] >> 20,
            "at the other side": self._medplum.figures(),
        }  # fmt: skip

    def _window(self, seconds: float) -> Figures:
        row = load(self._ports, connections=self._count, seconds=seconds, rate=self._rate)
        self._not_accepted += row["lost"] + row["wrong"] + row["refused"]
        now = self._ask()
        return {
            "seconds": round(seconds, 1), **{name: row[name] for name in KEPT}, "open": now["stored"] - now["settled"],
            "rss_mib": now["rss_mib"],
        }  # fmt: skip
