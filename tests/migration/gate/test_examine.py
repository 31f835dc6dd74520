"""The gate as a whole: its checks, what passes, waivers, and when a fact counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.migration.gate.check import Finding, Outcome, Subject, Waiver, When
from engine.migration.gate.examine import ATTESTABLE, CHECKS, examine, passed
from tests.migration.gate.subjects import GOOD, NOW, VALUES, found, seconds, with_fact, without_fact, without_taps

NAMES = [
    "parallel_run", "clinical", "in_flight", "old_queue", "vendor", "destinations", "monitoring", "would_refuse",
    "rehearsed", "reconciliation_plan", "window",
]  # fmt: skip
AT_SWITCH = ["parallel_run", "clinical", "in_flight", "old_queue", "window"]


def waiver(check: str, until: int = NOW + 1) -> Waiver:
    return Waiver(check, "bea", "agreed with the lab", seconds(60), until)


def waived(subject: Subject, check: str, until: int = NOW + 1) -> Subject:
    return replace(subject, waivers={check: waiver(check, until)})


def test_every_check_is_there_once_and_passes_where_all_is_well():
    findings = examine(GOOD)
    assert [finding.check for finding in findings] == NAMES
    assert {finding.check: finding.said for finding in findings if finding.outcome is not Outcome.PASS} == {}
    assert passed(findings)


def test_at_the_switch_only_those_count_that_rows_can_answer():
    assert [finding.check for finding in examine(GOOD, When.AT_SWITCH)] == AT_SWITCH
    assert [finding.check for finding in examine(GOOD, When.BEFORE)] == NAMES
    assert passed(examine(GOOD, When.AT_SWITCH))


def test_without_any_data_nothing_passes_but_what_needs_none():
    findings = examine(Subject(without_taps(), "parallel", "v1", NOW))
    assert [finding.check for finding in findings if finding.outcome is Outcome.PASS] == ["window"]
    assert not passed(findings)


def test_a_gate_without_checks_is_closed():
    assert not passed(())


@pytest.mark.parametrize("outcome", Outcome)
def test_a_gate_passes_with_what_passed_or_was_waived_only(outcome: Outcome):
    finding = Finding("x", "x", outcome, "x", None, {}, None, frozenset())
    assert passed([*examine(GOOD), finding]) == (outcome in (Outcome.PASS, Outcome.WAIVED))


@pytest.mark.parametrize("name", VALUES)
def test_each_fact_is_wanted_by_a_check(name: str):
    subject = replace(GOOD, channel=without_taps()) if name == "old_queue" else GOOD
    assert found(name, without_fact(name, subject)).outcome in (Outcome.NO_DATA, Outcome.NOT_MEASURED)
    assert found(name, without_fact(name, subject)).at is None


MAX_AGE_S = {
    "vendor": 300, "destinations": 300, "in_flight": 120, "monitoring": 300, "would_refuse": 300,
    "rehearsed": 30 * 86400, "reconciliation_plan": 30 * 86400, "old_queue": 3600,
}  # fmt: skip


@pytest.mark.parametrize("until", [0, NOW + 10**12], ids=["by its age", "until an end"])
@pytest.mark.parametrize("name", VALUES)
def test_a_fact_that_is_dated_ahead_counts_for_nothing(name: str, until: int):
    subject = replace(GOOD, channel=without_taps()) if name == "old_queue" else GOOD
    kept_right = found(name, with_fact(name, subject, at=seconds(-1), until=until))
    ahead = found(name, with_fact(name, subject, at=seconds(-3600), until=until))
    assert (kept_right.outcome, ahead.outcome) == (Outcome.PASS, Outcome.NO_DATA)
    assert ahead.said == "It is dated 60 min ahead: the clock was set back, and how old it is is not known."


@pytest.mark.parametrize("name", VALUES)
def test_a_fact_counts_until_it_is_too_old(name: str):
    subject = replace(GOOD, channel=without_taps()) if name == "old_queue" else GOOD
    limit = MAX_AGE_S[name]
    young = found(name, with_fact(name, subject, at=seconds(limit)))
    old = found(name, with_fact(name, subject, at=seconds(limit + 1)))
    assert (young.outcome, old.outcome) == (Outcome.PASS, Outcome.NO_DATA)
    assert "old, and counts for" in old.said
    assert old.at == seconds(limit + 1)


def test_a_fact_with_an_end_counts_until_then_however_old_it_is():
    subject = with_fact("rehearsed", at=seconds(90 * 86400), until=NOW + 1)
    assert found("rehearsed", subject).outcome is Outcome.PASS
    assert found("rehearsed", with_fact("rehearsed", until=NOW)).outcome is Outcome.NO_DATA
    ended = found("rehearsed", with_fact("rehearsed", until=seconds(3600)))
    assert (ended.outcome, ended.said) == (Outcome.NO_DATA, "It held until 60 min ago.")


def test_a_fact_of_another_version_does_not_count():
    other = found("rehearsed", with_fact("rehearsed", version="v0"))
    assert other.outcome is Outcome.NO_DATA
    assert other.said == "It was recorded for another version of the mapping or of the channel's file."
    assert found("rehearsed", with_fact("rehearsed", version="v1")).outcome is Outcome.PASS


def test_a_waiver_lets_a_check_pass_and_what_it_found_stays_said():
    finding = found("vendor", waived(without_fact("vendor"), "vendor"))
    assert finding.outcome is Outcome.WAIVED
    assert finding.waiver == waiver("vendor")
    assert finding.said == "Nobody has looked whether the vendor sends."


def test_a_waiver_that_ended_does_not_count():
    finding = found("vendor", waived(without_fact("vendor"), "vendor", until=NOW))
    assert (finding.outcome, finding.waiver) == (Outcome.NO_DATA, None)
    assert finding.said == "Nobody has looked whether the vendor sends. The waiver of bea ended 0 s ago."


def test_a_check_that_passes_is_not_shown_as_waived():
    finding = found("vendor", waived(GOOD, "vendor"))
    assert (finding.outcome, finding.waiver) == (Outcome.PASS, None)


def test_what_is_in_flight_is_never_waived():
    finding = found("in_flight", waived(without_fact("in_flight"), "in_flight"))
    assert finding.outcome is Outcome.NO_DATA
    assert finding.said.endswith(
        "The waiver of bea does not count here: what is on the way is waited for, settled, or carried by name."
    )


def test_a_clinical_discrepancy_is_never_waived_but_its_absence_may_be_where_nothing_can_be_compared():
    (tap, compared), *_ = GOOD.compared.items()
    bad = replace(GOOD, compared={tap: replace(compared, open_clinical=1)})
    assert found("clinical", waived(bad, "clinical")).outcome is Outcome.FAIL
    assert found("clinical", waived(replace(GOOD, channel=without_taps()), "clinical")).outcome is Outcome.WAIVED


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"in_flight", "clinical"}))
def test_every_other_check_may_be_waived(name: str):
    check = next(check for check in CHECKS if check.name == name)
    assert check.waivable == {Outcome.FAIL, Outcome.NO_DATA, Outcome.NOT_MEASURED}


def test_a_check_that_cannot_be_waived_says_what_to_do_instead():
    assert [check.name for check in CHECKS if len(check.waivable) < 3 and not check.instead] == []


def test_what_a_person_attests_has_the_name_of_its_check():
    assert set(ATTESTABLE) <= {check.name for check in CHECKS}
