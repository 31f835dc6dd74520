"""What reaches a terminal."""

from __future__ import annotations

from engine.cli.console import table


def test_a_table_lets_no_control_character_through() -> None:
    shown = table(("CONTROL ID", "SIZE"), [("a\x1b[2Jb", "1"), ("c\r\nd\x9be", "22")], right=("SIZE",))
    head, *rows = shown.splitlines()
    assert [row.split() for row in rows] == [["a\\x1b[2Jb", "1"], ["c\\x0d\\x0ad\\x9be", "22"]]
    assert {len(line) for line in (head, *rows)} == {len(head)}, "and the columns stay aligned"
