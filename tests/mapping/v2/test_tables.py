"""CSV tables: read, too old, read again, broken; and what they mean for a mapping's version."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine.mapping.library import Unmappable
from engine.mapping.problems import MappingError
from engine.mapping.v2.library import Later, TableNews, V2Library
from tests.mapping.v2 import mapping as given
from tests.mapping.v2.mapping import ORU, library

CONTEXT = replace(given.CONTEXT, undeclared="utf-8")
MAPPING = "steps:\n  - translate: PV1-3.1\n    table: wards\n    column: name\n    unmapped: refuse\n"
DECLARED = "csv: wards\nfile: wards.csv\nkey: ward\ndelimiter: ';'\nmax_age: 7d\n"
WARDS = "ward;code;name\nWARD;7;Innere Süd\nO2;8;x\n"
DAY = 86_400_000_000  # µs
TRANSLATED = ORU.replace(b"WARD^1", "Innere Süd^1".encode())


def write(folder: Path, text: str = WARDS, changed: int = CONTEXT.received - DAY) -> Path:
    file = folder / "v2" / "tables" / "wards.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    os.utime(file, ns=(changed * 1000, changed * 1000))
    return file


def load(folder: Path, declared: str = DECLARED, mapping: str = MAPPING) -> V2Library:
    return library(mapping, folder, {"wards.yaml": declared})


def test_a_code_becomes_what_the_file_says(tmp_path: Path) -> None:
    write(tmp_path)
    assert load(tmp_path).mapping("m").run(ORU, CONTEXT) == [TRANSLATED]


def test_several_columns_may_be_the_key(tmp_path: Path) -> None:
    write(tmp_path, "ward;site;code\nWARD;NORTH;7\nWARD;SOUTH;8\n")
    text = MAPPING.replace("column: name", "from: [PV1-3.1, PV1-3.4]\n    column: code")
    made = load(tmp_path, DECLARED.replace("key: ward", "key: [ward, site]"), text).mapping("m").run(ORU, CONTEXT)
    assert made == [ORU.replace(b"WARD^1", b"7^1")]


def test_what_is_too_old_for_the_message_is_tried_later_or_refused(tmp_path: Path) -> None:
    write(tmp_path)
    found = load(tmp_path)
    late = replace(CONTEXT, received=CONTEXT.received + 7 * DAY)
    assert found.mapping("m").run(ORU, replace(late, received=late.received - DAY)) == [TRANSLATED]
    with pytest.raises(Later, match="stale-table at the table wards"):
        found.mapping("m").run(ORU, late)
    assert (found.stale(CONTEXT.received), found.stale(late.received)) == ([], [TableNews("wards", "stale")])
    with pytest.raises(Unmappable) as caught:
        load(tmp_path, DECLARED + "stale: refuse\n").mapping("m").run(ORU, late)
    assert not isinstance(caught.value, Later)


def test_a_changed_file_is_a_new_library_with_a_new_version_and_the_old_one_stays_as_it_was(tmp_path: Path) -> None:
    write(tmp_path)
    old = load(tmp_path)
    assert old.refreshed() == (old, [])
    write(tmp_path, WARDS.replace("Innere Süd", "Gate"), CONTEXT.received)
    new, news = old.refreshed()
    assert news == [TableNews("wards", "read")]
    assert old.mapping("m").run(ORU, CONTEXT) == [TRANSLATED]
    assert new.mapping("m").run(ORU, CONTEXT) == [ORU.replace(b"WARD^1", b"Gate^1")]
    assert new.mapping("m").version != old.mapping("m").version
    write(tmp_path, WARDS, CONTEXT.received + 1)
    assert new.refreshed()[0].mapping("m").version == old.mapping("m").version


@pytest.mark.parametrize(
    "broken",
    [
        "ward;code\nWARD;7\n",
        'ward;code;name\n"WARD;7;x\n',
        "ward;code;name\nWARD;7\n",
        "ward;code;name\nA;1;x\nA;1;y\n",
        "",
    ],
)
def test_a_broken_file_leaves_the_old_content_and_says_so_without_it(tmp_path: Path, broken: str) -> None:
    write(tmp_path)
    old = load(tmp_path)
    write(tmp_path, broken, CONTEXT.received)
    new, (news,) = old.refreshed()
    assert new.mapping("m").run(ORU, CONTEXT) == [TRANSLATED]
    assert (news.table, news.kind) == ("wards", "broken")
    assert "WARD" not in news.text
    with pytest.raises(MappingError):
        load(tmp_path)


@pytest.mark.parametrize("broken", ["ward;code\nWARD;7\n", "", None])
def test_at_a_start_without_a_file_that_can_be_read_what_was_used_last_goes_on(
    tmp_path: Path, broken: str | None
) -> None:
    kept, folder = tmp_path / "kept", tmp_path / "site"
    file = write(folder)
    load(folder)
    first = V2Library.load(folder, kept=kept)
    assert (first.news, [path.stat().st_mode & 0o777 for path in kept.iterdir()]) == ([], [0o600])
    if broken is None:
        file.unlink()
    else:
        write(folder, broken, CONTEXT.received)
    again = V2Library.load(folder, kept=kept)
    assert again.mapping("m").run(ORU, CONTEXT) == [TRANSLATED]
    assert again.mapping("m").version == first.mapping("m").version
    assert [(news.table, news.kind) for news in again.news] == [("wards", "broken")]
    assert "WARD" not in again.news[0].text
    with pytest.raises(Later, match="stale-table"):  # as old as it was
        again.mapping("m").run(ORU, replace(CONTEXT, received=CONTEXT.received + 7 * DAY))
    write(folder, WARDS.replace("Innere Süd", "Gate"), CONTEXT.received + 1)
    fresh, (news,) = again.refreshed()
    assert news.kind == "read"
    file.unlink()
    last = V2Library.load(folder, kept=kept)
    assert last.mapping("m").version == fresh.mapping("m").version != first.mapping("m").version


def test_what_was_kept_of_a_table_that_is_declared_otherwise_now_is_not_used(tmp_path: Path) -> None:
    kept, folder = tmp_path / "kept", tmp_path / "site"
    file = write(folder)
    load(folder)
    V2Library.load(folder, kept=kept)
    file.unlink()
    load_text = DECLARED.replace("key: ward", "key: [ward, code]")
    (folder / "v2" / "tables" / "wards.yaml").write_text(load_text, encoding="utf-8")
    with pytest.raises(MappingError, match="which cannot be read"):
        V2Library.load(folder, kept=kept)


def test_a_file_that_is_gone_leaves_the_old_content(tmp_path: Path) -> None:
    file = write(tmp_path)
    old = load(tmp_path)
    file.unlink()
    new, (news,) = old.refreshed()
    assert new is old
    assert news.kind == "broken"


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (DECLARED.replace("key: ward\n", ""), "1:1: found a CSV table without key; expected key:"),
        (DECLARED.replace("7d", "7"), "5:10: found 7; expected a duration such as 24h or 7d"),
        (DECLARED.replace("7d", "0s"), "5:10: found 0s; expected more than 0s; left out: however old"),
        (DECLARED.replace("';'", "';;'"), '4:12: found ;;; expected one character, such as ";" or "\\t"'),
        (DECLARED + "encoding: utf8000\n", "6:11: found utf8000; expected a character set such as utf-8 or cp1252"),
        (DECLARED + "stale: never\n", "6:8: found unknown stale never; expected one of later, refuse"),
        (DECLARED + "kye: a\n", "6:1: found unknown key kye in a CSV table; expected key"),
        (DECLARED.replace("wards.csv", "w.csv"), "2:7: found w.csv, which cannot be read (No such file or directory); expected a readable CSV file"),  # noqa: E501
        (DECLARED.replace("key: ward", "key: site"), "2:7: found wards.csv without the column site; expected a first line with site, ward, code, name"),  # noqa: E501
        (DECLARED.replace("csv: wards", "csv: Flags"), "2:7: found the table Flags a second time; expected a name of its own"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_mistake_in_a_declaration(tmp_path: Path, declared: str, said: str) -> None:
    write(tmp_path)
    with pytest.raises(MappingError) as caught:
        load(tmp_path, declared)
    assert f"{tmp_path}/v2/tables/wards.yaml:{said}" in str(caught.value).split("\n")
