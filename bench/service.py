"""A service for the benchmarks, in a process of its own: N channels on free ports, one of six ways out.

    python -m bench.service --channels 250 --out OUT [--sink PORT] [--ledger FILE] [--secured N] [--stalls]

`nothing`: stored and acknowledged only. `instant`: two destinations in the same process that settle at once.
`relay`: the legacy path to an MLLP sink, whose answer is relayed. `captured`: in parallel, the legacy path to an old
engine of the channel's own (inputs from port 22000), and what we would send is kept. `tapped`: the same, and what the
old engine sends to its tap (from port 23000) is forwarded to the sink, and compared. `medplum`: mapped, and delivered
to a FHIR sink. GET-like questions come on stdin, one a line: `figures` prints JSON with this process's CPU, memory and
settled counts. The last `--secured` channels listen over TLS, with a certificate made for this run; the ready
line names it as `ca`. `--unkept`: the same service, whose ledger counts and writes nothing. `--unfollowed`: search
keys are not kept. `--pruned`: the bytes of whatever is settled are removed. `--stalls`: `stall_ms` is the longest that
the event loop was late since it was asked before.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from bench.load import certificates
from bench.load.limits import open_files
from engine.config.address import Address
from engine.config.edge import Ack, Listen, Sockets, Takes, Tls
from engine.config.endpoint import Endpoint
from engine.config.model import Channel, Configuration, Destination, Legacy, Medplum, Retention, Service, Tap, Target
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.work import Work
from engine.ledger.outcome import Outcome, Result
from engine.ledger.sqlite import rows
from engine.ledger.sqlite.committer import Committer
from engine.observe import events
from engine.service import keeping
from engine.service.follower import Follower
from engine.service.service import Service as Running
from engine.service.ways import Ways

DELIVERED = Outcome(Result.DELIVERED)
INPUTS, TAPS = 22000, 23000  # the first ports of the old engine, and of its taps
MANY = Sockets(most=1000)  # the benchmarks of one channel connect more often than its default lets them
FILES_EACH = 6  # of a channel: its listener, a few peers, its way out


class Instant:
    """A destination that has everything at once."""

    manner = Manner()

    def __init__(self) -> None:
        self.breaker = Breaker("instant")

    def lanes(self, raw: bytes) -> tuple[bytes, ...]:
        return (b"",)

    def ready(self, work: Work) -> None:
        return None

    def make(self, work: Work) -> None:
        return None

    def send(self, work: Work) -> None:
        work.done(work, DELIVERED)

    async def close(self) -> None:
        """Nothing is held."""


class InstantWays(Ways):
    def destination(self, channel: Channel, name: str, incarnation: str) -> Any:
        return Instant()


class Log(io.StringIO):
    """One line a connection is not what is measured: none is kept, only when the first and the last port opened."""

    first = last = 0.0

    def write(self, line: str) -> int:
        if '"listener_opened"' in line:
            self.last = time.perf_counter()
            self.first = self.first or self.last
        return len(line)


class Stalls:
    """How late the event loop comes to what is due, looked at every 2 ms."""

    EVERY = 0.002

    def __init__(self) -> None:
        self.longest = 0.0
        self._loop = asyncio.get_running_loop()
        self._due = time.perf_counter()
        self._beat()

    def _beat(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._due)
        self._due = now + self.EVERY
        self._loop.call_later(self.EVERY, self._beat)

    def taken(self) -> dict[str, float]:
        longest, self.longest = self.longest, 0.0
        return {"stall_ms": round(longest * 1000, 1)}


def channels(count: int, out: str, sink: int, first_port: int, secured: int, tls: Tls | None) -> tuple[Channel, ...]:
    template = Channel(
        "c", "bench", "bench", "results", {}, "bench", "UTC", "live", Listen(0, "127.0.0.1", sockets=MANY), Takes(),
        Ack("stored"), {}, None, None, None, "bench", {},
    )  # fmt: skip
    endpoint = Endpoint("sink", Address("127.0.0.1", sink or 1))
    if out == "instant":
        two = tuple(Destination(name, "mllp", endpoint, order_by="channel") for name in ("one", "two"))
        template = replace(template, target=Target(None, two), takes=Takes(("ORU^R01",)))
    elif out == "relay":
        template = replace(template, phase="legacy", ack=Ack("authoritative"), legacy=Legacy(endpoint))
    elif out == "medplum":
        template = replace(template, target=Target("ORU_R01", (Destination("medplum", "medplum", None),)))
    plain = template.source
    assert isinstance(plain, Listen)
    made = (
        replace(template, id=f"c{n:04}", source=replace(
            plain, port=first_port + n if first_port else 0, tls=tls if n >= count - secured else None
        ))
        for n in range(count)
    )  # fmt: skip
    if out not in ("captured", "tapped"):
        return tuple(made)
    return tuple(_parallel(channel, n, endpoint, taps=out == "tapped") for n, channel in enumerate(made))


def _parallel(channel: Channel, number: int, clinic: Endpoint, *, taps: bool) -> Channel:
    old = Endpoint(f"old-{number}", Address("127.0.0.1", INPUTS + number))
    tap = Tap("sink", Listen(TAPS + number, "127.0.0.1"), clinic)
    return replace(
        channel, phase="parallel", ack=Ack("authoritative"), legacy=Legacy(old, taps=(tap,) if taps else ()),
        target=Target(None, (Destination("sink", "mllp", clinic, order_by="channel"),)),
    )  # fmt: skip


def children() -> list[int]:
    """The processes of our workers."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def figures(service: Running) -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text()
    memory = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("Vm")}
    books = service.ledger.channels.values()
    return {
        "cpu_s": used.ru_utime + used.ru_stime + sum(map(cpu_of, children())),
        "rss_mib": memory["VmRSS"],
        "rss_peak_mib": memory["VmHWM"],
        "stored": sum(book.seq for book in books),
        "settled": sum(sum(map(sum, course.totals.values())) for book in books for course in book.courses),
        "compared": {tap: _compared(service, tap) for tap in ("sink", "")},
        "unread": service.follower.lag,
        "file_bytes": service.ledger.path.stat().st_size,
        "at": time.monotonic(),
    }


