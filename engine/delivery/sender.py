"""All that goes to one endpoint: one queue, as many lines as the endpoint takes, at no more than its rate.

What goes out first is what was asked for first. Each course asks for one message at a time, so its order is kept
whatever the number of lines.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from engine.delivery.line import Final, Line
from engine.hl7.ack import parse_ack
from engine.mllp.replies import Answered, NotSent, Reply

MOST_REMEMBERED = 256  # messages whose application's answer may still come


class Job:
    """One message to be sent. `done` is called once with the line's reply, from the event loop.

    final: whether a frame is the answer, where another one may come before it. expects: False where none will come.
    later: hears the application's answer that comes after the one that ended it (enhanced mode).
    """

    __slots__ = ("done", "expects", "final", "later", "line", "payload", "timeout")

    def __init__(
        self,
        payload: bytes,
        timeout: float,
        done: Callable[[Reply], None],
        *,
        final: Final | None = None,
        expects: bool = True,
        later: Callable[[bytes], None] | None = None,
    ) -> None:
        self.payload = payload
        self.timeout = timeout
        self.done = done
        self.final = final
        self.expects = expects
        self.later = later
        self.line: Line | None = None

    def hang_up(self) -> None:
        """The answer belongs to something else: close the line that it came on. To be called from `done`."""
        if self.line is not None:
            self.line.hang_up()


class Sender:
    """The one sender of an endpoint."""

    def __init__(self, *, rate: float = 0.0) -> None:
        """`rate`: messages a second, 0 for as fast as it answers. `use` gives it its lines."""
        self._idle: deque[Line] = deque()
        self._lines: tuple[Line, ...] = ()
        self._queue: deque[Job] = deque()
        self._gap = 1.0 / rate if rate else 0.0
        self._next = 0.0  # when the rate admits the next message, in seconds of the event loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._later: OrderedDict[str, Callable[[bytes], None]] = OrderedDict()  # by MSH-10
        self._closed = False
        self.message: Callable[[Line, bytes], bool] | None = None
        """Hears a peer's own message on one of the lines; True where it takes it."""

    def use(self, lines: Sequence[Line]) -> None:
        """The lines that it sends on, before anything is sent."""
        self._lines = tuple(lines)
        self._idle.extend(lines)

    def send(self, job: Job) -> None:
        if self._closed:
            asyncio.get_running_loop().call_soon(job.done, NotSent("client closed"))
            return
        self._queue.append(job)
        self._pump()

    def cancel(self, job: Job) -> bool:
        """Take a message back. False where it has been handed over already."""
        try:
            self._queue.remove(job)
        except ValueError:
            return False
        return True

    def came(self, line: Line, payload: bytes) -> bool:
        """A frame on a line that is not the answer waited for. Whether it is welcome."""
        answer = parse_ack(payload)
        if answer is not None:
            later = self._later.pop(answer.control_id, None)
            if later is not None:
                later(payload)
            return later is not None
        return self.message is not None and self.message(line, payload)

    async def aclose(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._queue = self._queue, deque()
        for job in waiting:
            job.done(NotSent("client closed"))
        for line in self._lines:
            await line.aclose()

    def _pump(self) -> None:
        while self._queue and self._idle:
            if self._gap and not self._admitted():
                return
            self._begin(self._queue.popleft(), self._idle.popleft())

    def _admitted(self) -> bool:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now < self._next:
            if self._timer is None:
                self._timer = loop.call_at(self._next, self._go_on)
            return False
        self._next = max(self._next, now) + self._gap
        return True

    def _go_on(self) -> None:
        self._timer = None
        self._pump()

    def _begin(self, job: Job, line: Line) -> None:
        job.line = line

        def heard(reply: Reply) -> None:
            if job.later is not None and isinstance(reply, Answered):
                self._remember(reply.payload, job.later)
            self._idle.append(line)
            try:
                job.done(reply)
            finally:
                self._pump()

        line.send(job.payload, job.timeout, heard, final=job.final, expects=job.expects)

    def _remember(self, payload: bytes, later: Callable[[bytes], None]) -> None:
        answer = parse_ack(payload)
        if answer is None or not answer.code.startswith("C"):
            return  # only an accept acknowledgement has another one after it
        self._later[answer.control_id] = later
        while len(self._later) > MOST_REMEMBERED:
            self._later.popitem(last=False)
