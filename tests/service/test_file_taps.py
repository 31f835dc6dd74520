"""Taps over files: what the old engine writes into a folder of ours goes on, is held back, or waits for a person."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Directory, Files
from engine.config.endpoint import Endpoint
from engine.config.model import Compare, Destination, Tap
from engine.hl7.ack import parse_ack
from engine.service.service import Service
from engine.service.view import View
from engine.simulate.forwarding import MARK, stamped
from engine.simulate.messages import Messages
from engine.simulate.old_engine import OldEngine
from tests.support.house import Peer, assert_balances, channel, configuration, running, until
from tests.support.moving import Operator
from tests.support.ports import free_port

MESSAGES = Messages("oru", seed=9)
STRANGERS = Messages("oru", seed=77)


class Bench:
    """One channel whose old engine writes files into `drop`, for a clinic that reads `clinic`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.drop, self.clinic = path / "drop", path / "clinic"
        self.drop.mkdir()
        self.clinic.mkdir()
        self.service: Service
        self._written = 0

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Bench]:
        """The old engine and the service, until the block ends."""
        self.old = OldEngine()
        await self.old.start()
        endpoint = Endpoint("clinic", None, place=Directory(self.clinic), on_unknown="resend", probe="none")
        tap = Tap("clinic", Files(Directory(self.drop), poll=0.01, stable=0.0), endpoint, settle=0.2)
        destination = Destination("clinic", "file", endpoint, order_by="channel")
        self.port = free_port()
        self.channel = channel(
            "acme-results", port=self.port, old_engine=self.old.port, destinations=(destination,), taps=(tap,),
            rollback="guarded", compare=Compare(within=2.0),
        )  # fmt: skip
        try:
            async with running(configuration(self.path, self.channel)) as self.service:
                self.operator = Operator(self.service)
                yield self
        finally:
            await self.old.stop()

    async def send(self, *numbers: int) -> None:
        peer = await Peer.connect(self.port)
        for number in numbers:
            assert parse_ack(await peer.exchange(MESSAGES.message(number))).code == "AA"  # type: ignore[union-attr]
        await peer.close()

    def output(self, *numbers: int, name: str = "", messages: Messages = MESSAGES) -> bytes:
        """What the old engine makes of inputs, as one file."""
        self._written += 1
        data = b"".join(stamped(messages.message(number), f"{MARK}{self._written:06}.{number}") for number in numbers)
        self.write(name or f"out-{self._written}.hl7", data)
        return data

    def write(self, name: str, data: bytes) -> None:
        (self.drop / f".{name}.tmp").write_bytes(data)
        os.rename(self.drop / f".{name}.tmp", self.drop / name)

    @property
    def tap(self) -> Any:
        return self.service.comparisons.channels["acme-results"].ports["clinic"]

    def there(self, folder: Path) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in folder.glob("[!.]*") if each.is_file()}

    def outputs(self) -> list[tuple[str, int | None]]:
        with closing(sqlite3.connect(self.path / "interlock.db")) as connection:
            return connection.execute("select decision, seq from tap_output order by id").fetchall()

    async def recorded(self, *expected: tuple[str, int | None]) -> None:
        """Wait until these outputs, and no others, are recorded, and their files moved away."""
        await until(lambda: len(self.outputs()) >= len(expected) and self.tap.quiet_since is not None)
        assert self.outputs() == list(expected)
        await until(lambda: not any(each.is_file() for each in self.drop.iterdir()))

    async def live(self) -> None:
        await self.operator.verb("parallel", "acme-results")
        await self.operator.waive_all("acme-results")
        run = await self.operator.run("cutover", "acme-results")
        assert run["state"] == "done", run


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_while_the_old_engine_sends_its_files_go_on_under_their_names_as_they_are(bench: Bench) -> None:
    async with bench.run():
        await bench.send(1)
        data = bench.output(1, name="result.hl7")
        await bench.recorded(("forwarded", None))
        assert bench.there(bench.clinic) == {"result.hl7": data}
        assert bench.there(bench.drop / "archive") == {"result.hl7": data}


