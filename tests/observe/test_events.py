"""One event = one line and its metric; and nothing of a message gets into either."""

from __future__ import annotations

import ast
import io
import time
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest

from engine.observe import (
    compare_events,
    delivery_events,
    file_events,
    follower_events,
    gap_events,
    intake_events,
    ledger_events,
    migration_events,
    service_events,
    tap_events,
)
from engine.observe.events import Event, Level, Log
from engine.observe.fields import FIELDS, WITHHELD, cleared, connection
from engine.observe.metrics import METRICS, exposition

MODULES = (
    intake_events, ledger_events, delivery_events, service_events, tap_events, compare_events, migration_events,
    file_events, follower_events, gap_events,
)  # fmt: skip
EVENTS = sorted(
    {
        thing
        for module in MODULES
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Event) and thing is not Event
    },
    key=lambda kind: kind.__name__,
)
CANARY = "CANARY^MARLOW"
SEGMENT = f"PID|1||700101^^^ACME^MR||{CANARY}||19580304|F\rPV1|1"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class Rang(Event):
    channel: str
    seq: int
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "rang for message {seq}"


def log(readable: bool = False) -> tuple[Log, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return Log(stream, readable=readable, clock=clock, now=lambda: 1_700_000_000.123), stream, clock


def example(kind: type[Event], text: str | None = None) -> Event:
    """An event of the kind; every text is `text`, if given."""
    hints = typing.get_type_hints(kind)
    plain: dict[Any, Any] = {int: 7, float: 0.5, str: text or "acme"}
    return kind(**{field.name: plain[hints[field.name]] for field in fields(kind)})


def test_a_line_is_json_with_time_level_name_and_fields() -> None:
    to, stream, _ = log()
    to.write(Rang("acme", 7))
    assert orjson.loads(stream.getvalue()) == {
        "ts": "2023-11-14T22:13:20.123Z",
        "level": "warning",
        "event": "rang",
        "channel": "acme",
        "seq": 7,
    }


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_a_person_gets_a_sentence_with_its_day_and_the_offset_of_its_clock() -> None:
    to, stream, _ = log(readable=True)
    to.write(Rang("acme", 7))
    assert stream.getvalue() == "2023-11-14 22:13:20+00:00 warning acme: rang for message 7\n"


def test_a_connection_has_the_number_that_show_gives_it() -> None:
    to, stream, _ = log()
    to.write(intake_events.PeerConnected("acme", "10.0.0.1:5000", (3 << 32) + 17))
    assert orjson.loads(stream.getvalue())["connection"] == connection((3 << 32) + 17) == "3.17"


@pytest.mark.parametrize("kind", EVENTS)
def test_every_sentence_can_be_said(kind: type[Event]) -> None:
    to, stream, _ = log(readable=True)
    to.write(example(kind))
    assert (stream.getvalue() == "") == (kind.level is None)
    assert not stream.getvalue().endswith(f" {kind.name()}\n"), "the name stands in for a sentence that cannot be made"


@pytest.mark.parametrize("kind", EVENTS)
def test_every_field_is_on_the_list_and_of_a_plain_kind(kind: type[Event]) -> None:
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        assert field.name in FIELDS
        assert hints[field.name] in (int, float) if FIELDS[field.name] is None else hints[field.name] is str


def test_the_list_of_fields_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        FIELDS["name"] = None  # type: ignore[index]


@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("kind", EVENTS)
def test_message_content_never_gets_into_a_line(kind: type[Event], readable: bool) -> None:
    for text in (SEGMENT, CANARY, f"cannot parse {SEGMENT}", f"OBX-5 = '{CANARY}'"):
        to, stream, clock = log(readable)
        event = example(kind, text)
        to.write(event)
        to.write(event)
        clock.now += 2
        to.flush()
        assert "MARLOW" not in stream.getvalue()


@pytest.mark.parametrize("code", [SEGMENT, CANARY, "ZZ"])
def test_a_code_that_a_peer_made_up_is_no_label(code: str) -> None:
    intake_events.Acknowledged("acme", code, 0.1).count()
    intake_events.FrameRefused("acme", "10.0.0.1:1", code, "no", 5).count()
    text = exposition().decode()
    assert "MARLOW" not in text
    assert 'code="ZZ"' not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reason", "HTTP 422 invalid Observation.status"),
        ("reason", "no mapping for ORU^R01"),
        ("reason", "database or disk is full"),
        ("address", "0.0.0.0:6101"),
        ("peer", "[fe80::1%eth0]:50000"),
        ("channel", "acme-results"),
        ("channel", "acme~backfill"),
        ("endpoint", "127.0.0.1:6661"),
        ("endpoint", "[::1]:6661"),
        ("ledger", "/srv/interlock/var/interlock.db"),
    ],
)
def test_what_belongs_in_a_line_gets_there(name: str, value: str) -> None:
    assert cleared(name, value) == value


