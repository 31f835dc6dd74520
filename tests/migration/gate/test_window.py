"""When a window is open: days, midnight, and the days on which the clock is changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.model import Weekday, Window
from engine.migration.gate.check import Outcome
from engine.migration.gate.window import WEEKDAYS, clock, inside, next_closing, next_opening
from tests.migration.gate.subjects import GOOD, found

NIGHT = Window((), "01:00", "05:00")
WEEKEND = Window(("sat", "sun"), "01:00", "05:00")
LATE = Window(("fri",), "22:00", "02:00")  # into Saturday
SATURDAY = Window(("sat",), "00:00", "24:00")
ALWAYS = Window((), "00:00", "24:00")
CHICAGO, KOLKATA = "America/Chicago", "Asia/Kolkata"


def at(text: str, zone: str = CHICAGO, fold: int = 0) -> int:
    """The instant when the clock of the place shows it; `fold=1`: the second time."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(local.timestamp()) * 1_000_000


def shown(moment: int | None, zone: str = CHICAGO) -> str:
    assert moment is not None
    return datetime.fromtimestamp(moment / 1e6, ZoneInfo(zone)).isoformat(" ", "minutes")


# 2024-06-08 is a Saturday
INSIDE = [
    (NIGHT, "2024-06-05 00:59:59", False),
    (NIGHT, "2024-06-05 01:00:00", True),
    (NIGHT, "2024-06-05 04:59:59", True),
    (NIGHT, "2024-06-05 05:00:00", False),
    (WEEKEND, "2024-06-07 02:00:00", False),
    (WEEKEND, "2024-06-08 02:00:00", True),
    (WEEKEND, "2024-06-09 02:00:00", True),
    (WEEKEND, "2024-06-10 02:00:00", False),
    (LATE, "2024-06-07 21:59:59", False),
    (LATE, "2024-06-07 23:00:00", True),
    (LATE, "2024-06-08 00:00:00", True),
    (LATE, "2024-06-08 01:59:59", True),
    (LATE, "2024-06-08 02:00:00", False),
    (LATE, "2024-06-07 01:00:00", False),  # the night from Thursday
    (LATE, "2024-06-08 22:30:00", False),  # Saturday's own evening
    (SATURDAY, "2024-06-07 23:59:59", False),
    (SATURDAY, "2024-06-08 00:00:00", True),
    (SATURDAY, "2024-06-08 23:59:59", True),
    (SATURDAY, "2024-06-09 00:00:00", False),
    (ALWAYS, "2024-06-05 12:00:00", True),
]


@pytest.mark.parametrize(("window", "moment", "open_"), INSIDE)
@pytest.mark.parametrize("zone", [CHICAGO, KOLKATA])
def test_a_window_is_open_by_the_clock_of_the_place(window: Window, moment: str, open_: bool, zone: str):
    assert inside(window, zone, at(moment, zone)) == open_


OPENS = [
    (NIGHT, "2024-06-05 00:00", "2024-06-05 01:00-05:00", "2024-06-05 05:00-05:00"),
    (NIGHT, "2024-06-05 05:00", "2024-06-06 01:00-05:00", "2024-06-06 05:00-05:00"),
    (NIGHT, "2024-06-05 02:00", "2024-06-05 02:00-05:00", "2024-06-05 05:00-05:00"),
    (WEEKEND, "2024-06-09 05:00", "2024-06-15 01:00-05:00", "2024-06-15 05:00-05:00"),
    (LATE, "2024-06-08 02:00", "2024-06-14 22:00-05:00", "2024-06-15 02:00-05:00"),
    (LATE, "2024-06-08 01:00", "2024-06-08 01:00-05:00", "2024-06-08 02:00-05:00"),
    (SATURDAY, "2024-06-09 00:00", "2024-06-15 00:00-05:00", "2024-06-16 00:00-05:00"),
    # 10 March 2024: from 02:00 to 03:00
    (Window((), "02:30", "05:00"), "2024-03-10 00:00", "2024-03-10 03:00-05:00", "2024-03-10 05:00-05:00"),
    (Window((), "01:00", "02:30"), "2024-03-10 00:00", "2024-03-10 01:00-06:00", "2024-03-10 03:00-05:00"),
    (Window((), "02:10", "02:40"), "2024-03-10 00:00", "2024-03-11 02:10-05:00", "2024-03-11 02:40-05:00"),
    (Window(("sun",), "02:10", "02:40"), "2024-03-10 00:00", "2024-03-17 02:10-05:00", "2024-03-17 02:40-05:00"),
    # 3 November 2024: from 02:00 back to 01:00
    (NIGHT, "2024-11-03 00:00", "2024-11-03 01:00-05:00", "2024-11-03 05:00-06:00"),
    (Window((), "01:15", "01:30"), "2024-11-03 00:00", "2024-11-03 01:15-05:00", "2024-11-03 01:30-06:00"),
    (Window((), "01:15", "01:30"), "2024-11-03 01:40", "2024-11-03 01:40-05:00", "2024-11-03 01:30-06:00"),
    (Window((), "01:30", "03:00"), "2024-11-03 01:45", "2024-11-03 01:45-05:00", "2024-11-03 03:00-06:00"),
    (Window((), "22:00", "01:30"), "2024-11-03 00:00", "2024-11-03 00:00-05:00", "2024-11-03 01:30-06:00"),
]


