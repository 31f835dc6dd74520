"""Retention, backups and the clock, of a service that runs."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from engine.ledger.sqlite import recount
from engine.ledger.sqlite.backup import backup
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.migration.refused import Refused
from engine.service.upkeep import Upkeep
from engine.service.view import View
from tests.support.fake import Fake, FakeWays
from tests.support.house import (
    MEDPLUM,
    ORU,
    Peer,
    assert_balances,
    channel,
    configuration,
    live,
    port_of,
    running,
    served,
    settled,
    until,
)
from tests.support.listing import names
from tests.support.moving import Operator

RESULT = b"MSH|^~\\&|LAB|L|EMR|E|20260101||ORU^R01|%d|P|2.5.1\rPID|1||%d\r"


def result(n: int) -> bytes:
    return RESULT % (n, n)


async def test_a_backup_of_a_running_service_is_made_beside_the_traffic(tmp_path: Path) -> None:
    async with served(tmp_path, live()) as (service, peer):
        upkeep = Upkeep(service)
        for n in range(20):
            await peer.exchange(result(n))
        state = await upkeep.backup(str(tmp_path / "copy.db"), who="ops", reason="test", origin="test")
        while state["state"] == "running":
            await peer.exchange(result(100))
        assert state["state"] == "done", state
        assert state["manifest"]["channels"]["acme"] >= 20
        with pytest.raises(Refused, match="exists already"):
            await upkeep.backup(str(tmp_path / "copy.db"), who="ops", reason="test", origin="test")
        with pytest.raises(Refused, match="no absolute path"):
            await upkeep.backup("copy.db", who="ops", reason="test", origin="test")
        await assert_balances(service)


async def test_a_legal_hold_is_audited_and_outlives_the_service(tmp_path: Path) -> None:
    made = configuration(tmp_path, live())
    async with running(made) as service:
        await Operator(service).verb("legal-hold", "acme")
        plan = await Upkeep(service).retention()
        assert {row["held_by"] for row in plan} == {"legal hold by ops: a test"}
    async with running(made) as service:
        book = service.ledger.channels["acme"]
        assert service.ledger.kept[book.id].legal is not None
        assert (await Operator(service).plan("legal-hold", "acme"))["already"]
        await Operator(service).verb("legal-release", "acme")
        assert service.ledger.kept[book.id].legal is None
        verbs = "select verb from audit where verb like 'legal%' order by id"
        rows = await service.ledger.read(lambda reader: reader.connection.execute(verbs).fetchall())
        assert rows == [("legal-hold",), ("legal-release",)]


async def test_a_message_whose_bytes_are_gone_says_when_and_by_which_rule(tmp_path: Path) -> None:
    fake = Fake()
    made = channel("acme", destinations=(MEDPLUM,), accepts=ORU.accepts, phase="live")
    async with running(configuration(tmp_path, made), FakeWays(configuration(tmp_path, made), fake)) as service:
        peer = await Peer.connect(port_of(made))
        await peer.exchange(result(1))
        await settled(service, "acme", "medplum", 1)
        keeping = service.keeping
        await keeping.now()
        keeping._believed += 100 * 86_400_000_000
        await keeping.once()
        view = View(service, "1")
        shown = await view.message("acme", 1)
        assert shown is not None
        assert shown["raw"] == ""
        assert shown["states"] == {"medplum": "delivered"}
        assert [text.partition(":")[0] for text in shown["removed"]] == ["raw is kept for 90 days"]
        keeping._believed += 700 * 86_400_000_000
        await keeping.once()
        with pytest.raises(Refused, match=r"acme/1 is no longer kept: .*receipts is kept for 730 days"):
            await view.message("acme", 1)
        assert await view.message("acme", 2) is None
        await assert_balances(service)
        await peer.close()


async def test_a_step_of_the_wall_clock_loses_reorders_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hours and by years, both ways, while messages come and go and some are tried again."""
    from engine.ledger.outcome import Outcome, Result

    true, offset = time.time_ns, [0]
    monkeypatch.setattr(time, "time_ns", lambda: true() + offset[0] * 1_000_000_000)
    refused: set[int] = set()

    def answer(work: object) -> Outcome:
        seq = work.message.seq  # type: ignore[attr-defined]
        if seq % 5 == 0 and seq not in refused:
            refused.add(seq)
            return Outcome(Result.NOT_TAKEN, "later")
        return Outcome(Result.DELIVERED)

    fake = Fake(answer)
    made = channel("acme", destinations=(MEDPLUM,), accepts=ORU.accepts, phase="live")
    kept = configuration(tmp_path, made)
    async with running(kept, FakeWays(kept, fake)) as service:
        peer = await Peer.connect(port_of(made))
        for n, step in enumerate((0, 3600, -3600, 10 * 365 * 86400, -20 * 365 * 86400, 86400), 1):
            offset[0] = step
            for m in range(5):
                await peer.exchange(RESULT % (n * 10 + m, 7))  # one patient: strictly in order
            await service.keeping.once()
        await settled(service, "acme", "medplum", 30)
        first = list(dict.fromkeys(fake.sent))
        assert first == sorted(first)
        assert len(fake.sent) == 30 + len(refused)
        await peer.close()
        rows = await assert_balances(service)
        assert rows[0]["states"] == {"delivered": 30}
    offset[0] = -30 * 365 * 86400
    async with running(kept, FakeWays(kept, Fake())) as service:
        counted = "select count(*), sum(length(raw) > 0) from message"
        assert await service.ledger.read(lambda r: r.connection.execute(counted).fetchone()) == (30, 30)


