"""gate and compare: every check explained, every count apart."""

from __future__ import annotations

import orjson

from engine.cli.evidence import gate_told
from engine.migration.selection import Selector
from tests.cli.conftest import Interlock
from tests.support.told import Told, check_row, compared_row, gate_row

OPEN = "Open: 2 clinical at the tap acme-emr. Each is to be explained, fixed or accepted, by name, before the cutover."
WAIVER = {"who": "ann", "why": "the twin was rehearsed", "until": "2026-12-01T00:00:00.000Z"}


def test_a_gate_that_passes_says_so(interlock: Interlock, service: Told) -> None:
    result = interlock("gate", "acme-results")
    assert result.status == 0
    assert result.out.splitlines() == [
        "acme-results: passed",
        "OUTCOME  CHECK         AGE  WHAT WAS FOUND",
        "pass     parallel_run    -  The tap acme-emr: 100 % of 412.",
        "",
        "1 channel: passed",
    ]
    assert service.evidence.asked == [("gate", Selector(("acme-results",)))]


def test_each_check_that_stands_against_it_is_explained(interlock: Interlock, service: Told) -> None:
    checks = [
        check_row(),
        check_row(check="clinical", outcome="fail", said=OPEN),
        check_row(check="rehearsed", outcome="waived", said="Nobody rehearsed it.", waiver=WAIVER),
        check_row(check="monitoring", outcome="no data", said="Nobody has scraped yet."),
    ]
    service.evidence.gates = [gate_row(passed=False, checks=checks), gate_row(channel="beta")]
    result = interlock("gate", "--all")
    assert result.status == 1
    lines = result.out.splitlines()
    assert lines[:8] == [
        "acme-results: not passed, 2 of 4 checks pass",
        "OUTCOME  CHECK         AGE  WHAT WAS FOUND",
        "pass     parallel_run    -  The tap acme-emr: 100 % of 412.",
        "FAIL     clinical        -  Open: 2 clinical at the tap acme-emr. Each is to be explained, fixed or",
        "                            accepted, by name, before the cutover.",
        "waived   rehearsed       -  Nobody rehearsed it. Waived by ann until 2026-12-01 00:00+00:00: the",
        "                            twin was rehearsed",
        "NO DATA  monitoring      -  Nobody has scraped yet.",
    ]
    assert lines[-1] == "1 of 2 channels passed; not: acme-results"
    assert max(map(len, lines)) <= 100


def test_the_head_of_a_gate_counts_the_checks_that_pass() -> None:
    checks = [check_row(), check_row(outcome="waived", waiver=WAIVER), check_row(outcome="fail")]
    head = gate_told(gate_row(passed=False, checks=checks)).splitlines()[0]
    assert head == "acme-results: not passed, 2 of 3 checks pass"


def test_a_gate_for_scripts(interlock: Interlock, service: Told) -> None:
    service.evidence.gates = [gate_row(passed=False)]
    result = interlock("gate", "--all", "--json")
    assert (result.status, orjson.loads(result.out)) == (1, service.evidence.gates)


def test_a_gate_wants_to_know_which_channels(interlock: Interlock, service: Told) -> None:
    result = interlock("gate")
    assert (result.status, result.err) == (2, "interlock: which channels? give ids, --connection, --label or --all\n")


def test_each_count_of_the_comparison_stands_apart(interlock: Interlock, service: Told) -> None:
    answers = compared_row(tap="", unexplained=0, match=None, lag_s=None, matched=0, explained=0)
    service.evidence.comparisons = [compared_row(), answers]
    result = interlock("compare")
    assert result.status == 0
    assert result.out.splitlines() == [
        "CHANNEL       TAP        MATCHED  EXPLAINED  UNEXPLAINED  NOT COMP.  PENDING    MATCH    LAG",
        "acme-results  acme-emr       400         11            1          0        3  99.75 %  0.4 s",
        "acme-results  (answers)        0          0            0          0        3        -      -",
        "rule of acme-results: ignore MSH-7 (stamped by each engine)",
        "what differs: interlock discrepancies",
    ]
    assert service.evidence.asked == [("compare", Selector(everything=True))]


def test_a_rule_that_many_channels_have_is_said_once(interlock: Interlock, service: Told) -> None:
    service.evidence.comparisons = [compared_row(channel=name, unexplained=0) for name in ("a", "b", "c")]
    lines = interlock("compare").out.splitlines()
    assert lines[4:] == ["rule of 3 channels: ignore MSH-7 (stamped by each engine)"]


def test_not_quite_all_is_never_rounded_to_all(interlock: Interlock, service: Told) -> None:
    service.evidence.comparisons = [compared_row(match=0.999999)]
    assert "99.99 %" in interlock("compare").out


def test_nothing_to_compare_is_said(interlock: Interlock, service: Told) -> None:
    service.evidence.comparisons = []
    assert interlock("compare").out == "nothing is compared: no channel that is meant has a tap\n"
    assert interlock("compare", "--json").out == "[]\n"
