"""Writing where answers get lost: what is uncertain is found out, and no file is written twice for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.files.folder import FileTaken, FolderError, plain
from engine.files.local import LocalFolder
from tests.support.listing import names

DATA = b"MSH|^~\\&|a\r"


class Losing(LocalFolder):
    """A folder that loses the answer to `_publish`: after it was done, or before. `away`: and cannot be asked then."""

    lose = ""
    away = False
    published = 0

    async def _publish(self, temporary: str, name: str) -> None:
        how, self.lose = self.lose, ""
        if how != "before":
            self.published += 1
            await super()._publish(temporary, name)
        if how == "taken":
            await super().remove(name)
        if how:
            raise FolderError("the connection was lost", uncertain=True)

    async def read(self, name: str, most: int) -> bytes:
        if self.away and not self.lose:
            raise FolderError("connection refused")
        return await super().read(name, most)


@pytest.fixture
async def drop(tmp_path: Path) -> AsyncIterator[Losing]:
    folder = Losing(tmp_path)
    yield folder
    await folder.close()


async def test_a_file_that_got_its_name_without_an_answer_is_found(drop: Losing, tmp_path: Path) -> None:
    drop.lose = "after"
    await drop.put("a.hl7", DATA)
    assert names(tmp_path) == ["a.hl7"]


async def test_a_file_that_did_not_get_its_name_never_will_and_is_not_uncertain(drop: Losing, tmp_path: Path) -> None:
    drop.lose = "before"
    with pytest.raises(FolderError) as failed:
        await drop.put("a.hl7", DATA)
    assert not failed.value.uncertain
    assert names(tmp_path) == []
    await drop.put("a.hl7", DATA)
    assert names(tmp_path) == ["a.hl7"]


async def test_a_file_that_its_reader_has_already_taken_is_not_written_again(drop: Losing, tmp_path: Path) -> None:
    drop.lose = "taken"
    await drop.put("a.hl7", DATA)
    assert names(tmp_path) == []
    assert drop.published == 1


@pytest.mark.parametrize(("lost", "published"), [("after", 1), ("taken", 1), ("before", 1)])
async def test_what_stays_uncertain_is_found_out_by_the_next_try(
    drop: Losing, tmp_path: Path, lost: str, published: int
) -> None:
    drop.lose, drop.away = lost, True
    with pytest.raises(FolderError) as failed:
        await drop.put("a.hl7", DATA)
    assert failed.value.uncertain
    with pytest.raises(FolderError) as failed:
        await drop.put("a.hl7", DATA)
    assert failed.value.uncertain
    drop.away = False
    await drop.put("a.hl7", DATA)
    assert names(tmp_path) == ([] if lost == "taken" else ["a.hl7"])
    assert drop.published == published
    await drop.put("b.hl7", DATA)
    assert [name for name in names(tmp_path) if name.startswith(".")] == []


async def test_an_answer_lost_over_somebody_elses_file_ends_in_a_no(drop: Losing, tmp_path: Path) -> None:
    drop.lose, drop.away = "before", True
    with pytest.raises(FolderError):
        await drop.put("a.hl7", DATA)
    (tmp_path / "a.hl7").write_bytes(b"theirs")
    drop.away = False
    with pytest.raises(FileTaken):
        await drop.put("a.hl7", DATA)
    assert (tmp_path / "a.hl7").read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("name", "is_plain"),
    [("a.hl7", True), ("", False), (".a", False), ("a/b", False), ("..", False), ("a\\b", False), ("a\0", False)],
)
def test_a_plain_name_is_that_of_a_file_in_the_folder(name: str, is_plain: bool) -> None:
    assert plain(name) is is_plain
