"""A folder of an SFTP server, against a real sshd: the same guarantees as on this machine, and a network between."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from engine.config.address import Address
from engine.config.edge import Sftp
from engine.files.folder import FileTaken, FolderError
from engine.files.places import folder_of
from engine.files.sftp import SftpFolder
from tests.support.listing import names
from tests.support.ports import free_port
from tests.support.sshd import Sshd

DATA = b"MSH|^~\\&|a\rPID|1\r"
LARGE = random.Random(1).randbytes(20 << 20)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def drop(sshd: Sshd) -> AsyncIterator[SftpFolder]:
    folder = SftpFolder(sshd.place())
    yield folder
    await folder.close()


@asynccontextmanager
async def between(port: int, limit: int, act: Callable[[], None]) -> AsyncIterator[int]:
    """A way to `port` that does `act` once, when this many bytes have gone to it; the port to connect to."""
    gone = 0

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool) -> None:
        nonlocal gone
        try:
            while data := await reader.read(1 << 16):
                gone += len(data) * up
                if up and gone - len(data) < limit <= gone:
                    act()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, there[1], True), pump(there[0], writer, False))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Overwriting(asyncssh.SFTPServer):
    """As servers are whose rename is that of their operating system."""

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        os.replace(oldpath, newpath)


class Gate(asyncssh.SSHServer):
    """Lets in who knows the word."""

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("acme", "open sesame")


@asynccontextmanager
async def another_server(path: Path) -> AsyncIterator[Sftp]:
    """What Debian's cannot be made to do here: passwords, and a rename that overwrites."""
    host = asyncssh.generate_private_key("ssh-ed25519")
    (path / "known_hosts").write_text(f"127.0.0.1 {host.export_public_key().decode()}")
    (path / "drop").mkdir()
    server = await asyncssh.create_server(Gate, "127.0.0.1", 0, server_host_keys=[host], sftp_factory=Overwriting)
    try:
        yield Sftp(
            Address("127.0.0.1", server.get_port()),
            "acme",
            path / "known_hosts",
            password="open sesame",
            directory=str(path / "drop"),
        )
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("options", ["-P rename", "-P posix-rename", "-P fsync"])
async def test_a_server_may_know_only_one_way_to_rename_and_need_not_know_fsync(tmp_path: Path, options: str) -> None:
    server = Sshd(tmp_path, options)
    server.start()
    folder = SftpFolder(server.place())
    try:
        await folder.put("a.hl7", DATA)
        (server.drop / "b.hl7").write_bytes(b"theirs")
        with pytest.raises(FileTaken):
            await folder.put("b.hl7", DATA)
        with pytest.raises(FileTaken):
            await folder.move("a.hl7", "b.hl7")
        await folder.move("a.hl7", "archive/a.hl7")
        assert names(server.drop) == ["archive", "b.hl7"]
    finally:
        await folder.close()
        server.kill()


async def test_a_folder_that_may_only_be_read_is_told_before_a_message_needs_it(tmp_path: Path) -> None:
    server = Sshd(tmp_path, "-R")
    server.start()
    folder = SftpFolder(server.place())
    try:
        assert await folder.check() is None
        assert await folder.try_writing() == "permission denied"
    finally:
        await folder.close()
        server.kill()


# -- who is there


async def refused(place: Sftp) -> FolderError:
    folder = folder_of(place)
    try:
        with pytest.raises(FolderError) as failed:
            await folder.put("a.hl7", DATA)
        assert await folder.check() == failed.value.reason
        return failed.value
    finally:
        await folder.close()


async def test_a_server_with_another_key_is_refused(sshd: Sshd) -> None:
    sshd.trust(sshd.new_key("another"))
    error = await refused(sshd.place())
    assert (error.reason, error.fault) == ("the server's key is not the one in known_hosts", True)
    assert names(sshd.drop) == []


@pytest.mark.parametrize("known", [None, "", "other.example ssh-ed25519 AAAA\n", "127.0.0.1"])
async def test_a_server_that_is_not_known_is_refused(sshd: Sshd, known: str | None) -> None:
    path = sshd.folder / "known_hosts"
    path.unlink() if known is None else path.write_text(known)
    error = await refused(sshd.place())
    assert "known_hosts" in error.reason
    assert error.fault


