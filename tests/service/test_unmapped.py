"""Codes that no table knew, from a vendor's message to the operator's screen and back into a table; real processes."""

from __future__ import annotations

import asyncio
import csv
import io
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.delivery.carrier import LocalCarrier
from engine.delivery.destinations.medplum import Project
from engine.fhir.output import Output, UnmappedCode
from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result
from engine.ledger.sqlite import gaps, noting
from engine.ledger.sqlite.gaps import Wanted
from engine.service.service import Service
from engine.service.ways import Ways
from tests.support.house import MEDPLUM, channel, configuration, exchanged, running, until
from tests.support.moving import decide
from tests.support.ports import free_port
from tests.support.processes import COMMAND, ROOT, Interlock
from tests.support.sandbox import Sandbox

TABLE = "csv: AcmeTests\nfile: acme-tests.csv\nsystem: http://loinc.org\n"
KNOWN = "code,system,target_code,target_display\nHGB,,718-7,Hemoglobin [Mass/volume] in Blood\n"
MAPPING = {
    "use": "ORU_R01",
    "unmapped": "count",
    "override": {"OBX[Observation]": {"rows": ["OBX-3 -> code as CWE[CodeableConcept] table AcmeTests"]}},
}


def result(number: int, *codes: str) -> bytes:
    lines = [
        f"MSH|^~\\&|LAB|L|EMR|C|20260105060007||ORU^R01^ORU_R01|U{number}|P|2.5.1",
        f"PID|1||{number}^^^ACME^MR||JUNIPER^DELIA||19661112|F",
        f"OBR|1|P{number}^EMR|F{number}^LAB|24325-3^Panel^LN|||20260105042507||||||||||||||||||F",
        *(f"OBX|{n}|NM|{code}^some name^L||{n}|||||||F" for n, code in enumerate(codes, 1)),
        "ZAC|1|nobody takes this",
    ]
    return ("\r".join(lines) + "\r").encode()


