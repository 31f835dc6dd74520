"""Counting is an addition; the scrape does the work."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from engine.observe import delivery_events, file_events, intake_events, ledger_events, service_events
from engine.observe.metrics import METRICS, Histogram, Metrics, exposition


def lines(metrics: Metrics, name: str) -> list[str]:
    return [line for line in exposition(metrics).decode().splitlines() if line.startswith(name)]


def test_a_counter_shows_what_was_added_under_its_labels() -> None:
    metrics = Metrics()
    family = metrics.counter("interlock_things_total", "Things", "channel")
    cell = family.of("acme")
    cell.n += 2
    family.of("acme").n += 1
    assert lines(metrics, "interlock_things_total") == ['interlock_things_total{channel="acme"} 3.0']


def test_a_gauge_can_be_read_at_the_scrape() -> None:
    metrics = Metrics()
    ages = iter([1.0, 2.0])
    metrics.gauge("interlock_age_seconds", "Age").of().read = lambda: next(ages)
    assert lines(metrics, "interlock_age_seconds") == ["interlock_age_seconds 1.0"]
    assert lines(metrics, "interlock_age_seconds") == ["interlock_age_seconds 2.0"]


def test_a_histogram_counts_at_or_below_each_bound_and_cumulates() -> None:
    metrics = Metrics()
    cell = metrics.histogram("interlock_wait_seconds", "Wait", bounds=(0.1, 1.0)).of()
    for value in (0.1, 0.5, 7.0):
        cell.observe(value)
    assert lines(metrics, "interlock_wait_seconds") == [
        'interlock_wait_seconds_bucket{le="0.1"} 1.0',
        'interlock_wait_seconds_bucket{le="1.0"} 2.0',
        'interlock_wait_seconds_bucket{le="+Inf"} 3.0',
        "interlock_wait_seconds_count 3.0",
        "interlock_wait_seconds_sum 7.6",
    ]


def test_a_value_on_a_bound_belongs_to_it() -> None:
    cell = Histogram((1.0, 2.0))
    cell.observe(1.0)
    assert cell.counts == [1, 0, 0]


def test_a_cell_whose_subject_is_gone_is_not_scraped() -> None:
    metrics = Metrics()
    family = metrics.counter("interlock_things_total", "Things", "channel")
    family.of("acme").n += 1
    family.forget("acme")
    assert lines(metrics, "interlock_things_total") == []


def test_the_wrong_number_of_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="has the labels"):
        Metrics().counter("interlock_things_total", "Things", "channel").of()


def test_a_name_is_declared_once() -> None:
    metrics = Metrics()
    metrics.counter("interlock_things_total", "Things")
    with pytest.raises(ValueError, match="declared twice"):
        metrics.gauge("interlock_things_total", "Things")


def test_names_carry_the_product_and_the_unit() -> None:
    assert all((file_events, intake_events, ledger_events, delivery_events, service_events))
    for name, family in METRICS.families.items():
        assert re.fullmatch(r"interlock_[a-z_]+", name)
        assert (family.kind.__name__ == "Counter") == name.endswith("_total"), name
        assert family.kind is not Histogram or name.endswith("_seconds"), name
        assert set(family.labels) <= {
            "channel",
            "destination",
            "endpoint",
            "owner",
            "code",
            "state",
            "phase",
            "reason",
            "version",
            "verb",
            "table",
            "tap",
            "field",
            "decision",
            "verdict",
            "severity",
            "worker",
        }


def test_the_scrape_has_the_process_too() -> None:
    assert b"process_resident_memory_bytes" in exposition()


def test_every_metric_the_runbook_names_is_there() -> None:
    root = Path(__file__).resolve().parents[2]
    for path in (root / "engine").rglob("*.py"):  # a family is made where its module is imported
        if "METRICS." in path.read_text():
            importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))
    runbook = (root / "runbook.md").read_text()
    named = set(re.findall(r"`(interlock_[a-z_]+)", runbook))
    assert named
    assert named - set(METRICS.families) == set()