async def test_a_key_that_the_server_does_not_know_is_a_fault(sshd: Sshd) -> None:
    sshd.new_key("stranger")
    error = await refused(sshd.place(key="stranger"))
    assert (error.reason, error.fault) == ("the server does not let this user in", True)


async def test_a_key_that_cannot_be_read_is_a_fault_and_a_new_one_needs_no_restart(
    drop: SftpFolder, sshd: Sshd
) -> None:
    key = (sshd.folder / "user").read_bytes()
    (sshd.folder / "user").write_bytes(b"no key")
    with pytest.raises(FolderError, match="the private key cannot be read") as failed:
        await drop.put("a.hl7", DATA)
    assert failed.value.fault
    (sshd.folder / "user").write_bytes(key)
    await drop.put("a.hl7", DATA)


async def test_a_password_is_given_where_there_is_no_key(tmp_path: Path) -> None:
    async with another_server(tmp_path) as place:
        folder = SftpFolder(place)
        await folder.put("a.hl7", DATA)
        await folder.close()
        assert (tmp_path / "drop/a.hl7").read_bytes() == DATA
        error = await refused(replace(place, password="wrong"))
        assert (error.reason, error.fault) == ("the server does not let this user in", True)


async def test_a_server_whose_rename_overwrites_gets_no_chance_to(tmp_path: Path) -> None:
    async with another_server(tmp_path) as place:
        folder = SftpFolder(place)
        for name in ("a.hl7", "b.hl7"):
            (tmp_path / "drop" / name).write_bytes(name.encode())
        with pytest.raises(FileTaken):
            await folder.move("a.hl7", "b.hl7")
        await folder.close()
        assert names(tmp_path / "drop") == ["a.hl7", "b.hl7"]


