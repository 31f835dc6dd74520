"""Reconciliation: what both sides count, and each item that they do not agree on."""

from __future__ import annotations

from typing import Any

import pytest

from engine.migration.reconcile import Ours, Report, reconcile

PHASES = {("acme", 1): "legacy", ("acme", 2): "parallel", ("acme", 3): "live"}


def row(epoch: int, destination: str, stored: int | None = None, **states: int) -> dict[str, Any]:
    counted = sum(states.values())
    whole = counted if stored is None else stored
    return {
        "channel": "acme", "epoch": epoch, "destination": destination, "stored": whole, "claim": 0, "frontier": 0,
        "states": states, "balanced": whole == counted,
    }  # fmt: skip


def of(*rows: dict[str, Any], **more: Any) -> Report:
    return reconcile(rows, more.pop("rebuilt", ()), PHASES, **more)


SAID = {
    "the old engine has it": (
        row(1, "legacy", delivered=1200),
        "acme, epoch 1 (legacy): 1,200 handed over to the old engine.",
    ),
    "shadow is not delivery": (
        row(2, "medplum", delivered=5),
        "acme, epoch 2 (parallel): 5 delivered to medplum beside the old engine.",
    ),
    "captured": (row(2, "emr", captured=5), "acme, epoch 2 (parallel): 5 captured at emr."),
    "live": (
        row(3, "emr", delivered=7, discarded=1, waiting=2),
        "acme, epoch 3 (live): 7 delivered to emr, 1 discarded at emr; 2 waiting at emr.",
    ),
    "still for the old engine": (
        row(2, "legacy", delivered=1, refused=1, sending=1),
        "acme, epoch 2 (parallel): 1 handed over to the old engine, 1 refused on the way to the old engine; "
        "1 sending for the old engine.",
    ),
    "nothing": (row(3, "emr"), "acme, epoch 3 (live): nothing was due at emr."),
}


@pytest.mark.parametrize("case", SAID)
def test_each_epoch_says_what_became_of_its_messages_in_the_words_of_its_phase(case: str):
    counted, said = SAID[case]
    report = of(counted)
    assert report.summary == (said,)
    assert report.clean


