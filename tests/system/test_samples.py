"""Every result and order of the reference samples: mapped by the command line, and taken by Medplum's validation."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.config.shipped import shipped_mappings
from engine.fhir.client import FhirClient
from engine.fhir.deliverer import Deliverer
from engine.hl7.peek import peek
from engine.ledger.outcome import Result
from engine.mapping.library import Context, Library
from engine.mapping.read import split_messages
from tests.support.processes import COMMAND
from tests.support.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox

REFERENCE = os.environ.get("INTERLOCK_REFERENCE")
TYPES = ("ORU", "ORM", "OML")

pytestmark = pytest.mark.skipif(REFERENCE is None, reason="INTERLOCK_REFERENCE names no folder with samples")


def samples() -> list[Path]:
    folder = Path(REFERENCE or "") / "samples"
    with (folder / "manifest.csv").open(newline="") as file:
        return [folder / row["file"] for row in csv.DictReader(file) if row["message_type"].partition("^")[0] in TYPES]


def test_the_command_line_maps_every_one_of_them() -> None:
    files = samples()
    assert len(files) > 25
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "map", *map(str, files)], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert done.returncode == 0
    bundles = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(bundles) >= len(files)
    assert all(bundle["resourceType"] == "Bundle" for bundle in bundles)
    assert sum(not bundle.get("entry") for bundle in bundles) <= 2  # two say nothing of anybody: no patient, no order


async def test_medplum_takes_every_resource_of_every_one(sandbox: Sandbox) -> None:
    library = Library.load(shipped_mappings())
    deliverer = Deliverer(FhirClient(sandbox.base, CLIENT_ID, CLIENT_SECRET))
    refused: dict[str, Any] = {}
    try:
        for number, file in enumerate(samples()):
            for part, (_, raw) in enumerate(split_messages(file.read_bytes())):
                head = peek(raw)
                mapping = library.for_message(head.type, head.trigger)
                assert mapping is not None, file.name
                context = Context(f"c{number}", f"c{number}", {}, "UTC", "auto", 1_767_225_600_000_000)
                outcome = await deliverer.deliver(mapping.run(raw, context), f"i/c{number}/{part + 1}")
                if outcome.result is not Result.DELIVERED:
                    refused[f"{file.name}#{part}"] = (outcome.result.value, outcome.reason)
    finally:
        await deliverer.close()
    assert refused == {}
    assert sandbox.stats()["danglingReferences"] == []
