"""The command as a whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from engine.cli.orders import VERBS
from tests.cli.conftest import Interlock

COMMAND = [sys.executable, "-c", "from engine.cli.main import main; main()"]


def test_help_lists_every_verb_in_one_line(interlock: Interlock) -> None:
    result = interlock("--help")
    assert result.status == 0
    verbs = result.out.partition("Commands:")[2].split("\n")
    assert [line.split()[0] for line in verbs if line.strip()] == [
        "run",
        "validate",
        "status",
        "messages",
        "show",
        "map",
        "test",
        "send",
        "test-connection",
        "demo",
        "compare",
        "gate",
        "takeover",
        "give-back",
        "parallel",
        "legacy",
        "hold",
        "release",
        "drain",
        "cutover",
        "rollback",
        "abort",
        "note",
        "attest",
        "waive",
        "legal-hold",
        "legal-release",
        "runs",
        "dead",
        "retry",
        "edit-and-retry",
        "discard",
        "replay",
        "replays",
        "prune",
        "backup",
        "restore",
        "compact",
        "reconcile",
        "mapping",
        "discrepancies",
        "tap",
        "unmapped",
        "audit",
    ]
    assert "..." not in result.out.partition("Commands:")[2]


@pytest.mark.parametrize("words", [["frobnicate"], ["status", "--wrong"], ["show"], ["messages", "--limit", "0"]])
def test_wrong_usage_is_2(words: list[str], interlock: Interlock) -> None:
    assert interlock(*words).status == 2


ALONE = [
    "dead",
    "retry",
    "edit-and-retry",
    "discard",
    "replay",
    "replays",
    "prune",
    "backup",
    "restore",
    "run",
    "validate",
    "status",
    "messages",
    "show",
    "map",
    "send",
    "compare",
    "gate",
    "reconcile",
    "runs",
]
IN_GROUPS = [
    "discrepancies list", "discrepancies show", "discrepancies explain", "audit list", "audit verify", "unmapped list",
    "unmapped set", "unmapped fields",
]  # fmt: skip


@pytest.mark.parametrize("verb", [*ALONE, *IN_GROUPS, *VERBS])
def test_every_verb_has_help_and_json(verb: str, interlock: Interlock) -> None:
    result = interlock(*verb.split(), "--help")
    assert result.status == 0
    assert "--json" in result.out


@pytest.mark.parametrize("verb", ["messages", "show", "map", "send", "test-connection", "demo", "runs", "cutover"])
def test_help_has_no_type_of_pythons(verb: str, interlock: Interlock) -> None:
    text = interlock(verb, "--help").out
    assert not re.search(r"<\w+(\[| range)?|[{}]|\.{4}|…", text), text


def test_help_tells_what_may_be_left_out_and_what_may_be_repeated(interlock: Interlock) -> None:
    assert interlock("map", "--help").out.splitlines()[0].endswith("interlock map [OPTIONS] FILE...")
    assert interlock("gate", "--help").out.splitlines()[0].endswith("interlock gate [OPTIONS] [SELECTOR]...")


def test_help_starts_quickly_and_without_rich() -> None:
    def seconds() -> float:
        begun = time.perf_counter()
        subprocess.run([*COMMAND, "--help"], check=True, capture_output=True, timeout=20)
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(3)) < 0.6, "the goal is 0.3 s on a quiet machine"
    script = (
        "import sys; from engine.cli import main; print([m for m in ('rich', 'aiohttp', 'yaml') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=20)
    assert loaded.stdout == "[]\n"


def test_a_reader_that_went_away_is_no_traceback() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    process = subprocess.run(
        [*COMMAND, "validate", "--schema"], stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=20
    )
    os.close(theirs)
    assert "Traceback" not in process.stderr
