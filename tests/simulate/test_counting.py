"""Rules of engine.simulate.counting."""

from __future__ import annotations

from engine.simulate.counting import Count, count
from engine.simulate.mischief import DROPPED
from engine.simulate.outbox import Acknowledged
from engine.simulate.receiver import Arrival, side_of


def taken(*numbers: int) -> list[Acknowledged]:
    return [Acknowledged("a", name(number), 0.0, "AA", 1, 0.1) for number in numbers]


def name(number: int) -> str:
    return f"C001O{number:08d}"


def came(number: int, control_id: str | None = None) -> Arrival:
    """Directly; with a number of the old engine's, from there."""
    own = control_id or name(number)
    return Arrival("lab-1", name(number), own, side_of(own), 0.0, 1)


def test_each_once_from_one_side_is_clean() -> None:
    assert count(taken(1, 2), [came(1, "OE01"), came(2)]) == Count(2, 2, by_legacy=1, by_target=1)
    assert count(taken(1, 2), [came(1, "OE01"), came(2)]).clean


def test_what_never_came_is_lost() -> None:
    found = count(taken(1, 2), [came(2)])
    assert (found.lost, found.clean) == ((name(1),), False)


def test_what_the_old_engine_was_told_to_lose_is_counted_apart() -> None:
    found = count(taken(1, 2), [], {name(1): DROPPED, name(2): "wrong_unit"})
    assert (found.dropped, found.lost) == ((name(1),), (name(2),))


def test_what_both_sides_brought_is_not_clean() -> None:
    found = count(taken(1), [came(1, "OE01"), came(1)])
    assert (found.both, found.by_legacy, found.by_target, found.clean) == ((name(1),), 0, 0, False)


def test_one_number_twice_is_a_repeat_and_two_numbers_are_a_double() -> None:
    found = count(
        taken(1, 2, 3), [came(1, "OE01"), came(1, "OE01"), came(2, "OE02"), came(2, "OE03"), came(3), came(3)]
    )
    assert (found.repeated, found.doubled, found.clean) == ((name(1), name(3)), (name(2),), True)


def test_what_comes_after_a_later_one_of_its_channel_is_late() -> None:
    results = Arrival("emr", "C001R00000001", "C001R00000001", "target", 0.0, 1)
    assert count([], [came(1), came(3), results, came(2), came(4), came(1)]).late == (name(2),)


def test_arrivals_that_nobody_has_an_answer_for_are_told() -> None:
    found = count(taken(1), [came(1), came(2), Arrival("lab-1", "", "X", "target", 0.0, 1)])
    assert (found.unacknowledged, found.unknown, found.clean) == ((name(2),), 1, True)
