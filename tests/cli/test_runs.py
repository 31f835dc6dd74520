"""runs: the list, one run, and staying until it has ended."""

from __future__ import annotations

import orjson
import pytest

from tests.cli.conftest import Interlock
from tests.support.told import Told, run

SAID = "waits for 3 messages at old-engine, the oldest 12 s old; release: interlock abort --run 12"


def test_runs_are_a_table_that_fits(interlock: Interlock, service: Told) -> None:
    service.moving.goes(run(12, said=SAID))
    service.moving.goes(run(11, verb="rollback", state="done", said="parallel from 4711 on"))
    lines = interlock("runs").out.splitlines()
    assert lines == [
        "RUN  VERB      CONNECTION  STATE    STARTED                    WHAT",
        " 12  cutover   acme        running  2026-11-02 14:15:00+00:00  waits for 3 messages at old-engine,",
        "                                                               the oldest 12 s old; release:",
        "                                                               interlock abort --run 12",
        " 11  rollback  acme        done     2026-11-02 14:15:00+00:00  parallel from 4711 on",
    ]
    assert max(map(len, lines)) <= 100


def test_only_those_that_go_on(interlock: Interlock, service: Told) -> None:
    service.moving.goes(run(11, state="done"))
    assert interlock("runs", "--active").out == "no runs\n"


def test_one_run_says_who_and_why(interlock: Interlock, service: Told) -> None:
    service.moving.goes(run(12, said="waits for 3"))
    assert interlock("runs", "12").out.splitlines() == [
        "run 12: cutover of acme, running",
        "channels  acme-orders, acme-results",
        "who       ann",
        "why       window of 12 May",
        "started   2026-11-02 14:15:00+00:00",
        "deadline  2026-11-02 14:20:00+00:00",
        "drain     waits for 3",
    ]


def test_a_run_is_followed_to_its_end(interlock: Interlock, service: Told) -> None:
    service.moving.goes(run(12), run(12, said="waits"), run(12, state="failed", said="the drain timed out"))
    result = interlock("runs", "12", "--follow")
    assert result.status == 1
    assert "acme: cutover failed: the drain timed out" in result.out.splitlines()


def test_a_run_that_failed_long_ago_is_no_failure_of_the_list(interlock: Interlock, service: Told) -> None:
    service.moving.goes(run(11, state="failed"))
    assert interlock("runs").status == 0
    assert interlock("runs", "11").status == 0


@pytest.mark.parametrize("words", [(), ("12",)])
def test_runs_for_scripts(words: tuple[str, ...], interlock: Interlock, service: Told) -> None:
    one = service.moving.goes(run(12))
    assert orjson.loads(interlock("runs", *words, "--json").out) == (one if words else [one])


def test_a_run_that_is_not_there(interlock: Interlock, service: Told) -> None:
    result = interlock("runs", "9")
    assert (result.status, result.err) == (1, "interlock: there is no run 9; see `interlock runs`\n")
