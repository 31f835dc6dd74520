"""A service with one channel and one endpoint, killed at a step (tests.support.dying), and the story around it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.hl7.ack import parse_ack
from engine.hl7.peek import Peek
from engine.ledger.sqlite.reader import Reader
from engine.mllp.framing import encode
from engine.simulate.old_engine import OldEngine, acknowledgement
from engine.simulate.wire import Socket
from tests.support import disk, dying
from tests.support.forking import Forked, Nursery, nursery
from tests.support.house import Peer
from tests.support.ports import free_port

HIT = "M2"
"""The control id of the message at whose step the process dies."""

BY_THE_PEER = {"sent, before the answer", "half of the answer came"}

SPLIT = "steps:\n  - split: OBR\n"


def result(name: str, *orders: str) -> bytes:
    """A result with this control id, and an OBR for each of `orders`."""
    head = f"MSH|^~\\&|LAB|L|EMR|C|20260101||ORU^R01^ORU_R01|{name}|P|2.5.1\rPID|1||7^^^H||DOE^JANE||19700101|F\r"
    observed = (
        f"OBR|{n}|P{each}^EMR|{each}^LAB|GLU^Glucose^L|||20260101|||||||||||||||||||F\r"
        f"OBX|1|NM|GLU^Glucose^L||{n}|mg/dL|||||F\r"
        for n, each in enumerate(orders or [name], 1)
    )
    return (head + "".join(observed)).encode()


@pytest.fixture(scope="module")
def births() -> Iterator[Nursery]:
    with nursery() as made:
        yield made


class Clinic(OldEngine):
    """An endpoint that strikes whoever sends to it, before its answer to the n-th arrival that has the mark."""

    def __init__(self) -> None:
        super().__init__()
        self.strike: Callable[[], None] | None = None
        self.nth = 1
        self.half = False

    def _answer(self, socket: Socket, head: Peek, fault: str) -> None:
        if self.strike is not None and HIT.encode() in self.payloads[-1]:
            self.nth -= 1
            if self.nth == 0:
                if self.half:
                    answer = encode(acknowledgement(head, 1))
                    socket.write(answer[: len(answer) // 2])
                self.strike()
                self.strike = None
                return
        super()._answer(socket, head, fault)

    def arrived(self) -> list[str]:
        """The filler numbers of what came, in order."""
        return [payload.split(b"OBR|")[1].split(b"|")[2].split(b"^")[0].decode() for payload in self.payloads]


@dataclass
class Site:
    """A channel `acme` to one endpoint, and whoever sends to it."""

    interlock: Forked
    port: int

    async def start(self, *dying: str) -> None:
        await asyncio.to_thread(self.interlock.start, *dying)

    async def dies_at(self, step: str, clinic: Clinic | None = None, nth: int = 1) -> None:
        """Start, to die at the n-th passing of a step by the message."""
        if step in dying.WRITES and (missing := disk.problem()):
            pytest.skip(f"not installed: {missing}")
        if step in BY_THE_PEER and clinic is not None:
            await self.start()
            clinic.strike, clinic.nth, clinic.half = self.interlock.strike, nth, step.startswith("half")
        else:
            await self.start(step, HIT, str(nth))

    async def say(self, payload: bytes, *, half: bool = False) -> bool:
        """Send a message once. Whether its sender is told that it is taken."""
        peer = await Peer.connect(self.port)
        try:
            if half:
                block = encode(payload)
                peer.writer.write(block[: len(block) - 20])
            else:
                peer.send(payload)
            answer = parse_ack(await peer.answer())
        except OSError:  # ConnectionError among them
            return False
        finally:
            with contextlib.suppress(OSError):
                await peer.close()
        assert answer is not None
        assert answer.code == "AA"
        return True

    async def killed(self) -> None:
        await asyncio.to_thread(self.interlock.killed)

    def add_destination(self, name: str, port: int) -> None:
        """To the channel's file and the endpoints', for the next start."""
        files = [self.interlock.folder / "channels" / f"{file}.yaml" for file in ("acme", "endpoints")]
        channel, endpoints = (yaml.safe_load(file.read_text()) for file in files)
        channel["target"]["destinations"].append({"mllp": name})
        endpoints[name] = {"mllp": f"127.0.0.1:{port}", "on_unknown": "resend"}
        for file, content in zip(files, (channel, endpoints), strict=True):
            file.write_text(yaml.safe_dump(content))

    async def all_settled(self) -> None:
        await asyncio.to_thread(self.interlock.wait_settled)

    async def ends(self) -> list[dict[str, Any]]:
        """The channel's messages, once all of them are settled, and the equation holds."""
        await self.all_settled()
        assert (await asyncio.to_thread(self.interlock.get, "/api/v1/status"))["balanced"]
        stored: list[dict[str, Any]] = await asyncio.to_thread(self.interlock.messages, "acme")
        assert await asyncio.to_thread(self.interlock.stop) == 0
        assert_counts(self.interlock.ledger)
        return stored


def assert_counts(ledger: Path) -> None:
    with closing(Reader(ledger)) as reader:
        assert reader.rebuilt() == []


@asynccontextmanager
async def site(
    births: Nursery, folder: Path, clinic: Clinic, *, relayed: bool = False, mapping: str | None = None
) -> AsyncIterator[Site]:
    await clinic.start()
    port = free_port()
    channel: dict[str, Any] = {"direction": "results", "listen": {"host": "127.0.0.1", "port": port}}
    if relayed:
        channel |= {"phase": "legacy", "legacy": {"mllp": "clinic"}}
    else:
        channel["target"] = {"destinations": [{"mllp": "clinic", **({"mapping": mapping} if mapping else {})}]}
    endpoints = {"clinic": {"mllp": f"127.0.0.1:{clinic.port}", "on_unknown": "resend", "ack_timeout": "5s"}}
    settings = {"mappings": "./mappings"} if mapping else {}
    with Forked(births, folder / "site", {"acme": channel}, endpoints=endpoints, **settings) as interlock:
        if mapping:
            (interlock.folder / "mappings" / "v2").mkdir(parents=True)
            (interlock.folder / "mappings" / "v2" / f"{mapping}.yaml").write_text(SPLIT)
        yield Site(interlock, port)
    await clinic.stop()