def _compared(service: Running, tap: str) -> dict[str, int]:
    """By what came of it, over all channels."""
    found = [tapped.comparer.counts() for tapped in service.comparisons.channels.values()]
    totals = [counts[tap].totals for counts in found if tap in counts]
    names = ("matched", "explained", "unexplained", "not_comparable")
    return {name: sum(getattr(each, name) for each in totals) for name in names}


async def run(options: argparse.Namespace, folder: Path, log: Log) -> None:
    ledger = Path(options.ledger) if options.ledger else folder / "ledger.db"
    medplum = Medplum(f"http://127.0.0.1:{options.sink}", "bench", "bench") if options.out == "medplum" else None
    settings = Service(folder, None, ledger, Address("127.0.0.1", 0), options.workers, medplum, folder)
    tls = Tls(*certificates.make(folder)) if options.secured else None
    made = channels(options.channels, options.out, options.sink, options.port, options.secured, tls)
    if options.pruned:
        made = tuple(replace(channel, retention=Retention(raw=0.001, captured=0.001)) for channel in made)
    configuration = Configuration(settings, made, {})
    open_files(FILES_EACH * options.channels + 2 * MANY.most)
    service = Running(configuration, InstantWays(configuration) if options.out == "instant" else None)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.ended.set)
    await service.start()
    if service.doors.down:
        raise SystemExit(f"ports taken: {sorted(service.doors.down)[:3]}")
    ready = {
        "ports": ",".join(str(service.doors.ports[channel.id].listener.port) for channel in made),
        "ledger": str(ledger),
        "ca": str(tls.certificate) if tls else None,
        "open_s": round(log.last - log.first, 4),
    }
    print(json.dumps(ready), flush=True)
    stalls = Stalls() if options.stalls else None

    def answer() -> None:
        sys.stdin.readline()
        print(json.dumps(figures(service) | (stalls.taken() if stalls else {})), flush=True)

    loop.add_reader(sys.stdin, answer)
    await service.ended.wait()
    loop.remove_reader(sys.stdin)
    await service.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.service", description=__doc__)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument(
        "--out", choices=["nothing", "instant", "relay", "captured", "tapped", "medplum"], default="nothing"
    )
    parser.add_argument("--sink", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that map and deliver")
    parser.add_argument("--port", type=int, default=0, help="the first of the channels' ports; 0: free ones")
    parser.add_argument("--secured", type=int, default=0, help="how many channels, the last ones, listen over TLS")
    parser.add_argument("--stalls", action="store_true", help="watch how late the event loop is")
    parser.add_argument("--ledger", help="a ledger file to use and keep; a fresh one is made and removed else")
    parser.add_argument("--unfollowed", action="store_true", help="keep no search keys")
    parser.add_argument("--pruned", action="store_true", help="remove the bytes of whatever is settled, at once")
    parser.add_argument("--unkept", action="store_true", help="the ledger counts, and writes nothing")
    options = parser.parse_args()
    if options.unkept:
        rows.put = lambda connection, changes, extra, *, wait: True
        Committer._commit = lambda self, unput: None  # type: ignore[method-assign]
    if options.pruned:
        keeping.FIRST = keeping.EVERY = 0.5
    if options.unfollowed:
        Follower.committed = lambda self, commit: None  # type: ignore[method-assign]
    events.LOG._stream = log = Log()
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as folder:
        uvloop.run(run(options, Path(folder), log))


if __name__ == "__main__":
    main()
