"""All that goes to one endpoint: one queue, as many lines as the endpoint takes, at the endpoint's pace.

What goes out first is what was asked for first. Each course asks for one message at a time, so its order is kept
whatever the number of lines.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial

from engine.delivery.line import Final, Line
from engine.delivery.pace import Pace
from engine.hl7.ack import Answer, parse_ack
from engine.hl7.modes import is_acknowledgement
from engine.hl7.peek import peek
from engine.mllp.client import Client
from engine.mllp.replies import Answered, NotSent, Reply, Written

AHEAD = 0.02  # seconds: what goes out so soon may be claimed before a line is free, which need not wait for the disk
QUICKEST = 1e-6  # seconds: no answer is taken for quicker, however coarse the loop's clock is
MOST_REMEMBERED = 256  # messages whose application's answer may still come


class Job:
    """One message to be sent. `done` is called once with the line's reply, from the event loop.

    final: whether a frame is the answer, where another one may come before it. expects: False where none will come.
    later: hears the answer that comes after an accept acknowledgement has ended it (enhanced mode), or though none was
    expected. committed: the same, where that is only looked for once an accept acknowledgement has come.
    control_id: MSH-10, by which that answer is known. inside: of a batch, the MSH-10 of its messages: a peer
    may answer each of them by itself, and what comes after the first such answer is heard by `later`.
    fits: whether an answer that names nobody's message may be this one's, where answers come apart from messages.
    """

    __slots__ = (
        "committed",
        "control_id",
        "done",
        "expects",
        "final",
        "fits",
        "inside",
        "later",
        "line",
        "payload",
        "timeout",
    )

    def __init__(
        self,
        payload: bytes,
        timeout: float,
        done: Callable[[Reply], None],
        *,
        final: Final | None = None,
        expects: bool = True,
        later: Callable[[bytes], None] | None = None,
        committed: Callable[[bytes], None] | None = None,
        control_id: str | None = None,
        inside: Sequence[str] = (),
        fits: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.payload = payload
        self.timeout = timeout
        self.done = done
        self.final = final
        self.expects = expects
        self.later = later
        self.committed = committed
        self.control_id = control_id
        self.inside = inside
        self.fits = fits
        self.line: Line | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The control ids by which an answer to it may be known."""
        return (self.control_id, *self.inside) if self.control_id else tuple(self.inside)

    def offer(self, payload: bytes) -> None:
        """Its answer, which came elsewhere than on its line."""
        assert isinstance(self.line, Client)
        self.line.offer(payload)

    def hang_up(self) -> None:
        """The answer belongs to something else: close the line that it came on. To be called from `done`."""
        if self.line is not None:
            self.line.hang_up()


