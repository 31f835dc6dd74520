"""Conditions and filters: when they hold."""

from __future__ import annotations

import time

import pytest

from engine.config.filtering import Rule, Written
from engine.mapping.library import Unmappable
from engine.mapping.problems import MappingError, Problems
from engine.mapping.v2.filters import Filter, Filtered
from engine.mapping.v2.pattern import Pattern
from tests.mapping.v2.mapping import CONTEXT, ORU, mapping


def filter_of(condition: str, drop: bool = True, reason: str = "a rule") -> Filter:
    problems = Problems()
    found = Filter.of([Rule(Written(condition, "c.yaml", 3, 7), drop, reason)], problems)
    problems.check()
    return found


def holds(condition: str, raw: bytes = ORU) -> bool:
    return filter_of(condition).verdict(raw) == "a rule"


@pytest.mark.parametrize(
    "condition",
    [
        "PID-8 = 'F'",
        "PID-8 != 'M'",
        "PID-8 in ('M', 'F')",
        "PID-3.1 = 'MRN1'",
        "PID-3[2].1 = '900'",
        "PID-3[*].5 = 'SS'",
        "OBX[*]-11 = 'X'",
        "OBX[2]-11 = 'X'",
        "not OBX-11 = 'X'",
        "OBR-3 = ORC-3",
        "OBX-5.1 is valued",
        "OBX[3]-5 is null",
        "OBX[3]-5 is not valued",
        "OBX[3]-5 is not empty",
        "PID-4 is empty",
        "ZZZ-1 is empty",
        "NTE[*]-3 matches 'of .*'",
        "PID-5.1 matches '(?i)quill.*'",
        "PID-5.1 not matches 'quill'",
        "upper(PID-5.1) = 'QUILLFEATHER'",
        "PID-4.1 else PID-2 = 'ALT1'",
        "PID-8 = 'M' or PID-8 = 'F' and PID-7 is valued",
        "not (PID-8 = 'M' or PID-7 is empty)",
    ],
)
def test_a_condition_holds(condition: str) -> None:
    assert holds(condition)
    assert not holds(f"not ({condition})")


@pytest.mark.parametrize(
    "condition",
    [
        "PID-4 = PID-9",
        "OBX[3]-5 = PID-4",
        "PID-4 in (PID-9, 'x')",
        "OBX[3]-5 = '99.5'",
        "OBX[*]-11 != 'X'",
        "PID-5.1 matches 'Quill'",
    ],
)
def test_a_condition_does_not_hold(condition: str) -> None:
    assert not holds(condition)


def test_escapes_are_no_difference() -> None:
    assert holds("NTE-3 = 'salt & pepper'", ORU.replace(b"of the patient", b"salt \\T\\ pepper"))


def test_the_first_rule_that_holds_a_message_back_gives_the_reason() -> None:
    text = (
        "filter:\n  - keep: PID-8 = 'F'\n    reason: women only\n  - drop: PV1-2 = 'O'\n    reason: in-patients only\n"
    )
    assert mapping(text).run(ORU, CONTEXT) == Filtered("in-patients only")
    assert mapping(text).run(ORU.replace(b"|F\rNTE", b"|M\rNTE"), CONTEXT) == Filtered("women only")
    assert mapping(text).run(ORU.replace(b"|O|", b"|I|"), CONTEXT) == [ORU.replace(b"|O|", b"|I|")]


def test_a_filter_takes_a_batch_whole_or_not_at_all() -> None:
    batch = b"BHS|^~\\&\r" + ORU + ORU.replace(b"ID1", b"ID2") + b"BTS|2\r"
    assert filter_of("PID-8 = 'F'").verdict(batch) == "a rule"
    assert filter_of("PID-8 = 'M'").verdict(batch) is None
    with pytest.raises(Unmappable, match="mixed-batch"):
        filter_of("MSH-10 = 'ID2'").verdict(batch)


def test_a_filter_of_no_rules_reads_nothing() -> None:
    assert Filter(()).verdict(b"\xff no message") is None


def test_a_filter_of_a_channel_knows_the_message_alone() -> None:
    with pytest.raises(MappingError) as caught:
        filter_of("received = '2026'")
    assert str(caught.value) == "c.yaml:3:7: found unknown name received; expected no name here"


def test_a_mistake_has_its_place_in_the_channels_file() -> None:
    with pytest.raises(MappingError) as caught:
        filter_of("PID-8 = 'F' nad PID-7 is valued")
    assert str(caught.value) == "c.yaml:3:19: found nad; expected the end, or and, or, else"


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a|a)*b",
        "(a*)*",
        "a*a*a*b",
        "(.*)(.*)(.*)x",
        "(?=a)b",
        r"(a)\1",
        "a?" * 15 + "a" * 15,
        "[",
        "x" * 201,
    ],
)
def test_a_pattern_that_may_take_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Pattern(pattern)


@pytest.mark.parametrize("pattern", [".*a.*b", "a*a*b", "(?i)zz.*|test.*", r"\d{3}-\d{2}-\d{4}", "[A-Z]{1,3}[0-9]+"])
def test_no_pattern_takes_long_whatever_the_text(pattern: str) -> None:
    found = Pattern(pattern)
    begun = time.process_time()
    for text in ("a" * 100_000, "1" * 100_000, "A1" * 50_000):
        found.fits(text)
    assert time.process_time() - begun < 2
