"""The memory that large messages may take, all connections together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.mllp.budget import Budget


class Reader:
    def __init__(self) -> None:
        self.waits = False

    def ration(self, wait: bool) -> None:
        assert wait is not self.waits, "told once"
        self.waits = wait


def test_who_began_last_waits_and_who_began_first_goes_on() -> None:
    budget, (one, two, three) = Budget(100), (Reader(), Reader(), Reader())
    budget.coming(one, 40)
    budget.coming(two, 40)
    budget.coming(three, 40)
    assert [reader.waits for reader in (one, two, three)] == [False, True, True]
    budget.coming(one, 90)  # there must be an end to one of them
    assert not one.waits
    budget.came(one, 100)
    assert [two.waits, three.waits] == [True, True]  # it will be answered, and then there is room
    budget.done(one)
    assert [two.waits, three.waits] == [False, False]
    assert budget.total == 80


def test_while_something_is_held_nobody_goes_beyond_the_budget() -> None:
    budget, (one, two) = Budget(100), (Reader(), Reader())
    budget.came(one, 100)
    budget.coming(two, 10)
    assert two.waits
    budget.done(one)
    assert not two.waits


def test_what_breaks_is_not_held() -> None:
    budget, one = Budget(100), Reader()
    budget.coming(one, 40)
    budget.broken(one)
    assert budget.total == 0
    budget.came(one, 30)
    budget.coming(one, 10)
    budget.broken(one)
    assert budget.total == 30
    budget.done(one)
    assert budget.total == 0


STEP = st.tuples(st.sampled_from(["coming", "came", "broken", "done"]), st.integers(0, 5), st.integers(1, 60))


@given(st.lists(STEP, max_size=60))
def test_nobody_waits_without_need_and_somebody_can_always_go_on(steps: list[tuple[str, int, int]]) -> None:
    budget = Budget(100)
    readers = [Reader() for _ in range(6)]
    coming, held = [0] * 6, [0] * 6
    began: list[int] = []
    for what, who, size in steps:
        if what == "coming":
            coming[who] += size
            budget.coming(readers[who], coming[who])
        elif what == "came":
            held[who] += coming[who] + size
            budget.came(readers[who], coming[who] + size)
            coming[who] = 0
        elif what == "broken":
            budget.broken(readers[who])
            coming[who] = 0
        else:
            budget.done(readers[who])
            held[who] = 0
        holds = {index for index in range(6) if coming[index] or held[index]}
        began = [index for index in began if index in holds] + [index for index in holds if index not in began]
        inside = [index for index in began if coming[index]]
        assert budget.total == sum(coming) + sum(held)
        if inside and not any(held):
            assert not readers[inside[0]].waits
        if budget.total > 100 and inside:
            assert all(readers[index].waits for index in inside[1:])
            assert readers[inside[0]].waits is any(held)
        if budget.total <= 100:
            assert what == "coming" or not any(reader.waits for reader in readers)
        assert not any(readers[index].waits for index in range(6) if index not in holds)
