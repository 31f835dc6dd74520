"""Times: precision kept, zones never invented, nonsense is None."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7 import datetime as times

CHICAGO = ZoneInfo("America/Chicago")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("1980", "1980"),
        ("198002", "1980-02"),
        ("19800228", "1980-02-28"),
        ("1980022807", "1980-02-28T07:00:00-06:00"),
        ("198002280708", "1980-02-28T07:08:00-06:00"),
        ("19800228070809", "1980-02-28T07:08:09-06:00"),
        ("19800728070809", "1980-07-28T07:08:09-05:00"),
        ("19800228070809.1234+0530", "1980-02-28T07:08:09.1234+05:30"),
        ("19800228070809Z", "1980-02-28T07:08:09+00:00"),
        ("19800000", "1980"),
        ("19800200", "1980-02"),
        # as ISO 8601 has it
        ("2026-03-01", "2026-03-01"),
        ("2026-03-01T07:08:09.123Z", "2026-03-01T07:08:09.123+00:00"),
        ("2026-03-01T07:08:09-05:00", "2026-03-01T07:08:09-05:00"),
        ("2026-03-01T07:08+0100", "2026-03-01T07:08:00+01:00"),
        ("2026-03-01 07:08:09", "2026-03-01T07:08:09-06:00"),
    ],
)
def test_a_datetime_is_as_precise_as_it_was_sent(value: str, found: str) -> None:
    assert times.datetime_(value, CHICAGO) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("20260301070809Z", "UTC"),
        ("2026-03-01T07:08:09-05:00", "UTC-05:00"),
        ("2026-03-01T07:08:09Z", "UTC"),
        ("20260301-0500", "UTC-05:00"),
        ("2026-03-01T07:08", "None"),
        ("2026-03-01", "None"),
    ],
)
def test_the_zone_of_a_message_is_found_however_its_time_is_written(value: str, found: str) -> None:
    assert str(times.zone_of(value)) == found


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "2026-03-01T",
        "2026-03-0107",
        "2026-03-01T7:08",
        "2026-03-01T07",
        "2026-3-1",
        "07:08",
        "19",
        "19801301",
        "19800231",
        "1980022825",
        "198002280760",
        "19800228070860",
        "0000",
        "00000000",
        "19800228+9900",
        "198002280708090",
        "1980022807.5",
        "٢٠٢٠",
        "19800228 0708",
    ],
)
def test_impossible_times_are_none(value: str) -> None:
    assert times.datetime_(value, CHICAGO) is None
    assert times.instant(value, CHICAGO) is None


def test_without_a_zone_none_is_made_up() -> None:
    assert times.datetime_("198002280708") == "1980-02-28T07:08:00"
    assert times.instant("198002280708") is None


def test_an_instant_needs_a_time_of_day() -> None:
    assert times.instant("19800228", CHICAGO) is None
    assert times.instant("198002280708", CHICAGO) == "1980-02-28T07:08:00-06:00"


def test_a_date_leaves_the_time_of_day_off() -> None:
    assert times.date("19800228070809-0600") == "1980-02-28"


def test_a_time_of_day_has_seconds() -> None:
    assert times.time("0708") == "07:08:00"
    assert times.time("070809.5") == "07:08:09.5"
    assert times.time("07:08") == "07:08:00"
    assert times.time("07:08:09.5") == "07:08:09.5"
    assert [times.time(value) for value in ("2507", "7:08", "07:8", "0708+0100", "07:08Z")] == [None] * 5


def test_the_header_gives_its_zone_to_the_message() -> None:
    zone = times.zone_of("20260507080910-0500")
    assert zone is not None
    assert times.datetime_("202601010000", zone) == "2026-01-01T00:00:00-05:00"
    assert times.zone_of("20260507080910") is None


@given(st.datetimes(datetime(1901, 1, 1), datetime(2099, 1, 1)))
def test_every_second_comes_out_as_itself(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    found = times.datetime_(moment.strftime("%Y%m%d%H%M%S") + "+0000")
    assert found == moment.isoformat() + "+00:00"


def test_microseconds_become_an_instant() -> None:
    assert times.from_epoch(1_767_225_600_123_456) == "2026-01-01T00:00:00.123Z"
