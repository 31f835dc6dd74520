"""The old engine's answer against the one that we would give."""

from __future__ import annotations

from engine.compare.answers import compare_answers, ours
from engine.hl7.ack import acknowledge
from engine.hl7.peek import peek
from engine.intake.judge import CHARSET
from engine.simulate.messages import Messages
from engine.simulate.old_engine import acknowledgement
from tests.compare.messages import STANDARD, rules

MESSAGE = Messages(seed=8).message(1)


def found(answer: bytes, by: object = STANDARD) -> list[tuple[str, str, str]]:
    made = compare_answers(MESSAGE, answer, None, by)  # type: ignore[arg-type]
    assert made.comparable, made.why
    return [(one.path, one.kind, one.severity) for one in made.differences]


def test_our_own_manner_with_other_stamps_is_the_same() -> None:
    answer = acknowledge(peek(MESSAGE), "AA", control_id="OLD77", at=1_800_000_000)
    assert found(answer) == []


def test_an_old_engines_manner_is_told_apart_and_hurts_nobody() -> None:
    answer = acknowledgement(peek(MESSAGE), 7)
    assert {severity for _, _, severity in found(answer)} <= {"business", "cosmetic"}
    assert {path for path, _, _ in found(answer)} >= {"MSA-3", "MSH-9.3"}
    assert {kind for _, kind, _ in found(answer, rules("MSA-3", "MSH-9", "MSH-18"))} == {"expected"}


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
