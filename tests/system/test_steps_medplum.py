"""SIGKILL exactly at each step of a message on its way to Medplum: it stands there once, by one transaction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.forking import Forked, Nursery
from tests.support.house import compiled
from tests.support.http_between import Between, Moment
from tests.support.ports import free_port
from tests.support.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox
from tests.support.stepping import HIT, Site, births, result

__all__ = ["births"]

pytestmark = pytest.mark.system

TIME_LIMIT = "500ms"  # that the server takes at most, its client gone or not
LONG, WORKS_ON_MS = "2500ms", 1500  # longer than a restart: who sends again without waiting has it there twice

IN_MEDPLUM: dict[str, Moment | None] = {
    "before the transaction request": None,
    "half of the request sent": "half of it is sent",
    "sent, the server works on": "it is sent",
    "the server has it, before its answer": "it is answered",
    "answer read, before the settlement is put": None,
    "settlement put, before its commit": None,
    "receipt durable": None,
}
"""Towards Medplum a transaction is never sent twice: what may have been taken is looked for by its mark. Where the
server is the one to strike: when."""


@pytest.mark.parametrize("step", IN_MEDPLUM)
async def test_in_medplum_each_message_stands_once_by_one_transaction(
    births: Nursery, tmp_path: Path, sandbox: Sandbox, step: str
) -> None:
    between, moment = Between(sandbox.base, is_transaction), IN_MEDPLUM[step]
    await between.start()
    port = free_port()
    listen = {"host": "127.0.0.1", "port": port, "accepts": ["ORU^R01"]}
    channels = {"acme": {"direction": "results", "listen": listen, "target": {"destinations": [{"medplum": {}}]}}}
    project = {"base_url": between.base, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    limit = LONG if moment == "it is sent" else TIME_LIMIT
    with Forked(births, tmp_path / "site", channels, medplum={**project, "time_limit": limit}) as interlock:
        shutil.copy(compiled(), interlock.folder / "interlock.mappings")
        at = Site(interlock, port)
        await (at.start() if moment else at.dies_at(step))
        assert await at.say(result("M1"))
        await at.all_settled()
        if moment:
            between.strike_when(moment, interlock.strike)
        if moment == "it is sent":
            sandbox.faults({"delayMs": WORKS_ON_MS, "count": 1, "path": "^/fhir/R4/?$", "skip": 1})
        assert await at.say(result(HIT))
        await at.killed()
        await at.start()
        assert await at.say(result("M3"))
        stored = await at.ends()
    await between.stop()
    assert between.passed == 1
    assert [fault["count"] for fault in json.loads(sandbox._call("GET", "/_faults"))] == [0] * (moment == "it is sent")
    assert [row["states"] for row in stored] == [{"medplum": "delivered"}] * 3
    reports = sandbox.dump("DiagnosticReport")
    assert sorted(fillers(report) for report in reports) == ["M1", HIT, "M3"]
    assert len(sandbox.dump("Observation")) == len(sandbox.dump("Provenance")) == 3
    sandbox.assert_sound()


def is_transaction(request: bytes) -> bool:
    return b'"type":"transaction"' in request and HIT.encode() in request


def fillers(report: dict[str, Any]) -> str:
    return next(str(each["value"]) for each in report["identifier"] if each["value"].startswith("M"))
