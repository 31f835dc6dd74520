"""audit: what was done, and whether the record is whole."""

from __future__ import annotations

import orjson
import pytest

from engine.cli.audit import what
from tests.cli.conftest import Interlock
from tests.support.told import Told, audit_row


@pytest.mark.parametrize("words", [(), ("list",)])
def test_what_was_done_is_a_table_that_fits(words: tuple[str, ...], interlock: Interlock, service: Told) -> None:
    why = "window of 12 May, agreed with the laboratory and with the on-call engineer"
    service.evidence.rows = [audit_row(), audit_row(id=2, verb="note", before="", after="", why=why)]
    lines = interlock("audit", *words).out.splitlines()
    assert lines == [
        "ROW  AT                         WHO  VERB     SUBJECT  WHAT AND WHY",
        "  3  2026-11-02 14:15:00+00:00  ann  cutover  acme     parallel → live: window of 12 May",
        "  2  2026-11-02 14:15:00+00:00  ann  note     acme     window of 12 May, agreed with the laboratory",
        "                                                       and with the on-call engineer",
    ]
    assert max(map(len, lines)) <= 100


def test_what_is_more_than_a_word_stands_in_the_json_only(interlock: Interlock, service: Told) -> None:
    assert what(audit_row(before='{"states":{}}', after="live")) == "live: window of 12 May"
    assert orjson.loads(interlock("audit", "--json").out) == service.evidence.rows


def test_a_phase_says_what_it_was_and_from_which_number_it_is() -> None:
    legacy = audit_row(before="parallel", after='{"phase":"legacy","from":813}', why="back")
    assert what(legacy) == "parallel → legacy from 813: back"
    assert what(legacy | {"after": ""}) == "from parallel: back"


def test_a_moment_is_a_time_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    held = audit_row(before="", after="until 2026-11-02T14:30:00.123Z", why="the laboratory asked")
    assert what(held) == "until 2026-11-02 14:30+00:00: the laboratory asked"


def test_older_rows_are_asked_for(interlock: Interlock, service: Told) -> None:
    interlock("audit", "--limit", "5", "--before", "9")
    assert service.evidence.asked == [("audit", (5, 9))]


def test_nothing_done_is_said_so(interlock: Interlock, service: Told) -> None:
    service.evidence.rows = []
    assert interlock("audit").out == "nothing was done yet\n"


def test_a_whole_record_is_0_and_its_head_can_be_noted(interlock: Interlock, service: Told) -> None:
    result = interlock("audit", "verify")
    assert (result.status, result.out) == (0, "the audit record is whole: 12 rows, head ab12\n")


def test_a_record_that_is_not_whole_names_the_rows_and_ends_with_1(interlock: Interlock, service: Told) -> None:
    problems = ["Row 7 was edited.", "Row 9 is missing."]
    service.evidence.verdict = {"ok": False, "rows": 11, "head": "ab12", "problems": problems}
    result = interlock("audit", "verify")
    assert result.status == 1
    assert result.out.splitlines() == [*problems, "the audit record is NOT whole: 2 problems in 11 rows"]
    assert interlock("audit", "verify", "--json").status == 1
