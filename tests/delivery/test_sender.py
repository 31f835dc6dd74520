"""One queue for an endpoint: its lines, its rate, and what comes after an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from engine.delivery.line import Final
from engine.delivery.pace import Pace
from engine.delivery.sender import Job, Sender
from engine.mllp.replies import Answered, NotSent, Reply


class Wire:
    """A line whose peer answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.times: list[float] = []
        self.hung_up = self.closed = False
        self._done: Callable[[Reply], None] | None = None

    def send(
        self, payload: bytes, timeout: float, done: Callable[[Reply], None], *, final: Final | None = None,
        expects: bool = True,
    ) -> None:  # fmt: skip
        assert self._done is None, "one at a time"
        self._done = done
        self.sent.append(payload)
        self.times.append(asyncio.get_running_loop().time())

    def answer(self, reply: Reply) -> None:
        done, self._done = self._done, None
        assert done is not None
        done(reply)

    def transmit(self, payload: bytes) -> bool:
        return True

    def hang_up(self) -> None:
        self.hung_up = True

    async def aclose(self) -> None:
        self.closed = True


def ack(code: str, control_id: str) -> bytes:
    return f"MSH|^~\\&|A|B|C|D|1||ACK|9|P|2.5\rMSA|{code}|{control_id}\r".encode()


def job(payload: bytes, heard: list[Reply], **options: object) -> Job:
    return Job(payload, 1.0, heard.append, **options)  # type: ignore[arg-type]


async def test_as_many_at_once_as_there_are_lines_and_in_order() -> None:
    lines = [Wire(), Wire()]
    sender = Sender()
    sender.use(lines)
    heard: list[Reply] = []
    for payload in (b"1", b"2", b"3", b"4"):
        sender.send(job(payload, heard))
    assert [wire.sent for wire in lines] == [[b"1"], [b"2"]]
    lines[1].answer(Answered(ack("AA", "2")))
    assert lines[1].sent == [b"2", b"3"]
    lines[0].answer(Answered(ack("AA", "1")))
    assert lines[0].sent == [b"1", b"4"]
    assert len(heard) == 2


async def test_no_faster_than_its_rate() -> None:
    wire = Wire()
    sender = Sender(Pace(50))
    sender.use([wire])
    heard: list[Reply] = []
    done = asyncio.Event()

    def answered(reply: Reply) -> None:
        heard.append(reply)
        if len(heard) == 4:
            done.set()

    original = wire.send

    def at_once(*args: object, **options: object) -> None:
        original(*args, **options)  # type: ignore[arg-type]
        asyncio.get_running_loop().call_soon(wire.answer, Answered(ack("AA", "1")))

    wire.send = at_once  # type: ignore[method-assign, assignment]
    for _ in range(4):
        sender.send(Job(b"x", 1.0, answered))
    async with asyncio.timeout(5):
        await done.wait()
    gaps = [after - before for before, after in zip(wire.times, wire.times[1:], strict=False)]
    assert min(gaps) >= 0.019


async def test_several_senders_to_one_endpoint_keep_its_rate_together_and_take_turns() -> None:
    pace, wires = Pace(100), [Wire(), Wire()]
    senders = [Sender(pace) for _ in wires]
    for sender, wire in zip(senders, wires, strict=True):
        sender.use([wire])
    done = asyncio.Event()

    def answered(reply: Reply) -> None:
        if sum(len(wire.times) for wire in wires) == 6:
            done.set()

    for wire in wires:

        def at_once(*args: Any, wire: Wire = wire, send: Callable[..., None] = wire.send, **options: Any) -> None:
            send(*args, **options)
            asyncio.get_running_loop().call_soon(wire.answer, Answered(ack("AA", "1")))

        wire.send = at_once  # type: ignore[method-assign]
    for _ in range(3):
        for sender in senders:
            sender.send(Job(b"x", 1.0, answered))
    async with asyncio.timeout(5):
        await done.wait()
    times = sorted((time, at) for at, wire in enumerate(wires) for time in wire.times)
    assert [at for _, at in times] == [0, 1, 0, 1, 0, 1]
    assert min(after - before for (before, _), (after, _) in pairwise(times)) >= 0.0099


async def test_room_for_one_more_only_when_its_rate_admits_it() -> None:
    wire, free = Wire(), asyncio.Event()
    sender = Sender(Pace(20))
    sender.use([wire])
    sender.has_room = free.set
    assert sender.room() == 1
    sender.send(job(b"1", []))
    assert sender.room() == 0
    wire.answer(Answered(ack("AA", "1")))
    assert sender.room() == 0
    async with asyncio.timeout(5):
        await free.wait()
    assert sender.room() == 1


