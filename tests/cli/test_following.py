"""Watching runs: one line, several runs, a service that goes away, and Ctrl-C."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.cli import following
from engine.cli.console import Stop
from engine.cli.following import Line, dense, follow, goes_on
from engine.cli.service_client import Unreachable
from tests.cli.conftest import Interlock
from tests.support.told import Told, run

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path("interlock.yaml")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """40 columns wide."""
    monkeypatch.setenv("COLUMNS", "40")
    return Terminal()


def test_a_terminal_has_one_line_that_is_rewritten(terminal: Terminal) -> None:
    line = Line(terminal)
    line.show("acme: waits for 3")
    line.show("acme: waits for 3")
    line.show("acme: waits for 1")
    line.clear()
    assert terminal.getvalue() == "\r\x1b[Jacme: waits for 3\r\x1b[Jacme: waits for 1\r\x1b[J"


def test_a_line_that_is_wider_than_the_terminal_is_rewritten_whole(terminal: Terminal) -> None:
    line = Line(terminal)
    line.show("acme: waits for 3 messages at old-engine; release: interlock abort")
    line.show("acme: done")
    assert terminal.getvalue() == (
        "\r\x1b[Jacme: waits for 3 messages at\nold-engine; release: interlock abort\x1b[1A\r\x1b[Jacme: done"
    )


def test_nothing_that_a_peer_said_steers_the_terminal(terminal: Terminal) -> None:
    Line(terminal).show("acme: refused \x1b[2J")
    assert terminal.getvalue() == "\r\x1b[Jacme: refused \\x1b[2J"


def test_several_runs_are_counted_in_the_line() -> None:
    runs = [
        run(1, state="done"),
        run(2, state="failed"),
        run(3, connection="beta", said="waits for 3 messages at old-engine"),
        run(4, connection="gamma", said="waits for the gate"),
        run(5, connection="delta"),
    ]
    going = [each for each in runs if goes_on(each)]
    assert dense(going, runs) == (
        "cutover: 1 done, 1 failed of 5; beta: waits for 3 messages at old-engine (2 more go on)"
    )
    assert dense(going[-1:], going[-1:]) == "delta: drain"


def test_several_runs_are_followed_until_the_last_has_ended(interlock: Interlock, service: Told) -> None:
    shown: list[str] = []
    moving = service.moving
    runs = [
        moving.goes(*[run(1, connection="a", said=f"a{n}") for n in (1, 2, 3, 4)], run(1, state="done")),
        moving.goes(run(2, connection="b", said="b1"), run(2, state="failed", connection="b")),
        moving.goes(run(3, connection="c"), run(3, connection="c"), run(3, connection="c"), run(3, state="done")),
    ]
    ended = follow(CONFIG, runs, shown.append)
    assert [found["state"] for found in ended] == ["done", "failed", "done"]
    assert shown[0] == "cutover: 0 done of 3; a: a1 (2 more go on)"
    assert "cutover: 0 done, 1 failed of 3; a: a3 (1 more go on)" in shown


def test_a_service_that_starts_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [Unreachable("nothing answers"), Unreachable("nothing answers"), run(state="done")]
    shown: list[str] = []

    def ask(*_: Any, **__: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(following, "ask", ask)
    monkeypatch.setattr(following, "PAUSE_S", 0)
    (ended,) = follow(CONFIG, [run(said="waits")], shown.append)
    assert ended["state"] == "done"
    assert shown[1] == "nothing answers; the run stands in its ledger and goes on when it starts"


def test_a_service_that_stays_away_ends_the_watching_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: Any, **__: Any) -> Any:
        raise Unreachable("nothing answers")

    monkeypatch.setattr(following, "ask", ask)
    monkeypatch.setattr(following, "PATIENCE_S", -1.0)
    with pytest.raises(Stop, match="the run stands in its ledger"):
        follow(CONFIG, [run()], lambda _: None)


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ([12], 'interlock: run 12 goes on. To see it: interlock runs 12 --follow. '
         'To end it: interlock abort --run 12 --reason "..."\n'),
        ([12, 13], 'interlock: 2 runs go on. To see them: interlock runs --active --follow. '
         'To end one: interlock abort --run ID --reason "..."\n'),
    ],
)  # fmt: skip
def test_ctrl_c_leaves_the_run_going_and_says_how_to_end_it(
    ids: list[int], sentence: str, interlock: Interlock, service: Told, tmp_path: Path
) -> None:
    service.moving.reply["runs"] = [service.moving.goes(run(id, said="waits for 3")) for id in ids]
    service.moving.stuck = True
    script = [sys.executable, "-c", "from engine.cli.main import main; main()"]
    command = [*script, "cutover", "--all", "--reason", "window"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "waits for 3" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=10)
    assert (process.returncode, complaint) == (130, sentence)
    assert all(found["state"] == "running" for (found,) in service.moving.told.values())
    assert len(service.moving.orders) == 1
