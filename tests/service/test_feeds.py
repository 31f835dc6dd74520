"""Feeds: one socket, several channels; the old engine gets each frame once, and its answer is everybody's."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Ack, Takes
from engine.config.endpoint import Endpoint
from engine.config.feed import Feed, Rule, Table
from engine.config.model import Channel
from engine.hl7.ack import parse_ack
from engine.ledger.sqlite.writer import Commit
from engine.service.service import Service, StartError
from engine.service.view import View
from engine.simulate.messages import Messages
from engine.simulate.old_engine import Faults, OldEngine
from tests.support.fake import crash_image
from tests.support.house import (
    ORU,
    Peer,
    assert_balances,
    configuration,
    emr,
    fed,
    feed,
    kept,
    old,
    port_of,
    served,
    settled,
    states,
    until,
)
from tests.support.moving import Operator
from tests.support.ports import free_port
from tests.support.scripted import Scripted, ack, at_first

MESSAGES = Messages("oru", seed=41)
BOTH = (Rule((("MSH-5", ("BOTH",)),), ("east", "west")),)


def to(receiver: str, number: int) -> bytes:
    """A message for somebody: MSH-5."""
    fields = MESSAGES.message(number).split(b"|")
    fields[4] = receiver.encode()
    return b"|".join(fields)


def both(number: int) -> bytes:
    return to("BOTH", number)


def either(number: int) -> bytes:
    """Every second one is for both."""
    return (both, lambda n: to("X", n))[number % 2](number)


def lis(old_engine: int | Endpoint | None = None, **options: Any) -> Feed:
    """A feed of two channels."""
    return feed("lis", "east", "west", old_engine=old_engine, rules=BOTH, **options)


def alike(source: Feed, **options: Any) -> tuple[Channel, ...]:
    """Its channels."""
    return tuple(fed(name, source, **options) for name in source.channels)


LIVE: dict[str, Any] = {"destinations": (emr(1),), "takes": ORU}


def at(folder: Path, source: Feed, **options: Any) -> AbstractAsyncContextManager[tuple[Service, Peer]]:
    """A service of this feed, whose channels are alike, and a sender."""
    return served(folder, *alike(source, **options), feeds=(source,))


def stored(service: Service) -> dict[str, int]:
    return {name: book.seq for name, book in service.ledger.channels.items()}


async def test_a_rule_then_the_table_then_the_default_says_whose_a_frame_is(tmp_path: Path):
    rules = (Rule((("MSH-5", ("E", "EAST")), ("MSH-9", ("ORU^R01",))), ("east",)),)
    source = feed("lis", "rest", "east", "west", rules=rules, table=Table("MSH-5", {"W": ("west",)}))
    async with at(tmp_path, source, **LIVE) as (service, peer):
        for number, receiver in enumerate(["E", "EAST", "W", "NOBODY", ""], 1):
            assert parse_ack(await peer.exchange(to(receiver, number))).code == "AA"
        assert stored(service) == {"rest": 2, "east": 2, "west": 1}


async def test_copies_are_stored_in_one_transaction_and_acknowledged_once(tmp_path: Path):
    async with at(tmp_path, lis(), **LIVE) as (service, peer):
        commits: list[list[str]] = []
        writer = service.ledger._writer
        assert writer is not None
        real = writer._report

        def report(commit: Commit) -> None:
            commits.append(sorted(message.channel.name for message in commit.stored))
            real(commit)

        writer._report = report
        assert parse_ack(await peer.exchange(both(1))).code == "AA"
        assert await peer.silence()
        assert [names for names in commits if names] == [["east", "west"]]
        rows = await service.ledger.read(lambda r: r.connection.execute("select raw, socket from message").fetchall())
        assert [row[0] for row in rows] == [both(1)] * 2
        assert len({row[1] for row in rows}) == 1


async def test_the_old_engine_gets_each_frame_once_in_order_on_one_connection(tmp_path: Path):
    async with Scripted() as engine:
        source = lis(engine.port)
        async with at(tmp_path, source) as (service, peer):
            peers = [peer, *[await Peer.connect(port_of(source)) for _ in range(2)]]
            sent = [either(n) for n in range(60)]
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
    async with Scripted() as engine, at(tmp_path, lis(engine.port)) as (service, peer):
        sent = [(both, lambda n: to("X", n))[n % 3 == 0](n) for n in range(300)]
        for payload in sent:
            peer.send(payload)
        answers = [parse_ack(await peer.answer()).control_id for _ in sent]
        assert sorted(answers) == sorted(MESSAGES.control_id(n) for n in range(300))
        await settled(service, "east", "legacy", 300)
        await settled(service, "west", "legacy", 200)
        assert engine.payloads == sent
        await assert_balances(service)


@pytest.mark.parametrize("code", ["AR", "AE"])
async def test_a_no_of_the_old_engine_refuses_every_copy(tmp_path: Path, code: str):
    async with (
        Scripted(lambda payload: (ack(payload, code),)) as engine,
        at(tmp_path, lis(engine.port), phase="parallel", destinations=(emr(1),)) as (service, peer),
    ):
        assert parse_ack(await peer.exchange(both(1))).code == code
        for name in ("east", "west"):
            await settled(service, name, "legacy", 1)
            await settled(service, name, "emr-1", 1)
            assert await states(service, name, "legacy") == {"refused": 1}
            assert await states(service, name, "emr-1") == {"refused": 1}
        assert len(engine.payloads) == 1


async def test_a_no_that_its_sender_has_refuses_the_copy_of_a_channel_that_was_held(tmp_path: Path):
    async with (
        Scripted(lambda payload: (ack(payload, "AR"),)) as engine,
        at(tmp_path, lis(engine.port)) as (service, peer),
    ):
        operator = Operator(service)
        await operator.verb("hold", "west")
        assert parse_ack(await peer.exchange(both(1))).code == "AR"
        await operator.verb("release", "west")
        await until(lambda: service.ledger.channels["west"].course("legacy").frontier == 1)
        assert await states(service, "west", "legacy") == {"refused": 1}
        assert len(engine.payloads) == 1


async def test_while_the_old_engine_is_down_each_frame_waits_and_goes_there_once(tmp_path: Path):
    into = free_port()
    source = lis(old(into, ack_timeout=0.5), ack=Ack("authoritative", "ae"))
    async with at(tmp_path, source) as (service, peer):
        sent = [either(n) for n in range(20)]
        for payload in sent:
            await peer.exchange(payload)
        async with Scripted(port=into) as engine:
            await settled(service, "east", "legacy", 20)
            await settled(service, "west", "legacy", 10)
            assert engine.payloads == sent
            await assert_balances(service)


async def test_a_frame_without_an_answer_is_sent_again_once_for_all_its_copies(tmp_path: Path):
    closes = [lambda payload: (None,)] * 3
    async with (
        Scripted(at_first(*closes, then=lambda payload: (0.01, ack(payload)))) as engine,
        at(tmp_path, lis(engine.port)) as (service, peer),
    ):
        for number in range(3):
            peer.send(both(number))
            await until(lambda number=number: both(number) in engine.payloads)
        for name in ("east", "west"):
            await settled(service, name, "legacy", 3)
        counts = [engine.payloads.count(both(number)) for number in range(3)]
        assert sum(counts) == 6, counts
        await assert_balances(service)


async def test_one_held_channel_does_not_keep_the_others_waiting(tmp_path: Path):
    """More frames than are looked at at a time."""
    async with Scripted() as engine, at(tmp_path, lis(engine.port)) as (service, peer):
        operator = Operator(service)
        await operator.verb("hold", "west")
        for number in range(300):
            assert await peer.exchange(both(number)) == ack(both(number))
        assert await states(service, "west", "legacy") == {"waiting": 300}
        await operator.verb("release", "west")
        await settled(service, "west", "legacy", 300)
        assert await states(service, "west", "legacy") == {"delivered": 300}
        assert len(engine.payloads) == 300


async def test_frames_that_belong_to_the_held_channel_alone_do_not_delay_the_others(tmp_path: Path):
    table = Table("MSH-5", {"W": ("west",)})
    async with Scripted() as engine, at(tmp_path, lis(engine.port, table=table)) as (service, peer):
        operator = Operator(service)
        await operator.verb("hold", "west")
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


async def test_a_copy_that_another_ones_answer_settles_is_not_sent_again_after_a_restart(tmp_path: Path):
    async with Scripted() as engine:
        source = lis(engine.port)
        async with at(tmp_path, source) as (service, peer):
            await Operator(service).verb("hold", "west")
            for number in range(3):
                await peer.exchange(both(number))
        async with at(tmp_path, source) as (service, _):
            await Operator(service).verb("release", "west")
            await settled(service, "west", "legacy", 3)
            assert await states(service, "west", "legacy") == {"delivered": 3}
            answers = await service.ledger.read(lambda reader: [reader.receipts(id)[0].answer for id in (2, 4, 6)])
            assert answers == [ack(both(number)) for number in range(3)]
        assert engine.payloads == [both(number) for number in range(3)]


@pytest.mark.parametrize("turn", range(5))
async def test_a_frame_on_its_way_at_a_crash_is_sent_again_once_for_all_its_copies(tmp_path: Path, turn: int):
    image, names = tmp_path / "image", tuple(f"clinic-{n}" for n in range(6))
    says = at_first(lambda first: (), then=lambda payload: (0.002 * turn, ack(payload)))
    async with Scripted(says) as engine:
        source = feed("lis", *names, old_engine=engine.port, rules=(Rule((("MSH-5", ("BOTH",)),), names),))
        async with at(tmp_path, source) as (service, peer):
            peer.send(both(1))
            await until(lambda: len(engine.payloads) == 1)
            crash_image(service.ledger.path, image)
        async with at(image, source) as (service, _):
            for name in names:
                await settled(service, name, "legacy", 1)
                assert await states(service, name, "legacy") == {"delivered": 1}
        assert engine.payloads == [both(1)] * 2


async def test_one_channel_may_be_live_while_another_one_runs_in_parallel(tmp_path: Path):
    async with Scripted() as engine, Scripted() as clinic:
        source = lis(engine.port)
        options: dict[str, Any] = {"phase": "parallel", "rollback": "none", "takes": ORU}
        east = fed("east", source, destinations=(emr(clinic.port, sink=True),), **options)
        west = fed("west", source, destinations=(emr(1),), **options)
        async with served(tmp_path, east, west, feeds=(source,)) as (service, peer):
            await Operator(service).cut_over("east")
            assert await peer.exchange(both(1)) == ack(both(1)), "the old engine's, which still answers for west"
            assert parse_ack(await peer.exchange(to("E", 2))).code == "AA"
            await until(lambda: clinic.payloads == [both(1), to("E", 2)])
            assert engine.payloads == [both(1)]
            await settled(service, "west", "legacy", 1)
            await settled(service, "east", f"emr-{clinic.port}", 2)
            assert await states(service, "west", "emr-1") == {"captured": 1}


async def test_of_a_live_copy_is_told_what_the_sender_heard_of_the_old_engine_and_it_is_delivered(tmp_path: Path):
    async with Scripted(lambda payload: (ack(payload, "AR"),)) as engine, Scripted() as clinic:
        source = lis(engine.port)
        options: dict[str, Any] = {"rollback": "none", "takes": ORU}
        east = fed("east", source, destinations=(emr(clinic.port, sink=True),), phase="parallel", **options)
        west = fed("west", source, destinations=(emr(1),), phase="legacy", **options)
        async with served(tmp_path, east, west, feeds=(source,)) as (service, peer):
            await Operator(service).cut_over("east")
            assert parse_ack(await peer.exchange(both(1))).code == "AR"
            await settled(service, "east", f"emr-{clinic.port}", 1)
            await settled(service, "west", "legacy", 1)
            assert clinic.payloads == [both(1)]
            assert parse_ack(await peer.exchange(to("E", 2))).code == "AA"
            told = [await View(service, "0").message(*place) for place in (("east", 1), ("west", 1), ("east", 2))]
            assert [each and each["acknowledged"] for each in told] == ["AR", "AR", "AA"]


async def test_a_live_channel_that_does_not_take_a_frame_keeps_it_from_nobody(tmp_path: Path):
    source = lis()
    east, west = fed("east", source, **LIVE), fed("west", source, **LIVE | {"takes": Takes(("ADT^A01",))})
    async with served(tmp_path, east, west, feeds=(source,)) as (service, peer):
        assert parse_ack(await peer.exchange(both(1))).code == "AA"
        assert stored(service) == {"east": 1, "west": 0}
        assert await kept(service, "kind", "raw", "answer") == [("refused", both(1), None)]
        refused = to("BOTH", 2).replace(b"ORU^R01", b"MDM^T02")
        answer = await peer.exchange(refused)
        assert parse_ack(answer).code == "AR"
        assert stored(service) == {"east": 1, "west": 0}
        assert (await kept(service, "kind", "raw", "answer"))[1:] == [("refused", refused, answer)]


async def test_a_large_frame_is_stored_for_each_channel_and_sent_once(tmp_path: Path):
    async with Scripted() as engine, at(tmp_path, lis(engine.port)) as (service, peer):
        large = both(1) + b"OBX|9|ED|PDF||^application^pdf^Base64^" + b"QUJD" * 400_000 + b"\r"
        peer.send(large)
        peer.send(both(2))
        assert await peer.answer() == ack(large)
        assert await peer.answer() == ack(both(2))
        assert engine.payloads == [large, both(2)]
        await settled(service, "west", "legacy", 2)
        await assert_balances(service)


async def test_a_batch_whose_messages_are_for_different_channels_goes_to_the_default_whole(tmp_path: Path):
    source = feed("lis", "rest", "west", table=Table("MSH-5", {"W": ("west",)}))
    async with at(tmp_path, source, **LIVE) as (service, peer):
        one = b"BHS|^~\\&|LAB\r" + to("W", 1) + to("W", 2) + b"BTS|2\r"
        mixed = b"BHS|^~\\&|LAB\r" + to("W", 3) + to("E", 4) + b"BTS|2\r"
        assert parse_ack(await peer.exchange(one)).code == "AA"
        assert parse_ack(await peer.exchange(mixed)).code == "AA"
        assert stored(service) == {"rest": 1, "west": 1}
        with closing(sqlite3.connect(service.ledger.path)) as ledger:
            assert [raw for (raw,) in ledger.execute("select raw from message order by id")] == [one, mixed]


async def test_the_answers_of_a_feed_are_in_its_own_form(tmp_path: Path, old_engine: OldEngine):
    old_engine.faults = Faults(silent=1.0)
    source = lis(old(old_engine.port, ack_timeout=0.3), ack=Ack("authoritative", "close"))
    async with at(tmp_path, source) as (_, peer):
        peer.send(both(1))
        assert await peer.closed()


async def test_noise_between_the_messages_of_a_feed_does_not_slow_it_down(tmp_path: Path):
    """Only a peer that sends nothing else is read slowly."""
    async with at(tmp_path, lis(), **LIVE) as (_, peer):
        loop = asyncio.get_running_loop()
        slowest = 0.0
        for number in range(60):
            peer.writer.write(b"\0")
            await peer.writer.drain()
            begun = loop.time()
            assert parse_ack(await peer.exchange(both(number))).code == "AA"
            slowest = max(slowest, loop.time() - begun)
        assert slowest < 0.25


async def test_a_feed_is_ours_whole_or_not_at_all(tmp_path: Path) -> None:
    source = replace(feed("lis", "beta", "acme", old_engine=1), file="lis.yaml")
    channels = fed("acme", source, phase="outside"), fed("beta", source, phase="legacy")
    with pytest.raises(StartError, match=r"lis\.yaml: found acme in phase outside, and beta not; expected"):
        await Service(configuration(tmp_path, *channels, feeds=(source,))).start()
