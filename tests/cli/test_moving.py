"""The verbs that move connections: what is asked of the service, what a person reads, how it ends."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.cli.selecting import who
from engine.migration.refused import Refused
from engine.migration.selection import Selector
from tests.cli.conftest import Interlock
from tests.support.told import Told, plan, run

WHY = ("--reason", "window of 12 May")
ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture(autouse=True)
def no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)


def test_an_order_names_who_wants_it_and_why(interlock: Interlock, service: Told) -> None:
    words = ("acme-results", "--connection", "beta", "--label", "region=west", "--carry", "medplum", "--carry", "a/7")
    assert interlock("cutover", *words, "--timeout", "5m", *WHY).status == 0
    (order,) = service.moving.orders
    assert order.pop("origin").startswith("interlock/")
    assert order == {
        "verb": "cutover",
        "selector": Selector(("acme-results",), ("beta",), {"region": "west"}, False),
        "options": {"carry": ["medplum", "a/7"], "timeout_s": 300},
        "reason": "window of 12 May",
        "who": ME,
        "dry_run": False,
    }


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["takeover"], {}),
        (["takeover", "--peers", "10.0.0.1", "--peers", "lab=10.0.0.2", "--timeout", "5m"],
         {"peers": ["10.0.0.1", "lab=10.0.0.2"], "timeout_s": 300}),
        (["give-back", "--watch", "old:6101"], {"watch": "old:6101"}),
        (["parallel"], {}),
        (["legacy"], {}),
        (["hold", "--for", "2h"], {"for_s": 7200}),
        (["hold"], {}),
        (["release"], {}),
        (["drain", "--for", "10m"], {"for_s": 600}),
        (["rollback", "--replay", "guarded", "--override-until"], {"replay": "guarded", "override_until": True}),
        (["rollback"], {}),
        (["abort"], {}),
        (["note"], {}),
        (["attest", "--check", "rehearsed", "--for", "30d"], {"check": "rehearsed", "for_s": 2592000}),
        (["waive", "--check", "window"], {"check": "window"}),
    ],
)  # fmt: skip
def test_each_verb_has_its_own_options(
    words: list[str], options: dict[str, Any], interlock: Interlock, service: Told
) -> None:
    assert interlock(*words, "--all", *WHY).status == 0
    (order,) = service.moving.orders
    assert (order["verb"], order["options"]) == (words[0], options)
    assert order["selector"] == Selector(everything=True)


def test_who_is_to_come_back_stands_in_a_file(interlock: Interlock, service: Told, tmp_path: Path) -> None:
    (tmp_path / "peers.txt").write_text("10.0.0.1\nESTAB 0 0 10.0.0.5:6101 10.0.0.2:51514\n")
    words = ("--peers-from", "peers.txt", "--peers", "10.0.0.3")
    assert interlock("takeover", "acme-results", *words, *WHY).status == 0
    assert service.moving.orders[0]["options"] == {"peers": ["10.0.0.3", "10.0.0.1", "6101=10.0.0.2"]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "--peers-from peers.txt: No such file or directory"),
        ("lab", "peers.txt:1: found neither an address nor a connection; expected an IP address, or a line of `ss -tn`"
                " or `netstat -tn`"),
    ],
)  # fmt: skip
def test_a_file_of_peers_that_cannot_be_read_is_wrong_usage(
    text: str | None, sentence: str, interlock: Interlock, service: Told, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "peers.txt").write_text(text)
    result = interlock("takeover", "acme-results", "--peers-from", "peers.txt", *WHY)
    assert (result.status, result.err) == (2, f"interlock: {sentence}\n")
    assert service.moving.orders == []


def test_an_abort_is_followed_where_the_run_has_to_turn_back(interlock: Interlock, service: Told) -> None:
    first = service.moving.goes(
        run(verb="takeover", said="being answered"), run(verb="takeover", state="aborted", said="outside")
    )
    service.moving.reply = {"plans": [plan()], "runs": [first], "said": ["run 12: takeover turns back"]}
    result = interlock("abort", "--run", "12", *WHY)
    assert result.status == 0
    assert result.out.splitlines()[-1] == "acme: takeover aborted: outside"


def test_a_run_is_aborted_by_its_number(interlock: Interlock, service: Told) -> None:
    service.moving.reply["runs"] = [run(state="aborted")]
    assert interlock("abort", "--run", "12", *WHY).status == 0
    assert service.moving.orders[0]["options"] == {"run": 12}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cutover", "acme"], 'say why: --reason "..."; or --dry-run to see what would be done'),
        (["cutover", *WHY], "which channels? give ids, --connection, --label or --all"),
        (["abort", *WHY], "which channels? give ids, --connection, --label or --all"),
        (["hold", "acme", "--all", *WHY], "--all means every channel: leave out the ids and connections"),
        (["hold", "--label", "west", *WHY], "--label west: wanted is KEY=VALUE, such as region=west"),
        (["hold", "--all", "--for", "15", *WHY], "--for 15: wanted is a duration, such as 30s, 15m, 2h or 30d"),
        (["rollback", "--all", "--replay", "some", *WHY],
         "--replay some: wanted is one of guarded, undelivered, all, none"),
    ],
)  # fmt: skip
def test_wrong_usage_is_a_sentence_and_2(words: list[str], sentence: str, interlock: Interlock, service: Told) -> None:
    result = interlock(*words)
    assert (result.status, result.err) == (2, f"interlock: {sentence}\n")
    assert service.moving.orders == []


def test_a_check_is_wanted_where_one_is_attested(interlock: Interlock, service: Told) -> None:
    result = interlock("attest", "--all", *WHY)
    assert result.status == 2
    assert "--check" in result.err


def test_a_dry_run_shows_the_plan_and_needs_no_reason(interlock: Interlock, service: Told) -> None:
    long = "What the vendor sends meanwhile is stored and acknowledged, and goes out through the target path after it."
    service.moving.reply["plans"] = [plan(lines=["Wait for 3 messages, about 2 s.", long])]
    service.moving.reply["said"] = ["acme-orders moves too: the channels of the connection acme move together."]
    result = interlock("cutover", "acme-results", "--dry-run")
    assert result.status == 0
    assert result.out.splitlines() == [
        "acme (acme-orders, acme-results):",
        "  - Wait for 3 messages, about 2 s.",
        "  - What the vendor sends meanwhile is stored and acknowledged, and goes out through the target path",
        "    after it.",
        "acme-orders moves too: the channels of the connection acme move together.",
    ]
    assert service.moving.orders[0]["dry_run"] is True


def test_a_plan_that_would_be_refused_ends_with_1(interlock: Interlock, service: Told) -> None:
    service.moving.reply["plans"] = [plan(lines=[], refused=["acme is held by ann until 03:00."])]
    result = interlock("cutover", "--all", "--dry-run")
    assert result.status == 1
    assert result.out.splitlines()[1:] == ["  ! refused: acme is held by ann until 03:00."]


def test_what_is_done_already_is_said_and_no_failure(interlock: Interlock, service: Told) -> None:
    service.moving.reply |= {"plans": [plan(already="acme is live")], "said": ["acme is live; nothing is changed"]}
    result = interlock("cutover", "--all", *WHY)
    assert (result.status, result.out) == (0, "acme is live; nothing is changed\n")
    service.moving.reply |= {"dry_run": True, "said": []}
    assert interlock("cutover", "--all", "--dry-run").out == "acme (acme-orders, acme-results): acme is live\n"


def test_a_drain_that_is_through_ends_its_command_and_says_how_long_it_stays(
    interlock: Interlock, service: Told
) -> None:
    through = run(verb="drain", step="drained", said="drained: acme-orders up to 7 is settled")
    service.moving.reply["runs"] = [service.moving.goes(run(verb="drain", said="waits for 3"), through)]
    result = interlock("drain", "--all", *WHY)
    assert result.status == 0
    assert " ".join(result.out.split()).endswith(
        "acme: drained: acme-orders up to 7 is settled; at 2026-11-02 14:20:00+00:00 delivery goes on by itself"
    )


def test_a_refusal_is_told_a_sentence_a_line(interlock: Interlock, service: Told) -> None:
    service.moving.refusal = Refused("acme is held by ann until 03:00.", "The gate is not passed.")
    result = interlock("cutover", "--all", *WHY)
    assert (result.status, result.out) == (1, "")
    assert result.err == "interlock: acme is held by ann until 03:00.\ninterlock: The gate is not passed.\n"


def test_a_refusal_for_scripts(interlock: Interlock, service: Told) -> None:
    service.moving.refusal = Refused("acme is held by ann until 03:00.")
    result = interlock("cutover", "--all", *WHY, "--json")
    assert result.status == 1
    refused = {"verb": "cutover", "dry_run": False, "refused": ["acme is held by ann until 03:00."]}
    assert orjson.loads(result.out) == refused


def test_a_run_is_followed_to_its_end(interlock: Interlock, service: Told) -> None:
    first = service.moving.goes(
        run(said="waits for 3 messages at old-engine; release: interlock abort --run 12"),
        run(said="waits for 1 message at old-engine; release: interlock abort --run 12"),
        run(said="live from 4711 on", state="done"),
    )
    service.moving.reply["runs"] = [first]
    result = interlock("cutover", "--all", *WHY)
    assert result.status == 0
    lines = result.out.splitlines()
    assert [line.partition("  ")[2] for line in lines[:2]] == [
        "acme: waits for 3 messages at old-engine; release: interlock abort --run 12",
        "acme: waits for 1 message at old-engine; release: interlock abort --run 12",
    ]
    assert lines[2:] == ["acme: cutover done: live from 4711 on"]


@pytest.mark.parametrize("state", ["failed", "aborted"])
def test_a_run_that_does_not_come_to_its_end_is_1(state: str, interlock: Interlock, service: Told) -> None:
    service.moving.reply["runs"] = [service.moving.goes(run(), run(state=state, said="the drain timed out"))]
    result = interlock("cutover", "--all", *WHY)
    assert result.status == 1
    assert result.out.splitlines()[-1] == f"acme: cutover {state}: the drain timed out"


def test_scripts_get_one_object_at_the_end(interlock: Interlock, service: Told) -> None:
    service.moving.reply = {"plans": [plan()], "runs": [service.moving.goes(run(), run(state="done"))], "said": []}
    result = interlock("cutover", "--all", *WHY, "--json")
    assert result.status == 0
    told = orjson.loads(result.out)
    assert (told["plans"], [found["state"] for found in told["runs"]]) == ([plan()], ["done"])


def test_nobody_has_to_wait(interlock: Interlock, service: Told) -> None:
    service.moving.reply["runs"] = [service.moving.goes(run(), run(state="failed"))]
    service.moving.reply["said"] = ["Run 12 has begun."]
    result = interlock("cutover", "--all", *WHY, "--no-wait")
    assert (result.status, result.out) == (0, "Run 12 has begun.\n")
    assert service.moving.waits == []


def test_who_became_another_user_is_still_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")
    assert who() == f"ann as {ME}"
