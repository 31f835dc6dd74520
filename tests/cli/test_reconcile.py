"""reconcile: the equation, the other side's list, each item named."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from engine.migration.selection import Selector
from tests.cli.conftest import Interlock
from tests.support.told import Told, reconciled


def test_what_is_clean_ends_with_0(interlock: Interlock, service: Told) -> None:
    result = interlock("reconcile", "acme-results")
    assert result.status == 0
    assert result.out.splitlines() == [
        "acme-results, epoch 1 (parallel): 3 handed over to the old engine.",
        "",
        "clean: everything is accounted for",
    ]
    assert service.evidence.asked == [("reconcile", (Selector(("acme-results",)), None))]


def test_each_item_and_problem_is_named_and_1(interlock: Interlock, service: Told) -> None:
    long = "stored once more than it is listed; handed over to the old engine, captured at acme-emr"
    service.evidence.report = reconciled(
        clean=False,
        missing=[{"channel": None, "seq": None, "control_id": "MSG-3", "said": "listed, and never stored"}],
        extra=[{"channel": "acme-results", "seq": 7, "control_id": None, "said": "not listed: it has no control id"}],
        doubled=[{"channel": "acme-results", "seq": 9, "control_id": "MSG-1", "said": long}],
        problems=["acme-results, epoch 1, medplum: 1 dead, for a person to decide."],
    )
    result = interlock("reconcile")
    assert result.status == 1
    lines = result.out.splitlines()
    assert lines[2:] == [
        "ITEM     MESSAGE         CONTROL ID  WHAT",
        "MISSING  -               MSG-3       listed, and never stored",
        "EXTRA    acme-results/7  -           not listed: it has no control id",
        "DOUBLED  acme-results/9  MSG-1       stored once more than it is listed; handed over to the old",
        "                                     engine, captured at acme-emr",
        "",
        "acme-results, epoch 1, medplum: 1 dead, for a person to decide.",
        "",
        "NOT clean: 3 items and 1 problem",
    ]
    assert max(map(len, lines)) <= 100


def test_the_other_sides_list_is_read_from_a_file(interlock: Interlock, service: Told, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("control_id,channel\nMSG-1,acme-results\nMSG-2,\n")
    assert interlock("reconcile", "--all", "--manifest", "list.csv").status == 0
    assert service.evidence.asked == [
        ("reconcile", (Selector(everything=True), [("MSG-1", "acme-results"), ("MSG-2", None)]))
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "interlock: list.csv cannot be read: No such file or directory\n"),
        ("id,channel\nA,b\n", "interlock: the list cannot be used:\nlist.csv:1: found 2 columns and none named "
         "control_id; expected a header with control_id\n"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_list_is_told_with_its_line(
    text: str | None, sentence: str, interlock: Interlock, service: Told, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "list.csv").write_text(text)
    result = interlock("reconcile", "--manifest", "list.csv")
    assert (result.status, result.err) == (2, sentence)
    assert service.evidence.asked == []


def test_a_report_for_scripts(interlock: Interlock, service: Told) -> None:
    service.evidence.report = reconciled(clean=False)
    result = interlock("reconcile", "--json")
    assert (result.status, orjson.loads(result.out)) == (1, service.evidence.report)
