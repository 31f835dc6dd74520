"""A channel's comparison, from what is stored and tapped to the ledger's rows and what a gate reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.compare.discrepancies import SettleError, State
from engine.compare.showing import Showing
from engine.config.model import Compare, Ignored
from engine.hl7.ack import acknowledge
from engine.hl7.peek import peek
from engine.intake.judge import CHARSET
from engine.ledger import model
from engine.ledger.sqlite import comparisons
from engine.simulate.alterations import FAULTS, HABITS, own_stamps
from engine.simulate.messages import Messages
from tests.compare.bench import SECOND, Bench, channel, running
from tests.compare.test_correlate import report
from tests.support import house

VENDOR = Messages(seed=12)
RAW = [VENDOR.message(number) for number in range(40)]


@pytest.fixture
async def bench(tmp_path: Path) -> object:
    async with running(tmp_path, channel()) as made:
        yield made


async def test_equal_outputs_match(bench: Bench) -> None:
    for raw in RAW[:5]:
        await bench.both(raw, own_stamps(raw))
    assert (await bench.compared()).matched == 5
    assert await bench.found() == []
    await bench.assert_counted()


async def test_a_fault_is_a_clinical_discrepancy_that_blocks(bench: Bench) -> None:
    for raw in RAW[:3]:
        await bench.both(raw, FAULTS["wrong_unit"](own_stamps(raw)))
    await bench.both(RAW[3])
    compared = await bench.compared()
    assert (compared.matched, compared.unexplained, compared.open_clinical) == (1, 3, 1)
    assert await bench.found() == [("OBX-6.1", "transformation", "clinical", "open", 3)]
    await bench.assert_counted()


async def test_our_output_may_come_after_the_old_engines(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq, ours=None)
    await bench.send(RAW[0])
    assert (await bench.compared()).matched == 0
    assert bench.comparer.counts()["emr"].pending == 1
    await bench.settle(seq, legacy=None)
    assert (await bench.compared()).matched == 1
    assert bench.comparer.counts()["emr"].pending == 0


# -- messages that one side alone has


async def test_a_dropped_output_is_missed_when_its_time_is_over(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq)
    await bench.wait(59)
    assert await bench.found() == []
    await bench.wait(10)
    assert await bench.found() == [("message", "missing_in_legacy", "clinical", "open", 1)]
    compared = await bench.compared()
    assert (compared.unexplained, compared.open_missing, compared.pending_late) == (1, 1, 0)
    await bench.assert_counted()


async def test_a_doubled_output_is_found(bench: Bench) -> None:
    await bench.both(RAW[0], own_stamps(RAW[0]))
    await bench.send(own_stamps(RAW[0]))
    assert await bench.found() == [("message-twice", "missing_in_target", "clinical", "open", 1)]
    assert (await bench.compared()).open_missing == 1
    await bench.assert_counted()


async def test_a_doubled_order_is_clinical(tmp_path: Path) -> None:
    order = Messages(kind="orm", seed=3).message(1)
    async with running(tmp_path, channel(direction="orders")) as bench:
        await bench.both(order)
        await bench.send(own_stamps(order))
        assert await bench.found() == [("message-twice", "missing_in_target", "clinical", "open", 1)]


async def test_a_repetition_of_what_was_not_answered_is_not_doubled(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq)
    assert bench.comparer.attribute("emr", RAW[0], bench.now) == seq
    bench.comparer.tapped("emr", 1, RAW[0], bench.now, seq, answered=False)
    bench.comparer.tapped("emr", 2, RAW[0], bench.now, seq)
    assert await bench.found() == []
    bench.comparer.tapped("emr", 3, RAW[0], bench.now, seq)
    assert [path for path, *_ in await bench.found()] == ["message-twice"]


async def test_reordered_outputs_of_a_patient_are_clinical(bench: Bench) -> None:
    seqs = await bench.store(report("A"), report("B"))
    for seq in seqs:
        await bench.settle(seq)
    bench.now += SECOND
    assert [await bench.send(report(name)) for name in "BA"] == [2, 1]
    assert await bench.found() == [("message-order", "transformation", "clinical", "open", 1)]
    assert (await bench.compared()).matched == 1


async def test_an_output_of_nobodys_input_is_found(bench: Bench) -> None:
    await bench.wait(61)
    assert await bench.send(RAW[0]) is None
    assert await bench.found() == [("message", "missing_in_target", "clinical", "open", 1)]


async def test_right_after_the_beginning_an_unknown_output_is_of_an_earlier_input(bench: Bench) -> None:
    bench.now += 59 * SECOND
    assert await bench.send(RAW[0]) is None
    assert await bench.found() == []


async def test_an_output_that_we_never_make_is_found(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq, ours=model.State.FILTERED)
    await bench.send(RAW[0])
    await bench.wait(10)
    await bench.wait(1)
    assert await bench.found() == [("message", "missing_in_target", "clinical", "open", 1)]


async def test_what_neither_side_makes_is_not_compared(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq, ours=model.State.FILTERED)
    await bench.wait(61)
    await bench.wait(10)
    assert await bench.found() == []
    assert (await bench.compared()).not_comparable == 1


async def test_what_the_old_engine_refused_is_not_compared(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    bench.comparer.refused(seq)
    await bench.wait(61)
    assert await bench.found() == []
    assert (await bench.compared()).not_comparable == 1
    await bench.assert_counted()


async def test_what_was_refused_before_a_restart_is_not_missed(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq, legacy=model.State.REFUSED)
    await bench.wait(70)
    assert await bench.found() == []


async def test_nothing_is_missed_while_the_old_engine_has_not_got_it(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq, legacy=None)
    await bench.wait(61)
    assert await bench.found() == []
    await bench.settle(seq, ours=None)
    await bench.wait(30)
    await bench.send(RAW[0])
    assert (await bench.compared()).matched == 1


async def test_what_waits_for_us_beyond_its_time_is_told_to_the_gate(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq, ours=None)
    await bench.wait(61)
    assert (await bench.compared()).pending_late == 1
    await bench.settle(seq, legacy=None)
    await bench.wait(1)
    await bench.send(RAW[0])
    assert (await bench.compared()).pending_late == 0


async def test_what_comes_after_it_was_missed_gets_another_verdict(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq)
    await bench.wait(70)
    assert (await bench.compared()).unexplained == 1
    assert await bench.send(RAW[0]) == seq
    compared = await bench.compared()
    assert (compared.matched, compared.unexplained, compared.open_missing) == (1, 0, 0)
    assert await bench.found() == [("message", "missing_in_legacy", "clinical", "explained", 0)]
    (row,) = await bench.rows()
    assert await bench.ledger.read(lambda reader: comparisons.examples(reader.connection, row.id, 5)) == []
    await bench.assert_counted()


async def test_a_tap_that_we_do_not_serve_is_not_comparable(tmp_path: Path) -> None:
    async with running(tmp_path, channel(target=None)) as bench:
        await bench.both(RAW[0])
        assert (await bench.compared()).not_comparable == 1


async def test_after_the_cutover_only_what_came_before_is_compared(bench: Bench) -> None:
    seqs = await bench.store(RAW[0], RAW[1])
    for seq in seqs:
        await bench.settle(seq)
    await bench.switch("live")
    (live,) = await bench.store(RAW[2])
    bench.now += SECOND
    assert await bench.send(RAW[0]) == seqs[0]  # late work
    assert await bench.send(RAW[2]) == live
    assert await bench.send(VENDOR.message(99)) is None
    await bench.wait(70)
    compared = await bench.compared()
    assert (compared.matched, compared.unexplained) == (1, 1)
    assert [(path, kind) for path, kind, *_ in await bench.found()] == [("message", "missing_in_legacy")]


# -- outputs that could not be kept


async def test_an_input_whose_output_could_not_be_kept_is_not_comparable(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq)
    assert bench.lose(RAW[0]) == seq
    assert (await bench.compared()).not_comparable == 1
    assert bench.comparer.counts()["emr"].pending == 0
    await bench.wait(70)
    assert await bench.found() == []
    await bench.assert_counted()


async def test_what_was_missed_and_came_late_and_could_not_be_kept_is_no_longer_missed(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq)
    await bench.wait(70)
    assert (await bench.compared()).unexplained == 1
    assert bench.lose(RAW[0]) == seq
    compared = await bench.compared()
    assert (compared.not_comparable, compared.unexplained, compared.open_missing) == (1, 0, 0)
    await bench.assert_counted()


async def test_the_repetition_of_what_was_neither_kept_nor_answered_is_not_doubled(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq)
    assert bench.lose(RAW[0], answered=False) == seq
    assert await bench.send(RAW[0]) == seq
    assert await bench.found() == []
    assert await bench.send(RAW[0]) == seq
    assert [path for path, *_ in await bench.found()] == ["message-twice"]


async def test_a_second_output_that_could_not_be_kept_changes_no_verdict(bench: Bench) -> None:
    seq = await bench.both(RAW[0])
    assert bench.lose(RAW[0]) == seq
    compared = await bench.compared()
    assert (compared.matched, compared.not_comparable) == (1, 0)


# -- what a person says


async def test_settling_a_discrepancy_recounts_its_messages(bench: Bench) -> None:
    unit, flag = FAULTS["wrong_unit"], FAULTS["wrong_flag"]
    await bench.both(RAW[0], unit(RAW[0]))
    await bench.both(RAW[1], unit(RAW[1]))
    await bench.both(RAW[2], flag(unit(RAW[2])))
    await bench.explain("OBX-6.1")
    compared = await bench.compared()
    assert (compared.explained, compared.unexplained, compared.open_clinical) == (2, 1, 1)
    await bench.explain("OBX-8", State.ACCEPTED)
    compared = await bench.compared()
    assert (compared.explained, compared.unexplained, compared.open_clinical) == (3, 0, 0)
    await bench.both(RAW[3], unit(RAW[3]))
    assert (await bench.compared()).explained == 4
    await bench.explain("OBX-6.1", State.OPEN)
    compared = await bench.compared()
    assert (compared.explained, compared.unexplained, compared.open_clinical) == (0, 4, 1)
    await bench.assert_counted()


async def test_what_was_fixed_and_comes_again_counts_all_of_them_again(bench: Bench) -> None:
    unit = FAULTS["wrong_unit"]
    for raw in RAW[:3]:
        await bench.both(raw, unit(raw))
    await bench.explain("OBX-6.1", State.FIXED)
    assert (await bench.compared()).explained == 3
    await bench.both(RAW[3], unit(RAW[3]))
    compared = await bench.compared()
    assert (compared.explained, compared.unexplained, compared.open_clinical) == (0, 4, 1)
    await bench.assert_counted()


async def test_a_settlement_without_a_reason_changes_nothing(bench: Bench) -> None:
    await bench.both(RAW[0], FAULTS["wrong_unit"](RAW[0]))
    (row,) = await bench.rows()
    with pytest.raises(SettleError):
        await bench.comparer.settle(row, State.EXPLAINED, "", "ada")
    assert (await bench.rows())[0].state == "open"


async def test_what_else_is_to_be_written_goes_into_the_same_transaction(bench: Bench) -> None:
    await bench.both(RAW[0], FAULTS["wrong_unit"](RAW[0]))
    (row,) = await bench.rows()
    put = ("put_fact", bench.book.id, "settled", "1", 0, "ada", 0, "")
    await bench.comparer.settle(row, State.EXPLAINED, "seen", "ada", "eve", lambda book: book.put(*put))
    facts = await bench.ledger.read(lambda reader: reader.connection.execute("select name from fact").fetchall())
    assert facts == [("settled",)]
    assert (await bench.rows())[0].owner == "eve"


async def test_a_rule_explains_and_is_reported(tmp_path: Path) -> None:
    rules = Compare(ignore=(Ignored("OBX-6", "units are spelled out"),), within=60.0)
    async with running(tmp_path, channel(compare=rules)) as bench:
        for raw in RAW[:3]:
            await bench.both(raw, FAULTS["wrong_unit"](raw))
        compared = await bench.compared()
        assert (compared.explained, compared.unexplained, compared.open_clinical) == (3, 0, 0)
        (row,) = await bench.rows()
        assert (row.kind, row.state, row.why, row.count) == ("expected", "explained", "units are spelled out", 3)
        assert [rule.reason for rule in bench.comparer.rules.all][-1] == "units are spelled out"
        await bench.assert_counted()


# -- answers


async def test_the_answers_to_the_sender_are_compared(bench: Bench) -> None:
    for number, code in enumerate(("AA", "AE")):
        (seq,) = await bench.store(RAW[number])
        answer = acknowledge(peek(RAW[number]), code, control_id="OLD1", at=1)  # type: ignore[arg-type]
        bench.comparer.answered(bench.messages[seq], answer)
    compared = await bench.compared("")
    assert (compared.matched, compared.unexplained, compared.open_clinical) == (1, 1, 1)
    (row,) = await bench.rows()
    assert (row.tap, row.path) == ("", "MSA-1")
    await bench.assert_counted("")


async def test_an_answer_is_compared_with_what_live_would_say(tmp_path: Path) -> None:
    async with running(tmp_path, channel(), judge=lambda raw: CHARSET) as bench:
        (seq,) = await bench.store(RAW[0], flaw="undecodable")
        answer = acknowledge(peek(RAW[0]), "AE", control_id="OLD1", at=1, error=CHARSET.error)
        bench.comparer.answered(bench.messages[seq], answer)
        assert (await bench.compared("")).matched == 1


# -- crashes


async def test_what_had_no_verdict_gets_it_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, channel()) as bench:
        for raw in RAW[:3]:
            await bench.both(raw)
        await bench.comparer.flush()
        seqs = await bench.store(*RAW[3:7])
        for seq in seqs:
            await bench.settle(seq)
        await bench.comparer.stop()  # what is tapped from here on is stored, and gets no verdict
        await bench.send(FAULTS["wrong_flag"](RAW[3]))
        await bench.send(RAW[4])
        later = bench.now + 30 * SECOND
    async with running(tmp_path, channel(), later) as bench:
        assert bench.comparer.counts()["emr"].pending == 4
        compared = await bench.compared()
        assert (compared.matched, compared.unexplained) == (4, 1)
        assert await bench.send(RAW[5]) == seqs[2]
        await bench.wait(61)
        compared = await bench.compared()
        assert (compared.matched, compared.unexplained, compared.open_missing) == (5, 2, 1)
        await bench.assert_counted()


async def test_a_verdict_on_a_later_input_does_not_hide_an_earlier_one(tmp_path: Path) -> None:
    async with running(tmp_path, channel()) as bench:
        (waits,) = await bench.store(RAW[0])
        await bench.settle(waits)
        await bench.both(RAW[1])
        assert (await bench.compared()).matched == 1
        later = bench.now
    async with running(tmp_path, channel(), later) as bench:
        assert bench.comparer.counts()["emr"].pending == 1
        assert await bench.send(RAW[0]) == waits
        assert (await bench.compared()).matched == 2


async def test_a_repetition_after_a_restart_is_known(tmp_path: Path) -> None:
    async with running(tmp_path, channel()) as bench:
        for raw in RAW[:3]:
            await bench.both(raw)
        later = bench.now + 120 * SECOND
        await bench.comparer.flush()
    async with running(tmp_path, channel(), later) as bench:
        assert await bench.send(RAW[1]) == 2
        assert await bench.found() == []


async def test_what_a_person_settled_survives_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, channel()) as bench:
        await bench.both(RAW[0], FAULTS["wrong_unit"](RAW[0]))
        await bench.explain("OBX-6.1")
        later = bench.now
    async with running(tmp_path, channel(), later) as bench:
        assert (bench.book.compared["emr"].explained, bench.book.compared["emr"].open_clinical) == (1, 0)
        await bench.both(RAW[1], FAULTS["wrong_unit"](RAW[1]))
        assert (await bench.compared()).explained == 2
        await bench.assert_counted()


async def test_a_stray_output_survives_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, channel()) as bench:
        await bench.wait(90)
        await bench.comparer.stop()
        await bench.send(RAW[0])
        later = bench.now
    for _ in range(2):  # and is found once
        async with running(tmp_path, channel(), later) as bench:
            assert [(path, count) for path, _, _, _, count in await bench.found()] == [("message", 1)]


# -- memory, and people


async def test_what_is_not_held_in_memory_is_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.compare.comparer.HELD_BYTES", 2000)
    seqs = await bench.store(*RAW[:20])
    for seq in seqs:
        await bench.settle(seq)
    for raw in RAW[:20]:
        await bench.send(HABITS["padding"](raw))
    assert (await bench.compared()).unexplained == 20
    assert bench.comparer._outputs_held == 0
    await bench.assert_counted()


async def test_large_messages_are_compared_beside(bench: Bench) -> None:
    large = RAW[0] + b"NTE|1|L|" + b"text " * 60_000 + b"\r"
    await bench.both(large, FAULTS["truncated_note"](large))
    assert await bench.found() == [("NTE-3", "transformation", "clinical", "open", 1)]


async def test_a_comparison_that_fails_stops_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("engine.compare.comparer.compare", lambda *given: 1 // 0)
        await bench.both(RAW[0])
        assert (await bench.compared()).not_comparable == 1
    await bench.both(RAW[1])
    assert (await bench.compared()).matched == 1


async def test_the_task_writes_by_itself(bench: Bench) -> None:
    await bench.both(RAW[0])
    await house.until(lambda: bench.book.compared["emr"].matched == 1)


async def test_examples_are_made_from_the_stored_messages(bench: Bench) -> None:
    for raw in RAW[:3]:
        await bench.both(raw, FAULTS["wrong_patient"](raw))
    (row,) = await bench.rows()
    shown = await bench.ledger.read(lambda reader: Showing(reader, bench.channel, bench.book).examples(row))
    assert [one.seq for one in shown] == [3, 2, 1]
    for one, raw in zip(shown, (RAW[2], RAW[1], RAW[0]), strict=True):
        assert one.target is not None
        assert one.target.encode() in raw
        assert one.legacy != one.target


async def test_examples_of_whole_messages_and_answers(bench: Bench) -> None:
    (seq,) = await bench.store(RAW[0])
    await bench.settle(seq)
    answer = acknowledge(peek(RAW[0]), "AE", control_id="OLD1", at=1)
    bench.comparer.answered(bench.messages[seq], answer)
    await bench.wait(70)
    rows = {row.path: row for row in await bench.rows()}
    show = Showing

    async def first(path: str) -> tuple[str | None, str | None]:
        shown = await bench.ledger.read(lambda reader: show(reader, bench.channel, bench.book).examples(rows[path]))
        return shown[0].legacy, shown[0].target

    assert await first("message") == (None, VENDOR.control_id(0))
    assert await first("MSA-1") == (None, None)  # the receipt holds another answer


async def test_the_ledger_holds_no_values(bench: Bench, tmp_path: Path) -> None:
    await bench.both(RAW[0], FAULTS["wrong_patient"](RAW[0]))
    await bench.compared()
    rows = await bench.ledger.read(
        lambda reader: reader.connection.execute("select * from discrepancy, difference").fetchall()
    )
    assert len(rows) == 1
    assert all(not isinstance(value, str) or len(value) < 40 for value in rows[0])


async def test_listing_puts_what_is_open_and_worst_first(bench: Bench) -> None:
    await bench.both(RAW[0], FAULTS["wrong_flag"](HABITS["padding"](RAW[0])))
    await bench.both(RAW[1], FAULTS["wrong_unit"](RAW[1]))
    await bench.both(RAW[2], FAULTS["wrong_unit"](RAW[2]))
    await bench.explain("OBX-8")
    states = [(row.state, row.severity) for row in await bench.rows()]
    assert states[0] == ("open", "clinical")
    assert states[-1] == ("explained", "clinical")
    book = bench.book.id
    one = await bench.ledger.read(lambda reader: comparisons.listing(reader.connection, [book], "explained", 5))
    assert [row.path for row in one] == ["OBX-8"]
    found = await bench.ledger.read(lambda reader: comparisons.discrepancy(reader.connection, one[0].id))
    assert found == one[0]


async def test_two_taps_are_counted_apart(tmp_path: Path) -> None:
    made = channel()
    assert made.legacy is not None
    copy = replace(made.legacy.taps[0], name="copy")
    async with running(tmp_path, replace(made, legacy=replace(made.legacy, taps=(*made.legacy.taps, copy)))) as bench:
        (seq,) = await bench.store(RAW[0])
        await bench.settle(seq)
        await bench.send(RAW[0])
        await bench.send(FAULTS["wrong_flag"](RAW[0]), tap="copy")
        assert ((await bench.compared()).matched, (await bench.compared("copy")).unexplained) == (1, 1)