async def test_in_a_parallel_run_each_file_is_compared_with_what_we_would_send(bench: Bench) -> None:
    async with bench.run():
        await bench.operator.verb("parallel", "acme-results")
        await bench.send(1, 2, 3)
        bench.output(1)
        bench.output(2, 3)
        await bench.recorded(("forwarded", 1), ("forwarded", 2), ("forwarded", 3))
        comparer = bench.service.comparisons.channels["acme-results"].comparer
        await until(lambda: comparer.counts()["clinic"].totals.matched == 3)
        assert len(bench.there(bench.clinic)) == 2


async def test_a_second_file_for_one_input_is_found(bench: Bench) -> None:
    async with bench.run():
        await bench.operator.verb("parallel", "acme-results")
        await bench.send(1)
        bench.output(1)
        await bench.recorded(("forwarded", 1))
        bench.output(1)
        await bench.recorded(("forwarded", 1), ("forwarded", 1))
        comparer = bench.service.comparisons.channels["acme-results"].comparer
        await comparer.flush()
        with closing(sqlite3.connect(bench.path / "interlock.db")) as connection:
            found = connection.execute("select path, kind from discrepancy where tap = 'clinic'").fetchall()
        assert found == [("message-twice", "missing_in_target")]


async def test_in_live_what_it_makes_of_later_inputs_is_kept_and_not_sent(bench: Bench) -> None:
    async with bench.run():
        await bench.operator.verb("parallel", "acme-results")
        await bench.send(1)
        bench.output(1, name="first.hl7")
        await bench.recorded(("forwarded", 1))
        await bench.live()
        await bench.send(2)
        await until(lambda: len(bench.there(bench.clinic)) == 2)
        bench.output(2, name="second.hl7")
        await bench.recorded(("forwarded", 1), ("captured", 2))
        assert set(bench.there(bench.clinic)) == {"first.hl7", "acme-results-0000000002.hl7"}
        assert set(bench.there(bench.drop / "archive")) == {"first.hl7", "second.hl7"}
        await assert_balances(bench.service)


async def test_in_live_what_belongs_to_no_input_waits_for_a_person(bench: Bench) -> None:
    async with bench.run():
        await bench.live()
        data = bench.output(5, messages=STRANGERS, name="stranger.hl7")
        await bench.recorded(("parked", None))
        assert bench.there(bench.clinic) == {}
        assert bench.there(bench.drop / "parked") == {"stranger.hl7": data}