class Sender:
    """The one sender of an endpoint; of the old engine's each channel and feed has its own."""

    def __init__(self, pace: Pace | None = None) -> None:
        """`pace`: the endpoint's; as fast as it answers, if none is given. `use` gives it its lines."""
        self._idle: deque[Line] = deque()
        self._lines: tuple[Line, ...] = ()
        self._queue: deque[Job] = deque()
        self._pace = pace or Pace()
        self._took = AHEAD  # seconds from sending to the answer, lately
        self._later: OrderedDict[str, Callable[[bytes], None]] = OrderedDict()  # by MSH-10
        self._closed = False
        self.waiting: list[Job] = []
        """What is on a line and has no answer yet, though it expects one."""
        self.message: Callable[[Client, bytes], bool] | None = None
        """Hears a peer's own message on a connection that we made to it; True where it takes it."""
        self.has_room: Callable[[], object] = lambda: None
        """Called when its pace admits one more."""

    def use(self, lines: Sequence[Line]) -> None:
        """The lines that it sends on, before anything is sent."""
        self._lines = tuple(lines)
        self._idle.extend(lines)

    def send(self, job: Job) -> None:
        if self._closed:
            asyncio.get_running_loop().call_soon(job.done, NotSent("client closed"))
            return
        if self._idle and not self._queue and self._pace.take():
            self._begin(job, self._idle.popleft())  # as nearly always
            return
        self._queue.append(job)
        self._pump()

    def room(self) -> int:
        """How many messages may be claimed for it now, those included that are on its lines: what goes out in a moment.
        Where its pace is limited that is one, and only when it is due, or behind what is no claim (an output that a tap
        forwards)."""
        lines = len(self._lines)
        if not self._pace.limited:
            return lines + 1 + int(lines * AHEAD / max(self._took, QUICKEST))
        if not self._queue and not self._pace.due:
            self._pace.tell(self._told)  # somebody else may have sent the last one
            return 0
        return min(lines, lines - len(self._idle) + 1)

    def cancel(self, job: Job) -> bool:
        """Take a message back. False where it has been handed over already."""
        try:
            self._queue.remove(job)
        except ValueError:
            return False
        return True

    def transmit(self, payload: bytes) -> bool:
        """Write something that gets no answer on a connection that is there; False where none is."""
        return any(line.transmit(payload) for line in self._lines)

    def came(self, line: Client, payload: bytes) -> bool:
        """A frame on a line that is not the answer waited for. Whether it is welcome."""
        answer = parse_ack(payload)
        if answer is not None:
            return self._belongs(answer, payload)
        return self.message is not None and self.message(line, payload)

    def _belongs(self, answer: Answer, payload: bytes) -> bool:
        """Whether it is of a message that may have one more answer. An application's ends that, and is heard after the
        accept acknowledgement, with which it may come in one piece."""
        later = self._later.get(answer.control_id)
        if later is not None and not answer.code.startswith("C"):
            del self._later[answer.control_id]
            asyncio.get_running_loop().call_soon(later, payload)
        return later is not None

    def came_elsewhere(self, payload: bytes) -> bool:
        """An answer on a connection of its own. Whether it is of a message that may have one more."""
        answer = parse_ack(payload)
        return answer is not None and self._belongs(answer, payload)

    async def aclose(self) -> None:
        self._closed = True
        waiting, self._queue = self._queue, deque()
        for job in waiting:
            job.done(NotSent("client closed"))
        for line in self._lines:
            await line.aclose()

    def _pump(self) -> None:
        while self._queue and self._idle:
            if not self._pace.take():
                self._pace.tell(self._pump)
                return
            self._begin(self._queue.popleft(), self._idle.popleft())

    def _told(self) -> None:
        """A message may go, unless it is one of the queue."""
        if not self._closed:
            self.has_room()

    def _begin(self, job: Job, line: Line) -> None:
        job.line = line
        if self._pace.limited:
            self._pace.tell(self._told)
        tick = asyncio.get_running_loop().time
        began = tick()

        def heard(reply: Reply) -> None:
            if isinstance(reply, Answered):
                self._took += (tick() - began - self._took) * 0.125
            if job.later is not None:
                self._forget(job, reply)
            elif job.committed is not None and isinstance(reply, Answered) and _more_may_come(reply):
                self._remember(job, job.committed)
            if job.expects:
                self.waiting.remove(job)
            self._idle.append(line)
            try:
                job.done(reply)
            finally:
                if self._queue:
                    self._pump()

        final = partial(self._is_final, job) if self._later or self.message is not None else job.final
        if job.later is not None:
            self._remember(job, job.later)
        if job.expects:
            self.waiting.append(job)
        line.send(job.payload, job.timeout, heard, final=final, expects=job.expects)

    def _is_final(self, job: Job, payload: bytes) -> bool:
        """Whether it is neither the answer that an earlier message still has coming, nor a message of the peer's own,
        where somebody hears those."""
        answer = parse_ack(payload)
        if answer is not None and answer.control_id in self._later and answer.control_id not in job.names:
            return False
        if answer is None and self.message is not None and is_message(payload):
            return False
        return job.final is None or job.final(payload)

    def _remember(self, job: Job, later: Callable[[bytes], None]) -> None:
        for name in job.names:
            self._later.pop(name, None)
            self._later[name] = later
        while len(self._later) > MOST_REMEMBERED:
            self._later.popitem(last=False)

    def _forget(self, job: Job, reply: Reply) -> None:
        """What cannot come any more."""
        if _more_may_come(reply):
            return
        answer = parse_ack(reply.payload) if job.inside and isinstance(reply, Answered) else None
        if answer is not None and answer.control_id in job.inside:
            self._later.pop(answer.control_id, None)  # those of the others may follow
            self._later.pop(job.control_id or "", None)
            return
        for name in job.names:
            self._later.pop(name, None)


def is_message(payload: bytes) -> bool:
    """Whether a frame without an MSA is a message of the peer's own, by its MSH-9, and no answer of whatever form."""
    head = peek(payload)
    return head.ok and bool(head.type) and not is_acknowledgement(head, payload)


def _more_may_come(reply: Reply) -> bool:
    """Whether another answer may follow: the application's after an accept acknowledgement, or one not expected."""
    if isinstance(reply, Answered):
        at = reply.payload.find(b"MSA")
        if reply.payload[at + 4 : at + 5] != b"C":  # as nearly always
            return False
        answer = parse_ack(reply.payload)
        return answer is not None and answer.code.startswith("C")
    return isinstance(reply, Written)
