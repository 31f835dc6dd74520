"""An effective mapping has another version exactly where it makes other outputs, and one that was kept makes those that
it made before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.filtering import Emit, Rule, Written
from engine.config.model import Channel, Destination
from engine.config.shipped import shipped_mappings
from engine.ledger.sqlite.mappings import KeptMapping
from engine.mapping import examples, packing
from engine.mapping.effective import Effective
from engine.mapping.library import Library
from engine.mapping.packing import NotKept, Packer, Sources, unpack
from engine.mapping.v2.library import V2Library
from engine.mapping.v2.tables import Later
from engine.mapping.versions import MOST_HELD, Versions
from tests.support.house import MEDPLUM, channel, compiled, emr

MAPPING = """
accepts: [ORU^R01]
filter:
  - drop: "OBR-2 = 'X'"   # quoted
    reason: none of X
steps:
  - set: MSH-5
    to: '{connection} {received}'
  - translate: OBR-2
    table: doctors
    unmapped: keep
  - translate: OBX-11
    table: ObservationStatus
    unmapped: keep
  - lookup: OBR-3
    in: orders
    key: OBR-2
    value: ward
    missing: keep
  - split: OBR
"""
DOCTORS = "csv: doctors\nfile: ../../../doctors.csv\nkey: code\nvalues: [name]\nmax_age: 1d\n"
CODES = "table: ObservationStatus\ncodes: {F: [final, Final], P: [preliminary, Preliminary]}\n"
NOW = 1_767_225_600_000_000
Change = Callable[[Channel, Destination], tuple[Channel, Destination]]


class Site:
    """A site's folder with one v2 mapping, its tables, and a channel that uses it."""

    def __init__(self, folder: Path) -> None:
        self.mappings, self.csv = folder / "mappings", folder / "doctors.csv"
        (self.mappings / "v2" / "tables").mkdir(parents=True)
        (self.mappings / "tables").mkdir()
        self.write("v2/m.yaml", MAPPING)
        self.write("v2/tables/doctors.yaml", DOCTORS)
        self.write("tables/codes.yaml", CODES)
        self.csv.write_text("code,name\nA,ADAMS\nB,BAKER\n")
        self.to = replace(emr(1), name="emr", mapping="m")
        self.channel = channel("acme", destinations=(self.to,))

    def write(self, name: str, text: str) -> None:
        (self.mappings / name).write_text(text)

    def effective(self, change: Change | None = None) -> Effective:
        acme, to = change(self.channel, self.to) if change else (self.channel, self.to)
        return Effective.of(acme, to, Library.empty(), V2Library.load(self.mappings))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(scope="module")
def library() -> Library:
    return Library.load(shipped_mappings(), None, compiled())


def pack(it: Effective, sources: Sources) -> KeptMapping:
    return Packer({it.version: it}, sources)(it.version)


def fhir(library: Library, **options: Any) -> Effective:
    return Effective.of(channel("acme", destinations=(MEDPLUM,), **options), MEDPLUM, library, V2Library({}, {}))


def result(order: str, status: str, n: int) -> bytes:
    groups = "".join(f"OBR|{i}|{order}|W\rOBX|1|ST|T||x||||||{status}\r" for i in range(1, n + 1))
    return f"MSH|^~\\&|LAB|L|EMR|C|20260101||ORU^R01|C1|P|2.5\rPID|1||7\r{groups}".encode()


def made(by: Effective, raw: bytes, received: int = NOW) -> Any:
    context = by.context(
        "acme", received=received, incarnation="i", seq=7, recall=lambda store, key, later: {"ward": f"{store} {key}"}
    )
    assert by.v2 is not None
    return by.v2.run(raw, context)


class TestVersion:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("v2/m.yaml", "# a remark\n" + MAPPING),
            ("v2/other.yaml", "steps:\n  - set: MSH-5\n    to: X\n"),
            ("tables/codes.yaml", CODES.replace("{F: ", "{ F: ") + "---\ntable: Other\ncodes: {A: [a]}\n"),
        ],
    )
    def test_what_makes_no_other_output_makes_no_other_version(self, site: Site, name: str, text: str):
        before = site.effective().version
        site.write(name, text)
        assert site.effective().version == before

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("v2/m.yaml", MAPPING.replace("MSH-5", "MSH-6")),
            ("v2/m.yaml", MAPPING.replace("'X'", "'Y'")),
            ("tables/codes.yaml", CODES.replace("final", "FINAL")),
            ("v2/tables/doctors.yaml", DOCTORS.replace("code", "name").replace("values: [name]", "values: [code]")),
            ("../doctors.csv", "code,name\nA,ADAMS\nB,BAKERS\n"),
        ],
    )
    def test_what_makes_other_outputs_makes_another_version(self, site: Site, name: str, text: str):
        before = site.effective().version
        site.write(name, text)
        assert site.effective().version != before

    @pytest.mark.parametrize(
        "change",
        [
            lambda acme, to: (acme, replace(to, emit=Emit(ours=True))),
            lambda acme, to: (acme, replace(to, filter=(Rule(Written("OBR-2 = 'A'", "", 1, 1), True, "none of A"),))),
            lambda acme, to: (acme, replace(to, mapping=None)),
            lambda acme, to: (replace(acme, timezone="Europe/Berlin"), to),
            lambda acme, to: (replace(acme, connection="other"), to),
            lambda acme, to: (replace(acme, identity={"patient": "urn:x"}), to),
            lambda acme, to: (replace(acme, takes=replace(acme.takes, encoding="cp1252")), to),
            lambda acme, to: (replace(acme, takes=replace(acme.takes, undeclared="cp1252")), to),
        ],
    )
    def test_what_the_channels_file_says_of_reading_and_sending_is_part_of_it(self, site: Site, change: Any):
        assert site.effective(change).version != site.effective().version

    def test_a_message_that_goes_as_it_came_has_none(self, site: Site):
        assert site.effective(lambda acme, to: (acme, replace(to, mapping=None))).version == ""

    def test_of_fhir_the_mappings_that_may_be_used_are_part_of_it(self, library: Library):
        versions = {
            fhir(library, **options).version
            for options in ({}, {"mapping": "oru_r01"}, {"mapping": "orm_o01"}, {"accepts": ("ORU^R01",)})
        }
        assert len(versions) == 4


