"""Rules of engine.simulate.orders."""

from __future__ import annotations

from collections import Counter

import hl7
import pytest
from hl7apy.parser import parse_message

from engine.hl7.peek import peek
from engine.simulate.orders import CANCELLED, PATIENTS, REPORTS_AN_ORDER, OrderKind, Orders, origin

ORDERS = Orders("C001")
MANY = range(1, 1001)


def reports(order: int) -> list[bytes]:
    return [ORDERS.report(100 + stage, order, stage) for stage in range(len(ORDERS.stages(order)))]


def order_with(stages: str) -> int:
    return next(number for number in MANY if ORDERS.stages(number) == stages)


def field(message: bytes, segment: str, number: int) -> str:
    return str(hl7.parse(message.decode()).segment(segment)[number])


def test_the_same_numbers_give_the_same_bytes() -> None:
    order = order_with("PF")
    assert Orders("C001").order(order) == ORDERS.order(order)
    assert Orders("C001").report(7, order, 1) == ORDERS.report(7, order, 1)
    assert Orders("C002").order(order) != ORDERS.order(order)
    assert Orders("C001", seed=2).order(order) != ORDERS.order(order)


@pytest.mark.parametrize(("kind", "expected"), [("orm", "ORM^O01"), ("oml", "OML^O21")])
def test_an_order_says_what_it_is(kind: OrderKind, expected: str) -> None:
    head = peek(Orders("C001", kind=kind).order(12))
    assert f"{head.type}^{head.trigger}" == expected
    assert head.control_id == "C001O00000012"


def test_hl7apy_finds_every_segment_of_a_report_in_its_place() -> None:
    parse_message(ORDERS.report(1, order_with("FC"), 1).decode()).validate()
    parse_message(Orders("C001", kind="oml").order(5).decode()).validate()


def test_every_stage_of_an_order_names_it() -> None:
    order = order_with("PFCC")
    told = reports(order)
    assert [field(report, "OBR", 25) for report in told] == ["P", "F", "C", "C"]
    assert {field(report, "OBR", 2) for report in told} == {field(ORDERS.order(order), "ORC", 2)}
    assert len({field(report, "OBR", 3) for report in told}) == 1
    assert {field(report, "PID", 3) for report in told} == {field(ORDERS.order(order), "PID", 3)}


def test_a_preliminary_report_has_three_values_and_a_final_one_all_of_them() -> None:
    preliminary, final = reports(order_with("PF"))
    assert (preliminary.count(b"\rOBX|"), final.count(b"\rOBX|")) == (3, 5)
    assert values(final)[:3] == values(preliminary)


def values(report: bytes) -> list[str]:
    return [str(obx[5]) for obx in hl7.parse(report.decode()).segments("OBX")]


def test_a_correction_measures_the_first_value_again_and_no_other() -> None:
    pairs = [tuple(map(values, reports(order))) for order in MANY if ORDERS.stages(order) == "FC"]
    assert all(final[1:] == corrected[1:] for final, corrected in pairs)
    assert sum(final[0] != corrected[0] for final, corrected in pairs) > 0.8 * len(pairs) > 50


def test_a_cancellation_names_the_order_before_it_and_is_not_reported_on() -> None:
    cancelling = [number for number in MANY if ORDERS.cancels(number)]
    assert 0.5 * CANCELLED < len(cancelling) / len(MANY) < 1.5 * CANCELLED
    for number in cancelling:
        assert field(ORDERS.order(number), "ORC", 1) == "CA"
        assert field(ORDERS.order(number), "ORC", 2) == field(ORDERS.order(number - 1), "ORC", 2)
        assert field(ORDERS.order(number - 1), "ORC", 1) == "NW"
        assert ORDERS.stages(number) == ""


def test_stages_come_in_their_shares() -> None:
    told = sum(len(ORDERS.stages(number)) for number in MANY) / len(MANY)
    assert told == pytest.approx(REPORTS_AN_ORDER, rel=0.1)
    assert len(Counter(ORDERS.stages(number) for number in MANY)) == 5


def test_the_first_senders_number_is_found_whoever_numbered_it_since() -> None:
    order = order_with("F")
    for message, expected in (
        (ORDERS.order(order), ORDERS.order_id(order)),
        (ORDERS.report(9, order, 0), "C001R00000009"),
    ):
        assert origin(message) == expected
        assert origin(message.replace(expected.encode(), b"OE0000000001", 1)) == expected


@pytest.mark.parametrize("message", [b"", b"MSH|^~\\&|A", b"MSH|^~\\&|A\rOBR|1|2\r", b"MSH|^~\\&|A\rOBR|1|2"])
def test_a_message_without_it_has_none(message: bytes) -> None:
    assert origin(message) == ""


def test_some_people_and_every_note_have_letters_beyond_ascii() -> None:
    texts = [ORDERS.report(1, order, 0).decode() for order in MANY[:200] if ORDERS.stages(order)]
    assert all(not text.isascii() for text in texts)
    assert any(not text.partition("NTE|")[0].isascii() for text in texts)


def test_patients_recur() -> None:
    people = {field(ORDERS.order(number), "PID", 3) for number in MANY[:300]}
    assert PATIENTS / 2 < len(people) <= PATIENTS
