"""The site's mapping files, changed while the service runs: used when they are right, and not before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.cli.running import complaints
from engine.config.shipped import shipped_mappings
from engine.mapping.library import MappingError
from engine.observe.service_events import MAPPINGS_BROKEN
from engine.service.rereading import MappingFiles
from engine.service.view import View
from tests.service.test_outputs import count_calls, result, service
from tests.support.house import channel, emr, exchanged, settled, until
from tests.support.ports import free_port

ADAMS, BAKER = "steps:\n  - set: OBR-2\n    to: ADAMS\n", "steps:\n  - set: OBR-2\n    to: BAKER\n"


async def test_a_changed_mapping_is_used_from_a_new_epoch_on(tmp_path: Path, old_engine, monkeypatch):
    monkeypatch.setattr("engine.service.service.TABLES_EVERY", 0.02)
    to = replace(emr(old_engine.port), name="emr", mapping="named")
    port = free_port()
    async with service(tmp_path, channel("acme", port=port, destinations=(to,)), named=ADAMS) as it:
        await exchanged(port, result(1, "A"))
        await settled(it, "acme", "emr", 1)
        (tmp_path / "mappings" / "v2" / "named.yaml").write_text(BAKER)
        await until(lambda: it.ledger.channels["acme"].epoch.number == 2)
        await exchanged(port, result(2, "A"))
        await settled(it, "acme", "emr", 2)
    assert [payload.split(b"OBR|1|")[1].split(b"\r")[0] for payload in old_engine.payloads] == [b"ADAMS", b"BAKER"]


async def test_the_log_and_the_audit_say_what_opened_an_epoch(tmp_path: Path, old_engine, monkeypatch, capsys):
    monkeypatch.setattr("engine.service.service.TABLES_EVERY", 0.02)
    to = replace(emr(old_engine.port), name="emr", mapping="named")
    acme = channel("acme", destinations=(to,))
    async with service(tmp_path, acme, named=ADAMS) as it:
        (tmp_path / "mappings" / "v2" / "named.yaml").write_text(BAKER)
        await until(lambda: it.ledger.channels["acme"].epoch.number == 2)
    async with service(tmp_path, acme, named=ADAMS):
        pass
    more = channel("acme", destinations=(to, replace(emr(old_engine.port), name="other")))
    async with service(tmp_path, more, named=ADAMS) as it:
        asked = "SELECT why, origin FROM audit WHERE verb = 'epoch' ORDER BY id"
        said = await it.ledger.read(lambda reader: reader.connection.execute(asked).fetchall())
    mapping, routing = "the channel's mapping changed", "the channel's routing changed"
    start, running = "the service's start", "the files, read while running"
    assert said == [("first epoch", start), (mapping, running), (mapping, start), (routing, start)]
    lines = [line for line in capsys.readouterr().err.splitlines() if '"epoch_opened"' in line]
    assert [json.loads(line)["reason"] for line in lines] == ["first epoch", mapping, mapping, routing]


async def test_a_mistake_never_reaches_a_running_channel(tmp_path: Path, old_engine, monkeypatch, capsys):
    monkeypatch.setattr("engine.service.service.TABLES_EVERY", 0.02)
    to = replace(emr(old_engine.port), name="emr", mapping="named")
    port = free_port()
    file = tmp_path / "mappings" / "v2" / "named.yaml"
    async with service(tmp_path, channel("acme", port=port, destinations=(to,)), named=ADAMS) as it:
        looked = count_calls(monkeypatch, it.ways, "refresh")
        file.write_text("steps:\n  - sat: OBR-2\n    to: BAKER\n")
        await until(lambda: MAPPINGS_BROKEN.of().n == 1)
        seen = looked()
        await until(lambda: looked() > seen + 3)
        told = await View(it, "0").status()
        first = f"{file}:2:5: found unknown step sat; expected set"
        assert told["mappings_broken"] == {"problems": 1, "first": first}
        assert complaints(told) == [
            "the mapping files have 1 mistake, are not used, and a restart would be refused"
            f" (see the runbook: the mappings are broken): {first}"
        ]
        await exchanged(port, result(1, "A"))
        await settled(it, "acme", "emr", 1)
        assert it.ledger.channels["acme"].epoch.number == 1
        file.write_text(BAKER)
        await until(lambda: it.ledger.channels["acme"].epoch.number == 2)
        assert MAPPINGS_BROKEN.of().n == 0
        told = await View(it, "0").status()
        assert told["mappings_broken"] is None
        assert complaints(told) == []
    assert b"ADAMS" in old_engine.payloads[0]
    said = [line for line in capsys.readouterr().err.splitlines() if '"mappings_broken"' in line]
    assert len(said) == 1
    assert "named.yaml" in said[0]


def files(tmp_path: Path) -> tuple[MappingFiles, Path]:
    site = tmp_path / "site"
    (site / "tables").mkdir(parents=True)
    table = site / "tables" / "sex.yaml"
    table.write_text("table: Local\ncodes: {X: other}\n")
    return MappingFiles(shipped_mappings(), site, tmp_path / "cache", None), table


def test_files_that_did_not_change_are_not_read(tmp_path: Path) -> None:
    assert files(tmp_path)[0].changed() is None


def test_changed_files_are_read_once(tmp_path: Path) -> None:
    site, table = files(tmp_path)
    table.write_text("table: Local\ncodes: {X: other, Y: female}\n")
    fresh = site.changed()
    assert fresh is not None
    assert set(fresh.library.files().tables["Local"].codes) == {"X", "Y"}
    assert site.changed() is None


def test_a_mistake_is_told_once_for_each_state_of_the_files(tmp_path: Path) -> None:
    site, table = files(tmp_path)
    table.write_text("tabel: Local\n")
    with pytest.raises(MappingError, match="unknown key tabel"):
        site.changed()
    assert site.changed() is None
    table.write_text("tabel: Local \n")
    with pytest.raises(MappingError):
        site.changed()
