"""How long things are kept: defaults, and what is refused."""

from __future__ import annotations

import pytest

from engine.config.model import DAY, Retention
from tests.config.conftest import CHANNEL, SETTINGS, Load, Write, problems


def test_a_channel_that_says_nothing_keeps_bytes_for_a_quarter_and_receipts_for_two_years(load: Load) -> None:
    (channel,) = load().channels
    assert channel.retention == Retention(90 * DAY, 30 * DAY, 730 * DAY, 90 * DAY)


def test_each_class_has_a_time_of_its_own(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL + "retention: {raw: 14d, captured: 36h, receipts: 400d, events: 7d}\n")
    (channel,) = load().channels
    assert channel.retention == Retention(14 * DAY, 1.5 * DAY, 400 * DAY, 7 * DAY)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            "captured: 91d",
            "7:23: found captured outputs that are kept longer than the messages that they were made from; expected"
            " captured: at most as long as raw",
        ),
        (
            "raw: 731d",
            "7:18: found bytes that are kept longer than what became of them; expected raw: at most as long as"
            " receipts",
        ),
        ("raw: 30", "7:18: found the number 30; expected a duration such as 30s, 10m or 72h"),
    ],
)
def test_what_could_not_be_read_any_more_is_not_kept(keys: str, told: str, write: Write) -> None:
    write("channels/acme.yaml", CHANNEL + f"retention: {{{keys}}}\n")
    assert problems() == [f"channels/acme.yaml:{told}"]


def test_the_audit_record_is_kept_for_six_years_unless_a_reason_is_given(write: Write, load: Load) -> None:
    assert load().service.audit >= 2192 * DAY
    write("interlock.yaml", SETTINGS + "retention: {audit: 365d}\n")
    assert problems() == [
        "interlock.yaml:2:20: found an audit record that is kept for 365 days; expected 2192d (six years) or more, or"
        " reason: why less is enough here"
    ]
    write("interlock.yaml", SETTINGS + "retention: {audit: 365d, reason: a test system}\n")
    assert load().service.audit == 365 * DAY
