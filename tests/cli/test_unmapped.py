"""`interlock unmapped`: codes that no table knew, who takes care of them, and what can be done with the list."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.cli.selecting import who
from engine.cli.unmapped import also, exported, listed
from engine.ledger.gaps import cut
from engine.migration.refused import Refused
from engine.migration.selection import Selector
from tests.api.told_codes import LOST, MORE, ROW, Codes
from tests.cli.conftest import Interlock
from tests.support.told import Told, status

ALL = {"table": "", "state": "", "owner": "", "limit": 200}


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Codes]:
    """Behind the API of `service`, which is started after it."""
    found, asked_of = Codes(), Told.asked_of
    monkeypatch.setattr(Told, "asked_of", property(lambda told: asked_of.fget(told)._replace(unmapped=found)))
    return found


@pytest.fixture
def there(codes: Codes, service: Told) -> Codes:
    return codes


def test_the_list_says_how_often_where_and_in_which_message(interlock: Interlock, there: Codes) -> None:
    result = interlock("unmapped", "acme")
    lines = result.out.splitlines()
    assert result.status == 0
    assert lines[0].split() == [
        "COUNT", "CHANNEL", "TABLE", "FIELD", "SYSTEM", "CODE", "FIRST", "LAST", "MESSAGE", "STATE",
    ]  # fmt: skip
    assert lines[1].split()[:6] == ["41", "acme", "LabTests", "OBX-3", "L", "WBC"]
    assert lines[1].split()[-2:] == ["acme/812", "open"]
    assert lines[2].startswith("acme: and more: 7 times")
    assert there.asked == [("codes", Selector(("acme",)), ALL)]


def test_the_list_can_be_narrowed_and_had_as_json(interlock: Interlock, there: Codes) -> None:
    words = ["--connection", "acme", "--table", "LabTests", "--state", "asked", "--owner", "lab", "--limit", "5"]
    result = interlock("unmapped", *words, "--json")
    assert orjson.loads(result.out) == {"codes": [ROW], "total": 1, "more": [MORE]}
    asked = {"table": "LabTests", "state": "asked", "owner": "lab", "limit": 5}
    assert there.asked == [("codes", Selector(connections=("acme",)), asked)]


def test_what_nobody_said_has_no_column_and_what_is_left_out_is_told() -> None:
    said = ROW | {"owner": "lab@acme", "note": "which of two?", "system": ""}
    assert listed([said, ROW]).splitlines()[0].split()[-2:] == ["OWNER", "NOTE"]
    assert "SYSTEM" not in listed([said])
    assert also({"codes": [ROW], "total": 3, "more": []}) == ["and 2 codes more: see --limit, --table and --state"]


def test_a_code_steers_no_terminal() -> None:
    assert "\x1b" not in listed([ROW | {"code": "\x1b[2J"}])


@pytest.mark.parametrize(
    ("words", "selector"),
    [(["acme", "WBC"], Selector(("acme",))), (["--connection", "acme", "WBC"], Selector(connections=("acme",))),
     (["a", "b", "WBC"], Selector(("a", "b"))), (["--all", "WBC"], Selector(everything=True))],
)  # fmt: skip
def test_a_decision_names_channels_then_the_code(
    interlock: Interlock, there: Codes, words: list[str], selector: Selector
) -> None:
    said = ["--table", "LabTests", "--owner", "lab", "--state", "asked", "--note", "which?"]
    result = interlock("unmapped", "set", *words, *said)
    assert (result.status, result.out.split()[-1]) == (0, "asked")
    ((verb, chosen, order),) = there.asked
    assert (verb, chosen) == ("decide", selector)
    assert order.pop("origin").startswith("interlock/")
    assert order == {
        "code": "WBC", "table": "LabTests", "system": None, "state": "asked", "owner": "lab", "note": "which?",
        "who": who(),
    }  # fmt: skip


def test_a_system_may_be_named_also_none(interlock: Interlock, there: Codes) -> None:
    interlock("unmapped", "set", "acme", "WBC", "--table", "LabTests", "--system", "", "--state", "mapped")
    assert there.asked[0][2]["system"] == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["set", "acme", "WBC", "--table", "T"], "say something of it: --state, --owner or --note"),
        (["set", "WBC", "--table", "T", "--state", "open"], "which channels?"),
        (["set", "acme", "WBC", "--table", "T", "--state", "done"], "wanted is one of open, asked, mapped, as-is"),
        (["list", "--state", "done"], "wanted is one of"),
        (["set", "acme", "WBC", "--state", "open"], "--table"),
        (["export", "acme"], "--table"),
    ],
)
def test_wrong_usage_is_2(interlock: Interlock, there: Codes, words: list[str], sentence: str) -> None:
    result = interlock("unmapped", *words)
    assert (result.status, sentence in result.err, there.asked) == (2, True, []), result.err


def test_a_refusal_is_1(interlock: Interlock, there: Codes) -> None:
    there.refusal = Refused("No table T has missed the code WBC there: see interlock unmapped.")
    result = interlock("unmapped", "set", "acme", "WBC", "--table", "T", "--state", "open")
    assert (result.status, result.err) == (
        1, "interlock: No table T has missed the code WBC there: see interlock unmapped.\n",
    )  # fmt: skip


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings name a folder of mappings, this one; nothing is shipped."""
    monkeypatch.setattr("engine.config.shipped.shipped_mappings", lambda: tmp_path / "shipped")
    folder = tmp_path / "own"
    folder.mkdir()
    settings = tmp_path / "interlock.yaml"
    settings.write_text(settings.read_text() + "mappings: own\n")
    (folder / "plain.yaml").write_text("table: LabTests\ncodes: {A: b}\n---\ntable: LabSex\ncodes: {A: b}\n")
    return folder