@pytest.mark.parametrize("value", [b"MSH|", ["x"], {"a": 1}, Path("/x"), "x" * 500])
def test_anything_else_is_withheld(value: object) -> None:
    assert cleared("reason", value) == WITHHELD


def test_a_flood_prints_its_first_and_then_its_newest_with_how_many_more() -> None:
    to, stream, clock = log()
    for seq in range(1, 6):
        to.write(Rang("acme", seq))
    to.write(Rang("other", 1))
    clock.now += 1.0
    to.write(Rang("acme", 6))
    written = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["channel"], line.get("seq"), line.get("more")) for line in written] == [
        ("acme", 1, None),
        ("other", 1, None),
        ("acme", 5, 3),
        ("acme", 6, None),
    ]


def test_of_two_neither_is_left_out() -> None:
    to, stream, clock = log()
    to.write(Rang("acme", 1))
    to.write(Rang("acme", 2))
    clock.now += 1.0
    to.flush()
    written = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["seq"], line.get("more")) for line in written] == [(1, None), (2, None)]


def test_the_newest_of_a_burst_is_told_when_its_second_is_over_and_has_its_own_time() -> None:
    stream, clock = io.StringIO(), Clock()
    to = Log(stream, readable=False, clock=clock, now=lambda: 1_700_000_000 + clock.now)
    to.write(Rang("acme", 1))
    clock.now += 0.5
    to.write(Rang("acme", 2))
    to.sweep()
    assert stream.getvalue().count("\n") == 1
    clock.now += 0.5
    to.sweep()
    written = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["seq"], line["ts"]) for line in written] == [
        (1, "2023-11-14T22:15:00.000Z"), (2, "2023-11-14T22:15:00.500Z"),
    ]  # fmt: skip


def test_a_flush_tells_what_was_left_out_so_far() -> None:
    to, stream, _ = log(readable=True)
    for seq in range(3):
        to.write(Rang("acme", seq))
    to.flush()
    assert stream.getvalue().splitlines()[-1].endswith("warning acme: rang for message 2 (and 1 more like this)")


def test_a_broken_log_stream_does_not_stop_the_service() -> None:
    stream = io.StringIO()
    stream.close()
    Log(stream, readable=False).write(Rang("acme", 1))


def test_a_listener_that_opens_and_fails_is_seen_in_its_metric() -> None:
    intake_events.ListenerOpened("m1", "0.0.0.0:1").count()
    assert intake_events.LISTENING.of("m1").n == 1
    intake_events.ListenerFailed("m1", "0.0.0.0:1", "in use").count()
    assert intake_events.LISTENING.of("m1").n == 0


def test_an_epoch_leaves_one_phase_at_one() -> None:
    service_events.EpochOpened("m2", "legacy", 1, "first").count()
    service_events.EpochOpened("m2", "parallel", 9, "operator").count()
    phases = {phase: service_events.PHASE.of("m2", phase).n for phase in service_events.PHASES}
    assert phases == {"outside": 0, "legacy": 0, "parallel": 1, "live": 0, "retired": 0}


def test_an_unwritable_ledger_is_loud_until_it_recovers() -> None:
    ledger_events.LedgerUnwritable("disk full").count()
    assert ledger_events.WRITABLE.of().n == 0
    ledger_events.LedgerRecovered(3.0).count()
    assert ledger_events.WRITABLE.of().n == 1


def test_no_metric_is_declared_outside_of_observe() -> None:
    engine = Path(__file__).resolve().parents[2] / "engine"
    for path in engine.rglob("*.py"):
        if path.parent.name == "observe":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        assert not [c for c in calls if isinstance(c.value, ast.Name) and c.value.id == "METRICS"], path
    assert METRICS.families
