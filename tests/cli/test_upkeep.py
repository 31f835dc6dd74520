"""prune, backup, restore: what is typed, what is shown, and how it ends."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from engine.cli import upkeep
from engine.ledger.routing import Mode, Route, Routing
from engine.ledger.sqlite import backup
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.migration.refused import Refused
from tests.cli.conftest import Interlock
from tests.support.told import Told

ROWS = [
    {"channel": "acme", "kind": "raw", "kept_s": 7776000.0, "gone": 10, "rows": 1200, "bytes": 3 << 20, "upto": 1210,
     "held_by": "1211 is dead at emr"},
    {"channel": "acme", "kind": "events", "kept_s": 7776000.0, "gone": 0, "rows": 0, "bytes": 0, "upto": None,
     "held_by": ""},
]  # fmt: skip


def state(name: str, share: float, **more: object) -> dict[str, object]:
    return {"state": name, "share": share, "file": "/b.db", "said": "", "manifest": None} | more


def test_a_dry_run_says_what_would_go_and_what_holds_back(interlock: Interlock, service: Told) -> None:
    service.upkeep.rows = ROWS
    result = interlock("prune", "--dry-run")
    assert result.out.splitlines() == [
        "CHANNEL  CLASS  KEPT   ROWS    ABOUT  HELD BACK BY",
        "acme     raw    90d   1,200  3.0 MiB  1211 is dead at emr",
        "",
        "1200 rows, about 3.0 MiB",
    ]
    assert service.upkeep.orders == []
    assert orjson.loads(interlock("prune", "--dry-run", "--json").out) == ROWS


def test_nothing_to_remove_is_said_so(interlock: Interlock, service: Told) -> None:
    service.upkeep.rows = ROWS[1:]
    assert interlock("prune", "--dry-run").out == "nothing is old enough to be removed\n"


def test_removing_wants_a_reason_and_says_who(interlock: Interlock, service: Told) -> None:
    result = interlock("prune")
    assert (result.status, "say why" in result.err) == (2, True)
    assert interlock("prune", "--reason", "disk").status == 0
    ((order, asked),) = service.upkeep.orders
    assert (order, asked["reason"]) == ("prune", "disk")
    assert asked["who"]


def test_a_backup_is_followed_to_its_end(
    interlock: Interlock, service: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LOOK_S", 0.0)
    done = state("done", 1.0, manifest={"messages": 12, "size": 4096, "sha256": "ab12"})
    service.upkeep.states = [state("running", 0.0), state("running", 0.55), done]
    result = interlock("backup", "copy.db")
    assert result.status == 0
    assert result.out.splitlines() == [
        "0% copied",
        "55% copied",
        "copy.db: 12 messages, 4.0 KiB, read back and counted; sha256 ab12",
    ]
    assert service.upkeep.orders[0][1]["file"] == str(tmp_path / "copy.db")


def test_a_backup_that_fails_or_is_refused_ends_with_1(interlock: Interlock, service: Told) -> None:
    service.upkeep.states = [state("failed", 0.3, said="no space left on the disk")]
    result = interlock("backup", "copy.db")
    assert (result.status, result.err) == (1, "interlock: no space left on the disk\n")
    service.upkeep.refusal = Refused("/copy.db exists already: a backup overwrites nothing.")
    assert interlock("backup", "copy.db").status == 1


async def _ledger(path: Path) -> None:
    ledger = SqliteLedger(path, lambda: 1_700_000_000_000_000)
    ledger.start(lambda commit: None)
    routing = Routing((Route("emr", "mllp", Mode.SEND, "channel"),))
    await ledger.switch("acme", "live", routing, {}, who="test", why="first")
    await ledger.close()


def test_a_restore_says_what_cannot_be_known(interlock: Interlock, settings: int, tmp_path: Path) -> None:
    asyncio.run(_ledger(tmp_path / "old.db"))
    backup.backup(tmp_path / "old.db", tmp_path / "copy.db", lambda: 1_700_000_000_000_000)
    result = interlock("restore", "copy.db", "--reason", "the disk is gone")
    assert result.status == 0
    assert "from 2023-11-14 22:13:20Z until" in " ".join(result.out.split())
    assert "acme     0            -             -             0" in result.out
    again = interlock("restore", "copy.db", "--reason", "again")
    assert (again.status, "only when told so (--replace)" in again.err) == (1, True)
    replaced = interlock("restore", "copy.db", "--reason", "again", "--replace", "--json")
    assert orjson.loads(replaced.out)["aside"]


def test_an_old_ledger_is_compacted_and_gives_space_back_by_itself_from_then_on(
    interlock: Interlock, settings: int, tmp_path: Path
) -> None:
    ledger = tmp_path / "var" / "interlock.db"
    ledger.parent.mkdir()
    with closing(sqlite3.connect(ledger, isolation_level=None)) as old:
        old.execute("pragma journal_mode = wal")
        old.execute("create table t (x)")
        old.executemany("insert into t values (zeroblob(1000))", [()] * 2000)
        old.execute("delete from t")
    result = interlock("compact", "--json")
    sizes = orjson.loads(result.out)
    assert sizes["after"] < sizes["before"] / 10
    with closing(sqlite3.connect(ledger)) as now:
        assert now.execute("pragma auto_vacuum").fetchone() == (2,)


def test_a_restore_wants_a_reason(interlock: Interlock, settings: int) -> None:
    assert interlock("restore", "copy.db").status == 2
