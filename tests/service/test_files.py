"""Channels whose messages come or go as files, through the running service."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Directory, Files
from engine.config.endpoint import Endpoint
from engine.config.model import Channel
from engine.files.local import LocalFolder
from engine.hl7.ack import parse_ack
from engine.mllp.framing import encode
from engine.service.service import Service
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.fake import crash_image
from tests.support.house import (
    MEDPLUM,
    ORU,
    assert_balances,
    channel,
    configuration,
    emr,
    kept,
    live,
    running,
    served,
    settled,
    states,
    to,
    until,
)
from tests.support.sandbox import Sandbox
from tests.support.scripted import Scripted

MESSAGES = Messages("oru", seed=111)


def reading(folder: Path, **options: Any) -> Channel:
    folder.mkdir(exist_ok=True)
    source = Files(Directory(folder), poll=0.05, stable=0.05)
    return channel("drop", source=source, takes=ORU, **options)


def folder(path: Path, **options: Any) -> Endpoint:
    path.mkdir(exist_ok=True)
    return Endpoint("outbox", None, place=Directory(path), on_unknown="resend", **options)


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir() if each.is_file() and not each.name.startswith("."))


async def test_what_is_put_into_a_folder_reaches_a_listener_in_its_order(tmp_path: Path):
    async with Scripted() as clinic:
        inbox = tmp_path / "in"
        there = emr(clinic.port)
        async with running(configuration(tmp_path, reading(inbox, destinations=(there,)))) as service:
            (inbox / "1.hl7").write_bytes(MESSAGES.message(1) + MESSAGES.message(2))
            await settled(service, "drop", there.name, 2)
            (inbox / "2.hl7").write_bytes(encode(MESSAGES.message(3)))
            await settled(service, "drop", there.name, 3)
            assert clinic.payloads == [MESSAGES.message(number) for number in (1, 2, 3)]
            await until(lambda: len(names(inbox / "archive")) == 2)
            assert names(inbox) == []
            await assert_balances(service)


async def test_what_is_put_into_a_folder_reaches_medplum(tmp_path: Path, sandbox: Sandbox):
    inbox = tmp_path / "in"
    chan = reading(inbox, destinations=(MEDPLUM,))
    async with running(configuration(tmp_path, chan, medplum=sandbox.base)) as service:
        (inbox / "1.hl7").write_bytes(b"".join(map(MESSAGES.message, (1, 2, 3))))
        await settled(service, "drop", "medplum", 3)
        assert await states(service, "drop", "medplum") == {"delivered": 3}
        assert len(sandbox.dump("DiagnosticReport")) == 3
        sandbox.assert_sound()


async def test_what_comes_over_mllp_is_written_to_a_folder_each_message_whole(tmp_path: Path):
    outbox = tmp_path / "out"
    there = to(folder(outbox, file_name="{channel}-{sequence}-{control_id}.hl7"))
    async with served(tmp_path, live(destinations=(there,))) as (service, peer):
        for number in range(3):
            assert parse_ack(await peer.exchange(MESSAGES.message(number))).code == "AA"
        await settled(service, "acme", "outbox", 3)
        found = sorted(outbox.iterdir())
        assert [each.read_bytes() for each in found] == [MESSAGES.message(number) for number in range(3)]
        assert all(MESSAGES.control_id(number) in found[number].name for number in range(3))
        assert await states(service, "acme", "outbox") == {"delivered": 3}


@contextmanager
def still(service: Service) -> Iterator[None]:
    """No folder changes meanwhile: what was begun has ended, and what comes next waits."""
    go_on = threading.Event()
    for each in service.ways._folders.values():
        assert isinstance(each, LocalFolder)
        begun = threading.Event()
        each._thread.submit(lambda begun=begun: (begun.set(), go_on.wait(20)))
        assert begun.wait(20)
    try:
        yield
    finally:
        go_on.set()


@pytest.mark.parametrize("stored", [1, 3, 5])
async def test_from_folder_to_folder_over_a_crash_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path, stored: int):
    image = tmp_path / "image"

    def chan(at: Path) -> Channel:
        return reading(at / "in", destinations=(to(folder(at / "out")),))

    async with running(configuration(tmp_path, chan(tmp_path))) as service:
        for number in range(5):
            (tmp_path / "in" / f"{number}.hl7").write_bytes(MESSAGES.message(number))
        await until(lambda: service.ledger.channels["drop"].seq >= stored)
        with still(service):  # with both folders, all at one moment
            crash_image(service.ledger.path, image)
            for name in ("in", "out"):
                shutil.copytree(tmp_path / name, image / name)
    async with running(configuration(image, chan(image))) as service:
        await settled(service, "drop", "outbox", 5)
        # What was half written at the crash stays hidden, and is removed after an hour.
        written = [each.read_bytes() for each in sorted((image / "out").iterdir()) if not each.name.startswith(".")]
        assert sorted(written) == sorted(MESSAGES.message(number) for number in range(5))
        await assert_balances(service)


async def test_a_file_that_is_no_message_is_set_aside_in_live_with_its_evidence(tmp_path: Path):
    inbox = tmp_path / "in"
    async with running(configuration(tmp_path, reading(inbox, destinations=(emr(1),)))) as service:
        (inbox / "1.hl7").write_bytes(b"this is a letter")
        await until(lambda: (inbox / "failed").exists() and len(names(inbox / "failed")) == 1)
        (inbox / "2.hl7").write_bytes(MESSAGES.message(1))
        await until(lambda: service.ledger.channels["drop"].seq == 1)
        ((kind, raw),) = await kept(service, "kind", "raw")
        assert (kind, raw) == ("failed_file", b"this is a letter")


async def test_the_old_engines_folder_gets_the_bytes_while_it_works(tmp_path: Path):
    inbox, old = tmp_path / "in", tmp_path / "old"
    old.mkdir()
    engine = Endpoint("old", None, place=Directory(old))
    async with running(configuration(tmp_path, reading(inbox, old_engine=engine, ack="stored"))) as service:
        flawed = MESSAGES.message(2).replace(b"ORU^R01", b"ZZZ^Z01")
        (inbox / "1.hl7").write_bytes(MESSAGES.message(1) + flawed)
        await settled(service, "drop", "legacy", 2)
        assert [each.read_bytes() for each in sorted(old.iterdir())] == [MESSAGES.message(1) + flawed]
        assert [kind for (kind,) in await kept(service, "kind")] == ["would_refuse"]


async def test_before_live_files_that_are_no_messages_reach_the_old_engines_folder_as_they_came(tmp_path: Path):
    inbox, old = tmp_path / "in", tmp_path / "old"
    old.mkdir()
    engine = Endpoint("old", None, place=Directory(old))
    odd = [b"", b"a letter", b"a line before\r" + MESSAGES.message(1), MESSAGES.message(2) + b"\x1c\r", b"\x00\xff\x0b"]
    async with running(configuration(tmp_path, reading(inbox, old_engine=engine, ack="stored"))) as service:
        for number, data in enumerate(odd):
            (inbox / f"{number}.hl7").write_bytes(data)
            await settled(service, "drop", "legacy", number + 1)
        assert [each.read_bytes() for each in sorted(old.iterdir())] == odd
        assert await kept(service, "kind") == [("would_refuse",)] * len(odd)
        assert names(inbox) == []
        await assert_balances(service)


async def test_a_folder_that_is_not_there_shows_as_down_and_is_read_once_it_is(tmp_path: Path):
    inbox = tmp_path / "in"
    chan = reading(inbox, destinations=(emr(1),))
    inbox.rmdir()
    async with running(configuration(tmp_path, chan)) as service:
        await until(lambda: "drop" in service.doors.down)
        assert (await View(service, "0").readiness())["ready"] is False
        inbox.mkdir()
        (inbox / "1.hl7").write_bytes(MESSAGES.message(1))
        await until(lambda: service.ledger.channels["drop"].seq == 1)
        await until(lambda: "drop" not in service.doors.down)
        assert (await View(service, "0").readiness())["ready"] is True


async def test_a_folder_that_cannot_be_written_waits_for_it_and_writes_in_order(tmp_path: Path):
    outbox = tmp_path / "out"
    there = to(folder(outbox))
    outbox.rmdir()
    async with served(tmp_path, live(destinations=(there,))) as (service, peer):
        for number in range(3):
            assert parse_ack(await peer.exchange(MESSAGES.message(number))).code == "AA"
        await until(lambda: service.ways.breakers["outbox"].open)
        assert await states(service, "acme", "outbox") == {"retrying": 1, "waiting": 2}
        outbox.mkdir()
        await settled(service, "acme", "outbox", 3)
        assert [each.read_bytes() for each in sorted(outbox.iterdir())] == [MESSAGES.message(n) for n in range(3)]
