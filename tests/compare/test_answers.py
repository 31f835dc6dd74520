"""The old engine's answer against the one that we would give."""

from __future__ import annotations

import pytest

from engine.compare.answers import compare_answers, ours
from engine.compare.rules import FORM, Rules
from engine.config.model import Compare, Ignored
from engine.hl7.ack import acknowledge
from engine.hl7.peek import peek
from engine.intake.judge import CHARSET
from engine.simulate.messages import Messages as Vendor
from engine.simulate.old_engine import acknowledgement
from tests.compare.messages import STANDARD as MESSAGES

STANDARD = Rules.of_answers(Compare())
MESSAGE = Vendor(seed=8).message(1)


def found(answer: bytes, by: Rules = STANDARD) -> list[tuple[str, str, str]]:
    made = compare_answers(MESSAGE, answer, None, by)
    assert made.comparable, made.why
    return [(one.path, one.kind, one.severity) for one in made.differences]


def test_our_own_manner_with_other_stamps_is_the_same() -> None:
    answer = acknowledge(peek(MESSAGE), "AA", control_id="OLD77", at=1_800_000_000)
    assert found(answer) == []


def test_an_old_engines_manner_is_reported_and_explained_by_a_rule() -> None:
    answer = acknowledgement(peek(MESSAGE), 7)
    assert {path for path, _, _ in found(answer)} == {"MSA-3", "MSH-9.3", "MSH-18"}
    assert {kind for _, kind, _ in found(answer)} == {"expected"}
    other = answer.replace(b"|2.5.1", b"|2.3").replace(b"|SIM|REFLAB|", b"|OLD|HUB|")
    assert {(path, kind) for path, kind, _ in found(other)} >= {("MSH-12", "expected"), ("MSH-5", "expected")}
    for one in FORM:
        assert one.path in {rule.path for rule in STANDARD.all}
        assert one.reason


def test_form_is_a_rule_for_answers_alone() -> None:
    assert {one.path for one in FORM}.isdisjoint(rule.path for rule in MESSAGES.all)


def test_a_channels_own_reason_goes_before_the_built_in_one() -> None:
    stated = Rules.of_answers(Compare(ignore=(Ignored("MSA-3", "agreed with the vendor"),)))
    rule = stated.find("MSA-3")
    assert rule is not None
    assert rule.reason == "agreed with the vendor"


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (b"MSA|AA|", b"MSA|CA|", "MSA-1"),
        (b"|ACK^", b"|MCF^", "MSH-9.1"),
        (b"|P|2.5.1", b"|T|2.5.1", "MSH-11"),
        (b"\rMSA", b"\rERR||PID^1^3|101^missing^HL70357|E\rMSA", "ERR"),
        (b"\rMSA", b"\rZAC|7\rMSA", "ZAC"),
    ],
)
def test_what_a_sender_acts_on_is_no_form(old: bytes, new: bytes, path: str) -> None:
    answer = acknowledgement(peek(MESSAGE), 7)
    assert old in answer
    assert path in {path for path, kind, _ in found(answer.replace(old, new)) if kind != "expected"}


def test_a_no_that_would_become_a_yes_is_clinical() -> None:
    assert ("MSA-1", "transformation", "clinical") in found(acknowledgement(peek(MESSAGE), 7, "ae"))


def test_the_answer_to_another_message_is_clinical() -> None:
    assert ("MSA-2", "transformation", "clinical") in found(acknowledgement(peek(MESSAGE), 7, "wrong_id"))


def test_what_live_would_refuse_is_compared_with_the_refusal() -> None:
    refusal = ours(MESSAGE, CHARSET, 0)
    assert compare_answers(MESSAGE, refusal, CHARSET, STANDARD).matched
    assert not compare_answers(MESSAGE, refusal, None, STANDARD).matched


def test_data_is_the_destinations_to_answer() -> None:
    answer = acknowledge(peek(MESSAGE), "AA", control_id="1", at=0).replace(b"ACK^R01^ACK", b"RSP^K22^RSP_K22")
    made = compare_answers(MESSAGE, answer, None, STANDARD)
    assert (made.comparable, made.why) == (False, "the old engine's answer brings data")
    assert not compare_answers(MESSAGE, b"hello", None, STANDARD).comparable