async def test_a_file_whose_messages_have_different_fates_goes_nowhere_and_waits_for_a_person(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    async with bench.run():
        await bench.operator.verb("parallel", "acme-results")
        await bench.send(1)
        await bench.live()
        await bench.send(2)
        await until(lambda: len(bench.there(bench.clinic)) == 1)
        monkeypatch.setattr("engine.compare.file_tap.emit", told.append)
        data = bench.output(1, 2, name="both.hl7")
        await bench.recorded(("parked", 1), ("parked", 2))
        assert bench.there(bench.drop / "parked") == {"both.hl7": data}
        assert set(bench.there(bench.clinic)) == {"acme-results-0000000002.hl7"}
        assert [event.name() for event in told] == ["output_parked"] * 2
        assert {event.reason for event in told} == {"its file has outputs that are to be sent, and others that are not"}
        comparer = bench.service.comparisons.channels["acme-results"].comparer
        await until(lambda: comparer.counts()["clinic"].totals.matched == 1)  # what it made of 1 is known all the same
        assert comparer.counts()["clinic"].pending == 0


async def test_what_is_no_message_goes_on_as_it_is_while_the_old_engine_sends(bench: Bench) -> None:
    async with bench.run():
        bench.write("report.hl7", b"no message")
        await bench.recorded(("forwarded", None))
        assert bench.there(bench.clinic) == {"report.hl7": b"no message"}


async def test_a_file_that_is_too_large_goes_nowhere(bench: Bench) -> None:
    async with bench.run():
        bench.tap._inbox._most = 100
        bench.write("large.hl7", b"MSH|" + b"x" * 100)
        await until(lambda: set(bench.there(bench.drop / "failed")) == {"large.hl7"})
        assert (bench.outputs(), bench.there(bench.clinic)) == ([], {})


async def test_while_the_endpoints_folder_takes_nothing_files_wait_in_their_order(bench: Bench) -> None:
    async with bench.run():
        await bench.operator.verb("parallel", "acme-results")
        await bench.send(1, 2)
        bench.clinic.rename(bench.path / "away")
        bench.output(1, name="b.hl7")
        await until(lambda: bench.tap._trouble is not None)
        bench.output(2, name="a.hl7")
        await until(lambda: bench.tap._inbox.waiting == 2)
        assert bench.outputs() == []
        assert bench.service.comparisons.quiet_since("acme-results") is None
        (bench.path / "away").rename(bench.clinic)
        await bench.recorded(("forwarded", 1), ("forwarded", 2))
        assert set(bench.there(bench.clinic)) == {"a.hl7", "b.hl7"}


async def test_a_name_that_the_endpoint_has_yet_to_read_is_waited_for(bench: Bench) -> None:
    async with bench.run():
        (bench.clinic / "result.hl7").write_bytes(b"earlier")
        data = bench.output(1, name="result.hl7")
        await until(lambda: bench.tap._trouble == "another file has this name")
        (bench.clinic / "result.hl7").unlink()
        await bench.recorded(("forwarded", None))
        assert bench.there(bench.clinic) == {"result.hl7": data}


async def test_the_same_file_again_is_a_new_output(bench: Bench) -> None:
    async with bench.run():
        for count in (1, 2):
            bench.write("result.hl7", MESSAGES.message(1))
            await bench.recorded(*[("forwarded", None)] * count)
            (bench.clinic / "result.hl7").unlink()


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["before it is put", "after it was put", "after it was recorded"])
@pytest.mark.parametrize("live", [False, True])
async def test_a_crash_at_any_step_puts_and_records_each_file_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str, live: bool
) -> None:
    async with bench.run():
        if live:
            await bench.live()
        tap = bench.tap
        reached: list[str] = []

        def dies(*what: Any) -> Any:
            reached.append(step)
            raise Crash

        with monkeypatch.context() as patch:
            if step == "before it is put":
                patch.setattr(tap, "_decide", dies)
            elif step == "after it was put":
                patch.setattr(tap, "_record", dies)
            else:
                patch.setattr(tap._inbox, "_away", dies)
            bench.output(3, messages=STRANGERS, name="result.hl7")
            await until(lambda: bool(reached))
    assert len(list(bench.drop.glob(".result.hl7~*.taking"))) == 1
    if step != "before it is put" and not live:
        assert set(bench.there(bench.clinic)) == {"result.hl7"}
    async with bench.run():
        decision = "parked" if live else "forwarded"
        await bench.recorded((decision, None))
        assert set(bench.there(bench.clinic)) == (set() if live else {"result.hl7"})
        assert set(bench.there(bench.drop / ("parked" if live else "archive"))) == {"result.hl7"}


async def test_what_was_put_is_not_put_again_where_only_recording_it_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.files.inbox.AGAIN", 0.0)
    async with bench.run():
        ledger, failed = bench.tap._ledger, 0
        transaction = ledger.transaction

        async def fails_once(act: Any) -> Any:
            nonlocal failed
            failed += 1
            if failed == 1:
                (bench.clinic / "result.hl7").unlink()  # the clinic has read it
                raise RuntimeError("a defect")
            return await transaction(act)

        monkeypatch.setattr(bench.tap, "_ledger", _Like(ledger, transaction=fails_once))
        bench.output(1, name="result.hl7")
        await bench.recorded(("forwarded", None))
        assert bench.there(bench.clinic) == {}


class _Like:
    """Another object, but for some of its attributes."""

    def __init__(self, other: Any, **changed: Any) -> None:
        self._other = other
        self.__dict__.update(changed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)


async def test_a_folder_that_cannot_be_read_shows_as_down_and_why(bench: Bench) -> None:
    async with bench.run():
        await until(lambda: bench.tap._inbox._told)
        view = View(bench.service, "0")
        (tap,) = (await view.status())["channels"][0]["taps"]
        assert (tap["listening"], tap["address"], tap["peers"]) == (True, str(bench.drop), [])
        bench.drop.rename(bench.path / "away")
        await until(lambda: bench.tap.down is not None)
        ready = await view.readiness()
        assert (ready["ready"], ready["listeners"]["acme-results/clinic"]) == (False, "the folder is not there")
        (bench.path / "away").rename(bench.drop)
        await until(lambda: bench.tap.down is None)
        assert (await view.readiness())["ready"]
