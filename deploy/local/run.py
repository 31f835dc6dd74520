"""Everything a newcomer needs, on this machine: a Medplum sandbox, a stand-in old engine, and the service between them.

Started by `make run`; another settings file than the sample's may be named. With INTERLOCK_MEDPLUM__BASE_URL set (and
INTERLOCK_MEDPLUM__CLIENT_ID and …__CLIENT_SECRET) the service talks to that server, and no sandbox is started. Whatever
was started here ends with this process.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

from engine.cli.console import Stop
from engine.cli.running import phase
from engine.cli.service_client import ask
from engine.config.address import Address
from engine.config.edge import Listen
from engine.config.loading import load
from engine.config.model import Channel, Configuration
from engine.config.problem import ConfigError

ROOT = Path(__file__).resolve().parents[2]
OLD_ENGINE = "old-engine"  # the endpoint that the stand-in plays
OWN_MEDPLUM = "INTERLOCK_MEDPLUM__BASE_URL"
SERVICE = "interlock"
START_S = 60.0
STOP_S = 10.0


AGAIN = """
{name} has ended; the service goes on without it. Start it again, in another terminal, with
  {command}
What is started so does not end with Ctrl-C here: end it there, with Ctrl-C of its own, or its port stays taken.
"""


TAKEN = """\
End that process, or change the port. Is another `make run` going on, or a part of an earlier one that was started again
by hand? Ctrl-C in its terminal ends it; `ss -ltnp` shows whose the port is."""


class Ended(Exception):
    """A part ended by itself; the sentence says which."""


class Parts:
    """The processes started here, each in a session of its own, so that Ctrl-C ends them in our order."""

    def __init__(self) -> None:
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._missed: set[str] = set()

    def start(self, name: str, command: list[str], ready: Address) -> None:
        """Start one and wait until it listens."""
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL)
        self._running.append((name, process))
        deadline = time.monotonic() + START_S
        while not _listens(ready):
            if process.poll() is not None:
                raise Ended(f"{name} ended by itself, with status {process.returncode}; its last words are above")
            if time.monotonic() > deadline:
                raise Ended(f"{name} does not listen on {ready} after {START_S:.0f} s")
            time.sleep(0.05)

    def check(self) -> None:
        """The service must run. What it sends to may be killed, to see what happens; how to start it again, and that it
        then has to be ended by hand, is said."""
        for name, process in self._running:
            if process.poll() is None or name in self._missed:
                continue
            if name == SERVICE:
                raise Ended(f"{name} ended by itself, with status {process.returncode}; its last words are above")
            self._missed.add(name)
            again = shlex.join(map(str, process.args)) if isinstance(process.args, list) else ""
            print(AGAIN.format(name=name, command=again), flush=True)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """The service first, so that it ends while its destinations are still there. number: the signal that ends us,
        passed on."""
        for _, process in reversed(self._running):
            if process.poll() is None:
                process.send_signal(number)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _listens(address: Address) -> bool:
    try:
        socket.create_connection((address.host, address.port), 0.5).close()
    except OSError:
        return False
    return True


def _taken(address: Address) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError:
            return True
    return False


def _old_engine(configuration: Configuration) -> Address:
    endpoint = configuration.endpoints.get(OLD_ENGINE)
    if endpoint is None or endpoint.mllp is None:
        sys.exit(f"endpoints.yaml has no '{OLD_ENGINE}', which the stand-in would play")
    return endpoint.mllp


def _sandbox(configuration: Configuration) -> Address | None:
    """Where the sandbox is to listen; None where a Medplum server is given."""
    medplum = configuration.service.medplum
    if medplum is None or os.environ.get(OWN_MEDPLUM):
        return None
    url = urlsplit(medplum.base_url)
    return Address(url.hostname or "127.0.0.1", url.port or 80)


def _check_ports(configuration: Configuration, sandbox: Address | None) -> None:
    """All ports that are taken, before anything starts."""
    wanted = [("the stand-in old engine", _old_engine(configuration)), ("http", configuration.service.http)]
    wanted += [("the sandbox", sandbox)] if sandbox else []
    wanted += [
        (f"listen of {channel.file}", channel.source.address)
        for channel in configuration.channels
        if isinstance(channel.source, Listen)
    ]
    taken = [
        f"port {address.port} is taken by another process, but {who} wants it"
        for who, address in wanted
        if _taken(address)
    ]
    if taken:
        sys.exit("\n".join([*taken, TAKEN]))


def _configuration(settings: Path) -> Configuration:
    try:
        return load(settings)
    except ConfigError as error:
        sys.exit(str(error))


def _phases(settings: Path) -> dict[str, str]:
    """By channel: the phase that the ledger has, which is the file's at the first start only."""
    found = ask(settings, "/api/v1/status")
    return {channel["id"]: phase(channel) for channel in found["channels"]}


