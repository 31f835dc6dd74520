"""Two messages compared by meaning: what is found, what it is called, and how bad it is."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.compare.diff import LONGEST_SHOWN, Difference, compare, differences
from engine.hl7.message import Message
from engine.simulate.alterations import FAULTS, HABITS, own_stamps
from engine.simulate.messages import Messages
from tests.compare.messages import REPORT, STANDARD, changed, comparison, found, rules

ORDERS = [Messages(kind="orm", seed=2), Messages(kind="oml", seed=3)]
EVERYTHING = [
    REPORT.encode(),
    *(Messages(seed=4).message(number) for number in range(12)),
    *(vendor.message(number) for vendor in ORDERS for number in range(6)),
]
COLLECTED = "|20261102081000-0600|||||||||175"
IDENTIFIERS = "700101^^^ACME^MR~800202^^^STATE^SS"


# -- faults and habits


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_and_clinical(name: str) -> None:
    altered = 0
    for message in EVERYTHING:
        sent = FAULTS[name](message)
        if sent == message:
            continue
        altered += 1
        grades = [one.severity for one in compare(own_stamps(sent), message, STANDARD).differences]
        assert "clinical" in grades
    assert altered, "the fault alters nothing that is compared here"


@pytest.mark.parametrize("name", HABITS)
def test_no_habit_is_more_than_a_way_of_writing(name: str) -> None:
    altered = 0
    for message in EVERYTHING:
        sent = HABITS[name](message)
        altered += sent != message
        made = compare(sent, message, STANDARD)
        assert made.comparable
        assert all((one.kind, one.severity) == ("formatting", "cosmetic") for one in made.differences)
    assert altered


def test_all_habits_at_once_hide_no_fault() -> None:
    for message in EVERYTHING:
        sent = message
        for habit in HABITS.values():
            sent = habit(sent)
        assert {one.severity for one in compare(sent, message, STANDARD).differences} <= {"cosmetic"}
        wrong = FAULTS["wrong_patient"](sent)
        kinds = {(one.path, one.severity) for one in compare(wrong, message, STANDARD).differences}
        assert ("PID-3.1", "clinical") in kinds


# -- the same


@given(st.binary(max_size=400))
def test_anything_is_equal_to_itself(raw: bytes) -> None:
    assert compare(raw, raw, STANDARD).matched


_value = st.text(st.sampled_from("ABab019 .-+<>^&~\\TéÃ?\ufffd"), max_size=12)
_segment = st.builds(
    lambda name, fields: "|".join([name, *fields]),
    st.sampled_from(["PID", "PV1", "ORC", "OBR", "OBX", "NTE", "SPM", "TQ1", "ZDS", "MSA"]),
    st.lists(_value, max_size=8),
)


def _message_of(*segments: str) -> str:
    return "\r".join(["MSH|^~\\&|A|B|C|D|20260101||ORU^R01|1|P|2.5", *segments])


_message = st.builds(lambda segments: _message_of(*segments), st.lists(_segment, max_size=12))


@given(_message)
def test_field_by_field_every_message_is_equal_to_itself(text: str) -> None:
    assert differences(Message(text), Message(text), STANDARD) == ()


OTHER_WAY = {"missing_in_target": "missing_in_legacy", "missing_in_legacy": "missing_in_target"}


def _exchanged(found: tuple[Difference, ...]) -> set[tuple[str, str, str]]:
    return {(one.path, OTHER_WAY.get(one.kind, one.kind), one.severity) for one in found}


@given(_message, _message)
@example(_message_of("PID", "PID", "PID", "PID|<"), _message_of("PID", "PID|<", "PID"))  # some equal, one side has more
@example(_message_of("PID", "PID|", "PID", "PID"), _message_of("PID", "PID", "PID|"))
@example(_message_of("PID", "PID", "PID|| ", "PID"), _message_of("PID", "PID||", "PID"))  # a blank
@example(_message_of("PID", "PV1"), _message_of("PV1", "PID"))  # each of them was moved
@example(_message_of("OBX||NM|1-1||7.10"), _message_of("OBX||ST|1-1||+07.1"))  # a number on one side only
def test_what_differs_one_way_differs_the_other_way(one: str, other: str) -> None:
    there, back = (differences(Message(a), Message(b), STANDARD) for a, b in ((one, other), (other, one)))
    assert {(item.path, item.kind, item.severity) for item in there} == _exchanged(back)


@given(_message)
def test_other_delimiters_are_another_way_of_writing(text: str) -> None:
    marks, text = str.maketrans("|^~\\&", "#@!$%"), text[:9] + text[9:].replace("\\", "")
    sent = text.translate(marks)
    assert {one.path for one in differences(Message(sent), Message(text), STANDARD)} <= {"MSH-2"}


def test_own_stamps_and_line_ends_are_no_difference() -> None:
    sent = changed("R-1|P", "OLD-77|P").replace("20261102141000-0600||ORU", "20270101000000||ORU")
    assert comparison(sent.rstrip("\r")).matched


def test_stamps_are_passed_over_where_other_fields_differ_too() -> None:
    assert found(changed("R-1|P", "OLD-77|T")) == [("MSH-11", "transformation", "business")]


def test_empty_ends_mean_nothing() -> None:
    sent = changed("^LN||7.1", "^LN^^^||7.1").replace(
        "EMR||CM||||20261102140000-0600", "EMR||CM||||20261102140000-0600|||"
    )
    assert comparison(sent).matched


# -- fields


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("|104|", "|140|", ("OBX-5", "transformation", "clinical")),
        ("|7.1|", "|7.10|", ("OBX-5", "formatting", "cosmetic")),
        ("|7.1|", "|+07.1|", ("OBX-5", "formatting", "cosmetic")),
        ("|7.1|", "| 7.1|", ("OBX-5", "formatting", "cosmetic")),
        ("|7.1|", "|7.14|", ("OBX-5", "transformation", "clinical")),
        ("|<0.5|", "|<0.50|", ("OBX-5", "formatting", "cosmetic")),
        ("|<0.5|", "|0.5|", ("OBX-5", "transformation", "clinical")),
        ("|<0.5|", "|>0.5|", ("OBX-5", "transformation", "clinical")),
        ("|7.0-20.0|", "|7-20|", ("OBX-7", "formatting", "cosmetic")),
        ("|7.0-20.0|", "|7.0 - 20.0|", ("OBX-7", "formatting", "cosmetic")),
        ("|7.0-20.0|", "|7.0-200|", ("OBX-7", "transformation", "clinical")),
        ("mg/dL^milligram", "mmol/L^milligram", ("OBX-6.1", "transformation", "clinical")),
        ("mg/dL^milligram", "MG/DL^milligram", ("OBX-6.1", "transformation", "clinical")),
        ("mg/dL^milligram", "mg\\X2F\\dL^milligram", ("OBX-6", "formatting", "cosmetic")),
        ("mg/dL^milligram per", "mg/dL^milligrams per", ("OBX-6.2", "transformation", "cosmetic")),
        ("|H|||F|", "|N|||F|", ("OBX-8", "transformation", "clinical")),
        ("|H|||F|", "|H|||C|", ("OBX-11", "transformation", "clinical")),
        ("|19710921|", "|19710912|", ("PID-7", "transformation", "clinical")),
        ("|19710921|", "|197109210000|", ("PID-7", "formatting", "cosmetic")),
        ("Fennimoré^Jasper", "FENNIMORÉ^Jasper", ("PID-5.1", "formatting", "cosmetic")),
        ("Fennimoré^Jasper", "Fennimor?^Jasper", ("PID-5.1", "transformation", "clinical")),
        ("700101^^^ACME", "0700101^^^ACME", ("PID-3.1", "transformation", "clinical")),
        ("700101^^^ACME^MR", "700101^^^ACME^PI", ("PID-3.5", "transformation", "business")),
        (IDENTIFIERS, "800202^^^STATE^SS~700101^^^ACME^MR", ("PID-3", "transformation", "clinical")),
        ("Springfield^IL", "Springfield^WI", ("PID-11.4", "transformation", "business")),
        (COLLECTED, "|20261102151000+0100|||||||||175", ("OBR-7", "formatting", "cosmetic")),
        (COLLECTED, "|20261102081000|||||||||175", ("OBR-7", "formatting", "cosmetic")),
        (COLLECTED, "|202611020810-0600|||||||||175", ("OBR-7", "formatting", "cosmetic")),
        (COLLECTED, "|20261102|||||||||175", ("OBR-7", "transformation", "clinical")),
        (COLLECTED, "|20261102091000-0600|||||||||175", ("OBR-7", "transformation", "clinical")),
        (COLLECTED, "|20261102141000|||||||||175", ("OBR-7", "transformation", "clinical")),
        ("NTE|1|L|Specimen", "NTE|1|L|specimen", ("NTE-3", "transformation", "clinical")),
        ("told by telephone at 8 a.m.", "told", ("NTE-3", "transformation", "clinical")),
        ("UNICODE UTF-8", "UTF-8", ("MSH-18", "formatting", "cosmetic")),
        ("ORU^R01^ORU_R01", "ORU^R01", ("MSH-9.3", "transformation", "business")),
        ("ORU^R01^ORU_R01", "ORU^R03^ORU_R01", ("MSH-9.2", "transformation", "clinical")),
        ("P-1^EMR|A-1^LAB|G-1", "P-1^EMR|A-9^LAB|G-1", ("ORC-3.1", "transformation", "clinical")),
        ("|1750000001^Brightwater||", '|""||', ("OBR-16.1", "transformation", "clinical")),
    ],
)  # fmt: skip
def test_a_change_of_one_field(old: str, new: str, expected: tuple[str, str, str]) -> None:
    assert expected in found(changed(old, new))
    assert {path.partition(".")[0] for path, _, _ in found(changed(old, new))} == {expected[0].partition(".")[0]}


def test_a_text_stands_for_a_code_that_is_not_there() -> None:
    target = changed("2345-7^Glucose^LN", "^Glucose")
    assert ("OBX-3.2", "transformation", "clinical") in found(changed("^Glucose", "^Lactate", text=target), target)


def test_one_difference_for_each_path_and_kind() -> None:
    sent = REPORT.replace("mg/dL^", "mmol/L^")
    assert found(sent) == [("OBX-6.1", "transformation", "clinical")]


def test_repetitions_without_an_order_find_each_other() -> None:
    target = changed("|H|||F|", "|H~A~X|||F|")
    assert found(changed("|H~A~X|", "|X~H~A|", text=target), target) == [("OBX-8", "formatting", "cosmetic")]
    (one,) = comparison(changed("|H~A~X|", "|X~L~H|", text=target), target).differences
    assert (one.path, one.kind, one.legacy, one.target) == ("OBX-8", "transformation", "L", "A")


# -- segments


def test_a_lost_result_is_a_lost_result() -> None:
    lost = "".join(line + "\r" for line in REPORT.split("\r") if line and "3094-0" not in line)
    assert found(lost) == [("OBX", "missing_in_legacy", "clinical")]
    assert found(REPORT, lost) == [("OBX", "missing_in_target", "clinical")]


def test_a_wrong_code_is_not_one_result_lost_and_another_gained() -> None:
    assert found(changed("3094-0^Urea", "3094-9^Urea")) == [("OBX-3.1", "transformation", "clinical")]


def test_a_wrong_order_number_is_found_at_its_field() -> None:
    assert found(changed("OBR|1|P-1^EMR", "OBR|1|P-7^EMR")) == [("OBR-2.1", "transformation", "clinical")]


def test_orders_in_another_sequence_are_the_same_orders() -> None:
    lines = REPORT.rstrip("\r").split("\r")
    first, second = lines[4:10], lines[10:]
    assert found("\r".join([*lines[:4], *second, *first])) == [("OBR", "formatting", "cosmetic")]


def test_what_was_moved_is_named_and_not_what_it_has_passed() -> None:
    lines = REPORT.rstrip("\r").split("\r")
    moved = "\r".join([lines[0], *lines[2:4], lines[1], *lines[4:]])
    assert found(moved) == [("PID", "formatting", "cosmetic")]
    assert found(REPORT, moved) == [("PID", "formatting", "cosmetic")]


def test_a_note_belongs_to_what_it_follows() -> None:
    lines = REPORT.split("\r")
    note = lines.pop(7)
    lines.insert(8, note)  # after the second result
    kinds = found("\r".join(lines))
    assert ("NTE", "missing_in_target", "clinical") in kinds
    assert ("NTE", "missing_in_legacy", "clinical") in kinds


def test_lines_of_a_text_have_an_order() -> None:
    sent = REPORT.replace("first line", "x").replace("second line", "first line").replace("x of", "second line of")
    assert ("OBX-5", "transformation", "clinical") in found(sent)


def test_a_line_lost_from_a_text_moves_no_other_line() -> None:
    target = changed("OBX|2|TX", "OBX|2|TX|8251-1^Comment^LN||between||||||F\rOBX|3|TX")
    assert found(REPORT, target) == [
        ("OBX-1", "formatting", "cosmetic"),
        ("OBX", "missing_in_legacy", "clinical"),
    ]


def test_the_second_patient_of_a_message_is_compared_with_the_second() -> None:
    other = "PID|2||900303^^^ACME^MR||Moss^Ada\rOBR|1|P-9^EMR|A-9^LAB|1-1^X^LN\rOBX|1|NM|1-1^X^LN||5"
    target = REPORT + other
    assert comparison(target, target).matched
    sent = changed("PV1|1|O", "ZDS|1\rPV1|1|O", text=target).replace("Moss^Ada", "Moss^Eve")
    assert found(sent, target) == [
        ("PID-5.2", "transformation", "clinical"),
        ("ZDS", "missing_in_target", "business"),
    ]


# -- rules


def test_an_ignored_place_is_expected_and_says_why() -> None:
    sent = changed("|104|", "|140|")
    (one,) = comparison(sent, by=rules("OBX-5")).differences
    assert (one.kind, one.severity, one.rule) == ("expected", "clinical", "a test says so")
    assert found(sent, by=rules("OBX")) == [("OBX-5", "expected", "clinical")]
    assert found(sent, by=rules("OBX-6")) == [("OBX-5", "transformation", "clinical")]


def test_an_ignored_segment_may_be_there_or_not() -> None:
    assert found(REPORT + "ZDS|1.2.3|x\r", by=rules("ZDS")) == [("ZDS", "expected", "business")]


@pytest.mark.parametrize(
    ("how", "path", "old", "new"),
    [
        ("padding", "PID-3.1", "700101^^^ACME", "0700101^^^ACME"),
        ("precision", None, "|7.1|", "|7.10|"),
        ("case", "OBX-6.1", "mg/dL^milli", "MG/DL^milli"),
        ("order", "PID-3", IDENTIFIERS, "800202^^^STATE^SS~700101^^^ACME^MR"),
        ("time_precision", "OBR", COLLECTED, "|20261102|||||||||175"),
        ("time_zone", None, COLLECTED, "|20261102081000|||||||||175"),
        ("escapes", "OBX-6", "mg/dL^milli", "mg\\X2F\\dL^milli"),
    ],
)
def test_a_tolerated_way_of_writing_is_expected(how: str, path: str | None, old: str, new: str) -> None:
    kinds = {kind for _, kind, _ in found(changed(old, new), by=rules(**{how: path}))}
    assert kinds == {"expected"}


def test_a_tolerance_covers_nothing_else() -> None:
    assert found(changed("|7.1|", "|71|"), by=rules(precision=None)) == [("OBX-5", "transformation", "clinical")]
    assert found(changed("|7.1|", "|7.10|"), by=rules(precision="OBX-7")) == [("OBX-5", "formatting", "cosmetic")]


def test_null_and_nothing_are_the_same_only_by_a_rule() -> None:
    target = changed("Springfield^IL", 'Springfield^""')
    sent = changed("Springfield^IL", "Springfield^")
    assert found(sent, target) == [("PID-11.4", "transformation", "business")]
    assert found(sent, target, rules(null=None)) == [("PID-11.4", "expected", "business")]


# -- text that cannot be read


def test_an_absent_character_set_is_no_way_of_escaping() -> None:
    absent = changed("||||||UNICODE UTF-8", "")
    assert found(absent, by=rules(escapes=None)) == [("MSH-18", "transformation", "cosmetic")]
    assert found(REPORT, absent, by=rules(escapes=None)) == [("MSH-18", "transformation", "cosmetic")]
    other = changed("UNICODE UTF-8", "UTF-8")
    assert found(other, by=rules(escapes=None)) == [("MSH-18", "expected", "cosmetic")]


def test_the_same_text_in_two_charsets_is_the_same() -> None:
    latin = REPORT.replace("UNICODE UTF-8", "8859/1").encode("latin-1")
    assert found(latin) == [("MSH-18", "formatting", "cosmetic")]


def test_bytes_that_are_no_text_are_found_where_they_stand() -> None:
    broken = REPORT.encode().replace("é^".encode(), b"\xe9^")
    assert found(broken) == [("PID-5.1", "transformation", "clinical")]


def test_what_neither_side_can_read_is_the_senders_affair() -> None:
    one, other = (REPORT.encode().replace("é^".encode(), bad + b"^") for bad in (b"\xe9", b"\xe8"))
    assert found(one, other) == [("PID-5.1", "source_quality", "clinical")]
    assert comparison(one, one + b"\r").matched


def test_values_can_be_written_to_a_screen() -> None:
    broken = REPORT.encode().replace("é^".encode(), b"\xe9^")
    (one,) = comparison(broken).differences
    assert (one.legacy, one.target) == ("Fennimor\ufffd", "Fennimoré")


def test_long_values_are_shown_around_what_differs() -> None:
    target = changed("|<0.5|", "|" + "a" * 5000 + "b" + "a" * 5000 + "|")
    (one,) = comparison(changed("ab", "ac", text=target), target).differences
    assert one.legacy is not None
    assert one.target is not None
    assert len(one.legacy) <= LONGEST_SHOWN + 2
    assert ("c" in one.legacy, "b" in one.target) == (True, True)


@pytest.mark.parametrize("bad", [b"", b"FHS|^~\\&|", b"hello", b"\x00\xff"])
def test_what_is_no_message_is_not_comparable(bad: bytes) -> None:
    for one, other in ((bad, REPORT.encode()), (REPORT.encode(), bad)):
        made = compare(one, other, STANDARD)
        assert not made.comparable
        assert not made.matched
        assert "MSH" in made.why
