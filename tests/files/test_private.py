"""Files that a service keeps for itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.files import private


def test_it_is_this_user_s_alone_and_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kept"
    private.put(path, b"one")
    private.put(path, b"two", changed=5_000_000_000)
    assert (path.read_bytes(), path.stat().st_mode & 0o777, path.stat().st_mtime) == (b"two", 0o600, 5)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_of_the_same_number_left_is_in_nobody_s_way(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    (tmp_path / f".kept.{os.getpid()}").write_bytes(b"ha")
    private.put(path, b"whole")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"whole", [path])


def test_what_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        private.put(path, b"x")
    assert list(tmp_path.iterdir()) == [path]