def _welcome(configuration: Configuration, sandbox: Address | None, phases: dict[str, str]) -> str:
    service = configuration.service
    medplum = service.medplum.base_url if service.medplum else "-"
    lines = [
        "",
        f"  {'Medplum sandbox' if sandbox else 'Medplum':<24}{medplum}",
        f"  {'stand-in old engine':<24}{_old_engine(configuration)}",
        f"  {'interlock':<24}http://{service.http}/metrics",
        *(f"    {channel.id:<22}{_where(channel)}, {phases[channel.id]}" for channel in configuration.channels),
        "",
        "In a second terminal:",
        "",
        f"  cd {ROOT}",
        *(f"  .venv/bin/interlock {rest}" for rest in _first_steps(configuration.channels)),
        "",
        "Ctrl-C ends all of it. What happens now is logged below.",
        "",
    ]
    return "\n".join(lines)


def _where(channel: Channel) -> str:
    return f"port {channel.source.port}" if isinstance(channel.source, Listen) else "no port of its own"


def _first_steps(channels: tuple[Channel, ...]) -> list[str]:
    ports = {channel.id: channel.source.port for channel in channels if isinstance(channel.source, Listen)}
    return [
        f"send samples/order.hl7 --to 127.0.0.1:{ports.get('acme-orders', 6101)}",
        f"send samples/result.hl7 --to 127.0.0.1:{ports.get('acme-results', 6102)}",
        "status",
        "messages",
        "show acme-results/1",
    ]


def _start(parts: Parts, configuration: Configuration, settings: Path, sandbox: Address | None) -> None:
    python = sys.executable
    if sandbox:
        script = str(ROOT / "deploy" / "sandbox" / "start.py")
        parts.start("the sandbox", [python, script, "--port", str(sandbox.port), "--transactions", "on"], sandbox)
    old_engine = _old_engine(configuration)
    command = [python, "-m", "engine.simulate.old_engine", "--port", str(old_engine.port)]
    parts.start("the stand-in old engine", command, old_engine)
    command = [python, "-c", "from engine.cli.main import main; main()", "run", "--config", str(settings)]
    parts.start(SERVICE, command, configuration.service.http)


class Told(Exception):
    """A signal wants an end. number: which."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def _on_signal(number: int, _: FrameType | None) -> NoReturn:
    raise Told(number)


def _until_the_end(parts: Parts, pause: Callable[[float], None] = time.sleep) -> None:
    while True:
        parts.check()
        pause(0.3)


def main() -> None:
    signal.signal(signal.SIGINT, _on_signal)  # also where a shell started us with it ignored
    signal.signal(signal.SIGTERM, _on_signal)
    signal.signal(signal.SIGHUP, _on_signal)
    settings = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "interlock.yaml"
    configuration = _configuration(settings)
    sandbox = _sandbox(configuration)
    _check_ports(configuration, sandbox)
    parts = Parts()
    status, number = 0, int(signal.SIGTERM)
    try:
        _start(parts, configuration, settings, sandbox)
        print(_welcome(configuration, sandbox, _phases(settings)), flush=True)
        _until_the_end(parts)
    except Told as told:
        number = signal.SIGINT if told.number == signal.SIGINT else signal.SIGTERM
        print("\nending", flush=True)
    except (Ended, Stop) as ended:
        print(f"\n{ended}", file=sys.stderr, flush=True)
        status = 1
    finally:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it behind
        parts.stop(number)
    sys.exit(status)


if __name__ == "__main__":
    main()
