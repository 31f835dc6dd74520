"""mapping: list, show, guide, schema; and test: which examples, what is told of them, which rules they use."""

from __future__ import annotations

import csv
from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Interlock

COLUMNS = ["map", "source", "target", "row", "v2_path", "v2_type", "fhir_path", "type_map", "vocab_map", "assignment"]
SITE = """message: XYZ
accepts: [XYZ^X01]
groups: [MSH, PID]
resources:
  patient:
    for: PID
    make: Patient
    role: anchor
    rows: [PID-8 -> gender table XyzSex, PID-7 -> birthDate]
    key: patient '{PID-3}'
---
table: XyzSex
codes: {W: female, M: male}
"""
EXAMPLE = """name: the site's own
message: |
  MSH|^~\\&|A|B|C|D|20260101||XYZ^X01|1
  PID|1||7|||||W
expect:
  Patient: {gender: female}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site's mappings, with an example."""
    (tmp_path / "maps" / "messages").mkdir(parents=True)
    (tmp_path / "maps" / "examples").mkdir()
    (tmp_path / "maps" / "messages" / "XYZ.yaml").write_text(SITE)
    (tmp_path / "maps" / "examples" / "xyz.yaml").write_text(EXAMPLE)
    (tmp_path / "channels").mkdir()
    (tmp_path / "interlock.yaml").write_text(
        "mappings: ./maps\nmedplum: {base_url: http://m.example, client_id: a, client_secret: b}\n"
    )
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped mappings take a second each time, and say nothing about the command."""
    monkeypatch.setattr("engine.config.shipped.shipped_mappings", lambda: tmp_path / "shipped")


def channel(folder: Path, mapping: str) -> None:
    (folder / "channels" / "acme.yaml").write_text(
        "id: acme\nconnection: acme\ndirection: results\ntimezone: UTC\nlisten: {port: 6101, accepts: [XYZ^X01]}\n"
        f"target:\n  mapping: {mapping}\n  destinations: [{{medplum: {{}}}}]\n"
    )


# -- list, schema


def test_list_has_each_mapping_with_its_messages(interlock: Interlock, site: Path) -> None:
    lines = interlock("mapping", "list").out.splitlines()
    assert lines[0].split() == ["name", "version", "accepts"]
    (found,) = (line.split() for line in lines if line.startswith("XYZ"))
    assert (found[0], found[2]) == ("XYZ", "XYZ^X01")
    assert interlock("mapping").out.splitlines() == lines
    as_json = [orjson.loads(line) for line in interlock("mapping", "list", "--json").out.splitlines()]
    (one,) = (one for one in as_json if one["name"] == "XYZ")
    assert one["accepts"] == ["XYZ^X01"]
    assert one["version"].startswith(found[1])


def test_schema_is_json(interlock: Interlock) -> None:
    assert orjson.loads(interlock("mapping", "schema").out)["$schema"].endswith("2020-12/schema")


# -- show


def test_show_prints_the_mapping_of_a_channel(interlock: Interlock, site: Path) -> None:
    channel(site, "{use: XYZ, override: {tables: {XyzSex: {codes: {X: other}}}}}")
    result = interlock("mapping", "show", "acme")
    assert (result.status, result.err) == (0, "")
    assert any("- PID-7 -> birthDate" in line and "messages/XYZ.yaml:9" in line for line in result.out.splitlines())
    (line,) = (line for line in result.out.splitlines() if line.startswith("  X: other"))
    assert line.endswith("# channels/acme.yaml:7, a new one")


def test_show_begins_with_the_version_that_the_resources_of_the_channel_have(interlock: Interlock, site: Path) -> None:
    file = site / "maps" / "messages" / "XYZ.yaml"
    file.write_text(
        SITE.replace("table XyzSex, PID-7", "table XyzSex, \"'urn:interlock:{version}' -> name.text\", PID-7")
    )
    (site / "a.hl7").write_text("MSH|^~\\&|A|B|C|D|20260101||XYZ^X01|1\rPID|1||7|||||W\r")
    versions = set()
    for changes in ("", ", override: {tables: {XyzSex: {codes: {X: other}}}}"):
        channel(site, f"{{use: XYZ{changes}}}")
        (resource,) = [
            entry["resource"]
            for line in interlock("map", "--channel", "acme", "a.hl7").out.splitlines()
            for entry in orjson.loads(line)["entry"]
        ]
        line = interlock("mapping", "show", "acme").out.splitlines()[0]
        assert line == f"# XYZ: policy {resource['name'][0]['text']}"
        versions.add(line)
    assert len(versions) == 2


def test_show_refuses_an_override_with_a_mistake(interlock: Interlock, site: Path) -> None:
    channel(site, "{use: XYZ, override: {tables: {XyzSax: {codes: {X: other}}}}}")
    result = interlock("mapping", "show", "acme")
    assert (result.status, result.out) == (1, "")
    assert result.err == (
        "interlock: the mappings have problems:\nchannels/acme.yaml:7:43: found unknown table XyzSax; expected XyzSex\n"
    )


def test_show_prints_all_that_a_channel_accepts_where_it_names_none(interlock: Interlock, site: Path) -> None:
    channel(site, "null")
    assert [line for line in interlock("mapping", "show", "acme").out.splitlines() if line.startswith("message:")] != []


def test_show_prints_a_mapping_or_a_part_of_one(interlock: Interlock, site: Path) -> None:
    head, first, *_ = interlock("mapping", "show", "--mapping", "xyz").out.splitlines()
    assert head.startswith("# XYZ: policy urn:interlock:")
    assert first.startswith("message: XYZ ")
    assert interlock("mapping", "show", "--only", "XyzSex").out.splitlines()[-1].strip() == "M: male"
    resource = interlock("mapping", "show", "--only", "XYZ.patient").out.splitlines()
    assert [line.partition("#")[0].strip() for line in resource[:5]] == [
        "message: XYZ", "resources:", "patient:", "for: PID", "make: Patient",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "wanted is a channel, --mapping NAME or --only PART"),
        (["--only", "XyzSax"], "there is no part XyzSax; expected XyzSex"),
        (["--only", "XYZ.patent"], "there is no part XYZ.patent; expected XYZ.patient"),
        (["--mapping", "XYY"], "no mapping XYY; XYZ"),
        (["nobody"], "there is no channel 'nobody'; there are acme"),
    ],
)
def test_what_cannot_be_shown_is_told(words: list[str], told: str, interlock: Interlock, site: Path) -> None:
    channel(site, "XYZ")
    result = interlock("mapping", "show", *words)
    assert (result.status, result.err) == (2, f"interlock: {told}\n")


def test_the_settings_need_not_be_whole(interlock: Interlock, site: Path) -> None:
    """A secret that is not set and a folder without channels say nothing about mappings; broken YAML does."""
    settings = site / "interlock.yaml"
    settings.write_text("mappings: ./maps\nmedplum: {base_url: http://m, client_id: a, client_secret: '${NOT_SET}'}\n")
    assert interlock("mapping", "show", "--only", "XyzSex").status == 0
    settings.write_text("mappings: [\n")
    result = interlock("mapping", "list")
    assert result.status == 1
    assert result.err.startswith("interlock: the settings have problems:\ninterlock.yaml:2:1: ")


# -- guide


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    folder = tmp_path / "guide"
    folder.mkdir()
    rows = [
        ["PID[Patient]", "PID", "Patient", "7", "PID-7", "DTM", "birthDate", "", "", ""],
        ["PID[Patient]", "PID", "Patient", "8", "PID-8", "CWE", "gender", "", "XyzSex", ""],
        ["PID[Patient]", "PID", "Patient", "99", "PID-99", "ST", "photo", "", "", ""],
        ["PID[Appointment]", "PID", "Appointment", "3", "PID-97", "CX", "participant.actor", "", "", ""],
    ]
    codes = [["XyzSex", "1", "W", "female"], ["XyzSex", "2", "Q", "other"]]
    for name, head, found in (
        ("segments.csv", COLUMNS, rows),
        ("datatypes.csv", COLUMNS, []),
        ("codesystems.csv", ["map", "row", "v2_code", "fhir_code"], codes),
    ):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([head, *found])
    (tmp_path / "maps" / "guide.yaml").write_text("guide:\n  PID[Appointment]: no appointments\n")
    return folder


def test_guide_counts_rows_by_map(interlock: Interlock, site: Path, tables: Path) -> None:
    result = interlock("mapping", "guide", str(tables))
    lines = [line.split() for line in result.out.splitlines()]
    assert ["PID[Patient]", "2", "0", "0", "1", "67", "%"] in lines
    assert ["PID[Appointment]", "no", "appointments"] in lines
    assert result.out.splitlines()[-1] == "66.7 % of 3 rows realised, or departed from for a reason"
    assert result.status == 0


def test_guide_shows_rows(interlock: Interlock, site: Path, tables: Path) -> None:
    lines = interlock("mapping", "guide", str(tables), "--rows", "PID[P").out.splitlines()
    assert lines[0] == "realised  PID[Patient]:7 PID-7 -> birthDate"
    missing = interlock("mapping", "guide", str(tables), "--missing", "--codes").out.splitlines()
    assert missing[:2] == ["missing   PID[Patient]:99 PID-99 -> photo", "          no rule"]
    assert missing[2] == "missing   XyzSex:2 Q -> other"
    as_json = [orjson.loads(line) for line in interlock("mapping", "guide", str(tables), "--json").out.splitlines()]
    assert [(one["row"], one["outcome"]) for one in as_json if one.get("map") == "PID[Patient]"] == [
        (7, "realised"),
        (8, "realised"),
        (99, "missing"),
    ]


def test_guide_refuses_less_than_is_wanted(interlock: Interlock, site: Path, tables: Path) -> None:
    assert interlock("mapping", "guide", str(tables), "--min", "95").status == 1
    assert interlock("mapping", "guide", str(tables), "--min", "60").status == 1  # a row without a reason
    (site / "maps" / "more.yaml").write_text("guide:\n  PID[Patient]: {PID-99: no photos}\n")
    assert interlock("mapping", "guide", str(tables), "--min", "60").status == 0
    assert interlock("mapping", "guide", str(tables), "--min", "95").status == 1


def test_guide_needs_its_tables(interlock: Interlock, site: Path) -> None:
    result = interlock("mapping", "guide", "nowhere")
    assert (result.status, result.err) == (
        1,
        "interlock: nowhere/segments.csv cannot be read: No such file or directory\n",
    )


# -- test


def test_test_runs_the_examples_of_a_file_or_a_name(interlock: Interlock, site: Path) -> None:
    assert interlock("test", "the site's").out == "1 example: all of them hold\n"
    assert interlock("test", "maps/examples/xyz.yaml").out == "1 example: all of them hold\n"
    result = interlock("test", "nonsense")
    assert (result.status, result.err) == (2, "interlock: no example is of a file or a name nonsense\n")


def test_test_runs_a_file_from_elsewhere(interlock: Interlock, site: Path) -> None:
    (site / "mine.yaml").write_text(EXAMPLE)
    assert interlock("test", "mine.yaml").out == "1 example: all of them hold\n"


def test_test_tells_what_is_otherwise(interlock: Interlock, site: Path) -> None:
    (site / "maps" / "examples" / "xyz.yaml").write_text(EXAMPLE.replace("gender: female", "gender: male"))
    result = interlock("test", "xyz", "--trace")
    assert result.status == 1
    assert result.out.splitlines() == [
        "maps/examples/xyz.yaml:6:13: the site's own: Patient[1].gender",
        "    expected 'male'",
        "    found    'female'",
        "    set by   messages/XYZ.yaml:9: PID-8 -> gender table XyzSex",
        "1 example: 1 do not hold",
    ]
    one = orjson.loads(interlock("test", "xyz", "--json").out)
    fault = {"line": 6, "at": "Patient[1].gender", "expected": "'male'", "found": "'female'"}
    assert one == {"file": "maps/examples/xyz.yaml", "name": "the site's own", "ok": False, "faults": [fault]}


def test_test_tells_the_place_of_what_is_no_example(interlock: Interlock, site: Path) -> None:
    (site / "maps" / "examples" / "xyz.yaml").write_text("name: a\n")
    result = interlock("test", "maps/examples/xyz.yaml")
    assert result.status == 1
    assert "xyz.yaml:1:1: an example needs name, message and expect" in result.err


def test_test_tells_which_rules_no_example_has_used(interlock: Interlock, site: Path) -> None:
    result = interlock("test", "xyz", "--coverage")
    assert result.status == 0
    assert "messages/XYZ.yaml:9: PID-7 -> birthDate" in result.out.splitlines()
    assert ["XYZ", "2", "1", "50.0", "%"] in [line.split() for line in result.out.splitlines()]
    assert interlock("test", "--min-coverage", "50").status == 0
    assert interlock("test", "--min-coverage", "51").status == 1
