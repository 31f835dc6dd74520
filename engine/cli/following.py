"""Shows a run while it goes on: one dense line that names what is waited for and how to release it.

Nothing here moves anything: the run is the service's, and goes on when this command ends or the service starts again.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from engine.cli.console import REFUSED, Stop, err, out, printable, second, wrapped
from engine.cli.service_client import Unreachable, ask

Run = dict[str, Any]

ONE_WAIT_S = 20
"""How long the service may think about one run before it answers that nothing has changed."""
ANSWER_S = ONE_WAIT_S + 10.0
PATIENCE_S = 120.0
"""How long a service that does not answer is asked again: it may be starting."""
PAUSE_S = 1.0


class Line:
    """One line that is rewritten on a terminal; elsewhere each change is a line of its own."""

    def __init__(self, screen: TextIO) -> None:
        self._screen = screen
        self._rewrites = screen.isatty()
        self._text = ""
        self._rows = 0

    def show(self, text: str) -> None:
        if text == self._text:
            return
        self._text = text
        if self._rewrites:
            self._rewrite(wrapped(text, shutil.get_terminal_size().columns - 1))
        else:
            self._write(f"{datetime.now().astimezone().isoformat(' ', 'seconds')}  {printable(text)}\n")

    def clear(self) -> None:
        """Make room for what is said at the end."""
        if self._rewrites and self._rows:
            self._rewrite([])

    def _rewrite(self, lines: list[str]) -> None:
        up = f"\x1b[{self._rows - 1}A" if self._rows > 1 else ""
        self._write(f"{up}\r\x1b[J" + "\n".join(lines))
        self._rows = len(lines)

    def _write(self, text: str) -> None:
        self._screen.write(text)
        self._screen.flush()


def goes_on(run: Run) -> bool:
    """Whether it has not ended."""
    return bool(run["state"] == "running")


def is_awaited(run: Run) -> bool:
    """Whether the verb that began it has something to wait for: a drain that is through only stays."""
    return goes_on(run) and run["step"] != "drained"


def follow(
    config: Path, runs: list[Run], show: Callable[[str], None], going: Callable[[Run], bool] = goes_on
) -> list[Run]:
    """The same runs when none is `going` any more. Stops where the service stays away for long."""
    current = {run["id"]: run for run in runs}
    while waiting := [run for run in current.values() if going(run)]:
        show(dense(waiting, list(current.values())))
        only = len(waiting) == 1
        first = waiting[0]
        wait = ONE_WAIT_S if only else int(PAUSE_S)
        changed = _patiently(config, f"/api/v1/runs/{first['id']}?after={first['version']}&wait={wait}", show)
        current[first["id"]] = changed
        if not only:
            current |= _others(config, waiting[1:], show)
    return list(current.values())


def _others(config: Path, waiting: list[Run], show: Callable[[str], None]) -> dict[int, Run]:
    """The other runs as they are now: one question for those that go on, and one for each that has ended."""
    active = {run["id"]: run for run in _patiently(config, "/api/v1/runs?active=true", show)}
    return {
        run["id"]: active.get(run["id"]) or _patiently(config, f"/api/v1/runs/{run['id']}", show) for run in waiting
    }


def _patiently(config: Path, path: str, show: Callable[[str], None]) -> Any:
    """The answer, also of a service that is just being started again."""
    last = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask(config, path, timeout=ANSWER_S)
        except Unreachable as away:
            if time.monotonic() > last:
                raise Stop(f"{away.sentence}; the run stands in its ledger and goes on when it starts") from None
            show(f"{away.sentence}; the run stands in its ledger and goes on when it starts")
            time.sleep(PAUSE_S)


def dense(going: list[Run], runs: list[Run]) -> str:
    """`acme: waits for …` for one; `cutover: 3 of 40 done; acme: waits for … (36 more go on)` for several."""
    first = going[0]
    said = f"{first['connection']}: {first['said'] or first['step']}"
    if len(runs) == 1:
        return said
    others = f" ({len(going) - 1} more go on)" if len(going) > 1 else ""
    return f"{first['verb']}: {_counted(len(going), runs)} of {len(runs)}; {said}{others}"


def _counted(going: int, runs: list[Run]) -> str:
    states = Counter(run["state"] for run in runs)
    failed = {state: states[state] for state in ("failed", "aborted") if states[state]}
    done = len(runs) - going - sum(failed.values())
    return ", ".join([f"{done} done", *(f"{count} {state}" for state, count in failed.items())])


def ended(run: Run) -> str:
    """`acme: cutover done: …`; of a drain that stays, until when."""
    if goes_on(run):
        return f"{run['connection']}: {run['said']}; at {second(run['deadline'])} delivery goes on by itself"
    said = f": {run['said']}" if run["said"] else ""
    return f"{run['connection']}: {run['verb']} {run['state']}{said}"


def watch(config: Path, runs: list[Run], quiet: bool, going: Callable[[Run], bool] = goes_on) -> list[Run]:
    """Follow them as long as they are `going` and say how each ended; Ctrl-C ends the watching only."""
    line = Line(sys.stdout)
    try:
        found = follow(config, runs, (lambda _: None) if quiet else line.show, going)
    except KeyboardInterrupt:
        line.clear()
        err(left_alone(runs))
        raise
    line.clear()
    if not quiet:
        for run in found:
            for text in wrapped(ended(run), indent="  "):
                out(text)
    return found


def left_alone(runs: list[Run]) -> str:
    """What to know after Ctrl-C."""
    if len(runs) == 1:
        id = runs[0]["id"]
        return (
            f"interlock: run {id} goes on. To see it: interlock runs {id} --follow. "
            f'To end it: interlock abort --run {id} --reason "..."'
        )
    return (
        f"interlock: {len(runs)} runs go on. To see them: interlock runs --active --follow. "
        'To end one: interlock abort --run ID --reason "..."'
    )


def status_of(runs: list[Run]) -> int:
    """The exit status: 0 where none was aborted or failed."""
    return REFUSED if any(run["state"] in ("aborted", "failed") for run in runs) else 0
