"""Rules of engine.simulate.mischief."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.simulate.mischief import DOUBLED, DROPPED, NONE, Mischief

IDS = [b"C001R%08d" % number for number in range(4000)]


def test_shares_are_kept() -> None:
    drawn = Counter(Mischief({DROPPED: 0.1, DOUBLED: 0.3}).drawn(one) for one in IDS)
    assert drawn[DROPPED] / len(IDS) == pytest.approx(0.1, abs=0.02)
    assert drawn[DOUBLED] / len(IDS) == pytest.approx(0.3, abs=0.03)


def test_a_message_meets_the_same_fate_whenever_it_comes() -> None:
    mischief = Mischief({DROPPED: 0.5})
    fates = [mischief.drawn(one) for one in IDS]
    assert [Mischief({DROPPED: 0.5}).drawn(one) for one in reversed(IDS)] == fates[::-1]
    assert [Mischief({DROPPED: 0.5}, seed=2).drawn(one) for one in IDS] != fates


def test_without_shares_nothing_happens() -> None:
    assert {NONE.drawn(one) for one in IDS} == {""}


@pytest.mark.parametrize("shares", [{DROPPED: 1.1}, {DROPPED: 0.6, DOUBLED: 0.6}, {DROPPED: -0.1}])
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Mischief(shares)
