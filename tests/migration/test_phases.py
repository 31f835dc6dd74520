"""Who may send in which phase: the design's table, row by row."""

from __future__ import annotations

import pytest

from engine.ledger.routing import Mode, Routing
from engine.migration.phases import MOVES, Phase, first_phase, routing, transparent
from tests.support.house import MEDPLUM, channel, emr

CHANNEL = channel("acme", port=1, old_engine=2, destinations=(MEDPLUM, emr(3)))
EMR = emr(3).name

TABLE = {
    #                legacy path, Medplum,  real EMR
    Phase.OUTSIDE: (Mode.OFF, Mode.OFF, Mode.OFF),
    Phase.LEGACY: (Mode.SEND, Mode.OFF, Mode.OFF),
    Phase.PARALLEL: (Mode.SEND, Mode.SEND, Mode.CAPTURE),
    Phase.LIVE: (Mode.DEFER, Mode.SEND, Mode.SEND),
    Phase.RETIRED: (Mode.OFF, Mode.SEND, Mode.SEND),
}


@pytest.mark.parametrize("phase", Phase)
def test_each_phase_sends_where_the_table_says(phase: Phase):
    table = routing(CHANNEL, phase, {})
    modes = tuple(table.route(name).mode for name in ("legacy", "medplum", EMR))
    assert modes == TABLE[phase]


@pytest.mark.parametrize("phase", Phase)
def test_never_do_both_sides_send_to_a_real_endpoint(phase: Phase):
    table = routing(CHANNEL, phase, {})
    assert not (table.route("legacy").mode is Mode.SEND and table.route(EMR).mode is Mode.SEND)


@pytest.mark.parametrize("phase", Phase)
def test_a_routing_table_survives_its_row(phase: Phase):
    table = routing(CHANNEL, phase, {"medplum": "abc"})
    assert Routing.from_json(table.to_json()) == table
    assert table.route("medplum").mapping == "abc"


def test_the_old_engine_answers_as_long_as_it_is_sent_to():
    answers = {phase: routing(CHANNEL, phase, {}).answer_from for phase in Phase}
    assert answers == {phase: "legacy" if phase in (Phase.LEGACY, Phase.PARALLEL) else None for phase in Phase}
    own = channel("acme", port=1, old_engine=2, ack="stored")
    assert routing(own, Phase.LEGACY, {}).answer_from is None


def test_the_old_engine_judges_frames_exactly_where_it_works():
    assert {phase for phase in Phase if transparent(phase)} == {Phase.LEGACY, Phase.PARALLEL}


def test_moves_are_those_of_the_design():
    moves = {(a.value, b.value) for a, after in MOVES.items() for b in after}
    assert moves == {
        ("outside", "legacy"), ("legacy", "outside"), ("legacy", "parallel"), ("parallel", "legacy"),
        ("parallel", "live"), ("live", "retired"), ("live", "parallel"),
    }  # fmt: skip


def test_the_first_phase_is_the_declared_one_else_the_safest():
    assert first_phase(channel("a", port=1, old_engine=2)) is Phase.LEGACY
    assert first_phase(channel("a", port=1)) is Phase.LIVE
    assert first_phase(channel("a", port=1, old_engine=2, phase="parallel")) is Phase.PARALLEL
