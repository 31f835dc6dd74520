"""A folder of an SFTP server, through asyncssh, which is imported only where such a folder is made.

One connection for each folder, made when it is needed and made anew when it was lost. The server must be in
known_hosts; nothing of the user's own SSH (configuration, agent, keys) is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import posixpath
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.config.edge import Sftp
from engine.files.folder import HEAD_BYTES, Entry, FileTaken, FileTooLarge, Folder, FolderError, NoSuchFile

if TYPE_CHECKING:
    import asyncssh

AT_ONCE = 1 << 20  # bytes that are on the way at once
BLOCK = 32 * 1024  # bytes that every server takes in one request (draft-ietf-secsh-filexfer-02, 3)
KEEPALIVE = 30  # seconds of silence after which the server is asked whether it is there; after three it is not


class Lost(FolderError):
    """The connection broke, or there was no answer in time: what was asked may have been done."""


@dataclass(frozen=True, slots=True)
class _Link:
    connection: asyncssh.SSHClientConnection
    sftp: asyncssh.SFTPClient


class _Asked:
    """The client while something is asked of it. Where nothing comes back in `limit` seconds, its connection ends, and
    with it whatever waits for an answer."""

    def __init__(self, link: _Link, limit: float) -> None:
        self.sftp = link.sftp
        self.late = False
        self._link = link
        self._limit = limit
        self._timer = self._begin()

    def goes_on(self) -> None:
        self._timer.cancel()
        self._timer = self._begin()

    def end(self) -> None:
        self._timer.cancel()

    def _begin(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._limit, self._expire)

    def _expire(self) -> None:
        self.late = True
        self._link.connection.abort()


class SftpFolder(Folder):
    """The folder `place.directory` of the server."""

    def __init__(self, place: Sftp) -> None:
        import asyncssh

        asyncssh.set_log_level(logging.CRITICAL)  # it names files, and what goes wrong is told by events of ours
        super().__init__()
        self._ssh = asyncssh
        self._place = place
        self._one = asyncio.Lock()
        self._link: _Link | None = None

    async def entries(self) -> list[Entry]:
        try:
            async with self._asking() as asked:
                found = await asked.sftp.readdir(self._place.directory)
        except NoSuchFile:
            raise _no_folder() from None
        return [
            Entry(str(each.filename), each.attrs.size or 0, float(each.attrs.mtime or 0))
            for each in found
            if each.attrs.permissions is not None and stat.S_ISREG(each.attrs.permissions)
        ]

    async def read(self, name: str, most: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async with self._asking() as asked, self._open(asked, name, "rb") as file:
            block = asked.sftp.limits.max_read_len or BLOCK
            while size <= most:
                count = max(1, AT_ONCE // block) if size else 1  # most files are read by one request
                found = await asyncio.gather(
                    *(_block(file, block, at) for at in range(size, size + count * block, block))
                )
                asked.goes_on()
                for piece in found:
                    pieces.append(piece)
                    size += len(piece)
                    if len(piece) < block:
                        break
                if not found[0]:
                    return b"".join(pieces)
            whole = (await file.stat()).size
            raise FileTooLarge(b"".join(pieces)[:HEAD_BYTES], max(size, whole or 0))

    async def move(self, name: str, to: str) -> None:
        async with self._asking() as asked:
            sftp, path, target = asked.sftp, self._path(name), self._path(to)
            try:
                await self._rename(sftp, path, target)
            except self._ssh.SFTPNoSuchFile:
                if not await sftp.lexists(path):
                    raise
                await sftp.makedirs(posixpath.dirname(target), exist_ok=True)
                await self._rename(sftp, path, target)

    async def remove(self, name: str) -> bool:
        try:
            async with self._asking() as asked:
                await asked.sftp.remove(self._path(name))
        except NoSuchFile:
            return False
        return True

    async def check(self) -> str | None:
        try:
            async with self._asking() as asked:
                if not await asked.sftp.isdir(self._place.directory):
                    return "the folder is not there"
        except FolderError as error:
            return error.reason
        return None

    async def close(self) -> None:
        """What is on the way ends at once."""
        link, self._link = self._link, None
        if link is not None:
            link.connection.abort()
            await link.connection.wait_closed()

    # -- writing

    async def _write(self, name: str, data: bytes) -> None:
        try:
            async with self._asking() as asked, self._open(asked, name, "xb") as file:
                block = asked.sftp.limits.max_write_len or BLOCK
                for begin in range(0, len(data), AT_ONCE):
                    end = min(len(data), begin + AT_ONCE)
                    await asyncio.gather(
                        *(file.write(data[at : min(end, at + block)], at) for at in range(begin, end, block))
                    )
                    asked.goes_on()
                with contextlib.suppress(self._ssh.SFTPOpUnsupported):  # an extension of OpenSSH
                    await file.fsync()
        except NoSuchFile:
            raise _no_folder() from None

    async def _publish(self, temporary: str, name: str) -> None:
        try:
            async with self._asking() as asked:
                await self._rename(asked.sftp, self._path(temporary), self._path(name))
        except Lost as error:
            raise FolderError(error.reason, uncertain=True) from None

    async def _secure(self, name: str) -> None:
        """Its writer asked for that before it got its name."""

    async def _rename(self, sftp: asyncssh.SFTPClient, path: str, to: str) -> None:
        """SFTP's own rename fails where the name exists (draft-ietf-secsh-filexfer-02, 6.5), but not with every
        server: so it is looked for first. A server that has only OpenSSH's rename, which overwrites, gets that."""
        if await sftp.lexists(to):
            raise FileTaken
        try:
            await sftp.rename(path, to)
        except (self._ssh.SFTPFailure, self._ssh.SFTPPermissionDenied, self._ssh.SFTPOpUnsupported) as error:
            if await sftp.lexists(to):
                raise FileTaken from None
            try:
                await sftp.posix_rename(path, to)
            except self._ssh.SFTPOpUnsupported:
                raise error from None

    def _path(self, name: str) -> str:
        return posixpath.join(self._place.directory, name)

    # -- the connection

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[_Asked]:
        """The client, for as long as it gets on: every `place.timeout` seconds something has to come back."""
        ssh, link = self._ssh, await self._connected()
        asked = _Asked(link, self._place.timeout)
        try:
            yield asked
        except (ssh.SFTPNoSuchFile, ssh.SFTPNoSuchPath):
            raise NoSuchFile from None
        except ssh.SFTPPermissionDenied:
            raise FolderError("permission denied", fault=True) from None
        except (ssh.SFTPNoSpaceOnFilesystem, ssh.SFTPQuotaExceeded):
            raise FolderError("no space left") from None
        except (ssh.SFTPConnectionLost, ssh.SFTPNoConnection, ssh.SFTPBadMessage, ssh.DisconnectError, OSError):
            self._drop(link)
            raise Lost("no answer in time" if asked.late else "the connection was lost") from None
        except ssh.SFTPError as error:
            raise FolderError(f"the server said no, with code {error.code}") from None
        finally:
            asked.end()

    @asynccontextmanager
    async def _open(self, asked: _Asked, name: str, mode: str) -> AsyncIterator[asyncssh.SFTPClientFile]:
        """A file, whose reads and writes are one request each: what asyncssh does at once cannot be ended."""
        file = await asked.sftp.open(self._path(name), mode, block_size=0)
        try:
            yield file
        except (self._ssh.SFTPError, FolderError):
            with contextlib.suppress(self._ssh.Error):
                await file.close()
            raise
        await file.close()

    async def _connected(self) -> _Link:
        async with self._one:
            if self._link is None or self._link.connection.is_closed():
                self._link = await self._connect()
            return self._link

    def _drop(self, link: _Link) -> None:
        link.connection.abort()
        if self._link is link:
            self._link = None

    async def _connect(self) -> _Link:
        ssh, place = self._ssh, self._place
        options = self._identity()
        connection, link = None, None
        try:
            async with asyncio.timeout(place.connect_timeout):
                connection = await ssh.connect(
                    place.address.host, place.address.port, username=place.user, config=None, agent_path=None,
                    keepalive_interval=KEEPALIVE, **options,
                )  # fmt: skip
                link = _Link(connection, await connection.start_sftp_client(path_errors="surrogateescape"))
                return link
        except TimeoutError:
            reason, fault = "no connection in time", False
        except ssh.HostKeyNotVerifiable:
            reason, fault = "the server's key is not the one in known_hosts", True
        except ssh.PermissionDenied:
            reason, fault = "the server does not let this user in", True
        except ConnectionRefusedError:
            reason, fault = "connection refused", False
        except socket.gaierror:
            reason, fault = "host name not resolved", False
        except OSError:
            reason, fault = "the server cannot be reached", False
        except ssh.ChannelOpenError:
            reason, fault = "the server has no SFTP for this user", True
        except (ssh.KeyExchangeFailed, ssh.ProtocolNotSupported):
            reason, fault = "the server has no ciphers or keys in common with us", True
        except ssh.Error:
            reason, fault = "the server ended the connection", False
        finally:
            if connection is not None and link is None:
                connection.abort()
        raise FolderError(reason, fault=fault)

    def _identity(self) -> dict[str, Any]:
        """Who we are and whom we trust. Read anew for each connection, so that new keys need no restart."""
        ssh, place = self._ssh, self._place
        try:
            known = ssh.read_known_hosts(str(place.known_hosts))
        except (OSError, ValueError):
            raise FolderError("known_hosts cannot be read", fault=True) from None
        if place.key is None:
            return {"known_hosts": known, "password": place.password, "client_keys": None}
        try:
            keys = [ssh.read_private_key(str(place.key))]
        except (OSError, ValueError):
            raise FolderError("the private key cannot be read", fault=True) from None
        return {"known_hosts": known, "client_keys": keys, "preferred_auth": "publickey"}


def _no_folder() -> FolderError:
    return FolderError("the folder is not there", fault=True)


async def _block(file: asyncssh.SFTPClientFile, size: int, at: int) -> bytes:
    """What stands at this place, less than `size` bytes at the end."""
    data: bytes = await file.read(size, at)
    return data