def test_the_export_is_a_csv_table_that_is_still_to_be_filled_in(
    interlock: Interlock, there: Codes, tables: Path
) -> None:
    result = interlock("unmapped", "export", "acme", "--table", "LabTests")
    assert result.out == "code,system,display,target_system,target_code,target_display,count\nWBC,L,,,,,41\n"
    assert there.asked == [("codes", Selector(("acme",)), ALL | {"table": "LabTests", "limit": 10_000})]


def test_the_export_has_the_columns_and_the_delimiter_of_the_tables_file(
    interlock: Interlock, there: Codes, tables: Path
) -> None:
    said = "csv: LabTests\nfile: sub/lab.csv\nsystem: http://loinc.org\ndelimiter: ';'\nencoding: cp1252\n"
    (tables / "plain.yaml").write_text(said)
    (tables / "sub").mkdir()
    file = tables / "sub" / "lab.csv"
    file.write_bytes("Prüfung; target_code ;code;system\nx;1-1;A;\n".encode("cp1252"))
    assert interlock("unmapped", "export", "acme", "--table", "LabTests").out == (
        "Prüfung;target_code;code;system\n;;WBC;L\n"
    )
    (tables / "plain.yaml").write_text(said.replace("encoding: cp1252\n", ""))
    file.write_bytes(b"\xef\xbb\xbfcode;target_code\n")
    assert interlock("unmapped", "export", "acme", "--table", "LabTests").out == "code;target_code\nWBC;\n"


def test_the_export_wants_a_table_that_is_there(interlock: Interlock, there: Codes, tables: Path) -> None:
    result = interlock("unmapped", "export", "acme", "--table", "LabTest")
    assert (result.status, result.out, result.err) == (
        2, "", "interlock: there is no table LabTest; expected LabTests\n",
    )  # fmt: skip
    (tables / "gone.yaml").write_text("csv: Gone\nfile: gone.csv\n")
    result = interlock("unmapped", "export", "acme", "--table", "Gone")
    assert (result.status, result.out) == (1, "")
    assert result.err.splitlines()[1:] == [
        "own/gone.yaml:2:7: found gone.csv, which cannot be read; expected a CSV file"
    ]
    assert there.asked == []


def test_the_export_has_each_code_once_as_it_is() -> None:
    def row(code: str, count: int, **more: Any) -> dict[str, Any]:
        return ROW | {"code": code, "count": count} | more

    rows = [row("A", 2, field="OBR-4"), row("A", 3), row("A", 1, system=""), row('a,"b"\n', 9), row(cut("x" * 300), 99)]
    assert next(csv.DictReader(exported(rows)))["code"] == 'a,"b"\n'
    assert [line.rpartition(",")[2] for line in exported(rows)] == ["count", "9", "5", "1"]


def test_fields_are_listed(interlock: Interlock, there: Codes) -> None:
    lines = interlock("unmapped", "fields").out.splitlines()
    assert lines[0].split() == ["VALUES", "CHANNEL", "FIELD", "LAST", "MESSAGE"]
    assert lines[1].split()[:3] == ["5", "acme", "PID-12"]
    assert orjson.loads(interlock("unmapped", "fields", "acme", "--json").out) == [LOST]
    assert [asked[:2] for asked in there.asked] == [("fields", None), ("fields", Selector(("acme",)))]


def test_the_status_counts_them_and_stays_well(interlock: Interlock, there: Codes, service: Told) -> None:
    service.state = status()
    there.count = 1
    result = interlock("status")
    assert (result.status, result.out.splitlines()[-1]) == (
        0, "1 code that no table knew, and nobody has decided about (interlock unmapped)",
    )  # fmt: skip
    there.count = 0
    assert "unmapped" not in interlock("status").out
