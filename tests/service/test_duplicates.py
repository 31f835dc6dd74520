"""A sender that heard no answer repeats its message: the old engine gets it as it came, the new path gets it once, and
its sender hears the first answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.config.edge import Directory, Files
from engine.config.feed import Rule
from engine.config.model import Duplicates
from engine.hl7.ack import parse_ack
from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result
from tests.support.fake import Fake, FakeWays, crash_image
from tests.support.house import (
    MEDPLUM,
    ORU,
    Peer,
    assert_balances,
    channel,
    configuration,
    exchanged,
    fed,
    feed,
    port_of,
    running,
    settled,
    states,
    until,
    written,
)
from tests.support.moving import Operator
from tests.support.ports import free_port
from tests.support.scripted import Scripted

MESSAGE = b"MSH|^~\\&|LAB|L|EMR|C|2026010112%02d||ORU^R01|%s|P|2.5\rPID|1||%s^^^H\rOBX|1|ST|T||%s\r"


def message(control_id: str = "A", *, at: int = 0, patient: str = "7", text: str = "x") -> bytes:
    return MESSAGE % (at, control_id.encode(), patient.encode(), text.encode())


def watched(port: int, **options: Any) -> Any:
    return channel("acme", port=port, duplicates=Duplicates(), **{"destinations": (MEDPLUM,)} | options)


def made(folder: Path, port: int, fake: Fake, **options: Any) -> tuple[Any, FakeWays]:
    of = configuration(folder, watched(port, **options), medplum="http://127.0.0.1:1")
    return of, FakeWays(of, fake)


async def sent(port: int, *payloads: bytes) -> list[str]:
    return [parse_ack(answer).code for answer in await exchanged(port, *payloads)]


async def test_a_repeat_on_a_new_connection_is_acknowledged_and_not_sent_again(tmp_path: Path):
    port, fake = free_port(), Fake()
    async with running(*made(tmp_path, port, fake)) as service:
        assert await sent(port, message()) == ["AA"]
        assert await sent(port, message(at=30)) == ["AA"]
        await until(lambda: service.ledger.channels["acme"].courses[0].frontier == 2)
        await assert_balances(service)
        assert fake.sent == [1]
        assert await states(service, "acme", "medplum") == {"delivered": 1, "duplicate": 1}


async def test_a_later_message_was_acknowledged_so_that_the_same_again_is_sent_on_purpose(tmp_path: Path):
    port, fake = free_port(), Fake()
    async with running(*made(tmp_path, port, fake)) as service:
        assert await sent(port, message(), message("B"), message()) == ["AA"] * 3
        await until(lambda: service.ledger.channels["acme"].courses[0].frontier == 3)
        await assert_balances(service)
        assert fake.sent == [1, 2, 3]


async def test_a_repeat_waits_for_its_first_and_is_sent_in_its_place_where_that_is_discarded(tmp_path: Path):
    verdicts = {1: Outcome(Result.NEVER, "no", local=True)}
    port, fake = free_port(), Fake(lambda work: verdicts.get(work.message.seq, Outcome(Result.DELIVERED)))
    async with running(*made(tmp_path, port, fake)) as service:
        book = service.ledger.channels["acme"]
        service.ledger.pause(book.courses[0], True)
        assert await sent(port, message()) == ["AA"]
        assert await sent(port, message()) == ["AA"]
        service.ledger.pause(book.courses[0], False)
        await until(lambda: fake.sent == [1] and len(book.courses[0].open) == 2)
        assert [work.state for work in book.courses[0].open.values()] == [State.DEAD, State.PARKED]
        course = book.courses[0]
        await service.ledger.transaction(
            lambda ledger: ledger.close_open(course, (1, 1, 1), State.DISCARDED, "a person", 1)
        )
        course.runner.forget()
        await until(lambda: fake.sent == [1, 2])
        await until(lambda: not course.open)
        await assert_balances(service)
        assert await states(service, "acme", "medplum") == {"discarded": 1, "delivered": 1}


async def test_the_message_after_one_that_died_is_a_new_one(tmp_path: Path):
    verdicts = {1: Outcome(Result.NEVER, "no", local=True, aside=True)}
    port, fake = free_port(), Fake(lambda work: verdicts.get(work.message.seq, Outcome(Result.DELIVERED)))
    async with running(*made(tmp_path, port, fake)) as service:
        assert await sent(port, message()) == ["AA"]
        await until(
            lambda: State.DEAD in [work.state for work in service.ledger.channels["acme"].courses[0].open.values()]
        )
        assert await sent(port, message()) == ["AA"]
        await until(lambda: fake.sent == [1, 2])


async def test_the_old_engine_gets_a_repeat_as_it_came_and_medplum_does_not(tmp_path: Path, old_engine):
    port, fake = free_port(), Fake()
    options = {"old_engine": old_engine.port, "phase": "parallel"}
    async with running(*made(tmp_path, port, fake, **options)) as service:
        assert await sent(port, message()) == ["AA"]
        assert await sent(port, message(at=59)) == ["AA"]
        await until(lambda: service.ledger.channels["acme"].course("medplum").frontier == 2)
        await assert_balances(service)
        assert fake.sent == [1]
        assert old_engine.control_ids == ["A", "A"]
        assert await states(service, "acme", "legacy") == {"delivered": 2}


async def test_after_a_restart_the_newest_of_each_connection_is_still_known(tmp_path: Path):
    port, fake = free_port(), Fake(lambda work: None)
    async with running(*made(tmp_path, port, fake)) as service:
        assert await sent(port, message()) == ["AA"]
        assert await sent(port, message("B"), message("C")) == ["AA", "AA"]
        await written(service)
        crash_image(service.ledger.path, tmp_path / "next")
    fake = Fake()
    async with running(*made(tmp_path / "next", port, fake)) as service:
        assert await sent(port, message()) == ["AA"]
        assert await sent(port, message("B")) == ["AA"]
        assert await sent(port, message("C")) == ["AA"]
        await until(lambda: service.ledger.channels["acme"].courses[0].unsettled() == 0)
        await assert_balances(service)
        assert await states(service, "acme", "medplum") == {"delivered": 4, "duplicate": 2}
        assert sorted(fake.sent) == [1, 2, 3, 5]  # a later message was acknowledged on the connection of B


async def test_after_a_restart_a_repeat_that_was_stored_is_still_one(tmp_path: Path):
    port, fake = free_port(), Fake(lambda work: None)
    async with running(*made(tmp_path, port, fake)) as service:
        assert await sent(port, message()) == ["AA"]
        assert await sent(port, message()) == ["AA"]
        await written(service)
        crash_image(service.ledger.path, tmp_path / "next")
    fake = Fake()
    async with running(*made(tmp_path / "next", port, fake)) as service:
        await until(lambda: service.ledger.channels["acme"].courses[0].unsettled() == 0)
        await assert_balances(service)
        assert await states(service, "acme", "medplum") == {"delivered": 1, "duplicate": 1}
        assert fake.sent == [1]


async def test_a_file_is_known_by_its_content_so_that_its_messages_are_all_new_ones(tmp_path: Path):
    inbox = tmp_path / "in"
    inbox.mkdir()
    fake, source = Fake(), Files(Directory(inbox), poll=0.05, stable=0.05)
    chan = channel("acme", source=source, takes=ORU, destinations=(MEDPLUM,), duplicates=Duplicates())
    of = configuration(tmp_path, chan, medplum="http://127.0.0.1:1")
    async with running(of, FakeWays(of, fake)) as service:
        (inbox / "1.hl7").write_bytes(message() + message())
        await settled(service, "acme", "medplum", 2)
        (inbox / "2.hl7").write_bytes(message() + message("B"))
        await settled(service, "acme", "medplum", 4)
        assert await states(service, "acme", "medplum") == {"delivered": 4}
        await assert_balances(service)


async def test_every_channel_of_a_feed_hears_that_a_copy_was_acknowledged(tmp_path: Path):
    fake = Fake()
    source = feed("lis", "east", "west", rules=(Rule((("MSH-3", ("LAB",)),), ("east", "west")),))
    made = [fed(name, source, destinations=(MEDPLUM,), takes=ORU, duplicates=Duplicates()) for name in source.channels]
    of = configuration(tmp_path, *made, feeds=(source,), medplum="http://127.0.0.1:1")
    async with running(of, FakeWays(of, fake)) as service:
        assert await sent(port_of(source), message(), message("B"), message()) == ["AA"] * 3
        for name in source.channels:
            await settled(service, name, "medplum", 3)
            assert await states(service, name, "medplum") == {"delivered": 3}, name


async def test_what_was_taken_without_an_answer_that_nobody_wanted_counts_as_acknowledged(tmp_path: Path, old_engine):
    def quiet(control_id: str) -> bytes:
        return message(control_id).replace(b"|2.5\r", b"|2.5|||ER|ER\r")

    port, fake = free_port(), Fake()
    options = {"old_engine": old_engine.port, "phase": "parallel"}
    async with running(*made(tmp_path, port, fake, **options)) as service:
        peer = await Peer.connect(port)
        for count, control_id in enumerate(("A", "B", "A"), 1):
            peer.send(quiet(control_id))
            await settled(service, "acme", "legacy", count)
            await written(service)
        await settled(service, "acme", "medplum", 3)
        await peer.close()
        assert await states(service, "acme", "medplum") == {"delivered": 3}


async def test_an_answer_of_ours_in_the_old_engines_place_acknowledges_as_well(tmp_path: Path):
    port, fake = free_port(), Fake()
    async with Scripted(lambda payload: ()) as silent:
        options = {"old_engine": silent.port, "phase": "parallel"}
        async with running(*made(tmp_path, port, fake, **options)) as service:
            first, second = await Peer.connect(port), await Peer.connect(port)
            first.send(message())
            await until(lambda: len(silent.payloads) == 1)
            second.send(message("B"))
            await until(lambda: service.ledger.channels["acme"].seq == 2)
            await Operator(service).verb("hold", "acme")
            assert b"|B" in await second.answer()
            second.send(message())
            await until(lambda: service.ledger.channels["acme"].seq == 3)
            assert not service.ledger.channels["acme"].course("medplum").repeated
            await first.close()
            await second.close()
