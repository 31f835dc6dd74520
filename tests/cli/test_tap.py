"""tap: what is typed about an output that waits for a person, what is shown, and how it ends."""

from __future__ import annotations

import base64

import orjson
import pytest

from engine.migration.selection import Selector
from tests.cli.conftest import Interlock
from tests.support import told
from tests.support.told import Told, output_row, status

ORU = b"MSH|^~\\&|OLD||EMR||20260105||ORU^R01|L-1|P|2.5\rPID|1||7^^^ACME\r"


def test_what_waits_at_taps_is_a_table(interlock: Interlock, service: Told) -> None:
    service.taps.rows = [output_row(), output_row(id=15, seq=812, state="unknown", control_id=None)]
    lines = interlock("tap").out.splitlines()
    assert lines[0].split() == [
        "ID",
        "CHANNEL",
        "TAP",
        "CAME",
        "AGE",
        "TYPE",
        "CONTROL",
        "ID",
        "SIZE",
        "INPUT",
        "STATE",
    ]
    assert lines[1].startswith("14  acme     emr  2026-01-05 08:00:00+00:00")
    assert lines[1].split()[-6:] == ["ORU^R01", "L-1", "1.5", "KB", "-", "parked"]
    assert lines[2].split()[-2:] == ["812", "unknown"]
    assert orjson.loads(interlock("tap", "list", "acme", "--json").out) == service.taps.rows
    assert [asked for _, asked in service.taps.orders] == [None, Selector(("acme",))]


def test_nothing_waits(interlock: Interlock, service: Told) -> None:
    service.taps.rows = []
    result = interlock("tap")
    assert (result.status, result.out) == (0, "nothing waits for a person at a tap\n")


def test_one_is_shown_by_its_names(interlock: Interlock, service: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "RAW", base64.b64encode(ORU).decode())
    done = {"who": "ann", "reason": "asked the clinic", "decided": "2026-01-05T09:00:00.000Z", "said": "answered AE"}
    service.taps.rows = [output_row(**done)]
    lines = interlock("tap", "show", "14").out.splitlines()
    assert lines[0] == "output 14 of the old engine at tap emr of acme  ORU^R01  control id L-1"
    assert "kept     it belongs to no input that is known" in lines
    assert "state    parked, waits for a person" in lines
    assert "by       ann, 2026-01-05 09:00:00.000+00:00: asked the clinic" in lines
    assert any("Patient Identifier List" in line for line in lines)
    assert interlock("tap", "show", "14", "--raw").out.encode() == ORU
    missing = interlock("tap", "show", "15")
    assert (missing.status, "no tap has kept an output 15" in missing.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["forward", "14"], {"again": False}),
        (["forward", "14", "--again"], {"again": True}),
        (["give", "14", "acme/812"], {"message": ("acme", 812)}),
        (["discard", "14"], {}),
    ],
)
def test_a_decision_shows_its_plan_and_is_done(
    interlock: Interlock, service: Told, words: list[str], more: dict[str, object]
) -> None:
    result = interlock("tap", *words, "--reason", "the clinic says so")
    assert (result.status, result.out) == (0, "  - output 14 is looked after\noutput 14 is discarded\n")
    (_, planned), (verb, order) = service.taps.orders
    assert (planned["dry_run"], order["dry_run"], verb) == (True, False, words[0])
    assert more.items() <= order.items()


def test_a_dry_run_only_asks_and_what_stands_against_it_is_status_1(interlock: Interlock, service: Told) -> None:
    assert interlock("tap", "discard", "14", "--dry-run").status == 0
    service.taps.stands_against = ["it may have been taken already"]
    result = interlock("tap", "forward", "14", "--dry-run")
    assert (result.status, "refused: it may have been taken already" in result.out) == (1, True)
    assert [order["dry_run"] for _, order in service.taps.orders] == [True, True]
    result = interlock("tap", "forward", "14", "--reason", "x")
    assert (result.status, "it may have been taken already" in result.err) == (1, True)


@pytest.mark.parametrize(
    ("verb", "became", "sentence", "ends"),
    [
        ("forward", {"state": "parked", "said": "answered AE"}, "output 14 was not taken (answered AE), and waits", 1),
        (
            "forward", {"state": "unknown", "said": "answer timed out"},
            "output 14 may have been taken (answer timed out), and waits: ask its endpoint whether it has it", 1,
        ),
        ("forward", {"state": "forwarded", "waits": False}, "output 14 is forwarded", 0),
        ("give", {"seq": 7}, "output 14 belongs to acme/7, and waits: forward or discard it", 0),
        ("give", {"seq": 7, "state": "captured", "waits": False}, "output 14 is captured", 0),
    ],
)  # fmt: skip
def test_how_it_ended_is_said(
    interlock: Interlock, service: Told, verb: str, became: dict[str, object], sentence: str, ends: int
) -> None:
    service.taps.became = became
    more = ["acme/7"] if verb == "give" else []
    result = interlock("tap", verb, "14", *more, "--reason", "x")
    assert (result.status, result.out.splitlines()[-1]) == (ends, sentence)


def test_a_decision_wants_a_reason(interlock: Interlock, service: Told) -> None:
    result = interlock("tap", "discard", "14")
    assert (result.status, "say why" in result.err, service.taps.orders) == (2, True, [])


def test_status_says_what_waits_at_a_tap(interlock: Interlock, service: Told) -> None:
    service.state = status()
    service.state["channels"][0]["parked"] = {"emr": 2}
    result = interlock("status")
    assert result.status == 1
    said = "acme, tap emr: 2 outputs of the old engine for a person to decide (interlock tap)"
    assert result.out.splitlines()[-1] == said