async def test_the_users_own_ssh_is_not_looked_at(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/config").write_text("Host *\n  ProxyCommand /bin/false\n")
    (home / ".ssh/known_hosts").write_text((sshd.folder / "known_hosts").read_text())
    monkeypatch.setenv("HOME", str(home))
    folder = SftpFolder(sshd.place())
    assert await folder.check() is None
    await folder.close()
    (sshd.folder / "known_hosts").write_text("")
    assert (await refused(sshd.place())).fault


# -- what networks do


async def test_a_server_that_is_not_there_is_no_fault(sshd: Sshd) -> None:
    error = await refused(sshd.place(port=free_port()))
    assert (error.reason, error.fault, error.uncertain) == ("connection refused", False, False)


async def test_a_host_that_is_not_known_is_told_as_such(sshd: Sshd) -> None:
    place = sshd.place()
    error = await refused(replace(place, address=Address("no-such-host.invalid", 22)))
    assert (error.reason, error.fault) == ("host name not resolved", False)


async def test_a_server_that_says_nothing_is_given_up(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await refused(replace(sshd.place(port=silent.getsockname()[1]), connect_timeout=0.2))
    assert (error.reason, error.fault, error.uncertain) == ("no connection in time", False, False)


async def test_after_a_loss_there_is_a_new_connection(drop: SftpFolder, sshd: Sshd) -> None:
    await drop.put("a.hl7", DATA)
    sshd.kill()
    with pytest.raises(FolderError) as failed:
        await drop.put("b.hl7", DATA)
    assert (failed.value.fault, failed.value.uncertain) == (False, False)
    sshd.start()
    await drop.put("b.hl7", DATA)
    assert names(sshd.drop) == ["a.hl7", "b.hl7"]


async def test_a_connection_that_broke_while_nothing_was_asked_costs_nothing(drop: SftpFolder, sshd: Sshd) -> None:
    await drop.put("a.hl7", DATA)
    assert drop._link is not None
    sshd.kill()
    async with asyncio.timeout(10):
        await drop._link.connection.wait_closed()
    sshd.start()
    await drop.put("b.hl7", DATA)


async def test_a_server_killed_in_mid_transfer_leaves_no_file_and_gets_it_when_it_is_back(sshd: Sshd) -> None:
    async with between(sshd.port, 5 << 20, sshd.kill) as port:
        folder = SftpFolder(sshd.place(port=port))
        with pytest.raises(FolderError) as failed:
            await folder.put("a.hl7", LARGE)
        assert (failed.value.fault, failed.value.uncertain) == (False, False)
        (half,) = names(sshd.drop)
        assert half.startswith(".a.hl7.")
        assert 0 < (sshd.drop / half).stat().st_size < len(LARGE)
        sshd.start()
        await folder.put("a.hl7", LARGE)
        assert names(sshd.drop) == ["a.hl7"]
        assert (sshd.drop / "a.hl7").read_bytes() == LARGE
        await folder.close()


async def test_a_server_killed_while_a_file_is_read_gives_it_whole_when_it_is_back(sshd: Sshd) -> None:
    (sshd.drop / "a.hl7").write_bytes(LARGE)
    async with between(sshd.port, 6000, sshd.kill) as port:
        folder = SftpFolder(sshd.place(port=port))
        with pytest.raises(FolderError):
            await folder.read("a.hl7", len(LARGE))
        sshd.start()
        assert await folder.read("a.hl7", len(LARGE)) == LARGE
        await folder.close()


@pytest.mark.parametrize("done", [True, False])
async def test_an_answer_that_is_lost_with_the_new_name_is_found_out(
    drop: SftpFolder, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    rename = asyncssh.SFTPClient.rename

    async def lost(self: asyncssh.SFTPClient, *paths: str) -> None:
        monkeypatch.undo()
        if done:
            await rename(self, *paths)
        raise asyncssh.SFTPConnectionLost("gone")

    monkeypatch.setattr(asyncssh.SFTPClient, "rename", lost)
    if done:
        await drop.put("a.hl7", DATA)
    else:
        with pytest.raises(FolderError) as failed:
            await drop.put("a.hl7", DATA)
        assert not failed.value.uncertain
        await drop.put("a.hl7", DATA)
    assert names(sshd.drop) == ["a.hl7"]


async def test_an_answer_that_does_not_come_in_time_costs_the_connection(sshd: Sshd) -> None:
    stopped = asyncio.Event()
    async with between(sshd.port, 5 << 20, stopped.set) as port:
        folder = SftpFolder(sshd.place(port=port, timeout=0.5))
        putting = asyncio.create_task(folder.put("a.hl7", LARGE))
        async with asyncio.timeout(10):
            await stopped.wait()
        sessions = sshd.sessions()
        for pid in sessions:
            os.kill(pid, signal.SIGSTOP)  # the connection is there, and nobody behind it
        with pytest.raises(FolderError, match="no answer in time"):
            await asyncio.wait_for(putting, 10)
        for pid in sessions:
            os.kill(pid, signal.SIGCONT)
        await folder.put("a.hl7", LARGE)
        assert names(sshd.drop) == ["a.hl7"]
        await folder.close()


@pytest.mark.parametrize("act", ["look", "read", "put"])
async def test_what_waits_for_a_server_that_hangs_can_be_ended_at_once(sshd: Sshd, act: str) -> None:
    (sshd.drop / "a.hl7").write_bytes(LARGE)
    folder = SftpFolder(sshd.place(timeout=600.0))
    await folder.entries()
    for pid in sshd.sessions():
        os.kill(pid, signal.SIGSTOP)
    what = {"look": folder.entries, "read": lambda: folder.read("a.hl7", 1 << 30), "put": lambda: folder.put("b", DATA)}
    asked = asyncio.ensure_future(what[act]())
    await asyncio.wait({asked}, timeout=0.05)
    assert not asked.done()
    asked.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(asked, return_exceptions=True)
        await folder.close()
    assert asked.cancelled()
    for pid in sshd.sessions():
        os.kill(pid, signal.SIGCONT)


async def test_a_connection_that_is_being_made_can_be_given_up_at_once(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        folder = SftpFolder(replace(sshd.place(port=silent.getsockname()[1]), connect_timeout=600.0))
        asked = asyncio.ensure_future(folder.entries())
        silent.settimeout(10)
        there, _ = await asyncio.to_thread(silent.accept)
        asked.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(asked, return_exceptions=True)
            await folder.close()
        assert asked.cancelled()
        there.close()


# -- what it costs


def test_asyncssh_is_imported_only_where_there_is_an_sftp_place() -> None:
    code = (
        "import sys; import engine.intake.files, engine.delivery.destinations.file, engine.files.places;"
        "import engine.files.sftp; sys.exit('asyncssh' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
