"""dead, retry, edit-and-retry, discard, replay: what is typed, what is shown, and how it ends."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from engine.migration.refused import Refused
from tests.cli.conftest import Interlock
from tests.support.told import Told, work_row

HL7 = b"MSH|^~\\&|A|B|C|D|20260101||ORU^R01|1|P|2.5\rPID|1||7\r"


def test_what_waits_for_a_person_is_a_table(interlock: Interlock, service: Told) -> None:
    service.remedies.rows = [work_row(), work_row(seq=9, parts=3, part=2, delivery=2, behind=0)]
    lines = interlock("dead").out.splitlines()
    assert lines[0].split() == ["MESSAGE", "AT", "STATE", "RECEIVED", "BEHIND", "IT", "WHY"]
    assert lines[1].split()[:3] == ["acme/7", "emr", "dead"]
    assert lines[1].endswith("3  answered AR")
    assert "emr (part 2 of 3, delivery 2)" in lines[2]
    assert orjson.loads(interlock("dead", "--json").out) == service.remedies.rows


def test_nothing_waits(interlock: Interlock, service: Told) -> None:
    service.remedies.rows = []
    assert interlock("dead").out == "nothing waits for a person\n"
    assert interlock("dead", "--state", "unknown").out == "nothing is unknown\n"


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_a_decision_shows_its_plan_and_is_done(interlock: Interlock, service: Told, verb: str) -> None:
    result = interlock(verb, "acme/7", "acme/9", "--at", "emr", "--reason", "mended")
    assert (result.status, result.out) == (0, "  - acme: done\ndone: 1 message\n")
    (planned, _), (done, order) = service.remedies.orders
    assert (planned, done) == (verb, verb)
    assert order["messages"] == [("acme", 7), ("acme", 9)]
    assert (order["destination"], order["reason"], order["dry_run"]) == ("emr", "mended", False)


def test_a_dry_run_only_asks(interlock: Interlock, service: Told) -> None:
    assert interlock("discard", "acme", "--dry-run").out == "  - acme: done\n"
    ((_, order),) = service.remedies.orders
    assert (order["dry_run"], order["selector"].ids) == (True, ("acme",))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["retry", "acme/7"], "say why"),
        (["retry", "acme/7", "acme", "--reason", "x"], "not both"),
        (["replay", "acme", "1-9", "--reason", "x"], "where to?"),
        (["replay", "acme", "--to", "emr", "--reason", "x"], "which messages?"),
        (["replay", "acme", "1-9", "--to", "emr", "--type", "ORU", "--reason", "x"], "which messages?"),
        (["replays", "--stop", "4"], "say why"),
    ],
)
def test_what_is_wrong_usage(interlock: Interlock, service: Told, words: list[str], sentence: str) -> None:
    result = interlock(*words)
    assert (result.status, sentence in result.err) == (2, True), result.err
    assert service.remedies.orders == []


def test_many_want_their_number(interlock: Interlock, service: Told) -> None:
    service.remedies.count = 30
    assert interlock("discard", "acme", "--reason", "x", "--confirm", "30").status == 0
    assert service.remedies.orders[-1][1]["confirm"] == 30


def test_a_refusal_is_status_1(interlock: Interlock, service: Told) -> None:
    service.remedies.refusal = Refused("Not open: acme/7.")
    result = interlock("retry", "acme/7", "--reason", "x")
    assert (result.status, "Not open: acme/7." in result.err) == (1, True)


def test_an_edit_takes_one_message_of_a_file(interlock: Interlock, service: Told, tmp_path: Path) -> None:
    file = tmp_path / "m.hl7"
    file.write_bytes(HL7)
    words = ["edit-and-retry", "acme/7", "--at", "emr", "--file", str(file), "--reason", "x"]
    assert interlock(*words).status == 0
    assert service.remedies.orders[-1][1]["raw"] == HL7
    file.write_bytes(HL7 + HL7)
    assert "found 2 messages; expected one" in interlock(*words).err
    file.unlink()
    assert "cannot be read" in interlock(*words).err


def test_an_edit_takes_utf_16_as_it_is(interlock: Interlock, service: Told, tmp_path: Path) -> None:
    file, raw = tmp_path / "m.hl7", ("\ufeff" + HL7.decode() + "NTE|1||\u0d0a\r").encode("utf-16-be")
    assert b"\r\n" in raw
    file.write_bytes(raw)
    assert interlock("edit-and-retry", "acme/7", "--at", "emr", "--file", str(file), "--reason", "x").status == 0
    assert service.remedies.orders[-1][1]["raw"] == raw


def test_a_replay_by_the_mapping_as_it_was(interlock: Interlock, service: Told) -> None:
    interlock("replay", "acme", "5", "--to", "emr", "--mapping", "as-was", "--reason", "the EMR has lost it")
    assert service.remedies.orders[-1][1]["mapping"] == "as-was"
    assert "as-is" in interlock("replay", "acme", "5", "--to", "emr", "--mapping", "old", "--reason", "x").err


def test_a_replay_is_begun_listed_and_stopped(interlock: Interlock, service: Told) -> None:
    result = interlock("replay", "acme", "5", "8-30", "--to", "emr", "--reason", "mended")
    assert result.out.splitlines()[-1] == "replay 4 goes on: interlock replays"
    assert service.remedies.orders[-1][1]["numbers"] == [(5, 5), (8, 30)]
    assert service.remedies.orders[-1][1]["mapping"] == "as-is"
    assert "12 of 30" in interlock("replays").out
    assert interlock("replays", "--stop", "4", "--reason", "enough").out == "replay 4 is stopped: 12 of 30 begun\n"