class Site:
    """One channel to Medplum, with a table of its own codes."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.port = free_port()
        made: dict[str, Any] = {
            "direction": "results",
            "listen": {"host": "127.0.0.1", "port": self.port, "accepts": ["ORU^R01"]},
            "target": {"mapping": MAPPING, "destinations": [{"medplum": {}}]},
        }
        medplum = {
            "base_url": sandbox.base, "client_id": "sandbox-client", "client_secret": "sandbox-secret",
            "time_limit": "1s",
        }  # fmt: skip
        self.interlock = Interlock(folder / "site", {"acme": made}, medplum=medplum, workers=1, mappings="mappings")
        self.tables = folder / "site" / "mappings" / "tables"
        self.tables.mkdir(parents=True)
        (self.tables / "acme-tests.yaml").write_text(TABLE)
        self.knows(KNOWN)

    def knows(self, lines: str) -> None:
        (self.tables / "acme-tests.csv").write_text(lines)

    def cli(self, *words: str) -> str:
        command = [sys.executable, "-c", COMMAND, *words, "--config", str(self.interlock.folder / "interlock.yaml")]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout

    def codes(self) -> dict[str, tuple[Any, ...]]:
        found = self.interlock.post("/api/v1/unmapped", {})["codes"]
        return {row["code"]: (row["count"], row["last_seq"], row["state"], row["owner"]) for row in found}

    def fields(self) -> dict[str, int]:
        return {row["field"]: row["count"] for row in self.interlock.post("/api/v1/unmapped/fields", {})}

    async def send(self, *messages: bytes) -> None:
        await exchanged(self.port, *messages)
        await asyncio.to_thread(self.interlock.wait_settled)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.interlock.http}/metrics", timeout=10) as answer:
            return str(answer.read(), "utf-8")


@pytest.mark.system
async def test_an_unmapped_code_is_listed_asked_for_mapped_and_gone(tmp_path: Path, sandbox: Sandbox) -> None:
    site = Site(tmp_path, sandbox)
    with site.interlock as interlock:
        interlock.start()
        await site.send(result(1, "HGB", "WBC"), result(2, "WBC", "=X^Y".replace("^", "\\S\\")))
        await until(lambda: site.codes().get("WBC", (0,))[0] == 2)  # it is written behind the settlements
        assert site.codes() == {"WBC": (2, 2, "open", ""), "=X^Y": (1, 2, "open", "")}
        assert site.fields()["ZAC-2"] == 2
        codings = [obs["code"]["coding"][0] for obs in sandbox.dump("Observation")]
        assert sorted((coding["code"], coding["system"] == "http://loinc.org") for coding in codings) == [
            ("718-7", True), ("=X^Y", False), ("WBC", False), ("WBC", False),
        ]  # fmt: skip
        assert interlock.get("/api/v1/status")["unmapped"] == 2
        assert "2 codes that no table knew" in site.cli("status")
        metrics = site.metrics()
        assert 'interlock_unmapped_codes{channel="acme",table="AcmeTests"} 2.0' in metrics
        assert 'interlock_lost_values_total{channel="acme",field="ZAC-2"} 2.0' in metrics
        assert "WBC" not in metrics

        site.cli("unmapped", "set", "acme", "WBC", "--table", "AcmeTests", "--owner", "lab", "--state", "mapped")
        (entry,) = [row for row in interlock.get("/api/v1/audit") if row["verb"] == "unmapped"]
        assert (entry["subject"], entry["before"], entry["after"]) == (
            "acme OBX-3 AcmeTests WBC", '{"state": "open", "owner": "", "note": ""}',
            '{"state": "mapped", "owner": "lab", "note": ""}',
        )  # fmt: skip
        await site.send(result(3, "WBC"))
        await until(lambda: site.codes()["WBC"] == (3, 3, "open", "lab"))  # for no table has it

        exported = list(csv.DictReader(io.StringIO(site.cli("unmapped", "export", "acme", "--table", "AcmeTests"))))
        assert [row["code"] for row in exported] == ["WBC", "=X^Y"]  # the most frequent one first
        assert ",".join(exported[0]) == KNOWN.partition("\n")[0]
        exported[0] |= {"target_code": "6690-2", "target_display": "Leukocytes [#/volume] in Blood"}
        filled = io.StringIO()
        csv.DictWriter(filled, exported[0].keys()).writerows(exported)
        interlock.kill()

        site.knows(KNOWN + filled.getvalue())
        interlock.start()
        assert site.codes()["WBC"] == (3, 3, "open", "lab")
        site.cli("unmapped", "set", "acme", "WBC", "--table", "AcmeTests", "--state", "mapped")
        await site.send(result(4, "WBC"), result(5, "=X\\S\\Y"))
        await until(lambda: site.codes()["=X^Y"][0] == 2)
        assert site.codes()["WBC"] == (3, 3, "mapped", "lab")
        assert {"system": "http://loinc.org", "code": "6690-2", "display": "Leukocytes [#/volume] in Blood"} in [
            obs["code"]["coding"][0] for obs in sandbox.dump("Observation")
        ]
        log = interlock.log.read_text()
        assert ("code_unmapped" in log, "mapping_missed" in log, "WBC" in log) == (True, True, False)


# -- what counts, at the deliverer's seam


class Deliverer:
    """Answers as it is told, and delivers then."""

    def __init__(self) -> None:
        self.answers: list[Outcome] = []

    async def deliver(self, output: Output, tag: str, *, unknown: bool = False, since: float = 0.0) -> Outcome:
        return self.answers.pop(0) if self.answers else Outcome(Result.DELIVERED)

    async def probe(self) -> Any: ...

    async def close(self) -> None: ...


class ByHand(Ways):
    """Each message becomes two outputs, as a batch does, that know a code less than their table."""

    def __init__(self, configuration: Any, deliverer: Deliverer) -> None:
        super().__init__(configuration)
        output = Output(unmapped=(UnmappedCode("LabTests", "OBX-3", "WBC", "L"),), lost={"PID-12": 2})
        carrier = LocalCarrier(lambda attempt: [output, output], deliverer)
        self.projects["medplum"] = Project("medplum", carrier, settle_time=0.0, at_once=4)


@pytest.fixture
def deliverer() -> Deliverer:
    return Deliverer()


@pytest.fixture
async def service(tmp_path: Path, deliverer: Deliverer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setattr(noting, "LINGER", 0.01)
    live = channel("acme", port=free_port(), destinations=(MEDPLUM,), accepts=("ORU^R01",))
    made = configuration(tmp_path, live, medplum="http://127.0.0.1:1/")
    async with running(made, ByHand(made, deliverer)) as service:
        yield service


async def sent(service: Service, number: int) -> None:
    source: Any = service.configuration.channels[0].source
    await exchanged(source.address.port, result(number, "WBC"))


async def count(service: Service) -> tuple[int, int]:
    """Of messages with the code, and of lost values."""
    async with service.ledger.noting.settled():
        found, _ = await service.ledger.read(lambda reader: gaps.codes(reader.connection, Wanted(), 10))
        lost = await service.ledger.read(lambda reader: gaps.fields(reader.connection))
    return sum(row.count for row in found), sum(each.count for each in lost)


async def test_a_batch_is_one_message(service: Service) -> None:
    await sent(service, 1)
    course: Any = service.ledger.channels["acme"].course("medplum")
    await until(lambda: course.frontier == 1)
    assert await count(service) == (1, 4)


async def test_what_is_tried_again_counts_when_it_is_settled(service: Service, deliverer: Deliverer) -> None:
    deliverer.answers = [Outcome(Result.NOT_TAKEN, "busy"), Outcome(Result.UNKNOWN, "reset")]
    await sent(service, 1)
    course: Any = service.ledger.channels["acme"].course("medplum")
    await until(lambda: course.open)
    assert await count(service) == (0, 0)
    await until(lambda: course.frontier == 1 and not course.open, 20)
    assert await count(service) == (1, 4)


async def test_what_is_dead_counts_and_not_again_when_a_person_has_it_tried(
    service: Service, deliverer: Deliverer
) -> None:
    deliverer.answers = [Outcome(Result.NEVER, "422")]
    await sent(service, 1)
    course: Any = service.ledger.channels["acme"].course("medplum")
    await until(lambda: any(work.state is State.DEAD for work in course.open.values()))
    assert await count(service) == (1, 4)
    await decide(service, "retry", 1)
    await until(lambda: not course.open)
    assert await count(service) == (1, 4)
