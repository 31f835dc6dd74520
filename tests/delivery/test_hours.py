"""When an endpoint may be sent to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.edge import Hours
from engine.delivery import breaker as module
from engine.delivery.breaker import Breaker, Position
from engine.delivery.hours import DAYS, Schedule, begins, inside
from engine.ledger.outcome import Outcome, Result
from engine.observe.delivery_events import BREAKER, RESTING, HoursBegun, HoursOver
from engine.observe.events import Event
from engine.observe.fields import cleared
from tests.support.still import StillLoop

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri")
OFFICE = Hours(WEEKDAYS, "07:00", "19:00", "America/Chicago")
NIGHT = Hours(("fri",), "22:00", "05:00", "America/Chicago")
ALWAYS = Hours((), "00:00", "00:00", "UTC")


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1e6, UTC)


def at(text: str, zone: str = "America/Chicago") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1e6)


@pytest.mark.parametrize(
    ("hours", "moment", "open_"),
    [
        (OFFICE, "2026-11-20 07:00", True),  # a Friday
        (OFFICE, "2026-11-20 06:59", False),
        (OFFICE, "2026-11-20 18:59", True),
        (OFFICE, "2026-11-20 19:00", False),
        (OFFICE, "2026-11-21 12:00", False),  # a Saturday
        (OFFICE, "2026-07-03 07:00", True),  # in summer time as well
        (NIGHT, "2026-11-20 22:00", True),
        (NIGHT, "2026-11-21 04:59", True),  # the morning after Friday's evening
        (NIGHT, "2026-11-21 05:00", False),
        (NIGHT, "2026-11-20 04:00", False),  # the morning after Thursday's
        (NIGHT, "2026-11-21 23:00", False),
        (ALWAYS, "2026-11-21 23:00", True),
        (ALWAYS, "2026-11-21 00:00", True),
    ],
)
def test_inside(hours: Hours, moment: str, open_: bool) -> None:
    assert inside(hours, at(moment)) is open_


@pytest.mark.parametrize(
    ("hours", "moment", "start"),
    [
        (OFFICE, "2026-11-20 06:59", "2026-11-20T07:00:00-06:00"),
        (OFFICE, "2026-11-20 19:00", "2026-11-23T07:00:00-06:00"),  # over the weekend
        (OFFICE, "2026-03-06 19:00", "2026-03-09T07:00:00-05:00"),  # in which the clock is put forward
        (NIGHT, "2026-11-21 05:00", "2026-11-27T22:00:00-06:00"),
        (Hours((), "02:30", "05:00", "America/Chicago"), "2026-03-07 23:00", "2026-03-08T03:30:00-05:00"),  # no 02:30
    ],
)
def test_when_the_hours_begin_again(hours: Hours, moment: str, start: str) -> None:
    assert begins(hours, at(moment)).isoformat() == start


@given(
    st.lists(st.sampled_from(DAYS), unique=True), st.times(), st.times(), st.sampled_from(["UTC", "Europe/Berlin"]),
    st.integers(at("2026-01-01 00:00"), at("2027-01-01 00:00")),
)  # fmt: skip
def test_a_closed_endpoint_opens_when_it_says_and_not_before(
    days: list[str], start: time, end: time, zone: str, now: int
) -> None:
    hours = Hours(tuple(days), f"{start:%H:%M}", f"{end:%H:%M}", zone)
    if inside(hours, now):
        return
    opens = int(begins(hours, now).timestamp() * 1e6)
    assert opens > now
    assert inside(hours, opens)
    if ZoneInfo(zone).utcoffset(moment(now)) == ZoneInfo(zone).utcoffset(moment(opens)):
        assert not any(inside(hours, now + (opens - now) * step // 50) for step in range(50))


UNTIL = datetime(2026, 11, 23, 7, 0, tzinfo=ZoneInfo("America/Chicago"))


async def test_a_resting_breaker_is_not_asked_and_rises() -> None:
    told: list[bool] = []
    breaker = Breaker("emr")
    breaker.listeners.append(told.append)
    breaker.rest(UNTIL)
    breaker.rest(UNTIL)
    assert (breaker.open, breaker.rests_until, told) == (True, UNTIL, [True])
    for _ in range(5):  # what was still on its way
        breaker.heard(Outcome(Result.UNKNOWN, "connection reset", trouble=True))
    assert breaker.reason == "closed until Mon 07:00 CST"
    assert breaker.asks_in is None
    breaker.rise()
    breaker.rise()
    assert (breaker.open, breaker.rests_until, told) == (False, None, [True, False])


async def test_what_is_on_its_way_to_ask_when_the_hours_end_is_told_too() -> None:
    told: list[bool] = []
    breaker = Breaker("emr")
    breaker.heard(Outcome(Result.FAULT, "403"))
    breaker.listeners.append(told.append)
    breaker.enqueue(lambda: True)
    breaker.here()
    assert (breaker.position, told) == (Position.PROBING, [])
    breaker.rest(UNTIL)
    assert told == [True]


def test_hours_end_when_the_clock_says_so() -> None:
    loop = StillLoop()
    breaker = Breaker("emr")
    start = at("2026-11-20 18:58:33") / 1e6
    schedule = Schedule(breaker, OFFICE, lambda: int((start + loop.time()) * 1e6))
    ended: list[float] = []
    breaker.listeners.append(lambda opened: ended.append(start + loop.time()))

    async def lives() -> None:
        schedule.look()
        await asyncio.sleep(120)
        schedule.stop()

    loop.run_until_complete(lives())
    loop.close()
    assert ended == [pytest.approx(at("2026-11-20 19:00") / 1e6, abs=0.001)]


async def test_planned_hours_are_told_as_such_and_not_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Event] = []
    monkeypatch.setattr(module, "emit", lambda event: (event.count(), said.append(event)))
    breaker = Breaker("emr-by-day")
    breaker.rest(UNTIL)
    assert BREAKER.of("emr-by-day").n == 0
    assert RESTING.of("emr-by-day").n == 1
    breaker.rise()
    assert RESTING.of("emr-by-day").n == 0
    assert said == [HoursOver("emr-by-day", "2026-11-23T07:00-06:00"), HoursBegun("emr-by-day")]
    assert {event.level for event in said} == {"info"}
    assert cleared("until", said[0].until) == "2026-11-23T07:00-06:00"


async def test_an_endpoint_in_trouble_at_closing_time_is_no_alarm_any_more() -> None:
    breaker = Breaker("emr-down")
    breaker.heard(Outcome(Result.FAULT, "403"))
    assert BREAKER.of("emr-down").n == 1
    assert breaker.asks_in is not None
    breaker.rest(UNTIL)
    assert BREAKER.of("emr-down").n == 0
    assert breaker.asks_in is None


async def test_what_is_to_be_tried_again_waits_for_the_hours() -> None:
    breaker = Breaker("emr")
    tried: list[int] = []
    breaker.rest(UNTIL)
    breaker.enqueue(lambda: (tried.append(1), True)[1])
    assert tried == []
    breaker.rise()
    assert tried == [1]
