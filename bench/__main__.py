"""The figures of the README: `make bench`, or `python -m bench NAME …` for some of them. JSON on stdout.

Everything runs on this machine, the load generator and the sinks in processes of their own; their cost is inside every
figure. Rates are medians of --rounds windows of --seconds each. The rate of fdatasync and the echo server without a
store belong to the same run, since such machines drift.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from bench.running import Ask, Figures, fdatasync, load, median, process, read, settled, summed


class Bench:
    def __init__(self, rounds: int, seconds: float, rate: float | None = None) -> None:
        self.rounds, self.seconds, self.rate = rounds, seconds, rate

    def _service(self, *arguments: str, connections: int, **options: Any) -> Figures:
        with process("bench.service", *arguments) as (ready, ask):
            load(ready["ports"], connections=connections, seconds=0.5)
            before = read(ask)
            rows = [
                load(ready["ports"], connections=connections, seconds=self.seconds, **options)
                for _ in range(self.rounds)
            ]
            after = read(ask)  # what is done behind the hot path is part of what a message costs
            return summed(rows, after["cpu_s"] - before["cpu_s"]) | {"rss_mib": after["rss_mib"]}

    def ingest(self) -> Figures:
        """Durable, acknowledged, not delivered: 1, 50 and 250 channels, a connection each."""
        result: Figures = {"fdatasync_per_s": round(fdatasync())}
        for count in (1, 50, 250):
            result[str(count)] = self._service(f"--channels={count}", connections=count)
            if count > 1:
                with process("bench.load.echo", f"--listeners={count}") as (ready, _):
                    ports = ",".join(map(str, ready["ports"]))
                    echo = [load(ports, connections=count, seconds=self.seconds) for _ in range(self.rounds)]
                result[str(count)]["echo_per_s"] = median(echo, "per_second")
                result[str(count)]["of_echo"] = round(result[str(count)]["msg_per_s"] / median(echo, "per_second"), 3)
        result["fdatasync_per_s_after"] = round(fdatasync())
        rate = (result["fdatasync_per_s"] + result["fdatasync_per_s_after"]) / 2
        result["1"]["of_fdatasync"] = round(result["1"]["msg_per_s"] / rate, 3)
        return result

    def settling(self) -> Figures:
        """The same while two instant destinations settle."""
        return {
            str(count): self._service(f"--channels={count}", "--out=instant", connections=count) for count in (50, 250)
        }

    def latency(self) -> Figures:
        """Acknowledgement (`stored`) at 200 messages a second over 250 channels; nothing, and two destinations."""
        return {
            out: self._service("--channels=250", f"--out={out}", connections=250, rate=200)
            for out in ("nothing", "instant")
        }

    def relay(self) -> Figures:
        """The old engine's answer relayed: 1 and 250 channels, and 200 messages a second over 250."""
        result: Figures = {"fdatasync_per_s": round(fdatasync())}
        with process("bench.load.mllp_sink") as (sink, _):
            way = ("--out=relay", f"--sink={sink['port']}")
            direct = [load(str(sink["port"]), connections=1, seconds=2, rate=200)]
            result["sink alone at 200/s"] = summed(direct)
            for count in (1, 250):
                result[str(count)] = self._service(f"--channels={count}", *way, connections=count)
            result["250 at 200/s"] = self._service("--channels=250", *way, connections=250, rate=200)
        result["1"]["of_fdatasync"] = round(result["1"]["msg_per_s"] / result["fdatasync_per_s"], 3)
        return result

    def taps(self) -> Figures:
        """What taps and comparison cost: 50 channels in parallel at 200 and 1,000 messages a second.

        `captured`: what we would send is kept, no taps. `tapped`: the old engine's output is forwarded, kept and
        compared as well, equal but for its stamps. `tapped, all differ`: a unit is another one in each message.
        """
        result: Figures = {}
        with process("bench.load.mllp_sink") as (sink, _):
            for name, out, flags in (
                ("captured", "captured", ()),
                ("tapped", "tapped", ()),
                ("tapped, all differ", "tapped", ("--differ",)),
            ):
                with process("bench.load.forwarder", "--count=50", *flags):
                    for rate in (200, 1000):
                        result[f"{name} at {rate}/s"] = self._tapped(out, sink["port"], rate)
        return result

    def _tapped(self, out: str, sink: int, rate: int) -> Figures:
        with process("bench.service", "--channels=50", f"--out={out}", f"--sink={sink}") as (ready, ask):
            load(ready["ports"], connections=50, seconds=1, rate=rate)
            before = ask()
            rows = [load(ready["ports"], connections=50, seconds=self.seconds, rate=rate) for _ in range(self.rounds)]
            time.sleep(1.0)  # the last verdicts
            after = ask()
            cpu = after["cpu_s"] - before["cpu_s"]
            return summed(rows, cpu) | {"compared": after["compared"]["sink"], "stored": after["stored"]}

    def fhir(self) -> Figures:
        """A burst over 50 connections, mapped and delivered to the instant FHIR sink: until everything is settled. In
        one process, and with one worker beside it.

        `known`: patient, parties and order are in the cache, one transaction a message. `new orders`: each message
        brings an order that has to be created first.
        """
        result: Figures = {}
        for workers in (0, 1):
            way = ("--channels=50", "--out=medplum", f"--workers={workers}")
            with (
                process("bench.load.fhir_sink") as (sink, _),
                process("bench.service", *way, f"--sink={sink['port']}") as (ready, ask),
            ):
                self._burst(ready, ask, 2000, "--known-orders")
                result[f"{workers} workers"] = {
                    "known": self._bursts(ready, ask, "--known-orders"),
                    "new orders": self._bursts(ready, ask),
                }
        return result

    def _bursts(self, ready: Figures, ask: Ask, *flags: str) -> Figures:
        rows = [self._burst(ready, ask, 6000, *flags) for _ in range(self.rounds)]
        return {name: round(statistics.median(row[name] for row in rows)) for name in rows[0]}

    def _burst(self, ready: Figures, ask: Ask, count: int, *flags: str) -> Figures:
        before = ask()
        load(ready["ports"], *flags, connections=50, seconds=60, count=count)
        after = settled(ask)
        done = after["settled"] - before["settled"]
        return {
            "msg_per_s": done / (after["at"] - before["at"]),
            "engine_cpu_us_per_msg": (after["cpu_s"] - before["cpu_s"]) / done * 1e6,
        }

    def growth(self) -> Figures:
        """From the first 100,000 messages to the millionth, two destinations settling, 250 channels."""
        rows = []
        with process("bench.service", "--channels=250", "--out=instant") as (ready, ask):
            for _ in range(10):
                before = ask()
                rows.append(load(ready["ports"], connections=250, seconds=120, count=100_000))
                after = ask()
                rows[-1]["cpu_us"] = (after["cpu_s"] - before["cpu_s"]) * 10
            after = settled(ask, ways=2)
        size = len(message())
        return {
            "msg_per_s_by_100000": [row["per_second"] for row in rows],
            "engine_cpu_us_by_100000": [round(row["cpu_us"], 1) for row in rows],
            "last_of_first": round(rows[-1]["per_second"] / rows[0]["per_second"], 3),
            "file_bytes_per_message": round(after["file_bytes"] / after["stored"]),
            "raw_bytes_per_message": size,
            "above_raw_kb": round((after["file_bytes"] / after["stored"] - size) / 1000, 3),
        }

    def search(self) -> Figures:
        """Intake with and without search keys, windows in turn; and a million messages: their keys, and searches."""
        from bench.search import figures

        return figures(self.rounds, self.seconds, 1_000_000)

    def compare(self) -> Figures:
        """One comparison by meaning, microseconds, by what the old engine did to its output."""
        from bench.comparing import figures

        return figures()

    def mapping(self) -> Figures:
        """A ten-segment ORU^R01 to JSON bytes, against python-hl7's parse of the same message, interleaved."""
        from bench.mapping import figures

        return figures()

    def start(self) -> Figures:
        """From exec to 250 ports accepting, and memory then: `interlock run` on 250 channel files."""
        from bench.start import figures

        return figures(self.rounds)

    def listeners(self) -> Figures:
        """2,000 listeners, each with a connected peer that has sent: memory, and the time to open them."""
        from bench.listeners import figures

        return figures(self.rounds)

    def tls(self) -> Figures:
        """CPU of the service for a message over TLS, against plain: windows in turn, connections that stay."""
        from bench.tls import figures

        return figures(self.rounds, self.seconds)

    def reconnects(self) -> Figures:
        """250 TLS peers reconnect at once, and another channel's acknowledgement meanwhile."""
        from bench.reconnects import figures

        return figures(self.rounds, self.seconds)

    def hostile(self) -> Figures:
        """Slow-loris, a flood of connections and garbage on one channel, and another channel's acknowledgement."""
        from bench.hostile import figures

        return figures(self.rounds, self.seconds)

    def large(self) -> Figures:
        """20 MB messages: what 200 small ones a second feel of one after the other, and 250 at the same time."""
        from bench.large import figures

        return figures(self.rounds, self.seconds)

    def passthrough(self) -> Figures:
        """Relayed pass-through at 250 channels, against the same without a store: windows in turn."""
        from bench.passthrough import figures

        return figures(self.rounds, self.seconds)

    def outage(self) -> Figures:
        """Medplum, an instant one, is down for --seconds, at --rate messages a second (200 unless given)."""
        from bench.outage import figures, instant

        return figures(instant, self.seconds, self.rate or 200.0)

    def outage_sandbox(self) -> Figures:
        """The same with the sandbox in Medplum's place (20 messages a second unless --rate says otherwise)."""
        from bench.outage import figures, sandbox

        return figures(sandbox, self.seconds, self.rate or 20.0)


def message() -> bytes:
    from engine.simulate.messages import Messages

    return Messages("oru", seed=1).message(1)


def main() -> None:
    names = [name for name in vars(Bench) if not name.startswith("_")]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*names, []], help=f"of {', '.join(names)}; all unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", type=float, help="messages a second, where a benchmark has a rate of its own")
    options = parser.parse_args()
    bench = Bench(options.rounds, options.seconds, options.rate)
    print(json.dumps({name: getattr(bench, name)() for name in options.names or names}, indent=1))


if __name__ == "__main__":
    main()
