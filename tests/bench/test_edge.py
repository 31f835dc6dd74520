"""Rules of the benchmarks of the edge, each at its smallest: what is measured really happens, and all of it counts."""

from __future__ import annotations

import asyncio
import resource
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from bench import hostile, large, listeners, passthrough, reconnects, tls
from bench.load import certificates
from bench.load.attack import LORIS
from bench.load.large import Large, Sender
from bench.load.limits import open_files
from bench.running import Ask, compared, load, process, ratio
from bench.service import Stalls
from engine.hl7.peek import peek
from engine.mllp.framing import Decoder, Frame

pytestmark = pytest.mark.system

KIB = 1024


@pytest.fixture
def service() -> Iterator[tuple[str, Ask]]:
    """A channel's port, and what the service says of itself."""
    with process("bench.service", "--channels=1", "--stalls") as (ready, ask):
        yield ready["ports"], ask


def rows(*p99s: float, lost: int = 0) -> list[dict[str, float]]:
    row = {"per_second": 1.0, "p50_ms": 1.0, "lost": lost, "wrong": 0, "refused": 0, "late_ms": 0.5}
    return [{**row, "p99_ms": p99, "stall_ms": p99} for p99 in p99s]


class TestListeners:
    def test_each_has_a_peer_that_was_acknowledged(self) -> None:
        found = listeners.figures(1, count=20)
        assert found["accepted"] == 20
        assert 0 < found["open_s"] < 5
        assert found["rss_mib"] >= found["rss_before_peers_mib"] > 20

    def test_peers_come_back_and_each_sends_again(self, service: tuple[str, Ask]) -> None:
        port, ask = service
        with process("bench.load.peers", f"--ports={port},{port},{port}") as (first, again):
            assert (first["peers"], first["accepted"], again()["accepted"]) == (3, 3, 3)
        assert ask()["stored"] == 6

    def test_a_limit_of_open_files_is_raised_or_said(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
            open_files(512)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (512, before[1])
            with pytest.raises(SystemExit, match=r"1099511627776 open files are needed, and this system allows \d+"):
                open_files(1 << 40)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


class TestTls:
    def test_both_kinds_are_measured(self) -> None:
        found = tls.figures(1, 0.5, count=2)
        assert found["plain"]["engine_cpu_us_per_msg"] > 0
        assert found["cpu_ratio"] == pytest.approx(
            found["tls"]["engine_cpu_us_per_msg"] / found["plain"]["engine_cpu_us_per_msg"], abs=0.01
        )
        assert "not_accepted" not in found["tls"] | found["plain"]

    async def test_the_last_channels_speak_tls_and_the_others_do_not(self, tmp_path: Path) -> None:
        unknown, _ = certificates.make(tmp_path)
        with process("bench.service", "--channels=2", "--secured=1") as (ready, ask):
            plain, secured = ready["ports"].split(",")
            assert load(plain, connections=1, seconds=2, count=3)["accepted"] == 3
            assert load(secured, connections=1, seconds=2, count=4, ca=ready["ca"])["accepted"] == 4
            context = ssl.create_default_context(cafile=unknown)
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", int(secured), ssl=context)
            assert ask()["stored"] == 7


class TestReconnects:
    def test_all_come_back_again_and_again_while_the_other_channel_is_measured(self) -> None:
        found = reconnects.figures(1, 0.5, count=10)
        assert found["reconnects"] >= 10
        assert found["not_reconnected"] == 0
        assert found["all_back_s"] > 0
        assert found["with"]["p99_ms"] > 0
        assert found["with"]["longest_stall_ms"] > 0


class TestHostile:
    @pytest.mark.parametrize("kind", hostile.KINDS)
    def test_an_attack_goes_on_while_the_other_channel_is_measured(self, kind: str) -> None:
        found = hostile.figures(1, 0.5, kinds=(kind,))[kind]
        assert found["p99_ratio"] == ratio(found["with"]["p99_ms"], found["without"]["p99_ms"])
        assert (found["connections_per_s"] if kind == "flood" else found["kib_per_s"]) > 0
        assert "not_accepted" not in found["without"]

    async def test_slow_peers_stay_connected_and_send_a_byte_a_second(self, service: tuple[str, Ask]) -> None:
        port, ask = service
        with process("bench.load.attack", "loris", f"--port={port}") as (_, counted):
            before = counted()
            await asyncio.sleep(1.5)
            after = counted()
        lasted = after["seconds"] - before["seconds"]
        assert (after["connections"], after["failed"]) == (LORIS, 0)
        assert after["bytes"] - before["bytes"] == pytest.approx(LORIS * lasted, rel=0.2)
        assert ask()["stored"] == 0


class TestLarge:
    def test_all_of_them_are_acknowledged_and_stored(self) -> None:
        found = large.figures(1, 0.5, count=3, size=600 * KIB)
        one, together = found["one after the other"], found["together"]
        assert one["large_accepted"] > 0
        assert (one["large_failed"], together["failed"]) == (0, 0)
        assert together["accepted"] == together["stored"] == together["messages"] == 3
        assert together["rss_peak_mib"] >= together["rss_before_mib"]

    async def test_each_has_the_size_that_is_asked_for_and_a_number_of_its_own(self) -> None:
        blocks = []

        class Peer:
            async def send(self, *pieces: bytes) -> bytes:
                blocks.append(b"".join(pieces))
                return b"MSA|AA|"

        made = Large(4096 * KIB)
        for _ in range(2):
            await made.one(cast(Sender, Peer()))
        messages = [event.payload for block in blocks for event in Decoder().feed(block) if isinstance(event, Frame)]
        assert [len(message) // KIB for message in messages] == [4097, 4097]
        assert len({peek(message).control_id for message in messages}) == 2
        assert (made.accepted, made.failed) == (2, 0)


class TestPassthrough:
    def test_all_ways_are_measured(self) -> None:
        found = passthrough.figures(1, 0.5, count=3)
        assert "not_accepted" not in found["relayed"] | found["unkept"] | found["bare"]
        for other in ("unkept", "bare"):
            assert found[f"of_{other}"] == ratio(found["relayed"]["msg_per_s"], found[other]["msg_per_s"])

    def test_what_keeps_nothing_relays_every_answer_of_the_other_side(self) -> None:
        with (
            process("bench.load.mllp_sink") as (sink, _),
            process("bench.load.bare", "--listeners=2", f"--sink={sink['port']}") as (bare, _),
        ):
            figures = load(",".join(map(str, bare["ports"])), connections=4, seconds=5, count=200)
        assert (figures["accepted"], figures["refused"], figures["wrong"], figures["lost"]) == (200, 0, 0, 0)


class TestComparing:
    def test_windows_are_compared_by_their_medians(self) -> None:
        found = compared(rows(1.0, 2.0, 30.0), rows(3.0, 3.0, 4.0))
        assert (found["p99_ratio"], found["p50_ratio"]) == (1.5, 1.0)
        assert (found["without"]["longest_stall_ms"], found["with"]["longest_stall_ms"]) == (30.0, 4.0)

    def test_what_was_not_accepted_is_said(self) -> None:
        assert compared(rows(1.0), rows(1.0, lost=2))["with"]["not_accepted"] == 2

    def test_there_is_no_ratio_to_nothing(self) -> None:
        assert ratio(1.0, 0.0) is None


async def test_a_stall_of_the_event_loop_is_seen_once() -> None:
    stalls = Stalls()
    await asyncio.sleep(0.01)
    time.sleep(0.1)  # noqa: ASYNC251 - the stall
    await asyncio.sleep(0.01)
    assert stalls.taken()["stall_ms"] >= 95
    assert stalls.longest == 0
