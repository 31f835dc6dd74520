"""A sender in original mode that waits for a destination's answer hears what its application says, not that the message
has been taken into safe storage there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Ack, Answers
from engine.config.model import Duplicates
from engine.hl7.ack import parse_ack
from engine.ledger.model import State
from engine.simulate.messages import Messages
from tests.support.house import assert_balances, emr, live, open_work, served, settled, states, until
from tests.support.scripted import Scripted, ack, at_first

MESSAGES = Messages("oru", seed=211)


def says(*codes: str | float) -> Any:
    return lambda payload: [ack(payload, each) if isinstance(each, str) else each for each in codes]


def code(answer: bytes) -> str:
    parsed = parse_ack(answer)
    assert parsed is not None
    return parsed.code


@pytest.mark.parametrize("pause", [0.0, 0.2])
@pytest.mark.parametrize(("said", "state"), [("AA", "delivered"), ("AE", "refused"), ("AR", "refused")])
async def test_it_hears_the_applications_answer_as_it_came(tmp_path: Path, said: str, state: str, pause: float) -> None:
    between = (pause,) if pause else ()
    async with Scripted(says("CA", *between, said)) as clinic:
        there = emr(clinic.port)
        async with served(tmp_path, live(destinations=(there,), ack=there.name)) as (service, peer):
            for number in range(3):
                assert await peer.exchange(MESSAGES.message(number)) == ack(MESSAGES.message(number), said)
            assert await peer.silence()
            assert await states(service, "acme", there.name) == {state: 3}
            assert clinic.payloads == [MESSAGES.message(number) for number in range(3)]
            assert set(clinic.sockets) == {1}


async def test_one_that_says_only_that_is_awaited_for_the_endpoints_time_and_then_it_hears_our_yes(
    tmp_path: Path,
) -> None:
    """By its `accept:` the endpoint has taken it; that is all that can be known."""
    async with Scripted(says("CA")) as clinic:
        there = emr(clinic.port, ack_timeout=0.5)
        async with served(tmp_path, live(destinations=(there,), ack=there.name)) as (service, peer):
            peer.send(MESSAGES.message(1))
            assert await peer.silence(0.3)
            answer = await peer.answer()
            assert (code(answer), parse_ack(answer).control_id) == ("AA", MESSAGES.control_id(1))  # type: ignore[union-attr]
            assert answer != ack(MESSAGES.message(1))
            assert await states(service, "acme", there.name) == {"delivered": 1}
            assert clinic.payloads == [MESSAGES.message(1)], "what was taken is not sent again"


async def test_where_that_does_not_count_as_taken_the_answer_is_late(tmp_path: Path) -> None:
    async with Scripted(says("CA")) as clinic:
        there = emr(clinic.port, "park", ack_timeout=0.3, answers=Answers(("AA",)))
        how = Ack(there.name, "ae")
        async with served(tmp_path, live(destinations=(there,), ack=how)) as (service, peer):
            assert code(await peer.exchange(MESSAGES.message(1))) == "AE"
            assert open_work(service, "acme", there.name) == [State.PARKED]


async def test_a_connection_that_ends_after_it_leaves_the_message_taken(tmp_path: Path) -> None:
    async with Scripted(lambda payload: (ack(payload, "CA"), None)) as clinic:
        there = emr(clinic.port)
        async with served(tmp_path, live(destinations=(there,), ack=there.name)) as (service, peer):
            assert code(await peer.exchange(MESSAGES.message(1))) == "AA"
            assert await states(service, "acme", there.name) == {"delivered": 1}


async def test_an_accept_acknowledgement_of_another_message_takes_nothing(tmp_path: Path) -> None:
    first = at_first(lambda payload: (ack(payload, "CA", "ANOTHER"), None), then=says("CA", "AA"))
    async with Scripted(first) as clinic:
        there = emr(clinic.port)
        async with served(tmp_path, live(destinations=(there,), ack=there.name)) as (service, peer):
            assert await peer.exchange(MESSAGES.message(1)) == ack(MESSAGES.message(1))
            assert len(clinic.payloads) == 2
            await assert_balances(service)


@pytest.mark.parametrize(("said", "heard"), [("CE", "AE"), ("CR", "AR")])
async def test_a_no_in_the_words_of_enhanced_mode_is_said_in_its_own(tmp_path: Path, said: str, heard: str) -> None:
    async with Scripted(says(said)) as clinic:
        there = emr(clinic.port)
        async with served(tmp_path, live(destinations=(there,), ack=there.name)) as (service, peer):
            assert code(await peer.exchange(MESSAGES.message(1))) == heard
            assert await states(service, "acme", there.name) == {"refused": 1}


async def test_a_repeat_does_not_hear_it_either(tmp_path: Path) -> None:
    async with Scripted(says("CA")) as clinic:
        there = emr(clinic.port, ack_timeout=0.3)
        chan = live(destinations=(there,), ack=there.name, duplicates=Duplicates())
        async with served(tmp_path, chan) as (service, peer):
            assert code(await peer.exchange(MESSAGES.message(1))) == "AA"
            assert code(await peer.exchange(MESSAGES.message(1))) == "AA"
            assert await states(service, "acme", there.name) == {"delivered": 1, "duplicate": 1}
            assert len(clinic.payloads) == 1


async def test_nobody_else_waits_for_it(tmp_path: Path) -> None:
    """Where we answer ourselves, what its endpoint accepts settles a message at once, as ever."""
    async with Scripted(says("CA")) as clinic:
        there = emr(clinic.port, ack_timeout=30.0)
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            for number in range(3):
                await peer.exchange(MESSAGES.message(number))
            await settled(service, "acme", there.name, 3, 5.0)
            await until(lambda: len(clinic.payloads) == 3)


async def test_what_its_time_out_comes_to_is_waited_for_though_the_message_waited_behind_another(
    tmp_path: Path,
) -> None:
    both = at_first(says("CA", 0.4, "AA"), then=says("CA"))
    async with Scripted(both) as clinic:
        there = emr(clinic.port, ack_timeout=0.6)
        async with served(tmp_path, live(destinations=(there,), ack=there.name)) as (_, peer):
            for number in (1, 2):
                peer.send(MESSAGES.message(number))
            assert await peer.answer() == ack(MESSAGES.message(1))
            assert parse_ack(await peer.answer()).control_id == MESSAGES.control_id(2)  # type: ignore[union-attr]