KILLED = """
import asyncio, os, sys, time
from itertools import count
from pathlib import Path
from engine.ledger.keeping import Keep
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.service import keeping
keeping.REST = keeping.LEAST_REST = 0.0
paced, at = keeping.Keeping._paced, count(1)
async def killed(*transaction):
    result = await paced(*transaction)
    if next(at) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    return result
keeping.Keeping._paced = killed
async def main():
    ledger = SqliteLedger(Path(sys.argv[1]), lambda: time.time_ns() // 1000)
    ledger.start(lambda commit: None)
    kept = keeping.Keeping(ledger, {"acme": Keep(1, 1, 2, 1)}, 1e9, lambda: time.time_ns() // 1000)
    await kept.now()
    kept._believed += 10_000_000
    await kept.once()
asyncio.run(main())
"""


@pytest.mark.parametrize("at", [1, 5, 20])
async def test_pruning_that_is_killed_leaves_a_ledger_in_which_everything_counts(tmp_path: Path, at: int) -> None:
    """After so many of its transactions: of bytes, of the last bytes, of whole messages."""
    fake = Fake()
    made = channel("acme", destinations=(MEDPLUM,), accepts=ORU.accepts, phase="live")
    kept = configuration(tmp_path, made)
    async with running(kept, FakeWays(kept, fake)) as service:
        peer = await Peer.connect(port_of(made))
        for n in range(600):
            peer.send(result(n))
        for _ in range(600):
            await peer.answer()
        await settled(service, "acme", "medplum", 600)
        await peer.close()
    ledger = kept.service.ledger
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(ledger), str(at))
    assert await process.wait() == -signal.SIGKILL
    again = SqliteLedger(ledger, lambda: 1)
    try:
        for table in ("pruning", "message"):  # something went, something stayed
            count = f"select count(*) from {table}"
            assert await again.read(lambda reader, count=count: reader.connection.execute(count).fetchone()) > (0,)
        assert await again.read(lambda reader: recount.differences(reader.connection)) == []
        assert all(row["balanced"] for row in await again.read(lambda r: r.balance(list(again.channels.values()))))
    finally:
        await again.close()


BACKUP = """
import sys, time
from pathlib import Path
from engine.ledger.sqlite import backup
backup.LAST = 10
backup.STEP = 10
print("begins", flush=True)
backup.backup(Path(sys.argv[1]), Path(sys.argv[2]), lambda: 1)
"""


async def test_a_backup_that_is_killed_is_none_and_the_next_one_is_whole(tmp_path: Path) -> None:
    async with served(tmp_path, live()) as (service, peer):
        for n in range(300):
            await peer.exchange(result(n))
        file = tmp_path / "copy.db"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", BACKUP, str(service.ledger.path), str(file), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout
        await process.stdout.readline()
        await until(lambda: "copy.db.partial" in names(tmp_path))
        process.kill()
        await process.wait()
        assert not file.exists()
        manifest = await asyncio.to_thread(backup, service.ledger.path, file, lambda: 1)
        assert manifest.channels == {"acme": 300}
        assert "copy.db.partial" not in names(tmp_path)
