"""`interlock status`: what is planned, what is in trouble, and how long that lasts."""

from __future__ import annotations

import base64

import orjson
import pytest

from tests.cli.conftest import Interlock
from tests.support import told
from tests.support.told import Told, destination, detail, status


def test_an_endpoint_outside_its_hours_is_no_trouble_and_says_until_when(interlock: Interlock, service: Told) -> None:
    service.state = status()
    closed = destination("emr", open=2, rests_until="2026-11-23T13:00:00.000Z")
    service.state["channels"][0]["destinations"] = [closed]
    result = interlock("status")
    assert result.status == 0
    assert result.out.splitlines()[-1].endswith("closed until 2026-11-23 13:00+00:00")


def test_a_breaker_says_when_it_is_tried_again(interlock: Interlock, service: Told) -> None:
    service.state = status()
    bad = destination("emr", breaker="connection refused", next_trial_s=7.2)
    service.state["channels"][0]["destinations"] = [bad]
    result = interlock("status")
    assert result.status == 1
    assert result.out.splitlines()[-1] == "acme → emr: nothing is sent: connection refused (next trial in 8 s)"


def test_a_port_for_answers_that_is_not_ours_is_told_with_the_reason(interlock: Interlock, service: Told) -> None:
    service.state = status()
    port = {"endpoint": "emr", "listening": True, "down": None, "address": "0.0.0.0:7300", "peers": []}
    service.state["answers"] = [port]
    assert interlock("status").status == 0
    port |= {"listening": False, "down": "Address already in use"}
    result = interlock("status")
    assert result.status == 1
    assert result.out.splitlines()[-1] == "emr: its answers cannot come in at 0.0.0.0:7300: Address already in use"


def test_workers_that_take_nothing_and_those_of_an_earlier_service_are_told(
    interlock: Interlock, service: Told
) -> None:
    service.state = status() | {"workers": {"1": "", "2": "it was ended by signal 9"}, "delivering": False}
    result = interlock("status")
    assert result.status == 1
    assert result.out.splitlines()[-2:] == [
        "nothing is sent: worker processes of an earlier service still run (see the runbook)",
        "worker 2 takes nothing: it was ended by signal 9",
    ]


def test_mapping_files_with_mistakes_are_told_with_the_first(interlock: Interlock, service: Told) -> None:
    broken = {"problems": 2, "first": "own/a.yaml:1:1: found unknown key tabel; expected table"}
    service.state = status() | {"mappings_broken": broken}
    result = interlock("status")
    assert result.status == 1
    assert result.out.splitlines()[-1] == (
        "the mapping files have 2 mistakes, are not used, and a restart would be refused (see the runbook: the mappings"
        f" are broken): {broken['first']}"
    )
    as_json = interlock("status", "--json")
    assert (as_json.status, orjson.loads(as_json.out)["mappings_broken"]) == (1, broken)


def test_show_has_what_was_said_of_a_settled_message(
    interlock: Interlock, service: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = base64.b64encode(b"MSH|^~\\&|\rMSA|AE|1\r").decode()
    said = {"at": "2026-11-02T14:16:00.000Z", "reason": "emr: answered AE", "answer": answer}
    monkeypatch.setattr(told, "detail", lambda seq: detail(seq) | {"later": [said]})
    lines = interlock("show", "acme/1").out.splitlines()
    at = lines.index("answered later, 2026-11-02 14:16:00.000+00:00: emr: answered AE")
    assert lines[at + 1 : at + 3] == ["        MSH|^~\\&|", "        MSA|AE|1"]
