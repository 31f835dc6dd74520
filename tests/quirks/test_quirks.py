"""The catalogue of what partners' software does: each quirk is sent to a running service, and comes to what it must.

The quirks stand beside this file, one a file; README.md says how to add one.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.hl7.ack import parse_ack
from engine.mllp.framing import Decoder, Frame
from engine.observe.metrics import METRICS
from tests.quirks.house import House, Place
from tests.quirks.reading import Quirk, octets, read_all
from tests.support.scripted import Scripted, ack

FOLDER = Path(__file__).parent
QUIRKS = read_all(FOLDER)
WANTED = 40  # at least
PATIENCE = 10.0  # seconds until something must have come
QUIET = 0.15  # seconds in which nothing more must come


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("quirks"), QUIRKS)
    made.start()
    yield made
    made.stop()


def test_the_catalogue_is_large_enough_and_names_its_evidence() -> None:
    assert len(QUIRKS) >= WANTED
    assert all(quirk.quirk and quirk.evidence for quirk in QUIRKS)
    assert len({quirk.quirk for quirk in QUIRKS}) == len(QUIRKS)


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: quirk.file)
def test_quirk(house: House, quirk: Quirk) -> None:
    place = house.places[quirk.key]
    _script(place.old_engine, quirk.old_engine)
    _script(place.clinic, quirk.clinic)
    before = _Marks(house, place, quirk)
    with _Vendor(place) as vendor:
        for step in quirk.sends:
            vendor.do(step)
        answers = [vendor.answer() for _ in quirk.answers]
        for wanted, answer in zip(quirk.answers, answers, strict=True):
            _check_answer(wanted, answer)
        assert vendor.rest() == (b"", quirk.closes)
    _until(lambda: before.stored() == [octets(each) for each in quirk.stored])
    _until(lambda: len(before.kept()) >= len(quirk.kept))
    for wanted_event, event in zip(quirk.kept, before.kept(), strict=True):
        found = {"kind": event[0], "reason": event[1], "raw": event[2]}
        wanted_event = {key: octets(each) if key == "raw" else each for key, each in wanted_event.items()}
        assert {key: found[key] for key in wanted_event} == wanted_event
    for peer, said in ((place.old_engine, quirk.old_engine), (place.clinic, quirk.clinic)):
        if "gets" in said:
            _until(lambda peer=peer, said=said: peer.payloads == [octets(each) for each in said["gets"]])  # type: ignore[misc]
        if "connections" in said:
            assert len(set(peer.sockets)) == said["connections"]
    _until(lambda: before.metrics() == quirk.metrics)


class _Vendor:
    """The quirk's side of the connection."""

    def __init__(self, place: Place) -> None:
        self._place = place
        source: Any = place.channel.source
        self._decoder = Decoder(framing=source.framing)
        self._frames: list[bytes] = []
        self._odd = b""

    def __enter__(self) -> _Vendor:
        self._connect()
        return self

    def __exit__(self, *error: object) -> None:
        self._sock.close()

    def _connect(self) -> None:
        self._sock = socket.create_connection(("127.0.0.1", self._place.port), PATIENCE)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do(self, step: Any) -> None:
        """One step: bytes in one write, or something else that README.md names."""
        if isinstance(step, dict) and "wait" in step:
            time.sleep(step["wait"])
        elif isinstance(step, dict) and "answer" in step:
            _check_answer(step["answer"], self.answer())
        elif isinstance(step, dict) and "half close" in step:
            self._sock.shutdown(socket.SHUT_WR)
        elif isinstance(step, dict) and "reset" in step:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._sock.close()
            self._connect()
        else:
            self._sock.sendall(octets(step))
            time.sleep(0.02)  # a write each is a packet each

    def answer(self) -> bytes:
        """The next frame."""
        while not self._frames:
            data = self._sock.recv(65536)
            assert data, "closed before the answer"
            self._hear(data)
        return self._frames.pop(0)

    def rest(self) -> tuple[bytes, bool]:
        """What else comes, and whether the connection is closed."""
        self._sock.settimeout(QUIET)
        with contextlib.suppress(TimeoutError):
            while True:
                try:
                    data = self._sock.recv(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    return b"".join(self._frames) + self._odd, True
                self._hear(data)
        return b"".join(self._frames) + self._odd, False

    def _hear(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            if isinstance(event, Frame):
                self._frames.append(event.payload)
            else:
                self._odd += repr(event).encode()


class _Marks:
    """What was there before, so that only what the quirk did is seen."""

    def __init__(self, house: House, place: Place, quirk: Quirk) -> None:
        self._house = house
        self._place = place
        self._quirk = quirk
        self._channel = house.service.ledger.channels[place.id].id
        self._message = self._newest("message")
        self._event = self._newest("intake_event")
        self._metrics = {name: self._value(name) for name in quirk.metrics}

    def _newest(self, table: str) -> int:
        query = f"select coalesce(max(id), 0) from {table}"
        return int(self._house.read(lambda connection: connection.execute(query).fetchone()[0]))

    def stored(self) -> list[bytes]:
        query = "select raw from message where channel = ? and id > ? order by seq"
        rows = self._house.read(lambda c: c.execute(query, (self._channel, self._message)).fetchall())
        return [raw for (raw,) in rows]

    def kept(self) -> list[tuple[str, str, bytes]]:
        query = "select kind, reason, raw from intake_event where channel = ? and id > ? order by id"
        found: list[tuple[str, str, bytes]] = self._house.read(
            lambda c: c.execute(query, (self._channel, self._event)).fetchall()
        )
        return found

    def metrics(self) -> dict[str, float]:
        return {name: self._value(name) - before for name, before in self._metrics.items()}

    def _value(self, name: str) -> float:
        """Of `interlock_…_total`, for the channel; further labels stand after a blank each."""
        family, *labels = name.split(" ", 1)
        return float(METRICS.families[family].of(self._place.id, *labels).n)


def _script(peer: Scripted, said: dict[str, Any]) -> None:
    """Have a peer say what the quirk wants: to the first message the first entry, and so on; the last one for ever."""
    peer.payloads.clear()
    peer.sockets.clear()
    entries = said.get("says")
    if entries is None:
        peer.says = lambda payload: (ack(payload),)
        return
    steps = [entry if isinstance(entry, list) else [entry] for entry in entries]
    peer.says = lambda payload: _said(steps[min(len(peer.payloads), len(steps)) - 1], payload)


def _said(steps: list[Any], payload: bytes) -> Iterable[bytearray | float | None]:
    for step in steps:
        if step == "close":
            yield None
        elif isinstance(step, int | float):
            yield float(step)
        else:
            yield bytearray(_with_acks(octets(step), payload))


def _with_acks(said: bytes, payload: bytes) -> bytes:
    return re.sub(rb"\[\[([A-Z]{2})\]\]", lambda found: ack(payload, found[1].decode()), said)


def _check_answer(wanted: Any, answer: bytes) -> None:
    """`AA M1`: the code and MSA-2; `{raw: …}`: every byte; `{holds: …}`: some of them."""
    if isinstance(wanted, str):
        parsed = parse_ack(answer)
        assert parsed is not None
        assert f"{parsed.code} {parsed.control_id}".strip() == wanted
    elif "raw" in wanted:
        assert answer == octets(wanted["raw"])
    else:
        assert octets(wanted["holds"]) in answer


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)