@pytest.mark.parametrize(("window", "now", "opening", "closing"), OPENS)
def test_it_is_known_when_a_window_opens_and_closes_next(window: Window, now: str, opening: str, closing: str):
    assert shown(next_opening(window, CHICAGO, at(now))) == opening
    assert shown(next_closing(window, CHICAGO, at(now))) == closing


def test_a_window_that_never_closes_says_so():
    assert next_opening(ALWAYS, CHICAGO, at("2024-06-05 12:00")) == at("2024-06-05 12:00")
    assert next_closing(ALWAYS, CHICAGO, at("2024-06-05 12:00")) is None


def test_the_days_are_those_of_the_configuration():
    assert get_args(Weekday) == WEEKDAYS


MINUTES = st.integers(0, 24 * 60 - 1).map(lambda m: f"{m // 60:02}:{m % 60:02}")
WINDOWS = st.builds(Window, st.sets(st.sampled_from(WEEKDAYS)).map(tuple), MINUTES, MINUTES | st.just("24:00")).filter(
    lambda window: window.start != window.end
)
AROUND_CHANGES = st.sampled_from([datetime(2024, 3, 9, tzinfo=UTC), datetime(2024, 11, 2, tzinfo=UTC)])


@given(WINDOWS, AROUND_CHANGES, st.integers(0, 3 * 24 * 60))
def test_the_next_opening_is_the_first_minute_inside(window: Window, day: datetime, minutes: int):
    begun = int((day + timedelta(minutes=minutes)).timestamp()) * 1_000_000
    opening = next_opening(window, CHICAGO, begun)
    assert opening is not None
    assert inside(window, CHICAGO, opening)
    step = 60_000_000
    upto = min(opening, begun + 2 * 24 * 60 * step)
    assert not any(inside(window, CHICAGO, moment) for moment in range(begun, upto, step))


SAID = [
    (None, Outcome.PASS, "No window is declared: at any time."),
    (ALWAYS, Outcome.PASS, "Open at all hours."),
    (Window((), "16:00", "17:00"), Outcome.PASS, "Open until Tue 14 Nov 17:00 CST."),
    (WEEKEND, Outcome.FAIL, "It opens Sat 18 Nov 01:00 CST, in 3 d."),
    (Window((), "16:14", "17:00"), Outcome.FAIL, "It opens Tue 14 Nov 16:14 CST, in 40 s."),
]


@pytest.mark.parametrize(("window", "outcome", "said"), SAID)
def test_the_check_says_until_when_or_from_when(window: Window | None, outcome: Outcome, said: str):
    finding = found("window", replace(GOOD, channel=replace(GOOD.channel, window=window)))
    assert (finding.outcome, finding.said) == (outcome, said)


def test_a_moment_is_said_in_the_words_of_the_place():
    assert clock(KOLKATA, at("2024-06-08 00:30", KOLKATA)) == "Sat 08 Jun 00:30 IST"