class TestKept:
    @given(st.sampled_from("ABCX"), st.sampled_from("FPX"), st.integers(1, 3))
    def test_a_v2_mapping_makes_the_same_outputs_from_what_is_kept(self, order: str, status: str, n: int):
        now, was = V2
        assert made(was, result(order, status, n)) == made(now, result(order, status, n))

    def test_it_does_not_need_its_files(self, site: Site):
        it = site.effective()
        kept, out = pack(it, Sources(site.mappings, None)), made(it, result("A", "F", 1))
        for path in [*site.mappings.rglob("*.yaml"), site.csv]:
            path.unlink()
        again = unpack(kept)
        assert (again.version, made(again, result("A", "F", 1))) == (it.version, out)

    def test_a_table_that_was_fresh_enough_then_is_never_too_old(self, site: Site):
        os.utime(site.csv, (NOW / 1e6, NOW / 1e6))
        it, later = site.effective(), NOW + 30 * 86_400_000_000
        with pytest.raises(Later):
            made(it, result("A", "F", 1), later)
        assert made(unpack(pack(it, Sources(site.mappings, None))), result("A", "F", 1), later)

    def test_the_examples_of_fhir_mappings_come_out_the_same(self, library: Library):
        now = fhir(library)
        was = unpack(pack(now, Sources(shipped_mappings(), None)))
        assert now.fhir is not None
        assert was.fhir is not None
        found = examples.load(shipped_mappings() / "examples")
        assert found
        for each in found:
            outputs = [repr(by.fhir.run(each.message, each.context)) for by in (now, was)]  # type: ignore[union-attr]
            assert outputs[0] == outputs[1], each.name

    def test_two_that_differ_in_a_table_share_all_else(self, site: Site):
        one = pack(site.effective(), Sources(site.mappings, None))
        site.csv.write_text("code,name\nA,ADAMS\n")
        other = pack(site.effective(), Sources(site.mappings, None))
        assert len(one.parts.keys() & other.parts.keys()) == 2
        assert len(one.parts.keys() - other.parts.keys()) == 1

    @pytest.mark.parametrize("where", ["engine.mapping.v2.library.LANGUAGE", "engine.mapping.maker.LANGUAGE"])
    def test_where_the_language_has_changed_since_that_is_said(
        self, site: Site, library: Library, monkeypatch: pytest.MonkeyPatch, where: str
    ):
        it = site.effective() if "v2" in where else fhir(library, mapping="oru_r01")
        kept = pack(it, Sources(shipped_mappings(), None))
        monkeypatch.setattr(where, 99)
        monkeypatch.setattr(packing, "_library", packing._library.__wrapped__)
        with pytest.raises(NotKept, match="the language has changed since"):
            unpack(kept)

    def test_what_this_release_does_not_understand_is_said(self, site: Site):
        kept = pack(site.effective(), Sources(site.mappings, None))
        strange = {hash: content.replace(b'"split"', b'"spill"') for hash, content in kept.parts.items()}
        with pytest.raises(NotKept, match="does not understand"):
            unpack(KeptMapping(kept.version, kept.head, strange))


class TestVersions:
    def test_the_present_ones_are_not_read_from_the_ledger(self, site: Site):
        versions = Versions(_never)
        versions.use([it := site.effective()])
        assert versions.at_hand(it.version) is versions.load(it.version) is it

    def test_an_earlier_one_is_read_once(self, site: Site):
        asked: list[str] = []
        kept = pack(site.effective(), Sources(site.mappings, None))
        versions = Versions(lambda version: (asked.append(version), kept)[1])
        assert versions.at_hand(kept.version) is None
        assert versions.load(kept.version) is versions.load(kept.version) is versions.at_hand(kept.version)
        assert asked == [kept.version]

    def test_those_that_epochs_still_name_are_at_hand_when_a_table_has_changed(self, site: Site):
        versions = Versions(_never)
        versions.use([it := site.effective()])
        versions.use([])
        assert versions.at_hand(it.version) is it

    def test_earlier_ones_do_not_pile_up(self, site: Site):
        it = site.effective()
        versions = Versions(lambda version: pack(it, Sources(site.mappings, None)))
        for n in range(MOST_HELD + 2):
            versions.load(str(n))
        assert [versions.at_hand(str(n)) is None for n in (0, 1, 2)] == [True, True, False]

    def test_one_that_is_not_kept_is_said_by_name(self):
        with pytest.raises(NotKept, match="mapping abc is not kept"):
            Versions(lambda version: None).load("abc")


def _never(version: str) -> KeptMapping | None:
    raise AssertionError(f"{version} was read")


def _v2() -> tuple[Effective, Effective]:
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        it = site.effective()
        return it, unpack(pack(it, Sources(site.mappings, None)))


V2 = _v2()
