"""A channel's numbers in memory: the counter of intake, and per destination the claim, the frontier and open work.

These objects are changed by the ledger's writer only, inside a transaction, and put back as they were when it
fails. Others read them. They hold what the rows of `channel`, `progress` and `open_work` hold, nothing else.

A *course* is a channel's way to one destination. On it: `frontier` <= `claim` <= stored. At or below the frontier
everything is settled or in `open`; between frontier and claim sending may have begun; above the claim it has not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.ledger.model import SETTLED, Message, OpenWork, State
from engine.ledger.repeats import Repeats
from engine.ledger.routing import Epoch, Grant, Mode, Route
from engine.ledger.turns import Turns

SETTLED_STATES = len(SETTLED)
FOR_EVER = 1 << 62  # above every number
OURS = frozenset({"live", "retired"})  # phases in which no old engine does the work
POLICY = "the policy dead: stops_channel"  # who held a channel that stopped by itself
MOST_AWAITED = 500  # messages of one channel whose senders wait for the authority; the next ones we answer ourselves


@dataclass(frozen=True, slots=True)
class Hold:
    """A freeze of a channel: no new claims until it is released. `until`: from then on it pages (microseconds)."""

    until: int
    who: str
    why: str
    at: int


@dataclass(frozen=True, slots=True)
class Barrier:
    """Claims above `at` wait until the run that set it ends. `id`: no message above `at` has this id or a lower one.

    shut: destinations where nothing at all is claimed meanwhile.
    """

    run: int
    at: int
    id: int
    shut: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Compared:
    """What the comparison of a channel's tap has come to (`engine.compare`), as far as it is durable.

    pending_late: inputs whose time is over and that have no verdict yet. open_clinical, open_missing: discrepancies
    that nobody has settled, of clinical severity, and of a message that one side alone has.
    """

    matched: int = 0
    explained: int = 0
    unexplained: int = 0
    not_comparable: int = 0
    pending_late: int = 0
    open_clinical: int = 0
    open_missing: int = 0


@dataclass(slots=True)
class Span:
    """Numbers that are due on a course: one epoch's, `last` is None while it is the present one."""

    first: int
    last: int | None
    epoch: int
    route: Route


class Course:
    """A channel's way to one destination: what is claimed, settled and open there."""

    __slots__ = (
        "again", "blocked", "channel", "claim", "done", "frontier", "frontier_id", "gated", "id", "ids", "marked",
        "name", "open", "paused", "repeated", "runner", "sending", "spans", "stamp", "stops", "totals", "turns",
        "window",
    )  # fmt: skip

    def __init__(self, channel: ChannelBook, id: int, name: str, window: int, gated: bool) -> None:
        self.channel = channel
        self.id = id
        self.name = name
        self.window = window  # how many may be on the way at once; 1 means strictly one after the other
        self.gated = gated  # waits while the answer to a message is awaited from the authority
        self.paused = True  # no new claims: its runner has not begun, or the endpoint's breaker is open
        self.claim = self.frontier = self.frontier_id = 0
        self.sending = 0  # of `open`: those in state SENDING
        self.blocked = 0  # of `open`: those that later messages must wait for
        self.open: dict[tuple[int, int, int], OpenWork] = {}
        self.done: dict[int, int] = {}  # above the frontier, settled in this transaction: seq -> message.id
        self.ids: dict[int, int] = {}  # above the frontier, on the way: seq -> message.id
        self.totals: dict[int, list[int]] = {}  # epoch -> settled by state, in the order of SETTLED
        self.again = [0] * (1 + SETTLED_STATES)  # of people's replays: how many were begun, then settled by state
        self.spans: list[Span] = []  # what is still due, oldest first; the first one is the one at work
        self.repeated: dict[int, int] = {}  # numbers still to come to that repeat an earlier one -> the earlier one
        self.stamp = 0
        self.stops = False  # a message that is dead here stops the channel
        self.marked = 0  # of this transaction: the epoch whose row is to be written
        self.runner: Any = None  # the delivery loop's end of this course
        self.turns: Turns | None = None  # with the other courses to its endpoint

    def save(self) -> tuple[Any, ...]:
        """The numbers that a transaction changes; what it puts into the tables, the book logs."""
        return (
            self.claim, self.frontier, self.frontier_id, self.sending, self.blocked, self.paused, self.gated,
            self.spans,
        )  # fmt: skip

    def restore(self, saved: tuple[Any, ...]) -> None:
        (
            self.claim, self.frontier, self.frontier_id, self.sending, self.blocked, self.paused, self.gated,
            self.spans,
        ) = saved  # fmt: skip

    def in_flight(self) -> int:
        return self.claim - self.frontier + self.sending

    def unsettled(self) -> int:
        """How many messages are due here and not settled."""
        if not self.spans:
            return len(self.open)
        last = self.spans[-1].last
        return (self.channel.seq if last is None else last) - self.frontier + len(self.open)

    def ahead(self) -> int:
        """How many messages the newest of the channel has to wait for here: on the way, waiting, or in its way."""
        return self.channel.seq - 1 - self.frontier + self.blocked

    def may_advance(self) -> int:
        """How many more numbers may be claimed now."""
        channel = self.channel
        if self.paused or not self.spans or channel.hold is not None or (self.window == 1 and self.blocked):
            return 0
        span = self._span()
        limit = channel.released() if self.gated else channel.seq
        barrier = channel.barrier
        if barrier is not None:
            if self.name in barrier.shut:
                return 0
            if barrier.at < limit:
                limit = barrier.at
        if span.last is not None and span.last < limit:
            limit = span.last
        top = self.claim + self.window - self.in_flight()
        if top > limit:
            top = limit
        return max(0, top - self.claim)

    @property
    def in_turn(self) -> bool:
        """Whether what may be claimed next waits for its turn. What is only captured goes nowhere."""
        return self.turns is not None and self.spans[0].route.mode is Mode.SEND

    def may_claim(self, seq: int) -> bool:
        """Whether one number may be claimed anew: no freeze, and no barrier before it."""
        channel, barrier = self.channel, self.channel.barrier
        if channel.hold is not None:
            return False
        return barrier is None or (seq <= barrier.at and self.name not in barrier.shut)

    def mode(self, seq: int, delivery: int = 1) -> Mode:
        """What is due for a number here: as a rollback granted it, else as its epoch's routing table says. A replay is
        due as the present epoch says, whatever the number's own epoch did."""
        if delivery > 1:
            route = self.channel.epoch.routing.route(self.name)
            return route.mode if route else Mode.OFF
        return self.stretch(seq)[2]

    def stretch(self, seq: int) -> tuple[int, int, Mode]:
        """(first, last, mode): the numbers around `seq` for which the same is due here, by the channel's epochs and
        grants as they are now: both are replaced, never changed, when a switch adds to them."""
        channel = self.channel
        epoch = channel.epoch_of(seq)
        later = channel.epochs[epoch.number :]  # numbers count from 1
        last = later[0].first - 1 if later else FOR_EVER
        route = epoch.routing.route(self.name)
        first, mode = epoch.first, route.mode if route else Mode.OFF
        for grant in reversed(channel.grants):  # of several for one number the newest holds
            if grant.destination != self.name:
                continue
            if grant.first <= seq <= grant.last:
                return max(first, grant.first), min(last, grant.last), grant.mode
            if grant.last < seq:
                first = max(first, grant.last + 1)
            else:
                last = min(last, grant.first - 1)
        return first, last, mode

    def _span(self) -> Span:
        """The span at work; a finished one is left behind, and numbers that were never due here are passed over."""
        span = self.spans[0]
        while span.last is not None and self.frontier >= span.last and len(self.spans) > 1:
            self.spans = self.spans[1:]
            span = self.spans[0]
            self.claim = self.frontier = max(self.frontier, span.first - 1)
        return span


