"""Rules of engine.simulate.journal."""

from __future__ import annotations

from pathlib import Path

from engine.simulate.journal import Journal, rows


def test_a_line_has_left_when_it_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.ndjson")
    journal.open()
    journal.write({"n": 1})
    assert list(rows(tmp_path / "a.ndjson")) == [{"n": 1}]
    journal.close()


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    for number in (1, 2):
        journal = Journal(tmp_path / "a.ndjson")
        journal.open()
        journal.write({"n": number})
        journal.close()
    assert [row["n"] for row in rows(tmp_path / "a.ndjson")] == [1, 2]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b'{"n":1}\n{"n":')
    assert list(rows(tmp_path / "a.ndjson")) == [{"n": 1}]


def test_without_a_path_nothing_is_written() -> None:
    journal = Journal(None)
    journal.open()
    journal.write({"n": 1})
    journal.close()
