"""Words that the edge has in more than one place."""

from __future__ import annotations

import pytest

from engine.config.declared.words import DURING, END, START, during, message_type
from engine.config.kinds import DURATION, DURATION_OR_ZERO, charset
from engine.config.units import rate

WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@pytest.mark.parametrize(
    ("text", "days", "start", "end"),
    [
        ("mon-fri 07:00-19:00", WEEK[:5], "07:00", "19:00"),
        ("sat", ("sat",), "00:00", "24:00"),
        ("sat-mon 22:00-06:00", ("sat", "sun", "mon"), "22:00", "06:00"),
        ("mon-sun 00:00-24:00", WEEK, "00:00", "24:00"),
    ],
)
def test_days_and_hours(text: str, days: tuple[str, ...], start: str, end: str) -> None:
    assert during(text) == (days, start, end)


@pytest.mark.parametrize(
    "text", ["", "mo-fr", "mon-fri 7:00-19:00", "mon 07:00", "07:00-19:00", "mon 24:00-06:00", "mon 06:60-07:00"]
)
def test_what_is_no_days_and_hours(text: str) -> None:
    assert during(text) is None


@pytest.mark.parametrize(("text", "seconds"), [("10/s", 10.0), ("600/m", 10.0), ("0.5/s", 0.5), ("30 / m", 0.5)])
def test_a_rate_is_messages_a_second(text: str, seconds: float) -> None:
    assert rate(text) == seconds


@pytest.mark.parametrize("text", ["10", "10/h", "/s", "-1/s", "0/s", "0.0/m"])
def test_what_is_no_rate(text: str) -> None:
    assert rate(text) is None


@pytest.mark.parametrize("byte", range(256))
def test_only_control_characters_can_be_around_a_message(byte: int) -> None:
    given = START.parse(f"0x{byte:02X}")
    assert given == (bytes([byte]) if byte < 0x20 else None)


@pytest.mark.parametrize(
    ("text", "end"), [("0x1C", b"\x1c"), ("0x1c 0x0D", b"\x1c\r"), ("0x0D", None), ("0x0D 0x0A", None)]
)
def test_a_carriage_return_cannot_end_a_message_alone(text: str, end: bytes | None) -> None:
    assert END.parse(text) == end


@pytest.mark.parametrize(
    ("text", "name"), [("latin-1", "iso8859-1"), ("hex", None), ("nonsense", None), ("undefined", None)]
)
def test_a_character_set_is_a_codec_of_text(text: str, name: str | None) -> None:
    assert charset(text) == name


@pytest.mark.parametrize("text", ["0s", "0.0 ms", "0h"])
def test_a_duration_lasts(text: str) -> None:
    """Nothing that waits, repeats or keeps does so for no time at all; people write 0 where they mean: no limit."""
    import re

    assert DURATION.parse(text) is None
    assert not re.search(DURATION.schema()["pattern"], text)
    assert re.search(DURATION.schema()["pattern"], "0.5s")
    assert DURATION_OR_ZERO.parse(text) == 0
    assert re.search(DURATION_OR_ZERO.schema()["pattern"], text)


def test_what_the_schema_says_of_days_and_hours_takes_what_is_read() -> None:
    import re

    pattern = DURING.schema()["pattern"]
    assert re.search(pattern, "mon-fri 07:00-19:00")
    assert re.search(pattern, "mon")
    assert not re.search(pattern, "mon-fri 7-19")


@pytest.mark.parametrize(
    ("text", "type"), [("ORU^R01", "ORU^R01"), ("ORU^R01^ORU_R01", "ORU^R01"), ("ORU", None), ("oru^r01", None)]
)
def test_messages_are_told_by_type_and_trigger(text: str, type: str | None) -> None:
    """The structure says no more, and older versions send none."""
    assert message_type(text) == type
