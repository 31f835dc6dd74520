"""Feeds: one socket, several channels; the old engine gets each frame once, and its answer is everybody's."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Ack, FromFeed, Listen, Takes
from engine.config.feed import Feed, Rule, Table
from engine.config.model import Configuration
from engine.hl7.ack import parse_ack
from engine.service.service import Service, StartError
from engine.simulate.messages import Messages
from engine.simulate.old_engine import Faults, OldEngine
from tests.support.fake import crash_image
from tests.support.house import (
    Peer,
    assert_balances,
    channel,
    configuration,
    emr,
    fed,
    feed,
    free_port,
    kept,
    old,
    running,
    settled,
    states,
    until,
)
from tests.support.moving import Operator
from tests.support.scripted import Scripted, ack

MESSAGES = Messages("oru", seed=41)
BOTH = (Rule((("MSH-5", ("BOTH",)),), ("east", "west")),)


def to(receiver: str, number: int) -> bytes:
    """A message for somebody: MSH-5."""
    fields = MESSAGES.message(number).split(b"|")
    fields[4] = receiver.encode()
    return b"|".join(fields)


def both(number: int) -> bytes:
    return to("BOTH", number)


def two(tmp_path: Path, source: Feed, **options: Any) -> Configuration:
    return configuration(tmp_path, fed("east", source, **options), fed("west", source, **options), feeds=(source,))


def stored(service: Service) -> dict[str, int]:
    return {name: book.seq for name, book in service.ledger.channels.items()}


async def test_a_rule_then_the_table_then_the_default_says_whose_a_frame_is(tmp_path: Path):
    port = free_port()
    rules = (Rule((("MSH-5", ("E", "EAST")), ("MSH-9", ("ORU^R01",))), ("east",)),)
    source = feed("lis", "rest", "east", "west", port=port, rules=rules, table=Table("MSH-5", {"W": ("west",)}))
    channels = [fed(name, source, destinations=(emr(1),), accepts=("ORU^R01",)) for name in ("rest", "east", "west")]
    async with running(configuration(tmp_path, *channels, feeds=(source,))) as service:
        peer = await Peer.connect(port)
        for number, receiver in enumerate(["E", "EAST", "W", "NOBODY", ""], 1):
            assert parse_ack(await peer.exchange(to(receiver, number))).code == "AA"
        assert stored(service) == {"rest": 2, "east": 2, "west": 1}
        await peer.close()


async def test_copies_are_stored_in_one_transaction_and_acknowledged_once(tmp_path: Path):
    port = free_port()
    source = feed("lis", "east", "west", port=port, rules=BOTH)
    async with running(two(tmp_path, source, destinations=(emr(1),), takes=Takes(("ORU^R01",)))) as service:
        commits: list[list[str]] = []
        real = service.ledger._writer._transaction  # type: ignore[union-attr]

        def transaction(operations: list[Any]) -> Any:
            commit = real(operations)
            commits.append(sorted(message.channel.name for message in commit.stored))
            return commit

        service.ledger._writer._transaction = transaction  # type: ignore[union-attr,method-assign]
        peer = await Peer.connect(port)
        assert parse_ack(await peer.exchange(both(1))).code == "AA"
        assert await peer.silence()
        assert [names for names in commits if names] == [["east", "west"]]
        rows = await service.ledger.read(lambda r: r.connection.execute("select raw, socket from message").fetchall())
        assert [row[0] for row in rows] == [both(1)] * 2
        assert len({row[1] for row in rows}) == 1
        await peer.close()


async def test_the_old_engine_gets_each_frame_once_in_order_on_one_connection(tmp_path: Path):
    async with Scripted() as engine:
        port = free_port()
        source = feed("lis", "east", "west", port=port, old_engine=engine.port, rules=BOTH)
        async with running(two(tmp_path, source)) as service:
            peers = [await Peer.connect(port) for _ in range(3)]
            sent = [(both, lambda n: to("X", n))[n % 2](n) for n in range(60)]
            for number, payload in enumerate(sent):
                answer = await peers[number % 3].exchange(payload)
                assert answer == ack(payload), "relayed as it came"
            assert engine.payloads == sent
            assert set(engine.sockets) == {1}
            assert await peers[0].silence()
            assert stored(service) == {"east": 60, "west": 30}
            await settled(service, "east", "legacy", 60)
            await settled(service, "west", "legacy", 30)
            assert await states(service, "west", "legacy") == {"delivered": 30}
            await asyncio.gather(*(peer.close() for peer in peers))


async def test_many_frames_at_once_keep_their_order_over_all_channels(tmp_path: Path):
    async with Scripted() as engine:
        port = free_port()
        source = feed("lis", "east", "west", port=port, old_engine=engine.port, rules=BOTH)
        async with running(two(tmp_path, source)) as service:
            peer = await Peer.connect(port)
            sent = [(both, lambda n: to("X", n))[n % 3 == 0](n) for n in range(300)]
            for payload in sent:
                peer.send(payload)
            answers = [parse_ack(await peer.answer()).control_id for _ in sent]
            assert sorted(answers) == sorted(MESSAGES.control_id(n) for n in range(300))
            await settled(service, "east", "legacy", 300)
            await settled(service, "west", "legacy", 200)
            assert engine.payloads == sent
            await assert_balances(service)
            await peer.close()


@pytest.mark.parametrize("code", ["AR", "AE"])
async def test_a_no_of_the_old_engine_refuses_every_copy(tmp_path: Path, code: str):
    async with Scripted(lambda payload: (ack(payload, code),)) as engine:
        port = free_port()
        source = feed("lis", "east", "west", port=port, old_engine=engine.port, rules=BOTH)
        async with running(two(tmp_path, source, phase="parallel", destinations=(emr(1),))) as service:
            peer = await Peer.connect(port)
            assert parse_ack(await peer.exchange(both(1))).code == code
            for name in ("east", "west"):
                await settled(service, name, "legacy", 1)
                await settled(service, name, "emr-1", 1)
                assert await states(service, name, "legacy") == {"refused": 1}
                assert await states(service, name, "emr-1") == {"refused": 1}
            assert len(engine.payloads) == 1
            await peer.close()


async def test_a_no_that_its_sender_has_refuses_the_copy_of_a_channel_that_was_held(tmp_path: Path):
    async with Scripted(lambda payload: (ack(payload, "AR"),)) as engine:
        port = free_port()
        source = feed("lis", "east", "west", port=port, old_engine=engine.port, rules=BOTH)
        async with running(two(tmp_path, source)) as service:
            operator = Operator(service)
            await operator.verb("hold", "west")
            peer = await Peer.connect(port)
            assert parse_ack(await peer.exchange(both(1))).code == "AR"
            await operator.verb("release", "west")
            await until(lambda: service.ledger.channels["west"].course("legacy").frontier == 1)
            assert await states(service, "west", "legacy") == {"refused": 1}
            assert len(engine.payloads) == 1
            await peer.close()


async def test_while_the_old_engine_is_down_each_frame_waits_and_goes_there_once(tmp_path: Path):
    into, port = free_port(), free_port()
    source = feed("lis", "east", "west", port=port, old_engine=old(into, ack_timeout=0.5), rules=BOTH)
    source = replace(source, ack=replace(source.ack, on_relay_timeout="ae"))
    async with running(two(tmp_path, source)) as service:
        peer = await Peer.connect(port)
        sent = [(both, lambda n: to("X", n))[n % 2](n) for n in range(20)]
        for payload in sent:
            await peer.exchange(payload)
        async with Scripted(port=into) as engine:
            await settled(service, "east", "legacy", 20)
            await settled(service, "west", "legacy", 10)
            assert engine.payloads == sent
            await assert_balances(service)
        await peer.close()


async def test_a_frame_without_an_answer_is_sent_again_once_for_all_its_copies(tmp_path: Path):
    first = iter([(None,), (None,), (None,)])
    async with Scripted(lambda payload: next(first, (0.01, ack(payload)))) as engine:
        port = free_port()
        source = feed("lis", "east", "west", port=port, old_engine=engine.port, rules=BOTH)
        async with running(two(tmp_path, source)) as service:
            peer = await Peer.connect(port)
            for number in range(3):
                peer.send(both(number))
                await until(lambda number=number: both(number) in engine.payloads)
            for name in ("east", "west"):
                await settled(service, name, "legacy", 3)
            counts = [engine.payloads.count(both(number)) for number in range(3)]
            assert sum(counts) == 6, counts
            await assert_balances(service)
            await peer.close()


async def test_one_held_channel_does_not_keep_the_others_waiting(tmp_path: Path):
    """More frames than are looked at at a time."""
    async with Scripted() as engine:
        port = free_port()
        source = feed("lis", "east", "west", port=port, old_engine=engine.port, rules=BOTH)
        async with running(two(tmp_path, source)) as service:
            operator = Operator(service)
            await operator.verb("hold", "west")
            peer = await Peer.connect(port)
            for number in range(300):
                assert await peer.exchange(both(number)) == ack(both(number))
            assert await states(service, "west", "legacy") == {"waiting": 300}
            await operator.verb("release", "west")
            await settled(service, "west", "legacy", 300)
            assert await states(service, "west", "legacy") == {"delivered": 300}
            assert len(engine.payloads) == 300
            await peer.close()


async def test_frames_that_belong_to_the_held_channel_alone_do_not_delay_the_others(tmp_path: Path):
    async with Scripted() as engine:
        port = free_port()
        table = Table("MSH-5", {"W": ("west",)})
        source = feed("lis", "east", "west", port=port, old_engine=engine.port, rules=BOTH, table=table)
        async with running(two(tmp_path, source)) as service:
            operator = Operator(service)
            await operator.verb("hold", "west")
            peer = await Peer.connect(port)
            loop = asyncio.get_running_loop()
            slowest = 0.0
            for number in range(5):
                assert parse_ack(await peer.exchange(to("W", number))).code == "AA"  # ours: it cannot be asked
                begun = loop.time()
                assert await peer.exchange(to("E", 100 + number)) == ack(to("E", 100 + number))
                slowest = max(slowest, loop.time() - begun)
            assert slowest < 0.5, "each waited for a frame that could not come"
            await operator.verb("release", "west")
            await settled(service, "west", "legacy", 5)
            assert len(engine.payloads) == 10
            await peer.close()


async def test_a_copy_that_another_ones_answer_settles_is_not_sent_again_after_a_restart(tmp_path: Path):
    async with Scripted() as engine:
        port = free_port()
        source = feed("lis", "east", "west", port=port, old_engine=engine.port, rules=BOTH)
        config = two(tmp_path, source)
        async with running(config) as service:
            await Operator(service).verb("hold", "west")
            peer = await Peer.connect(port)
            for number in range(3):
                await peer.exchange(both(number))
            await peer.close()
        async with running(config) as service:
            await Operator(service).verb("release", "west")
            await settled(service, "west", "legacy", 3)
            assert await states(service, "west", "legacy") == {"delivered": 3}
            answers = await service.ledger.read(lambda reader: [reader.receipts(id)[0][-1] for id in (2, 4, 6)])
            assert answers == [ack(both(number)) for number in range(3)]
        assert engine.payloads == [both(number) for number in range(3)]


@pytest.mark.parametrize("turn", range(5))
async def test_a_frame_on_its_way_at_a_crash_is_sent_again_once_for_all_its_copies(tmp_path: Path, turn: int):
    said: list[Any] = [()]
    async with Scripted(lambda payload: said.pop() if said else (0.002 * turn, ack(payload))) as engine:
        port, image = free_port(), tmp_path / "image"
        names = tuple(f"clinic-{n}" for n in range(6))
        source = feed("lis", *names, port=port, old_engine=engine.port, rules=(Rule((("MSH-5", ("BOTH",)),), names),))

        def config(folder: Path) -> Configuration:
            return configuration(folder, *(fed(name, source) for name in names), feeds=(source,))

        async with running(config(tmp_path)) as service:
            peer = await Peer.connect(port)
            peer.send(both(1))
            await until(lambda: len(engine.payloads) == 1)
            crash_image(service.ledger.path, image)
            await peer.close()
        async with running(config(image)) as service:
            for name in names:
                await settled(service, name, "legacy", 1)
                assert await states(service, name, "legacy") == {"delivered": 1}
        assert engine.payloads == [both(1)] * 2


async def test_one_channel_may_be_live_while_another_one_runs_in_parallel(tmp_path: Path):
    async with Scripted() as engine, Scripted() as clinic:
        port = free_port()
        source = feed("lis", "east", "west", port=port, old_engine=engine.port, rules=BOTH)
        options: dict[str, Any] = {"rollback": "none", "accepts": ("ORU^R01",), "takes": Takes(("ORU^R01",))}
        east = fed("east", source, phase="parallel", destinations=(emr(clinic.port, sink=True),), **options)
        west = fed("west", source, phase="parallel", destinations=(emr(1),), **options)
        async with running(configuration(tmp_path, east, west, feeds=(source,))) as service:
            operator = Operator(service)
            await operator.waive_all("east")
            run = await operator.run("cutover", "east")
            assert run["state"] == "done", run
            peer = await Peer.connect(port)
            assert await peer.exchange(both(1)) == ack(both(1)), "the old engine's, which still answers for west"
            assert parse_ack(await peer.exchange(to("E", 2))).code == "AA"
            await until(lambda: clinic.payloads == [both(1), to("E", 2)])
            assert engine.payloads == [both(1)]
            await settled(service, "west", "legacy", 1)
            await settled(service, "east", f"emr-{clinic.port}", 2)
            assert await states(service, "west", "emr-1") == {"captured": 1}
            await peer.close()


async def test_a_live_channel_that_does_not_take_a_frame_keeps_it_from_nobody(tmp_path: Path):
    port = free_port()
    source = feed("lis", "east", "west", port=port, rules=BOTH)
    east = fed("east", source, destinations=(emr(1),), takes=Takes(("ORU^R01",)))
    west = fed("west", source, destinations=(emr(1),), takes=Takes(("ADT^A01",)))
    async with running(configuration(tmp_path, east, west, feeds=(source,))) as service:
        peer = await Peer.connect(port)
        assert parse_ack(await peer.exchange(both(1))).code == "AA"
        assert stored(service) == {"east": 1, "west": 0}
        assert await kept(service, "kind", "raw", "answer") == [("refused", both(1), None)]
        refused = to("BOTH", 2).replace(b"ORU^R01", b"MDM^T02")
        answer = await peer.exchange(refused)
        assert parse_ack(answer).code == "AR"
        assert stored(service) == {"east": 1, "west": 0}
        assert (await kept(service, "kind", "raw", "answer"))[1:] == [("refused", refused, answer)]
        await peer.close()


async def test_a_large_frame_is_stored_for_each_channel_and_sent_once(tmp_path: Path):
    async with Scripted() as engine:
        port = free_port()
        source = feed("lis", "east", "west", port=port, old_engine=engine.port, rules=BOTH)
        async with running(two(tmp_path, source)) as service:
            peer = await Peer.connect(port)
            large = both(1) + b"OBX|9|ED|PDF||^application^pdf^Base64^" + b"QUJD" * 400_000 + b"\r"
            peer.send(large)
            peer.send(both(2))
            assert await peer.answer() == ack(large)
            assert await peer.answer() == ack(both(2))
            assert engine.payloads == [large, both(2)]
            await settled(service, "west", "legacy", 2)
            await assert_balances(service)
            await peer.close()


async def test_a_batch_whose_messages_are_for_different_channels_goes_to_the_default_whole(tmp_path: Path):
    port = free_port()
    source = feed("lis", "rest", "west", port=port, table=Table("MSH-5", {"W": ("west",)}))
    channels = [fed(name, source, destinations=(emr(1),), takes=Takes(("ORU^R01",))) for name in ("rest", "west")]
    async with running(configuration(tmp_path, *channels, feeds=(source,))) as service:
        peer = await Peer.connect(port)
        one = b"BHS|^~\\&|LAB\r" + to("W", 1) + to("W", 2) + b"BTS|2\r"
        mixed = b"BHS|^~\\&|LAB\r" + to("W", 3) + to("E", 4) + b"BTS|2\r"
        assert parse_ack(await peer.exchange(one)).code == "AA"
        assert parse_ack(await peer.exchange(mixed)).code == "AA"
        assert stored(service) == {"rest": 1, "west": 1}
        with closing(sqlite3.connect(service.ledger.path)) as ledger:
            assert [raw for (raw,) in ledger.execute("select raw from message order by id")] == [one, mixed]
        await peer.close()


async def test_the_answers_of_a_feed_are_in_its_own_form(tmp_path: Path, old_engine: OldEngine):
    old_engine.faults = Faults(silent=1.0)
    port = free_port()
    source = feed("lis", "east", "west", port=port, old_engine=old(old_engine.port, ack_timeout=0.3), rules=BOTH)
    source = replace(source, ack=replace(source.ack, on_relay_timeout="close"))
    async with running(two(tmp_path, source)):
        peer = await Peer.connect(port)
        peer.send(both(1))
        assert await peer.closed()
        await peer.close()


async def test_noise_between_the_messages_of_a_feed_does_not_slow_it_down(tmp_path: Path):
    """Only a peer that sends nothing else is read slowly."""
    port = free_port()
    source = feed("lis", "east", "west", port=port, rules=BOTH)
    async with running(two(tmp_path, source, destinations=(emr(1),), takes=Takes(("ORU^R01",)))):
        peer = await Peer.connect(port)
        loop = asyncio.get_running_loop()
        slowest = 0.0
        for number in range(60):
            peer.writer.write(b"\0")
            await peer.writer.drain()
            begun = loop.time()
            assert parse_ack(await peer.exchange(both(number))).code == "AA"
            slowest = max(slowest, loop.time() - begun)
        assert slowest < 0.25
        await peer.close()


async def test_a_feed_is_ours_whole_or_not_at_all(tmp_path: Path) -> None:
    one = channel("acme", port=free_port(), old_engine=1, phase="outside")
    other = channel("beta", port=free_port(), old_engine=1, phase="legacy")
    ids = ("acme", "beta")
    both = [replace(each, source=FromFeed("lis")) for each in (one, other)]
    listen, answers = Listen(free_port(), "127.0.0.1"), Ack("authoritative")
    feed = Feed("lis", listen, Takes(), answers, None, (), None, "beta", ids, "lis.yaml")
    made = replace(configuration(tmp_path, *both), feeds=(feed,))
    with pytest.raises(StartError, match=r"lis\.yaml: found acme in phase outside, and beta not; expected"):
        await Service(made).start()
