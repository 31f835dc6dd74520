"""What maps a channel's messages is there before the first of them comes: to write it then would keep all others
waiting."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.changes import Changes, Unmapped, as_written
from engine.config.nodes import Findings, compose_bytes
from engine.mapping import maker, writer
from engine.mapping.effective import ToFhir
from engine.mapping.library import Context
from engine.mapping.versions import Versions
from engine.service.carriers import versions_of
from engine.service.ways import Ways
from tests.mapping.folders import shipped
from tests.support.house import MEDPLUM, channel, configuration, give_compiled

PLAIN = b"MSH|^~\\&|LAB|ACME|EMR|CLINIC|20260507080910-0500||ORU^R01|1\rPID|||M1\rOBR|1|P1|F1|A\rOBX|1|ST|A||x\r"
CONTEXT = Context("acme", "acme", {}, "UTC", "auto", 1_767_225_600_000_000)


@pytest.mark.parametrize("unmapped", ["ignore", "count"])
@pytest.mark.parametrize("override", ["", "PID[Patient]: {rows: [PID-13 -> nothing]}"])
def test_a_channels_functions_are_there_before_its_first_message(
    unmapped: Unmapped, override: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = Changes("", (), unmapped)
    if override:
        node = compose_bytes(override.encode(), "channels/acme.yaml", Findings({}))
        changes = replace(changes, override=json.dumps(as_written(node)), node=node)
    library = shipped().changed("ORU_R01", changes)
    to_fhir = ToFhir(library, "ORU_R01", frozenset({"ORU^R01"}), changes)
    to_fhir.prepare()

    def written(*_: Any) -> Any:
        raise AssertionError("written when a message was there")

    monkeypatch.setattr(maker.Maker, "variant", written)
    monkeypatch.setattr(maker.Maker, "reasons", written)
    monkeypatch.setattr(writer.Unit, "code", property(written))
    for raw in (PLAIN, PLAIN.replace(b"||x", b"||x\\T\\y")):
        (output,) = to_fhir.run(raw, CONTEXT)
        assert "Observation" in {entry.type for entry in output.entries}


def test_service_and_worker_have_them_ready_at_the_start(tmp_path: Path) -> None:
    one = channel("acme", mapping="ORU_R01", destinations=(MEDPLUM,))
    settings = configuration(tmp_path, one, medplum="http://127.0.0.1:9")
    give_compiled(settings)
    ways = Ways(settings)
    ways.prepare()
    assert ready(ways.mappings, ways.versions(one)["medplum"])
    versions = versions_of(settings, shipped())
    assert ready(versions, ways.versions(one)["medplum"])


def ready(versions: Versions, version: str) -> bool:
    """Whether the fast and the careful functions of a mapping are there."""
    fhir = versions.load(version).fhir
    assert fhir is not None
    return {(False, False), (True, False)} <= fhir.library.mapping("ORU_R01")._functions.keys()
