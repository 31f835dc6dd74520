"""status, messages, show: what a person sees, what a script gets, and every way it can fail."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from engine.cli import main as cli
from engine.cli.messages import _step
from engine.cli.reading import named
from engine.cli.times import moment
from engine.migration.selection import Selector
from tests.cli.conftest import Interlock
from tests.support.told import Told, destination, detail, row, status


def test_status_shows_a_line_for_each_destination(interlock: Interlock, service: Told) -> None:
    result = interlock("status")
    lines = result.out.splitlines()
    assert result.status == 0
    assert lines[0].endswith("ledger /srv/var/interlock.db: writable, balanced")
    assert lines[2:] == [
        "CHANNEL  PHASE     PORT  PEERS  STORED  LAST  DESTINATION  ROUTE  DONE  OPEN  OLDEST",
        "acme     parallel  6101      1       3     -  legacy       send      3     0       -",
        "                                              medplum      send      3     0       -",
    ]


def test_status_says_what_is_wrong_and_ends_with_1(interlock: Interlock, service: Told) -> None:
    counts = {"delivered": 1, "dead": 1, "retrying": 1}
    bad = destination("medplum", counts=counts, open=2, oldest_s=200.0, breaker="HTTP 403", balanced=False)
    bad["wanted"] = {"dead": 1, "parked": 1}
    service.state = status(writable=False, balanced=False)
    service.state["channels"][0] |= {"destinations": [bad], "listening": False}
    result = interlock("status")
    assert result.status == 1
    assert result.out.splitlines()[3:] == [
        "acme     parallel  closed      1       3     -  medplum      send      1     2   3 min  "
        "1 dead, 1 retrying, nothing is sent, DOES NOT BALANCE",
        "the ledger cannot be written: nothing is acknowledged (see the runbook: ledger not writable)",
        "the ledger does not balance: a message is counted on one side only (see the runbook)",
        "acme: nothing can come in at 0.0.0.0:6101: closed",
        "acme → medplum: nothing is sent: HTTP 403",
        "acme → medplum: 2 messages for a person to decide: 1 dead, 1 parked",
    ]


def test_status_for_scripts_is_what_the_service_told(interlock: Interlock, service: Told) -> None:
    assert orjson.loads(interlock("status", "--json").out) == service.state


def test_messages_are_a_table(interlock: Interlock, service: Told) -> None:
    service.rows = [row(12), row(1)]
    assert interlock("messages").out.splitlines() == [
        "MESSAGE  RECEIVED                       TYPE     CONTROL ID    SIZE  STATE",
        "acme/12  2026-11-02 14:15:00.123+00:00  ORU^R01  MSG-1       1.5 KB  legacy delivered, medplum retrying",
        "acme/1   2026-11-02 14:15:00.123+00:00  ORU^R01  MSG-1       1.5 KB  legacy delivered, medplum retrying",
    ]


@pytest.mark.parametrize("more", [(), ("--order", "P-1")])
def test_a_channel_that_there_is_not_is_no_channel_without_messages(
    more: tuple[str, ...], interlock: Interlock, service: Told
) -> None:
    result = interlock("messages", "--channel", "nope", *more)
    assert (result.status, result.err) == (1, "interlock: there is no channel 'nope'; see `interlock status`\n")


def test_no_messages_are_said_so(interlock: Interlock, service: Told) -> None:
    service.rows = []
    assert interlock("messages").out == "no messages\n"
    assert interlock("messages", "--json").out == "[]\n"


def test_messages_pass_on_what_is_asked(interlock: Interlock, service: Told) -> None:
    nothing = {
        "keys": {}, "selector": Selector(), "channel": None, "since": None, "until": None, "before": None, "limit": 20,
    }  # fmt: skip
    for words, asked in (
        ("--channel acme --limit 3 --before 9", {"channel": "acme", "before": 9, "limit": 3}),
        ("--channel acme --before acme/9", {"channel": "acme", "before": 9, "limit": 20}),
        ("--control-id A/B --channel acme", nothing | {"keys": {"control_id": "A/B"}, "channel": "acme"}),
        (
            "--order P1 --patient 4711^^^ACME --accession A1 --type ORU",
            nothing | {"keys": {"order": "P1", "patient": "4711^^^ACME", "accession": "A1", "type": "ORU"}},
        ),
        ("acme beta --connection x", nothing | {"selector": Selector(("acme", "beta"), ("x",))}),
        ("--label region=west", nothing | {"selector": Selector(labels={"region": "west"})}),
        ("--since 2026-11-02T14:15+01:00", nothing | {"since": 1_793_625_300_000_000}),
        ("--until 2026-11-02", nothing | {"until": 1_793_577_600_000_000}),
        ("--before acme/9", nothing | {"before": ("acme", 9)}),
        ("--order P1 --channel acme --before 9", nothing
            | {"keys": {"order": "P1"}, "channel": "acme", "before": ("acme", 9)}),
    ):  # fmt: skip
        service.asked.clear()
        result = interlock("messages", *words.split())
        assert (result.status, result.err, [each for _, each in service.asked]) == (0, "", [asked]), words


def test_a_time_that_is_long_ago_is_counted_from_now() -> None:
    now = datetime(2026, 11, 2, 14, 15, tzinfo=UTC)
    assert moment("--since", "2h", now) == "2026-11-02T12:15:00Z"
    assert moment("--since", "1.5m", now) == "2026-11-02T14:13:30Z"


@pytest.mark.parametrize("words", [("acme/1",), ("acme", "1"), ("MSG-1",)])
def test_show_finds_a_message_by_number_and_by_control_id(
    words: tuple[str, ...], interlock: Interlock, service: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.cli.messages.at_terminal", lambda: True)
    result = interlock("show", *words, "--raw")
    assert result.status == 0
    assert result.out.splitlines() == [
        "acme/1  ORU^R01  control id MSG-1",
        "received      2026-11-02 14:15:00.123+00:00, 1.5 KB, connection 3.17",
        "acknowledged  AA",
        "phase         parallel (epoch 1)",
        "",
        "legacy: delivered",
        "    2026-11-02 14:15:00.200+00:00  delivered  relayed",
        "        MSA|AA|1",
        "medplum: retrying",
        "",
        "MSH|",
    ]


def test_raw_into_a_pipe_is_the_messages_bytes_and_nothing_else(
    service: Told, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = b"MSH|^~\\&|LAB|\rPID|1||M\xfcller\r"
    found = detail(1) | {"raw": base64.b64encode(raw).decode()}
    monkeypatch.setattr("tests.support.told.detail", lambda seq: found)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["interlock", "show", "acme/1", "--raw"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capfdbinary.readouterr().out == raw


def test_what_has_no_time_says_now_only_where_it_is_now() -> None:
    def told(state: str, at: str = "") -> str:
        return _step({"part": 1, "delivery": 1, "revision": 1, "reason": "", "answer": None, "state": state, "at": at})[
            0
        ]

    assert told("sending") == "now  sending"
    assert told("dead") == "-  dead"


def test_show_for_scripts(interlock: Interlock, service: Told) -> None:
    assert orjson.loads(interlock("show", "acme/1", "--json").out) == detail(1)


def test_a_control_id_that_several_messages_have_lists_them(interlock: Interlock, service: Told) -> None:
    service.rows = [row(1), row(2)]
    result = interlock("show", "MSG-1", "--raw")
    assert result.status == 1
    assert "acme/1" in result.out
    assert "acme/2" in result.out
    assert result.err == "interlock: 2 messages have that control id: show one of them as CHANNEL/SEQ\n"


def test_show_says_when_there_is_no_such_message(interlock: Interlock, service: Told) -> None:
    service.rows = []
    assert interlock("show", "acme/9").err == "interlock: there is no message acme/9; see `interlock messages`\n"
    assert interlock("show", "NOPE").err == "interlock: no message has that control id\n"
    assert interlock("show", "NOPE").status == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "a", "b", "c"), "wanted: interlock show CHANNEL/SEQ, or CHANNEL SEQ, or a control id"),
        (("messages", "--before", "3"), "--before counts within a channel: give --channel too, or CHANNEL/SEQ"),
        (("messages", "--before", "acme/x"), "--before acme/x: wanted is CHANNEL/SEQ, such as acme-results/812"),
        (
            ("messages", "--since", "noon"),
            "--since noon: wanted is a time, such as 2026-11-02T14:15, 2026-11-02, or 2h for so long ago",
        ),
    ],
)
def test_wrong_usage_is_a_sentence_and_2(
    words: tuple[str, ...], sentence: str, interlock: Interlock, service: Told
) -> None:
    result = interlock(*words)
    assert (result.status, result.err) == (2, f"interlock: {sentence}\n")


def test_no_settings_file_is_told(interlock: Interlock) -> None:
    result = interlock("status")
    assert result.status == 2
    assert result.err == "interlock: there is no interlock.yaml here; give --config FILE\n"
    for words in (["run"], ["validate"], ["status"]):
        result = interlock(*words, "--config", "conf/nope.yaml")
        assert (result.status, result.err) == (2, "interlock: there is no conf/nope.yaml; give --config FILE\n")


def test_a_service_that_never_ran_is_told(interlock: Interlock, settings: int, tmp_path: Path) -> None:
    result = interlock("status")
    assert result.status == 1
    assert result.err == (
        f"interlock: the service of interlock.yaml is not running (no {tmp_path}/var/interlock.token): "
        "start it with `interlock run`\n"
    )


def test_a_service_that_ended_is_told(interlock: Interlock, settings: int, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/interlock.token").write_text("old\n")
    assert interlock("status").err == (
        f"interlock: nothing answers at 127.0.0.1:{settings}: start the service with `interlock run`\n"
    )


def test_the_token_of_another_service_is_told(interlock: Interlock, service: Told, tmp_path: Path) -> None:
    (tmp_path / "var/interlock.token").write_text("other\n")
    assert "does not know the token beside" in interlock("status").err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_token_that_may_not_be_read_is_told(interlock: Interlock, service: Told, tmp_path: Path) -> None:
    (tmp_path / "var/interlock.token").chmod(0)
    assert "only the user that runs the service may" in interlock("status").err


def test_control_characters_of_a_message_do_not_reach_the_terminal(
    interlock: Interlock, service: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def message(channel: str, seq: int) -> dict[str, object]:
        return detail(1) | {"raw": "TVNIfBtbMzFt/w=="}  # MSH| ESC [31m 0xFF

    monkeypatch.setattr(service, "message", message)
    monkeypatch.setattr("engine.cli.messages.at_terminal", lambda: True)
    assert interlock("show", "acme/1", "--raw").out.splitlines()[-1] == "MSH|\\x1b[31mÿ"


def test_show_names_what_is_in_the_message_in_its_own_version(interlock: Interlock) -> None:
    raw = b"MSH|^~\\&|A|B|||20260101||ORU^R01|1|P|2.3\rOBX|1|CE|X||A^Alpha^L|||\rZZ1|own\rPID|||1~2\r"
    lines = [" ".join(line.split()) for line in named(raw)]
    assert "MSH Message Header" in lines
    assert "3 Sending Application A" in lines
    assert "5 Observation Value A^Alpha^L" in lines
    assert ".2 Text Alpha" in lines  # of OBX-5 as OBX-2 says
    assert lines[lines.index("ZZ1") + 1] == "1 own"  # a segment of the site's own has no names
    assert "3[2] 2" in lines


def test_no_control_character_reaches_a_terminal() -> None:
    assert not any("\x1b" in line for line in named(b"MSH|^~\\&|\xff\x1b[31m"))
    assert not any("\x1b" in line for line in named(b"\xff\x1b[31m"))
