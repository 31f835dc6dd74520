"""discrepancies: what differs, with values, and what a person decided."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from engine.cli.discrepancies import due, listed
from engine.cli.selecting import who
from engine.migration.selection import Selector
from tests.cli.conftest import Interlock
from tests.support.told import Told, discrepancy_row, example


def test_the_list_fits_and_is_summed(interlock: Interlock, service: Told) -> None:
    service.evidence.found = [
        discrepancy_row(),
        discrepancy_row(id=8, tap="", path="MSA-3", kind="missing_in_target", severity="business", count=1),
    ]
    result = interlock("discrepancies")
    lines = result.out.splitlines()
    assert result.status == 0
    assert lines[0].split() == ["ID", "CHANNEL", "TAP", "PATH", "KIND", "SEVERITY", "COUNT", "LAST", "DECIDE"]
    assert lines[1].startswith(" 7  acme-results  acme-emr   OBX-5  transformation     clinical     41  ")
    assert lines[2].startswith(" 8  acme-results  (answers)  MSA-3  missing in target  business      1  ")
    assert lines[3] == "2 in all: 1 clinical, 1 business, 0 cosmetic"
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], (Selector(everything=True), "open", 200)),
        (["list"], (Selector(everything=True), "open", 200)),
        (["--connection", "acme"], (Selector(connections=("acme",)), "open", 200)),
        (["acme-results", "--state", "any", "--limit", "5"], (Selector(("acme-results",)), None, 5)),
        (["list", "show", "--state", "fixed"], (Selector(("show",)), "fixed", 200)),
    ],
)
def test_open_ones_of_every_channel_are_listed_unless_told(
    words: list[str], asked: Any, interlock: Interlock, service: Told
) -> None:
    assert interlock("discrepancies", *words).status == 0
    assert service.evidence.asked == [("discrepancies", asked)]


def test_state_and_owner_have_columns_where_they_say_something() -> None:
    rows = [discrepancy_row(owner="bob"), discrepancy_row(state="fixed")]
    assert listed(rows).splitlines()[0].split()[6:] == ["STATE", "COUNT", "LAST", "DECIDE", "OWNER"]


def test_a_decision_that_is_late_stands_out() -> None:
    now = datetime(2026, 11, 3, 12, 15, tzinfo=UTC)
    assert due(discrepancy_row(), now) == "in 2 h"
    assert due(discrepancy_row(due="2026-11-03T12:14:59.000Z"), now) == "OVERDUE"
    assert due(discrepancy_row(state="explained"), now) == "-"


def test_no_discrepancies_are_said_so(interlock: Interlock, service: Told) -> None:
    service.evidence.found = []
    assert interlock("discrepancies").out == "no discrepancies are open\n"
    assert interlock("discrepancies", "--state", "any").out == "no discrepancies\n"
    assert interlock("discrepancies", "--json").out == "[]\n"


def test_one_is_shown_with_values_of_both_sides(interlock: Interlock, service: Told) -> None:
    service.evidence.found = [discrepancy_row(state="explained", owner="bob", reason="rounds to one digit")]
    assert interlock("discrepancies", "show", "7").out.splitlines() == [
        "discrepancy 7: OBX-5 of acme-results, tap acme-emr",
        "kind      transformation, clinical",
        "state     explained",
        "count     41, first 2026-11-02 14:15+00:00, last 2026-11-02 15:15+00:00",
        "owner     bob",
        "reason    rounds to one digit",
        "",
        "acme-results/9  2026-11-02 14:15:00.123+00:00  control id MSG-1",
        "    old engine  7.1",
        "    interlock   (nothing)",
    ]


def test_values_of_messages_do_not_steer_the_terminal(
    interlock: Interlock, service: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def discrepancy(id: int) -> dict[str, Any]:
        return discrepancy_row() | {"examples": [example(legacy="\x1b[31m", target="")]}

    monkeypatch.setattr(service.evidence, "discrepancy", discrepancy)
    assert interlock("discrepancies", "show", "7").out.splitlines()[-2:] == [
        "    old engine  \\x1b[31m",
        "    interlock   (empty)",
    ]


def test_one_for_scripts(interlock: Interlock, service: Told) -> None:
    assert orjson.loads(interlock("discrepancies", "show", "7", "--json").out)["examples"] == [example()]


@pytest.mark.parametrize(
    ("word", "state"), [("explain", "explained"), ("accept", "accepted"), ("fixed", "fixed"), ("reopen", "open")]
)
def test_people_settle_them_by_name_with_a_reason(word: str, state: str, interlock: Interlock, service: Told) -> None:
    service.evidence.found = [discrepancy_row(), discrepancy_row(id=8)]
    result = interlock("discrepancies", word, "7", "8", "--reason", "release 2", "--owner", "bob")
    assert result.status == 0
    assert result.out.splitlines() == [
        f"discrepancy 7 (OBX-5 of acme-results) is {state}",
        f"discrepancy 8 (OBX-5 of acme-results) is {state}",
    ]
    for id, (_, (asked, wanted)) in zip((7, 8), service.evidence.asked, strict=True):
        assert wanted.pop("origin").startswith("interlock/")
        assert (asked, wanted) == (id, {"state": state, "reason": "release 2", "owner": "bob", "who": who()})


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["show", "9"], 1, "there is no discrepancy 9; see `interlock discrepancies`"),
        (["fixed", "9", "--reason", "x"], 1, "there is no discrepancy 9; see `interlock discrepancies`"),
        (["fixed", "7", "--reason", " "], 2, 'say why: --reason "..."'),
        (["--state", "new"], 2, "--state new: wanted is one of open, explained, fixed, accepted, any"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    words: list[str], status: int, sentence: str, interlock: Interlock, service: Told
) -> None:
    result = interlock("discrepancies", *words)
    assert (result.status, result.err) == (status, f"interlock: {sentence}\n")


def test_a_reason_is_wanted(interlock: Interlock, service: Told) -> None:
    assert interlock("discrepancies", "explain", "7").status == 2
    assert service.evidence.asked == []
