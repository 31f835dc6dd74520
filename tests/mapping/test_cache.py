"""The cache of compiled mappings: a hit is as good as a miss, and nothing foreign, old or broken is a hit."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from engine.mapping import cache, maker
from engine.mapping.library import Library, MappingError
from tests.mapping.folders import CONTEXT, write

RAW = b"MSH|^~\\&|LAB|||||x|ZZZ^Z01|1\rPID|||M1^^^ACME~M2||||19800102|F"
CAREFUL = RAW + b'|""|A\\T\\B'


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A cache file, made by a first start."""
    Library.load(write(tmp_path / "maps"), None, tmp_path / "kept")
    return tmp_path / "kept"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders whose YAML is read."""
    found: list[Path] = []
    read = maker.read_folder
    monkeypatch.setattr(maker, "read_folder", lambda folder, *rest: (found.append(folder), read(folder, *rest)))
    return found


def made(library: Library, raw: bytes) -> bytes:
    output = library.mapping("ZZZ").run(raw, CONTEXT)
    return orjson.dumps([[entry.resource, entry.key, entry.reference] for entry in output.entries])


def load(kept: Path, site: Path | None = None) -> Library:
    return Library.load(kept.parent / "maps", site, kept)


def test_the_very_first_start_makes_the_folder_for_its_own_user(tmp_path: Path) -> None:
    kept = tmp_path / "var" / "kept"
    Library.load(write(tmp_path / "maps"), None, kept)
    assert kept.is_file()
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_a_hit_reads_no_file(kept: Path, reads: list[Path]) -> None:
    made(load(kept), RAW)
    made(load(kept), CAREFUL)
    assert reads == []


@pytest.mark.parametrize("raw", [RAW, CAREFUL])
def test_a_hit_gives_what_a_miss_gives(kept: Path, raw: bytes) -> None:
    fresh, again = Library.load(kept.parent / "maps"), load(kept)
    assert made(again, raw) == made(fresh, raw) != b"[]"
    assert again.mapping("zzz").version == fresh.mapping("ZZZ").version
    assert again.for_message("ZZZ", "Z01") is again.mapping("ZZZ")
    assert again.mapping("ZZZ").source == fresh.mapping("ZZZ").source


def test_a_changed_file_is_a_miss(kept: Path) -> None:
    before = load(kept).mapping("ZZZ").version
    write(kept.parent / "maps", tables_sex="table: Sex\ncodes: {F: male, M: female}\n")
    changed = load(kept)
    assert changed.mapping("ZZZ").version != before
    assert b'"gender":"male"' in made(changed, RAW)


def test_a_new_file_of_the_site_is_a_miss(kept: Path, reads: list[Path]) -> None:
    site = kept.parent / "site"
    (site / "tables").mkdir(parents=True)
    (site / "tables" / "sex.yaml").write_text("table: Sex\ncodes: {F: other}\n")
    assert b'"gender":"other"' in made(load(kept, site), RAW)
    reads.clear()
    assert b'"gender":"other"' in made(load(kept, site), RAW)
    assert reads == []


def test_a_mistake_is_told_every_time(kept: Path) -> None:
    write(kept.parent / "maps", segments_PID="map: PID[Patient]\nrows:\n  - PID-8 -> gander\n")
    for _ in range(2):
        with pytest.raises(MappingError):
            load(kept)


@pytest.mark.parametrize("at", [0, 25, 70, 200, -1])
def test_a_damaged_file_is_made_anew(kept: Path, reads: list[Path], at: int) -> None:
    content = bytearray(kept.read_bytes())
    content[at] ^= 1
    kept.write_bytes(content)
    made(load(kept), RAW)
    assert len(reads) == 1
    load(kept)
    assert len(reads) == 1


@pytest.mark.parametrize("content", [b"", b"interlock", b"\0" * 500])
def test_a_foreign_file_is_made_anew(kept: Path, reads: list[Path], content: bytes) -> None:
    kept.write_bytes(content)
    made(load(kept), RAW)
    assert len(reads) == 1


def test_what_others_may_write_is_not_run(kept: Path, reads: list[Path]) -> None:
    kept.chmod(0o666)
    load(kept)
    assert len(reads) == 1


def test_another_python_is_a_miss(kept: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAGIC_NUMBER", b"1234")
    load(kept)
    assert len(reads) == 1


def test_the_file_is_its_owners_only(kept: Path) -> None:
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in kept.parent.iterdir() if one.name.startswith("kept")] == ["kept"]


def test_where_nothing_can_be_written_the_mappings_are_loaded_all_the_same(tmp_path: Path) -> None:
    found = Library.load(write(tmp_path / "maps"), None, tmp_path / "nowhere" / "kept")
    assert made(found, RAW) != b"[]"
