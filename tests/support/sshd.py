"""Debian's sshd as a real process for tests: unprivileged port, keys, configuration and folder of the test's own.

Where it is not installed the tests are skipped with the reason; with INTERLOCK_EVERY_TOOL they fail.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import asyncssh
import pytest

from engine.config.address import Address
from engine.config.edge import Sftp
from tests.support.ports import free_port

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")


def require_sshd() -> None:
    if SSHD is None:
        pytest.skip("not installed: sshd (Debian's package openssh-server)")


class Sshd:
    """One server, whose user is the one that runs the tests. `options` are those of its internal-sftp."""

    def __init__(self, folder: Path, options: str = "") -> None:
        require_sshd()
        self.port = free_port()
        self.folder = folder / "ssh"
        self.drop = folder / "drop"
        self.process: subprocess.Popen[bytes] | None = None
        self.folder.mkdir()
        self.drop.mkdir()
        self.host_key = self.new_key("host")
        user_key = self.new_key("user")
        (self.folder / "authorized_keys").write_bytes(user_key.export_public_key())
        self.trust(self.host_key)
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.folder}/host", "PidFile none",
            f"AuthorizedKeysFile {self.folder}/authorized_keys", "StrictModes no",
            f"UsePAM {'no' if os.geteuid() == 0 else 'yes'}",  # others cannot read whether their account is locked
            "PasswordAuthentication no", "PermitRootLogin yes", f"Subsystem sftp internal-sftp {options}",
        ]  # fmt: skip
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")

    def new_key(self, name: str) -> asyncssh.SSHKey:
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(self.folder / name))
        (self.folder / name).chmod(0o600)
        return key

    def trust(self, key: asyncssh.SSHKey) -> None:
        """Put the key into known_hosts, for whatever port."""
        (self.folder / "known_hosts").write_text(f"127.0.0.1 {key.export_public_key().decode()}")

    def place(self, *, port: int | None = None, key: str = "user", timeout: float = 10.0) -> Sftp:
        return Sftp(
            Address("127.0.0.1", port or self.port),
            getpass.getuser(),
            self.folder / "known_hosts",
            self.folder / key,
            directory=str(self.drop),
            timeout=timeout,
        )

    def start(self) -> None:
        """Start, and return when it listens."""
        assert SSHD is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd locks its unprivileged part in
        self.process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=subprocess.PIPE
        )
        assert self.process.stderr is not None
        overdue = threading.Timer(20, self.process.kill)
        overdue.start()
        said = b""
        while b"Server listening" not in said:
            line = self.process.stderr.readline()
            assert line, f"sshd ended: {said.decode()}"
            said += line
        overdue.cancel()

    def kill(self) -> None:
        """SIGKILL, the processes of its sessions first: no goodbye."""
        if self.process is None:
            return
        deadline = time.monotonic() + 5
        while (sessions := self.sessions()) and time.monotonic() < deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(
                    sessions[-1], signal.SIGKILL
                )  # the innermost: those around it end by themselves, and are reaped
            time.sleep(0.005)
        self.process.kill()
        self.process.wait(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process = None

    def sessions(self) -> list[int]:
        """The processes that serve connections."""
        return _descendants(self.process.pid) if self.process else []


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found
