"""Files of several messages reach the old engine's folder as what they were, though each message is counted."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Directory, Files
from engine.config.endpoint import Endpoint
from engine.config.model import Channel
from engine.delivery.destinations.whole import WITH_OTHERS, Wholes
from engine.ledger.model import Message
from engine.ledger.routing import LEGACY
from engine.mllp.framing import encode
from engine.service.service import Service
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.fake import crash_image
from tests.support.house import (
    ORU,
    assert_balances,
    channel,
    configuration,
    emr,
    running,
    settled,
    states,
    until,
)

MESSAGES = Messages("oru", seed=221)
A, B, C = (MESSAGES.message(number) for number in (1, 2, 3))


def reading(folder: Path, **options: Any) -> Channel:
    """A channel that reads `in`, with an old engine that reads `old`."""
    for name in ("in", "old"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    source = Files(Directory(folder / "in"), poll=0.05, stable=0.05)
    engine = Endpoint("old", None, place=Directory(folder / "old"))
    return channel("drop", source=source, takes=ORU, old_engine=engine, ack="stored", **options)


def old_engine_has(folder: Path) -> list[bytes]:
    found = sorted(each for each in (folder / "old").iterdir() if not each.name.startswith("."))
    return [each.read_bytes() for each in found]


async def put(service: Service, folder: Path, name: str, data: bytes, upto: int) -> None:
    (folder / "in" / name).write_bytes(data)
    await settled(service, "drop", LEGACY, upto)


FILES = {
    "one after the other": A + B + C,
    "blank lines between them": b"\r\n" + A + b"\r\r" + B + b"\n\n" + C + b"\r\n\x00",
    "lines of Windows": A.replace(b"\r", b"\r\n") + B.replace(b"\r", b"\r\n") + C,
    "a byte order mark": b"\xef\xbb\xbf" + A + B + C,
    "sixteen bits each": (A + B + C).decode().encode("utf-16"),
    "one of a type that nobody takes": A + B.replace(b"ORU^R01", b"ZZZ^Z01") + C,
    "blocks of MLLP": encode(A) + encode(B) + encode(C),
    "the same one three times": A * 3,
}


@pytest.mark.parametrize("phase", ["legacy", "parallel"])
@pytest.mark.parametrize("case", FILES)
async def test_it_is_one_file_byte_for_byte_and_three_messages(tmp_path: Path, case: str, phase: str) -> None:
    chan = reading(tmp_path, phase=phase, destinations=(emr(1),))
    async with running(configuration(tmp_path, chan)) as service:
        await put(service, tmp_path, "1.hl7", FILES[case], 3)
        assert old_engine_has(tmp_path) == [FILES[case]]
        assert await states(service, "drop", LEGACY) == {"delivered": 3}
        why = [(await View(service, "0").message("drop", seq))["receipts"] for seq in (1, 2, 3)]  # type: ignore[index]
        told = [next(row["reason"] for row in rows if row["destination"] == LEGACY) for rows in why]
        assert told == [WITH_OTHERS, *["in the file of message 1"] * 2]


async def test_files_keep_their_order_and_a_single_message_its_frame(tmp_path: Path) -> None:
    files = [A + B, C, encode(A), A + B + C]
    async with running(configuration(tmp_path, reading(tmp_path))) as service:
        for number, (data, upto) in enumerate(zip(files, itertools.accumulate((2, 1, 1, 3)), strict=True)):
            await put(service, tmp_path, f"{number}.hl7", data, upto)
        assert old_engine_has(tmp_path) == files
        await assert_balances(service)


async def test_one_whose_bytes_cannot_be_made_again_goes_as_its_messages(tmp_path: Path) -> None:
    """What stands between blocks is kept nowhere."""
    async with running(configuration(tmp_path, reading(tmp_path))) as service:
        await put(service, tmp_path, "1.hl7", encode(A) + b"\n\n" + encode(B), 2)
        assert old_engine_has(tmp_path) == [A, B]
        assert await states(service, "drop", LEGACY) == {"delivered": 2}


async def test_many_messages_in_a_file_are_still_one(tmp_path: Path) -> None:
    data = b"".join(map(MESSAGES.message, range(300)))
    async with running(configuration(tmp_path, reading(tmp_path))) as service:
        await put(service, tmp_path, "1.hl7", data, 300)
        assert old_engine_has(tmp_path) == [data]


async def test_a_folder_that_is_away_gets_it_whole_when_it_is_back(tmp_path: Path) -> None:
    chan = reading(tmp_path)
    (tmp_path / "old").rmdir()
    async with running(configuration(tmp_path, chan)) as service:
        (tmp_path / "in" / "1.hl7").write_bytes(A + B + C)
        await until(lambda: service.ways.breakers["old"].open)
        (tmp_path / "old").mkdir()
        await settled(service, "drop", LEGACY, 3)
        assert old_engine_has(tmp_path) == [A + B + C]


async def test_a_kill_between_its_messages_writes_it_no_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old engine has taken it away meanwhile: a second one would be everything twice."""
    image, within = tmp_path / "image", Wholes.within

    async def held(self: Wholes, message: Message) -> int | None:
        if message.seq == 2:
            await asyncio.Event().wait()
        return await within(self, message)

    with monkeypatch.context() as patched:
        patched.setattr(Wholes, "within", held)
        async with running(configuration(tmp_path, reading(tmp_path))) as service:
            (tmp_path / "in" / "1.hl7").write_bytes(A + B + C)
            course = service.ledger.channels["drop"].course(LEGACY)
            assert course is not None
            await until(lambda: course.frontier == 1)
            assert old_engine_has(tmp_path) == [A + B + C]
            crash_image(service.ledger.path, image)
    async with running(configuration(image, reading(image))) as service:
        await settled(service, "drop", LEGACY, 3)
        assert old_engine_has(image) == []
        assert await states(service, "drop", LEGACY) == {"delivered": 3}


async def test_a_kill_before_its_first_is_settled_writes_it_whole_again(tmp_path: Path) -> None:
    image = tmp_path / "image"
    chan = reading(tmp_path)
    (tmp_path / "old").rmdir()
    async with running(configuration(tmp_path, chan)) as service:
        (tmp_path / "in" / "1.hl7").write_bytes(A + B + C)
        await until(lambda: service.ways.breakers["old"].open)
        crash_image(service.ledger.path, image)
    async with running(configuration(image, reading(image))) as service:
        await settled(service, "drop", LEGACY, 3)
        assert old_engine_has(image) == [A + B + C]


async def test_what_a_version_before_began_by_itself_ends_by_itself(tmp_path: Path) -> None:
    """Its name belongs to its first message alone; the others go as they would have gone."""
    chan = reading(tmp_path)
    (tmp_path / "old" / "drop-0000000001.hl7").write_bytes(A)
    async with running(configuration(tmp_path, chan)) as service:
        await put(service, tmp_path, "1.hl7", A + B + C, 3)
        assert old_engine_has(tmp_path) == [A, B, C]
        assert await states(service, "drop", LEGACY) == {"delivered": 3}
