"""What a scrape counts from the ledger."""

from __future__ import annotations

from typing import Any

import pytest

from engine.api import gauges
from engine.api.gauges import Gauges
from engine.observe.delivery_events import OLDEST, OPEN
from engine.observe.ledger_events import UNBALANCED
from engine.observe.tap_events import PARKED
from tests.support.told import Told, destination, status


def told_of(**changed: Any) -> Told:
    told = Told()
    told.state = status()
    told.state["channels"][0] |= {"id": "g", "destinations": [destination("medplum", **changed)]}
    return told


async def test_open_work_its_age_and_the_balance_are_gauges() -> None:
    await Gauges(told_of(counts={"delivered": 1, "dead": 2}, oldest_s=9.5, balanced=False)).refresh()
    assert OPEN.of("g", "medplum", "dead").n == 2
    assert OLDEST.of("g", "medplum").n == 9.5
    assert UNBALANCED.of("g", "medplum").n == 1


async def test_a_state_that_is_empty_again_goes_back_to_zero() -> None:
    await Gauges(told_of(counts={"retrying": 3})).refresh()
    await Gauges(told_of(counts={"delivered": 3})).refresh()
    assert OPEN.of("g", "medplum", "retrying").n == 0


async def test_scrapes_in_quick_succession_ask_once() -> None:
    told = told_of(counts={"dead": 1})
    both = Gauges(told)
    await both.refresh()
    told.state["channels"][0]["destinations"][0]["counts"] = {"dead": 5}
    await both.refresh()
    assert OPEN.of("g", "medplum", "dead").n == 1


async def test_what_cannot_be_counted_does_not_fail_the_scrape(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> dict[str, Any]:
        raise RuntimeError("CANARY")

    told = Told()
    monkeypatch.setattr(told, "status", fail)
    await Gauges(told).refresh()
    assert "CANARY" not in capsys.readouterr().err
    assert gauges.OPEN_STATES


async def test_what_waits_at_a_tap_is_a_gauge_until_it_is_decided() -> None:
    told = told_of()
    channel = told.state["channels"][0]
    channel |= {"taps": [{"name": "emr"}], "parked": {"emr": 2, "gone": 1}}
    await Gauges(told).refresh()
    assert (PARKED.of("g", "emr").n, PARKED.of("g", "gone").n) == (2, 1)
    channel["parked"] = {}
    await Gauges(told).refresh()
    assert (PARKED.of("g", "emr").n, PARKED.of("g", "gone").n) == (0, 0)