PROBLEMS = {
    "an equation that does not hold": (
        row(3, "emr", stored=8, delivered=7),
        "acme, epoch 3, emr: 8 stored, and 7 counted in all states.",
    ),
    "what wants a person": (
        row(3, "emr", dead=2, unknown=1, delivered=4),
        "acme, epoch 3, emr: 1 unknown, 2 dead, for a person to decide.",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_problem_of_the_equation_is_not_clean(case: str):
    counted, said = PROBLEMS[case]
    report = of(counted)
    assert report.problems == (said,)
    assert not report.clean


def test_what_differs_when_all_is_counted_again_is_not_clean():
    report = of(row(3, "emr", delivered=1), rebuilt=["the counter of acme is 3, its rows say 2"])
    assert report.problems == ("the counter of acme is 3, its rows say 2",)
    assert not report.clean


def stored(*ids: str | None, channel: str = "acme", phase: str = "live", **states: str) -> list[Ours]:
    return [Ours(channel, seq, id, phase, states) for seq, id in enumerate(ids, 1)]


def items(report: Report) -> tuple[list[Any], ...]:
    """(missing, extra, doubled), each as (channel, seq, control id)."""
    return tuple(
        [(item["channel"], item["seq"], item["control_id"]) for item in group]
        for group in (report.missing, report.extra, report.doubled)
    )


LISTS = {
    "both agree": ([("A", None), ("B", "acme")], stored("A", "B"), ([], [], [])),
    "one is missing": ([("A", None), ("B", None)], stored("A"), ([(None, None, "B")], [], [])),
    "one is missing from its channel": ([("A", "acme")], [], ([("acme", None, "A")], [], [])),
    "one is extra": ([("A", None)], stored("A", "B"), ([], [("acme", 2, "B")], [])),
    "one is doubled": ([("A", None)], stored("A", "A"), ([], [], [("acme", 2, "A")])),
    "one is there three times": ([("A", None)], stored("A", "A", "A"), ([], [], [("acme", 2, "A"), ("acme", 3, "A")])),
    "both have one twice": ([("A", None), ("A", None)], stored("A", "A"), ([], [], [])),
    "one of two is missing": ([("A", None), ("A", None)], stored("A"), ([(None, None, "A")], [], [])),
    "one without a control id": ([("A", None)], stored("A", None), ([], [("acme", 2, None)], [])),
    "the same id in two channels": (
        [("A", "acme"), ("A", "beta")],
        [*stored("A"), *stored("A", channel="beta")],
        ([], [], []),
    ),
    "in the other channel": (
        [("A", "beta")],
        stored("A"),
        ([("beta", None, "A")], [("acme", 1, "A")], []),
    ),
    "with and without a channel": (
        [("A", None), ("A", "acme")],
        [*stored("A"), *stored("A", channel="beta")],
        ([], [], []),
    ),
    "an empty list": ([], stored("A"), ([], [("acme", 1, "A")], [])),
}


@pytest.mark.parametrize("case", LISTS)
def test_each_item_that_the_lists_do_not_agree_on_is_named(case: str):
    manifest, ours, expected = LISTS[case]
    both = {"channel": "beta", **{k: v for k, v in row(3, "emr").items() if k != "channel"}}
    report = reconcile([row(3, "emr"), both], (), PHASES, manifest, ours)
    assert items(report) == expected
    assert report.clean == (expected == ([], [], []))


def test_an_item_says_what_became_of_it_where():
    ours = [
        Ours("acme", 1, "A", "parallel", {"legacy": "delivered", "emr": "captured"}),
        Ours("acme", 2, "B", "live", {"emr": "dead"}),
    ]
    report = of(row(3, "emr"), manifest=[("A", None)], ours=[*ours, ours[0]])
    assert report.extra[0]["said"] == "not listed; dead at emr"
    assert report.doubled[0]["said"] == "stored already as acme/1; handed over to the old engine, captured at emr"


def test_a_control_id_that_is_used_again_and_again_names_the_first_few():
    report = of(row(3, "emr"), manifest=[("A", None)] * 9, ours=stored(*["A"] * 10))
    assert report.doubled[0]["said"] == "stored already as acme/1, acme/2, acme/3, acme/4, acme/5"


def test_what_is_listed_for_a_channel_that_is_not_selected_is_left_out_and_said():
    report = of(row(3, "emr"), manifest=[("A", None), ("B", "gamma")], ours=stored("A"))
    assert report.clean
    assert report.summary[1:] == (
        "1 listed, 1 of them stored; 0 missing, 0 extra, 0 doubled.",
        "The list has 1 of gamma, which is not selected: left out.",
    )


def test_the_report_as_a_dict_has_every_part():
    report = of(row(1, "legacy", delivered=1), manifest=[("A", None)])
    assert report.as_dict() == {
        "clean": False,
        "equation": [
            {**row(1, "legacy", delivered=1), "phase": "legacy", "said": "1 handed over to the old engine"}
        ],
        "problems": [],
        "missing": [{"channel": None, "seq": None, "control_id": "A", "said": "listed, and never stored"}],
        "extra": [],
        "doubled": [],
        "summary": [
            "acme, epoch 1 (legacy): 1 handed over to the old engine.",
            "1 listed, 0 of them stored; 1 missing, 0 extra, 0 doubled.",
        ],
    }  # fmt: skip


def test_what_a_tap_keeps_for_a_person_is_a_problem() -> None:
    report = of(row(3, "emr", delivered=5), parked=[("acme", "clinic", 1), ("acme", "lab", 1200)])
    assert not report.clean
    assert report.problems == (
        "acme, tap clinic: 1 output of the old engine parked, for a person to decide.",
        "acme, tap lab: 1,200 outputs of the old engine parked, for a person to decide.",
    )
