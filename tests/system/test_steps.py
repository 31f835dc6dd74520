"""SIGKILL exactly at each step between a message's first byte and its receipt.

What was acknowledged is in the ledger and delivered, in order, by exactly as many sendings as the step allows; and the
equation holds.

Of three messages the second is the one at whose step the process dies. Its sender repeats it where it heard no answer,
as senders do, and sends the third one then.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.simulate.old_engine import Faults
from tests.support.forking import Nursery
from tests.support.stepping import HIT, Clinic, Site, births, result, site

__all__ = ["births"]

pytestmark = pytest.mark.system


class Expected(NamedTuple):
    """stored: whether the killed process had stored it. answered: whether its sender had heard an answer; None where
    that is left to the moment. sendings: complete ones of the message, until it is settled, those of the sender's own
    repeat not counted."""

    stored: bool
    answered: bool | None
    sendings: int


NOT_STORED = Expected(stored=False, answered=False, sendings=1)

INTAKE = {
    "first bytes of a frame read": NOT_STORED,
    "frame complete, before the ledger has it": NOT_STORED,
    "row put, before the commit": NOT_STORED,
    "half of the commit's last page in the log": NOT_STORED,
    "all of the commit in the log, before it is synced": Expected(stored=True, answered=False, sendings=1),
    "at a checkpoint, half of a page in the file": Expected(stored=True, answered=False, sendings=1),
    "committed, before the acknowledgement is written": Expected(stored=True, answered=False, sendings=1),
}

LIVE = {
    **INTAKE,
    "acknowledged, before delivery has it": Expected(stored=True, answered=True, sendings=1),
    "claim durable, before the first byte": Expected(stored=True, answered=None, sendings=1),
    "half of the frame sent": Expected(stored=True, answered=None, sendings=1),
    "sent, before the answer": Expected(stored=True, answered=True, sendings=2),
    "half of the answer came": Expected(stored=True, answered=True, sendings=2),
    "answer read, before the settlement is put": Expected(stored=True, answered=True, sendings=2),
    "settlement put, before its commit": Expected(stored=True, answered=True, sendings=2),
    "receipt durable": Expected(stored=True, answered=True, sendings=1),
}
"""To an MLLP endpoint, acknowledged by ourselves. Twice only where the endpoint may have had it and we had no durable
receipt: the same control id again, as `on_unknown: resend` says."""

RELAYED = {
    **INTAKE,
    "claim durable, before the first byte": Expected(stored=True, answered=False, sendings=1),
    "half of the frame sent": Expected(stored=True, answered=False, sendings=1),
    "sent, before the answer": Expected(stored=True, answered=False, sendings=2),
    "half of the answer came": Expected(stored=True, answered=False, sendings=2),
    "answer read, before the settlement is put": Expected(stored=True, answered=False, sendings=2),
    "settlement put, before its commit": Expected(stored=True, answered=False, sendings=2),
    "receipt durable": Expected(stored=True, answered=False, sendings=1),
    "acknowledged, before delivery has it": Expected(stored=True, answered=True, sendings=1),
}
"""On the legacy path, the old engine's answer relayed: nothing is answered before the receipt, so that the sender
repeats, and that goes to the old engine as it came."""

PARTS = {
    ("first", "settlement put, before its commit"): "aabc",
    ("first", "receipt durable"): "abc",
    ("second", "claim durable, before the first byte"): "abc",
    ("second", "half of the frame sent"): "abc",
    ("second", "sent, before the answer"): "abbc",
    ("second", "answer read, before the settlement is put"): "abbc",
    ("second", "settlement put, before its commit"): "abbc",
    ("third", "settlement put, before its commit"): "abcc",
    ("third", "receipt durable"): "abc",
}
"""Of a message in three parts: what the endpoint has in the end. A part that has its receipt is never sent again."""

RETRIED = {
    "settlement put, before its commit": 2,
    "receipt durable": 2,
    "claimed anew, before the first byte": 2,
    "half of the frame sent again": 2,
    "sent again, before the answer": 3,
}
"""Of a message to which the endpoint first says "later": how often it goes. What it said is known only by its row."""

NTH = {"first": 1, "second": 2, "third": 3}


async def hit(at: Site, clinic: Clinic, step: str, expected: Expected) -> tuple[list[str], list[dict[str, Any]]]:
    """The whole story of three messages. What arrived, and what is in the ledger."""
    await at.dies_at(step, clinic)
    assert await at.say(result("M1"))
    await at.all_settled()
    answered = await at.say(result(HIT), half=step.startswith("first bytes"))
    await at.killed()
    await at.start()
    known = [row["control_id"] for row in await asyncio.to_thread(at.interlock.messages, "acme")]
    assert known == ["M1", HIT][: 1 + expected.stored]
    assert expected.answered in (None, answered)
    if not answered:
        assert await at.say(result(HIT))
    assert await at.say(result("M3"))
    stored = await at.ends()
    repeated = expected.stored and not answered
    assert [row["control_id"] for row in stored] == ["M1", HIT, *([HIT] if repeated else []), "M3"]
    return clinic.arrived(), stored


@pytest.mark.parametrize("step", LIVE)
async def test_to_an_endpoint_each_message_goes_once_or_twice_where_it_may_have_been_taken(
    births: Nursery, tmp_path: Path, step: str
) -> None:
    clinic, expected = Clinic(), LIVE[step]
    async with site(births, tmp_path, clinic) as at:
        arrived, stored = await hit(at, clinic, step, expected)
    assert arrived == ["M1", *[HIT] * expected.sendings, "M3"]
    states = [row["states"]["clinic"] for row in stored]
    assert states == ["delivered", "delivered", *["duplicate"] * (len(stored) - 3), "delivered"]


@pytest.mark.parametrize("step", RELAYED)
async def test_to_the_old_engine_each_message_goes_as_often_as_its_sender_and_a_lost_answer_make_it(
    births: Nursery, tmp_path: Path, step: str
) -> None:
    clinic, expected = Clinic(), RELAYED[step]
    async with site(births, tmp_path, clinic, relayed=True) as at:
        arrived, stored = await hit(at, clinic, step, expected)
    repeats = len(stored) - 3
    assert arrived == ["M1", *[HIT] * (expected.sendings + repeats), "M3"]
    assert {row["states"]["legacy"] for row in stored} == {"delivered"}


@pytest.mark.parametrize(("part", "step"), PARTS)
async def test_of_a_message_in_parts_only_the_part_without_a_receipt_may_go_again(
    births: Nursery, tmp_path: Path, part: str, step: str
) -> None:
    clinic = Clinic()
    async with site(births, tmp_path, clinic, mapping="each_order") as at:
        await at.dies_at(step, clinic, NTH[part])
        assert await at.say(result("M1"))
        await at.all_settled()
        assert await at.say(result(HIT, f"{HIT}a", f"{HIT}b", f"{HIT}c"))
        await at.killed()
        await at.start()
        assert await at.say(result("M3"))
        stored = await at.ends()
    assert clinic.arrived() == ["M1", *(f"{HIT}{each}" for each in PARTS[part, step]), "M3"]
    assert [row["states"] for row in stored] == [{"clinic": "delivered"}] * 3
    parts: dict[str, set[str]] = {}
    for payload, name in zip(clinic.payloads, clinic.arrived(), strict=True):
        parts.setdefault(name, set()).add(payload.split(b"|")[9].decode())
    assert all(len(control_ids) == 1 for control_ids in parts.values())  # a part that goes again has the same
    assert len(set.union(*parts.values())) == len(parts)


@pytest.mark.parametrize("step", RETRIED)
async def test_what_the_endpoint_wants_later_is_sent_again_and_as_often_as_its_rows_allow(
    births: Nursery, tmp_path: Path, step: str
) -> None:
    clinic = Clinic()
    clinic.faults = Faults(by_id={HIT: ("ae",)})
    named = {
        "claimed anew, before the first byte": "claim durable, before the first byte",
        "half of the frame sent again": "half of the frame sent",
        "sent again, before the answer": "sent, before the answer",
    }
    async with site(births, tmp_path, clinic) as at:
        await at.dies_at(named.get(step, step), clinic, nth=2 if step in named else 1)
        assert await at.say(result("M1"))
        await at.all_settled()
        assert await at.say(result(HIT))
        await at.killed()
        await at.start()
        assert await at.say(result("M3"))
        stored = await at.ends()
    assert clinic.arrived() == ["M1", *[HIT] * RETRIED[step], "M3"]
    assert [row["states"] for row in stored] == [{"clinic": "delivered"}] * 3


async def test_what_was_acknowledged_behind_another_message_was_not_begun_and_goes_once(
    births: Nursery, tmp_path: Path
) -> None:
    clinic = Clinic()
    clinic.faults = Faults(by_id={"M1": ("silent",)})
    async with site(births, tmp_path, clinic) as at:
        await at.start()
        for name in ("M1", HIT, "M3"):
            assert await at.say(result(name))
        at.interlock.strike()
        await at.killed()
        await at.start()
        await at.ends()
    assert clinic.arrived() == ["M1", "M1", HIT, "M3"]


async def test_a_log_half_brought_into_the_file_at_the_end_is_read_at_the_next_start(
    births: Nursery, tmp_path: Path
) -> None:
    clinic = Clinic()
    async with site(births, tmp_path, clinic) as at:
        await at.dies_at("at the last checkpoint, half of a page in the file")
        for name in ("M1", HIT):
            assert await at.say(result(name))
        await at.all_settled()
        at.interlock.process.terminate()
        await at.killed()
        await at.start()
        assert await at.say(result("M3"))
        stored = await at.ends()
    assert clinic.arrived() == ["M1", HIT, "M3"]
    assert [row["control_id"] for row in stored] == ["M1", HIT, "M3"]


@pytest.mark.parametrize("step", ["an epoch put, before its commit", "an epoch durable, before it is known"])
async def test_an_epoch_is_there_whole_or_not_at_all_and_what_is_open_stays_in_its_own(
    births: Nursery, tmp_path: Path, step: str
) -> None:
    clinic, other = Clinic(), Clinic()
    await other.start()
    async with site(births, tmp_path, clinic) as at:
        await at.start()
        await clinic.stop()
        assert await at.say(result("M1"))
        assert await asyncio.to_thread(at.interlock.stop) == 0
        at.add_destination("other", other.port)
        at.interlock.launch(step, HIT, "1")
        await at.killed()
        assert epochs(at.interlock.ledger) == ([1] if "before its commit" in step else [1, 2])
        await clinic.start()
        await at.start()
        assert await at.say(result(HIT))
        stored = await at.ends()
        assert epochs(at.interlock.ledger) == [1, 2]
    await other.stop()
    assert [row["states"] for row in stored] == [{"clinic": "delivered"}, {"clinic": "delivered", "other": "delivered"}]
    assert (clinic.arrived(), other.arrived()) == (["M1", HIT], [HIT])


def epochs(ledger: Path) -> list[int]:
    with closing(sqlite3.connect(ledger)) as connection:
        return [number for (number,) in connection.execute("select number from epoch order by 1")]
