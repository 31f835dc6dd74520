"""What a tap keeps for a person: it is seen everywhere until somebody has decided, and each decision is made once."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from engine.cli.running import complaints
from engine.hl7.ack import parse_ack
from engine.ledger.book import Book
from engine.ledger.sqlite import comparisons, pruning
from engine.ledger.sqlite.large import LARGE
from engine.ledger.sqlite.loading import LedgerError
from engine.ledger.sqlite.pruning import Limit
from engine.migration.refused import Refused
from engine.migration.selection import Selector
from engine.observe.tap_events import OUTPUTS
from engine.remedy.parked import Parked
from engine.service.evidence import Evidence
from engine.service.parked import AtTaps
from engine.service.remedies import Remedies
from engine.service.service import Service
from engine.service.view import View
from engine.simulate.messages import Messages
from engine.simulate.old_engine import Faults
from tests.service.test_file_taps import Bench as FileBench
from tests.service.test_taps import Bench
from tests.support.house import Peer, until

STRANGERS = Messages("oru", seed=77)
ANN = {"who": "ann", "reason": "a test", "origin": "test", "dry_run": False}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        yield bench


AT_TAPS: WeakKeyDictionary[Service, AtTaps] = WeakKeyDictionary()


async def stranger(bench: Bench, number: int = 5) -> None:
    """The old engine sends what belongs to no input that is known."""
    await output(bench, STRANGERS.message(number))


async def output(bench: Bench, raw: bytes) -> None:
    peer = await Peer.connect(bench.tap_port)
    assert parse_ack(await peer.exchange(raw)).code == "AA"
    await peer.close()


def taps(bench: Bench | FileBench) -> AtTaps:
    """The one of a service."""
    known = AT_TAPS.get(bench.service)
    if known is None:
        known = AT_TAPS[bench.service] = AtTaps(bench.service)
    return known


async def decide(bench: Bench | FileBench, verb: str, id: int = 1, **options: Any) -> dict[str, Any]:
    found = await taps(bench).decide(verb, id, **{**ANN, **options})
    assert found is not None
    return found


async def refused(bench: Bench | FileBench, verb: str, id: int = 1, **options: Any) -> str:
    with pytest.raises(Refused) as info:
        await decide(bench, verb, id, **options)
    return str(info.value)


async def waiting(bench: Bench | FileBench) -> list[dict[str, Any]]:
    return await taps(bench).outputs(None)


async def audited(bench: Bench | FileBench) -> list[tuple[str, ...]]:
    """(verb, subject, before, after) of what was done at taps, oldest first."""
    rows = await Evidence(bench.service.conductor, bench.service.comparisons, ()).audit(limit=100, before=None)
    keys = ("verb", "subject", "before", "after")
    return [tuple(row[key] for key in keys) for row in reversed(rows) if row["verb"].startswith("tap ")]


# -- seen


async def test_what_waits_is_seen_in_status_reconcile_and_the_list(bench: Bench) -> None:
    await bench.live()
    view = View(bench.service, "1")
    assert complaints(await view.status()) == []
    await stranger(bench)
    said = "acme-results, tap clinic: 1 output of the old engine for a person to decide (interlock tap)"
    assert complaints(await view.status()) == [said]
    evidence = Evidence(bench.service.conductor, bench.service.comparisons, [bench.channel])
    report = await evidence.reconcile(Selector(everything=True), None)
    assert not report["clean"]
    assert "acme-results, tap clinic: 1 output of the old engine parked, for a person to decide." in report["problems"]
    (row,) = await waiting(bench)
    raw = STRANGERS.message(5)
    assert (row["id"], row["channel"], row["tap"], row["seq"], row["state"]) == (
        1,
        "acme-results",
        "clinic",
        None,
        "parked",
    )
    assert (row["type"], row["size"], row["why"]) == ("ORU^R01", len(raw), "it belongs to no input that is known")
    shown = await taps(bench).output(1)
    assert shown
    assert base64.b64decode(shown["raw"]) == raw
    await decide(bench, "discard")
    assert complaints(await view.status()) == []
    assert (await evidence.reconcile(Selector(everything=True), None))["clean"]
    assert await waiting(bench) == []


async def test_a_list_is_of_the_channels_that_are_meant(bench: Bench) -> None:
    await bench.live()
    await stranger(bench)
    assert len(await taps(bench).outputs(Selector(("acme-results",)))) == 1
    with pytest.raises(Refused, match="nope"):
        await taps(bench).outputs(Selector(("nope",)))
    assert await taps(bench).output(99) is None
    assert await taps(bench).decide("discard", 99, **ANN) is None


# -- discard


async def test_a_decision_is_made_once_and_says_who_made_it(bench: Bench) -> None:
    await bench.live()
    await stranger(bench)
    planned = await decide(bench, "discard", dry_run=True, reason="")
    assert (planned["plan"]["refused"], planned["output"]["state"]) == ([], "parked")
    done = await decide(bench, "discard")
    assert (done["output"]["state"], done["output"]["who"], done["output"]["reason"]) == ("discarded", "ann", "a test")
    assert await audited(bench) == [("tap discard", "acme-results tap clinic output 1", "parked", "discarded")]
    for verb, more in (("discard", {}), ("forward", {}), ("give", {"message": ("acme-results", 1)})):
        assert "output 1 is discarded already, by ann at" in await refused(bench, verb, **more)
    assert len(await audited(bench)) == 1
    assert bench.clinic.control_ids == []


async def test_of_two_who_decide_at_once_one_does(bench: Bench) -> None:
    await bench.live()
    await stranger(bench)
    found = await asyncio.gather(*(decide(bench, "discard") for _ in range(2)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in found) == ["Refused", "dict"]
    assert len(await audited(bench)) == 1


# -- forward


async def test_an_output_is_forwarded_once_and_its_answer_kept(bench: Bench) -> None:
    await bench.live()
    await stranger(bench)
    before = OUTPUTS.of("acme-results", "clinic", "forwarded").n
    plan = (await decide(bench, "forward", dry_run=True))["plan"]
    assert any("acme-results is live" in line for line in plan["lines"])
    done = await decide(bench, "forward")
    assert bench.clinic.control_ids == [parse_id(STRANGERS.message(5))]
    assert done["output"]["state"] == "forwarded"
    shown = await taps(bench).output(1)
    assert shown
    assert parse_ack(base64.b64decode(shown["answer"])).code == "AA"
    assert OUTPUTS.of("acme-results", "clinic", "forwarded").n == before + 1
    steps = [(before, after) for _, _, before, after in await audited(bench)]
    assert steps == [("parked", "sending"), ("sending", "forwarded")]
    assert "forwarded already" in await refused(bench, "forward", again=True)
    assert len(bench.clinic.control_ids) == 1


async def test_what_the_endpoint_did_not_take_goes_on_waiting(bench: Bench) -> None:
    await bench.live()
    await stranger(bench)
    bench.clinic.faults = Faults(by_id={parse_id(STRANGERS.message(5)): ("ar",)})
    done = await decide(bench, "forward")
    assert (done["output"]["state"], done["output"]["said"]) == ("parked", "answered AR")
    await bench.clinic.stop()
    done = await decide(bench, "forward")
    assert (done["output"]["state"], done["output"]["said"]) == ("parked", "connection refused")
    await bench.clinic.start()
    bench.clinic.faults = Faults()
    assert (await decide(bench, "forward"))["output"]["state"] == "forwarded"


async def test_what_may_have_been_taken_wants_the_person_again(bench: Bench) -> None:
    await bench.live()
    await stranger(bench)
    bench.clinic.faults = Faults(by_id={parse_id(STRANGERS.message(5)): ("cut",)})
    assert (await decide(bench, "forward"))["output"]["state"] == "unknown"
    had = len(bench.clinic.control_ids)
    assert "may have been taken already" in await refused(bench, "forward")
    assert len(bench.clinic.control_ids) == had
    assert len(await waiting(bench)) == 1
    await bench.clinic.stop()
    done = await decide(bench, "forward", again=True)
    assert (done["output"]["state"], done["output"]["said"]) == ("unknown", "connection refused")  # by the first time
    await bench.clinic.start()
    assert (await decide(bench, "forward", again=True))["output"]["state"] == "forwarded"


async def test_a_kill_between_sending_and_its_record_is_never_a_silent_second_sending(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.live()
    await stranger(bench)
    with monkeypatch.context() as patch:
        patch.setattr(Parked, "_ended", _dies)
        with pytest.raises(RuntimeError, match="killed"):
            await decide(bench, "forward")
    assert len(bench.clinic.control_ids) == 1
    await bench.restart()
    assert (await waiting(bench))[0]["state"] == "unknown"
    assert "may have been taken already" in await refused(bench, "forward")
    assert len(bench.clinic.control_ids) == 1
    assert (await decide(bench, "discard"))["output"]["state"] == "discarded"


async def test_nothing_is_sent_before_that_is_durable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.live()
    await stranger(bench)
    with monkeypatch.context() as patch:
        patch.setattr(Book, "audit", _dies)
        with pytest.raises(LedgerError):
            await decide(bench, "forward")
    assert bench.clinic.control_ids == []
    assert (await waiting(bench))[0]["state"] == "parked"


async def test_while_it_is_sent_nobody_else_decides(bench: Bench) -> None:
    await bench.live()
    await stranger(bench)
    bench.clinic.faults = Faults(delay=0.5)
    going = asyncio.create_task(decide(bench, "forward"))
    while (await waiting(bench))[0]["state"] != "sending":  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0)
    assert bench.service.comparisons.quiet_since("acme-results") is None
    for verb in ("forward", "discard"):
        assert "on its way" in await refused(bench, verb, again=True)
    assert (await going)["output"]["state"] == "forwarded"
    assert bench.service.comparisons.quiet_since("acme-results") is not None


async def test_a_frozen_channel_sends_nothing(bench: Bench) -> None:
    await bench.live()
    await stranger(bench)
    await bench.operator.verb("hold", "acme-results")
    assert "is held by" in await refused(bench, "forward")
    await bench.operator.verb("release", "acme-results")
    assert (await decide(bench, "forward"))["output"]["state"] == "forwarded"


# -- give


async def late(bench: Bench) -> None:
    """A parallel run in which the old engine makes nothing of inputs 1 and 2 before the cutover; 3 is ours."""
    await bench.operator.verb("parallel", "acme-results")
    await bench.operator.waive_all("acme-results")
    bench.old.pause("acme-results")
    await bench.send(1, 2)
    run = await bench.operator.run("cutover", "acme-results")
    assert run["state"] == "done"
    await bench.send(3)
    await bench.at_clinic(1)
    await stranger(bench)


async def test_an_output_that_is_given_to_its_input_is_compared_as_any_other(bench: Bench) -> None:
    await late(bench)
    done = await decide(bench, "give", message=("acme-results", 1))
    assert (done["output"]["seq"], done["output"]["state"]) == (1, "parked")  # the old engine is the one to send it
    await until(lambda: bench.counts().totals.unexplained == 1)
    assert bench.counts().pending == 1
    assert bench.outputs() == [("parked", None), ("given", 1)]
    assert (await audited(bench))[-1][2:] == ("parked", "acme-results/1")
    assert (await decide(bench, "forward"))["output"]["state"] == "forwarded"
    assert len(bench.clinic.control_ids) == 2


async def test_one_that_was_missed_is_compared_after_all_also_after_a_restart(bench: Bench) -> None:
    await late(bench)
    await until(lambda: bench.counts().totals.unexplained == 2)  # neither came
    await bench.restart()
    comparer = bench.service.comparisons.channels["acme-results"].comparer
    comparer._sides["clinic"].correlator.forget(1)  # as long after
    await decide(bench, "give", message=("acme-results", 1))
    await comparer.flush()
    rows = await bench.service.ledger.read(
        lambda reader: comparisons.judged(
            reader.connection, bench.service.ledger.channels["acme-results"].id, "clinic", 0
        )
    )
    assert rows == {1: "different", 2: "missing_in_legacy"}


async def test_an_output_cannot_be_given_where_it_does_not_belong(bench: Bench) -> None:
    await late(bench)
    give = {
        ("acme-results", 9): "There is no acme-results/9: the newest is 3.",
        ("acme-orders", 1): "acme-orders/1 is another channel's",
        ("acme-results", 3): "the old engine never got acme-results/3",
    }
    for message, sentence in give.items():
        assert sentence in await refused(bench, "give", message=message)
    await decide(bench, "give", message=("acme-results", 1))
    assert "belongs to acme-results/1 already: a person has given it" in await refused(
        bench, "give", message=("acme-results", 2)
    )
    await stranger(bench, 6)
    assert "acme-results/1 has its output at this tap already" in await refused(
        bench, "give", id=3, message=("acme-results", 1)
    )
    assert [row["id"] for row in await waiting(bench)] == [1, 3]


async def rolled_back(bench: Bench) -> None:
    run = await bench.operator.run("rollback", "acme-results")
    assert run["state"] == "done", run


async def test_one_of_an_input_that_is_ours_waits_no_more_once_it_is_given(bench: Bench) -> None:
    await bench.live()
    await bench.send(1)
    assert await bench.at_clinic(1) == ["new"]
    await stranger(bench)
    bench.old.pause("acme-results")
    await rolled_back(bench)
    legacy = bench.service.ledger.channels["acme-results"].course("legacy")
    await until(lambda: legacy is not None and legacy.claim >= 1)
    await bench.send(2)
    assert "acme-results/2 came after output 1" in await refused(bench, "give", message=("acme-results", 2))
    done = await decide(bench, "give", message=("acme-results", 1))
    assert (done["output"]["seq"], done["output"]["state"], done["output"]["waits"]) == (1, "captured", False)
    assert "captured already" in await refused(bench, "forward")
    assert await waiting(bench) == []
    assert await bench.at_clinic(1) == ["new"]


async def done_by_the_old_engine(bench: Bench) -> dict[str, Any]:
    """A rollback left the input to a person, who had the old engine do it. What names the input in a decision."""
    await bench.live()
    bench.clinic.faults = Faults(cut=1.0)
    await bench.send(1)
    await until(lambda: len(bench.clinic.control_ids) > 0)
    await rolled_back(bench)
    one = {"selector": None, "messages": [("acme-results", 1)], "state": None, "confirm": None, **ANN}
    await Remedies(bench.service).decide("retry", destination="legacy", **one)
    await until(lambda: bench.outputs() != [])
    return one


async def test_one_whose_input_is_open_on_our_side_is_not_sent_as_well(bench: Bench) -> None:
    one = await done_by_the_old_engine(bench)
    assert bench.outputs() == [("parked", 1)]
    (row,) = await waiting(bench)
    assert (row["seq"], row["why"]) == (1, "of 1 it is not known whether the endpoint has it")
    assert "belongs to acme-results/1 already" in await refused(bench, "give", message=("acme-results", 1))
    assert "acme-results/1 is open at" in await refused(bench, "forward")
    bench.clinic.faults = Faults()
    before = len(bench.clinic.control_ids)
    await Remedies(bench.service).decide("discard", destination=None, **one)
    assert (await decide(bench, "forward"))["output"]["state"] == "forwarded"
    assert len(bench.clinic.control_ids) == before + 1


async def test_one_whose_input_we_have_sent_after_all_is_not_sent_as_well(bench: Bench) -> None:
    await late(bench)
    await decide(bench, "give", message=("acme-results", 1))
    (destination,) = (one.name for one in bench.channel.destinations)
    told = {"search": None, "confirm": None, **ANN}
    await Remedies(bench.service).replay("acme-results", destination, numbers=[(1, 1)], **told)
    assert await bench.at_clinic(2) == ["new", "new"]
    await until(lambda: not bench.service.replaying.running())
    assert "has acme-results/1 from our side" in await refused(bench, "forward")
    assert await bench.at_clinic(2) == ["new", "new"]


async def test_one_that_our_side_sends_after_all_by_a_persons_word_is_not_sent_as_well(bench: Bench) -> None:
    one = await done_by_the_old_engine(bench)
    await until(lambda: bench.outputs() == [("parked", 1)])
    await Remedies(bench.service).decide("retry", destination=None, **one)
    assert "acme-results/1 is ours to send" in await refused(bench, "forward")


async def test_a_large_one_is_given_and_forwarded_whole(bench: Bench) -> None:
    await bench.operator.verb("parallel", "acme-results")
    await bench.operator.waive_all("acme-results")
    bench.old.pause("acme-results")
    await bench.send(1)
    run = await bench.operator.run("cutover", "acme-results")
    assert run["state"] == "done"
    raw = STRANGERS.message(5) + b"NTE|1|L|" + random.Random(5).randbytes(3 * LARGE).hex().encode() + b"\r"
    await output(bench, raw)
    await decide(bench, "give", message=("acme-results", 1))
    await until(lambda: bench.counts().totals.unexplained == 1)
    assert (await decide(bench, "forward"))["output"]["state"] == "forwarded"
    ledger, channel = bench.service.ledger, bench.service.ledger.channels["acme-results"].id
    (id,) = await ledger.read(lambda reader: comparisons.outputs(reader.connection, channel, "clinic", 1))
    assert await ledger.read(lambda reader: comparisons.output(reader.connection, id)) == raw
    assert bench.clinic.control_ids == [parse_id(raw)]


# -- by files, and by age


async def test_what_came_as_a_file_is_not_forwarded_from_here(tmp_path: Path) -> None:
    bench = FileBench(tmp_path)
    async with bench.run():
        await bench.live()
        bench.output(5, messages=STRANGERS)
        await bench.recorded(("parked", None))
        sentence = await refused(bench, "forward")
        assert str(bench.drop / "parked") in sentence
        assert (await decide(bench, "discard"))["output"]["state"] == "discarded"


async def test_only_what_is_decided_is_removed_by_age(bench: Bench) -> None:
    await bench.live()
    await stranger(bench, 5)
    await stranger(bench, 6)
    await decide(bench, "discard", 1)
    ledger, channel = bench.service.ledger, bench.service.ledger.channels["acme-results"].id
    everything = {channel: Limit(0, 0, 1 << 40, 1 << 40)}
    rows = await ledger.read(lambda reader: list(pruning.walk(reader.connection, pruning.OUTPUTS, everything)))
    assert [row.id for row in rows] == [1]
    (part,) = pruning.parts(rows)
    await ledger.transaction(lambda book: None, [*pruning.removal(pruning.OUTPUTS, part, 1, "a test")])
    assert await taps(bench).output(1) is None
    assert [row["id"] for row in await waiting(bench)] == [2]
    (left,) = await ledger.read(
        lambda reader: reader.connection.execute("select count(*) from tap_decision").fetchone()
    )
    assert left == 0


def parse_id(raw: bytes) -> str:
    return raw.split(b"|")[9].decode()


def _dies(*_: Any) -> None:
    raise RuntimeError("killed")