async def test_room_for_what_goes_out_in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick endpoint's line does not wait for the disk, and a slow one's next message is not claimed long before."""
    clock = [0.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
    wire = Wire()
    sender = Sender()
    sender.use([wire])
    for seconds, room in ((5.0, 2), (0.001, 22)):
        for _ in range(100):
            sender.send(job(b"1", []))
            clock[0] += seconds
            wire.answer(Answered(ack("AA", "1")))
        assert sender.room() in (room, room - 1)  # as floats come out


async def test_what_has_not_been_handed_over_can_be_taken_back() -> None:
    wire = Wire()
    sender = Sender()
    sender.use([wire])
    heard: list[Reply] = []
    first, second = job(b"1", heard), job(b"2", heard)
    sender.send(first)
    sender.send(second)
    assert sender.cancel(second)
    assert not sender.cancel(first)
    wire.answer(Answered(ack("AA", "1")))
    assert wire.sent == [b"1"]


async def test_the_applications_answer_after_the_accept_acknowledgement() -> None:
    wire = Wire()
    sender = Sender()
    sender.use([wire])
    heard: list[Reply] = []
    later: list[bytes] = []
    sender.send(job(b"1", heard, later=later.append, control_id="1"))
    wire.answer(Answered(ack("CA", "1")))
    assert not sender.came(wire, ack("AA", "2"))  # another message's
    assert sender.came(wire, ack("AA", "1"))
    await asyncio.sleep(0)
    assert later == [ack("AA", "1")]
    assert not sender.came(wire, ack("AA", "1"))  # once


async def test_an_applications_answer_in_one_piece_with_the_accept_acknowledgement_is_heard_after_it() -> None:
    wire = Wire()
    sender = Sender()
    sender.use([wire])
    said: list[object] = []
    sender.send(Job(b"1", 1.0, said.append, later=said.append, control_id="1"))
    assert sender.came(wire, ack("AA", "1"))  # a line tells of what is beside the answer before it ends the exchange
    wire.answer(Answered(ack("CA", "1")))
    await asyncio.sleep(0)
    assert said == [Answered(ack("CA", "1")), ack("AA", "1")]


async def test_what_an_earlier_message_still_has_coming_is_no_answer_to_the_next_one() -> None:
    wire = Wire()
    sender = Sender()
    sender.use([wire])
    finals: list[Final | None] = []
    send = wire.send

    def sending(*given: Any, final: Final | None = None, expects: bool = True) -> None:
        finals.append(final)
        send(*given, final=final, expects=expects)

    wire.send = sending  # type: ignore[method-assign]
    sender.send(job(b"1", [], later=lambda payload: None, control_id="1"))
    wire.answer(Answered(ack("CA", "1")))
    sender.send(job(b"2", [], control_id="2"))
    assert finals[0] is None
    assert finals[1] is not None
    assert [finals[1](ack("AA", id)) for id in ("1", "2", "3")] == [False, True, True]


async def test_after_an_application_answer_nothing_more_is_welcome() -> None:
    wire = Wire()
    sender = Sender()
    sender.use([wire])
    later: list[bytes] = []
    sender.send(job(b"1", [], later=later.append, control_id="1"))
    wire.answer(Answered(ack("AA", "1")))
    assert not sender.came(wire, ack("AA", "1"))
    assert later == []


async def test_a_peers_own_message_goes_to_whoever_takes_it() -> None:
    wire = Wire()
    sender = Sender()
    sender.use([wire])
    own = b"MSH|^~\\&|A|B|C|D|1||ORU^R01|9|P|2.5\r"
    assert not sender.came(wire, own)
    took: list[bytes] = []
    sender.message = lambda line, payload: (took.append(payload), True)[1]
    assert sender.came(wire, own)
    assert took == [own]


async def test_closing_tells_whoever_waits() -> None:
    wire = Wire()
    sender = Sender()
    sender.use([wire])
    heard: list[Reply] = []
    sender.send(job(b"1", heard))
    sender.send(job(b"2", heard))
    await sender.aclose()
    assert heard == [NotSent("client closed")]
    assert wire.closed


async def test_answers_that_take_no_time_by_the_clock_leave_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop's clock may be as coarse as a millisecond."""
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 0.0)
    wire = Wire()
    sender = Sender()
    sender.use([wire])
    for _ in range(6000):
        sender.send(job(b"1", []))
        wire.answer(Answered(ack("AA", "1")))
    assert sender.room() > 22
