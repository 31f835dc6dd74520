"""When an endpoint may be sent to."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from engine.config.edge import Hours
from engine.delivery.breaker import Breaker
from engine.delivery.hours import RESTING, inside
from engine.ledger.outcome import Outcome, Result

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri")
OFFICE = Hours(WEEKDAYS, "07:00", "19:00", "America/Chicago")
NIGHT = Hours(("fri",), "22:00", "05:00", "America/Chicago")
ALWAYS = Hours((), "00:00", "00:00", "UTC")


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


async def test_a_resting_breaker_is_not_asked_and_rises() -> None:
    told: list[bool] = []
    breaker = Breaker("emr")
    breaker.listeners.append(told.append)
    breaker.rest(RESTING)
    breaker.rest(RESTING)
    assert (breaker.open, breaker.reason, told) == (True, RESTING, [True])
    for _ in range(5):  # what was still on its way
        breaker.heard(Outcome(Result.UNKNOWN, "connection reset", trouble=True))
    assert breaker.reason == RESTING
    breaker.rise()
    breaker.rise()
    assert (breaker.open, told) == (False, [True, False])


async def test_what_is_to_be_tried_again_waits_for_the_hours() -> None:
    breaker = Breaker("emr")
    tried: list[int] = []
    breaker.rest(RESTING)
    breaker.enqueue(lambda: (tried.append(1), True)[1])
    assert tried == []
    breaker.rise()
    assert tried == [1]
