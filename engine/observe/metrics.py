"""Metrics that cost nothing until somebody asks.

The hot path does `cell.n += 1` on a plain object it looked up once; prometheus_client sees the cells only
at a scrape, through one collector. Names are `interlock_<what>_<unit>`: `_total` counts, `_seconds`,
`_bytes`. Labels are identifiers of ours (channel, destination, endpoint, code), never message content.
Cells are written from one thread each; a scrape may read a histogram between two of its additions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST

ACK_SECONDS = (0.0005, 0.001, 0.0015, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
DELIVERY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0)


class Counter:
    """A number that only grows: `counter.n += 1`."""

    __slots__ = ("n",)
    family = CounterMetricFamily

    def __init__(self) -> None:
        self.n = 0

    def show(self, family: Any, values: Sequence[str]) -> None:
        family.add_metric(values, self.n)


class Gauge:
    """A number as it is now: set `n`, or give `read`, which is called at each scrape."""

    __slots__ = ("n", "read")
    family = GaugeMetricFamily

    def __init__(self) -> None:
        self.n: float = 0
        self.read: Callable[[], float] | None = None

    def show(self, family: Any, values: Sequence[str]) -> None:
        family.add_metric(values, self.n if self.read is None else self.read())


class Histogram:
    """Counts of observations by upper bound; `counts` has one place more than `bounds`, for what lies above."""

    __slots__ = ("bounds", "counts", "sum")
    family = HistogramMetricFamily

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them: (upper bound, observations at or below it)."""
        running, out = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            running += count
            out.append((bound, float(running)))
        return out

    def show(self, family: Any, values: Sequence[str]) -> None:
        family.add_metric(values, self.buckets(), self.sum)


Cell = TypeVar("Cell", Counter, Gauge, Histogram)


class Family(Generic[Cell]):
    """One metric name and its cells by label values."""

    __slots__ = ("cells", "help", "kind", "labels", "make", "name")

    def __init__(
        self, name: str, help: str, labels: tuple[str, ...], kind: type[Cell], make: Callable[[], Cell]
    ) -> None:
        self.name, self.help, self.labels = name, help, labels
        self.kind: type[Cell] = kind
        self.make: Callable[[], Cell] = make
        self.cells: dict[tuple[str, ...], Cell] = {}

    def of(self, *values: str) -> Cell:
        """The cell for these label values, made at the first call. Hold on to it on a hot path."""
        cell = self.cells.get(values)
        if cell is None:
            if len(values) != len(self.labels):
                raise ValueError(f"{self.name} has the labels {self.labels}, but {len(values)} values were given")
            cell = self.cells[values] = self.make()
        return cell

    def forget(self, *values: str) -> None:
        """Drop a cell whose subject is gone, so that it is no longer scraped."""
        self.cells.pop(values, None)

    def collect(self) -> Metric:
        family = self.kind.family(self.name, self.help, labels=self.labels)
        for values, cell in list(self.cells.items()):  # the writers go on while a scrape reads
            cell.show(family, values)
        return family


class Metrics(Collector):
    """All families of this process."""

    def __init__(self) -> None:
        self.families: dict[str, Family[Any]] = {}

    def counter(self, name: str, help: str, *labels: str) -> Family[Counter]:
        return self._add(name, help, labels, Counter, Counter)

    def gauge(self, name: str, help: str, *labels: str) -> Family[Gauge]:
        return self._add(name, help, labels, Gauge, Gauge)

    def histogram(self, name: str, help: str, *labels: str, bounds: Sequence[float]) -> Family[Histogram]:
        return self._add(name, help, labels, Histogram, lambda: Histogram(bounds))

    def _add(
        self, name: str, help: str, labels: tuple[str, ...], kind: type[Cell], make: Callable[[], Cell]
    ) -> Family[Cell]:
        if name in self.families:
            raise ValueError(f"the metric {name} is declared twice")
        family = Family(name, help, labels, kind, make)
        self.families[name] = family
        return family

    def collect(self) -> Iterator[Metric]:
        for family in self.families.values():
            yield family.collect()


METRICS = Metrics()


def exposition(metrics: Metrics = METRICS) -> bytes:
    """The text that Prometheus scrapes, with this process's memory, CPU and file descriptors."""
    registry = CollectorRegistry()
    registry.register(metrics)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return generate_latest(registry)
