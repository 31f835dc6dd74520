"""A stand-in for a vendor's sender: persistent connections, one message at a time on each, and no mercy: what is not
acknowledged is sent again, with the same control id, until it is. What was acknowledged stands in a journal that
survives a SIGKILL of anybody: it is the list that the receiver must have.

    python -m engine.simulate.vendor --port 6101 --count 1000 --rate 50 --connections 2 --journal acknowledged.ndjson

prints its tally as one JSON line at the end. AR and CR are final, as HL7 says: such a message is counted as refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from engine.config.address import Address
from engine.hl7.ack import Answer, parse_ack
from engine.mllp.framing import Decoder, Frame, encode
from engine.simulate.journal import Journal
from engine.simulate.messages import Kind, Messages


@dataclass(slots=True)
class Tally:
    """What a vendor did. `acknowledged` and `refused` count messages, `sent` counts sendings."""

    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    negative: int = 0
    unanswered: int = 0
    connects: int = 0


class Vendor:
    """Sends messages 1 to `count` of `messages`, dealt out to connections in turn, connections to addresses in turn."""

    def __init__(
        self,
        addresses: Iterable[Address],
        messages: Messages | None = None,
        *,
        count: int,
        connections: int = 1,
        rate: float | None = None,
        timeout: float = 30.0,
        pause: float = 0.5,
        journal: Path | None = None,
        first: int = 1,
    ) -> None:
        """`rate`: messages a second over all connections; None: as fast as they are answered. `timeout`: seconds for
        an answer. `pause`: seconds before the next try after anything but a positive answer."""
        self.addresses = list(addresses)
        self.messages = messages or Messages()
        self.tally = Tally()
        self.acknowledged: list[str] = []
        self._numbers = range(first, first + count)
        self._lines = connections
        self._rate = rate
        self._timeout = timeout
        self._pause = pause
        self._journal = Journal(journal)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End after the messages that are on the way, answered or not."""
        self._stopping.set()

    async def run(self) -> Tally:
        """Send all of them. Returns when each is acknowledged or refused, or after `stop`."""
        self._journal.open()
        try:
            async with asyncio.TaskGroup() as group:
                for line in range(self._lines):
                    group.create_task(self._send_all(line), name=f"vendor connection {line}")
        finally:
            self._journal.close()
        return self.tally

    async def _send_all(self, line: int) -> None:
        wire = _Wire(self.addresses[line % len(self.addresses)], self._timeout, self.tally)
        begun = time.monotonic()
        try:
            for turn, number in enumerate(self._numbers[line :: self._lines]):
                if self._rate:
                    due = begun + (turn * self._lines + line) / self._rate
                    await self._wait(due - time.monotonic())
                if self._stopping.is_set():
                    return
                await self._send(wire, number)
        finally:
            wire.close()

    async def _send(self, wire: _Wire, number: int) -> None:
        control_id = self.messages.control_id(number)
        frame = encode(self.messages.message(number))
        tries = 0
        begun = time.monotonic()
        while not self._stopping.is_set():
            tries += 1
            answer = await wire.exchange(frame)
            if answer is not None and answer.control_id == control_id:
                if answer.code in ("AA", "CA"):
                    self._write_down(control_id, answer.code, tries, time.monotonic() - begun)
                    return
                if answer.code in ("AR", "CR"):
                    self.tally.refused += 1
                    return
                self.tally.negative += 1
            else:
                self.tally.unanswered += 1
                wire.close()  # what comes late must not be taken for the next answer
            await self._wait(self._pause)

    def _write_down(self, control_id: str, code: str, tries: int, seconds: float) -> None:
        self.tally.acknowledged += 1
        self.acknowledged.append(control_id)
        line = {"control_id": control_id, "at": time.time(), "code": code, "tries": tries, "seconds": seconds}
        self._journal.write(line)

    async def _wait(self, seconds: float) -> None:
        """Pass the time, unless there is a stop."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


class _Wire:
    """One connection, made again whenever it is needed and gone."""

    def __init__(self, address: Address, timeout: float, tally: Tally) -> None:
        self._address = address
        self._timeout = timeout
        self._tally = tally
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._decoder = Decoder()

    async def exchange(self, frame: bytes) -> Answer | None:
        """Send, and wait for an acknowledgement; None if none came."""
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await self._connected()
                self._tally.sent += 1
                writer.write(frame)
                await writer.drain()
                return parse_ack(await self._frame(reader))
        except (OSError, TimeoutError, EOFError):
            self.close()
            return None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection(self._address.host, self._address.port)
            self._decoder = Decoder()
            self._tally.connects += 1
        return self._reader, self._writer

    async def _frame(self, reader: asyncio.StreamReader) -> bytes:
        while True:
            data = await reader.read(65536)
            if not data:
                raise EOFError
            for event in self._decoder.feed(data):
                if isinstance(event, Frame):
                    return event.payload

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.simulate.vendor", description="A simulated vendor.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, action="append", required=True, help="may be repeated")
    parser.add_argument("--kind", choices=["oru", "orm", "oml"], default="oru")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=1, help="number of the first message")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--rate", type=float, help="messages a second, over all connections")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait for an answer")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds before the next try")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prefix", default="SIM")
    parser.add_argument("--journal", type=Path, help="NDJSON file of what was acknowledged")
    options = parser.parse_args(None if arguments is None else list(arguments))
    print(json.dumps(asdict(uvloop.run(_run(options)))), flush=True)


async def _run(options: argparse.Namespace) -> Tally:
    kind: Kind = options.kind
    vendor = Vendor(
        [Address(options.host, port) for port in options.port],
        Messages(kind, options.seed, options.prefix),
        count=options.count,
        first=options.first,
        connections=options.connections,
        rate=options.rate,
        timeout=options.timeout,
        pause=options.pause,
        journal=options.journal,
    )
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, vendor.stop)
    return await vendor.run()


if __name__ == "__main__":
    main()