@dataclass(slots=True, eq=False)
class ChannelBook:
    """A channel in the ledger: its counter, its epochs, its courses."""

    id: int
    name: str
    seq: int
    epochs: list[Epoch] = field(default_factory=list)
    courses: list[Course] = field(default_factory=list)
    relay: Course | None = None  # the course whose answers go back to the sender, in the present epoch
    awaiting: dict[int, Message] = field(default_factory=dict)  # by number: those whose answer the sender awaits
    refused: dict[int, int] = field(
        default_factory=dict
    )  # numbers the authority said no to -> gated courses still to settle
    stamp: int = 0
    runners: list[Any] = field(default_factory=list)  # the delivery loop's ends of its courses
    hold: Hold | None = None
    barrier: Barrier | None = None
    grants: tuple[Grant, ...] = ()
    compared: dict[str, Compared] = field(default_factory=dict)  # by tap; replaced, never changed
    repeats: Repeats | None = None  # None: every message is a new one

    @property
    def epoch(self) -> Epoch:
        return self.epochs[-1]

    def save(self) -> tuple[Any, ...]:
        return (
            self.seq, self.epochs, self.relay, self.courses, self.hold, self.barrier, self.grants, self.compared,
        )  # fmt: skip

    def restore(self, saved: tuple[Any, ...]) -> None:
        (
            self.seq, self.epochs, self.relay, self.courses, self.hold, self.barrier, self.grants, self.compared,
        ) = saved  # fmt: skip

    def rerouted(self) -> None:
        """Whose answers go back to the sender, and who waits for them, by the newest epoch."""
        authority = self.epochs[-1].routing.answer_from
        self.relay = self.course(authority or "")
        for course in self.courses:
            course.gated = authority is not None and course.name != authority

    def epoch_of(self, seq: int) -> Epoch:
        """The epoch that a number belongs to."""
        newest = self.epochs[-1]
        if newest.first <= seq:
            return newest
        return next(epoch for epoch in reversed(self.epochs) if epoch.first <= seq)

    def course(self, name: str) -> Course | None:
        return next((course for course in self.courses if course.name == name), None)

    @property
    def stopped(self) -> bool:
        """Whether it stopped by itself, behind a dead message."""
        return self.hold is not None and self.hold.who == POLICY

    def stopping(self) -> list[OpenWork]:
        """The dead parts for which it stops, each until a person decides."""
        return [
            work
            for course in self.courses
            if course.stops
            for work in course.open.values()
            if work.state is State.DEAD and self.epochs[work.epoch - 1].phase in OURS  # numbers count from 1
        ]

    def standstill(self, at: int) -> Hold | None:
        """The hold that its policy wants behind a message that died while somebody else held it. at: microseconds."""
        found = self.stopping()
        return Hold(at, POLICY, f"message {min(work.seq for work in found)} is dead", at) if found else None

    def released(self) -> int:
        """The highest number that no awaited answer holds back."""
        return min(self.awaiting) - 1 if self.awaiting else self.seq

    def can_relay(self) -> bool:
        """Whether the authority can be asked at once about the message just numbered.

        All that is unsettled before it must itself await a relayed answer; behind a backlog, or with the endpoint's
        breaker open, the engine answers by itself.
        """
        relay = self.relay
        awaited = len(self.awaiting)
        if self.hold is not None or self.barrier is not None:
            return False  # it cannot be claimed at once
        return relay is not None and not relay.paused and awaited < MOST_AWAITED and relay.ahead() <= awaited
