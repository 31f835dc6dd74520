"""The quota is read from the header and obeyed before the server refuses."""

from __future__ import annotations

import pytest

from engine.fhir.failure import Trouble
from engine.fhir.quota import Quota, parse
from engine.ledger.outcome import Result


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_medplums_header_is_read() -> None:
    header = '"requests";r=59990;t=60, "fhirInteractions";r=49800;t=42'
    assert parse(header) == {"requests": (59990, 60), "fhirInteractions": (49800, 42)}


@pytest.mark.parametrize("header", ["", "garbage", '"x";r=;t=1', "r=1;t=2"])
def test_a_header_that_cannot_be_read_says_nothing(header: str) -> None:
    assert parse(header) == {}


def test_nothing_is_refused_before_the_server_told_anything() -> None:
    Quota().reserve(1_000_000)


def test_more_than_is_left_waits_until_the_window_ends() -> None:
    clock = Clock()
    quota = Quota(clock)
    quota.heard('"fhirInteractions";r=1000;t=30', 200)
    quota.reserve(700)
    with pytest.raises(Trouble) as spent:
        quota.reserve(700)
    assert (spent.value.result, spent.value.after) == (Result.NOT_TAKEN, 30.0)
    quota.release(700)
    quota.reserve(700)
    clock.now += 31
    quota.reserve(1_000_000)  # a new window: nobody knows yet


def test_a_refusal_blocks_for_the_seconds_of_the_policy_that_is_spent() -> None:
    clock = Clock()
    quota = Quota(clock)
    assert quota.heard('"requests";r=0;t=7, "fhirInteractions";r=500;t=60', 429) == 7.0
    with pytest.raises(Trouble):
        quota.reserve(1)
    clock.now += 7.5
    quota.reserve(1)


def test_a_refusal_without_a_header_waits_a_second() -> None:
    assert Quota(Clock()).heard(None, 429) == 1.0
