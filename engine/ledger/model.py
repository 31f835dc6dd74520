"""The ledger's values: states, messages, settlements. No I/O and no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.ledger.course import ChannelBook, Course
    from engine.ledger.repeats import First


class State(IntEnum):
    """What became of one part of one message at one destination. Below `DELIVERED`: open; from it on: settled."""

    WAITING = 1  # stored, not begun
    SENDING = 2  # claimed: a byte may have gone out
    RETRYING = 3  # provably not taken; will be tried again
    UNKNOWN = 4  # claimed, and no parsed answer
    PARKED = 5  # waits behind a failed message of its lane, or for a person
    DEAD = 6  # needs a person
    DELIVERED = 10
    CAPTURED = 11  # output made and kept, not sent
    FILTERED = 12  # a declared rule
    REFUSED = 13  # the sender was told no
    DUPLICATE = 14
    SUPERSEDED = 15  # closed here, the other side has it
    DISCARDED = 16  # a person, with a reason

    @property
    def label(self) -> str:
        """The state as people read it and as it stands in metrics: `delivered`, `retrying` …"""
        return self.name.lower()


AS_IT_CAME = b""
"""A captured output that is the message itself: it need not be kept a second time."""

MADE = frozenset((State.DELIVERED, State.CAPTURED, State.FILTERED))
"""A mapping has made what was sent or kept, or has held it back."""

OPEN = tuple(state for state in State if state < State.DELIVERED)
SETTLED = tuple(state for state in State if state >= State.DELIVERED)
FIRST_SETTLED = State.DELIVERED.value
FIRST_COUNTS = (
    State.DISCARDED, State.SUPERSEDED, State.REFUSED, State.DUPLICATE, State.CAPTURED, State.DELIVERED, State.FILTERED,
)  # fmt: skip
"""A message whose parts are settled counts once: by the first of these that one of them is in."""

FAILED = frozenset((State.REFUSED, State.DEAD, State.DISCARDED, State.SUPERSEDED))
"""A message that is in one of these anywhere is repeated by a new one."""

UNDONE = FAILED - {State.DEAD}
"""What became of a message here, where its repeat is not left out but sent in its place."""

ENDS_ALL = frozenset((State.DISCARDED, State.SUPERSEDED, State.REFUSED))
"""What is said of a part here is said of the parts behind it as well: they are never sent."""


def first_of(states: Iterable[int]) -> State:
    """The state that counts for a message, of those of its settled parts."""
    return min(map(State, states), key=FIRST_COUNTS.index)


class Message:
    """One inbound message: the exact bytes, and its number.

    `id` and `seq` are given by the transaction that stores it; before that they are 0. Its epoch follows from its
    number (`channel.epoch_of`). `received` is in microseconds since 1970. `reply` belongs to intake (the connection
    that waits for an answer); the ledger only reads whether the answer is wanted from an authority (`wants_relay`) and
    says whether that is possible (`relayed`). Plain slots, not a dataclass: one is made for every frame.
    """

    __slots__ = (
        "channel", "control_id", "crc", "damaged", "digest", "flaw", "id", "large", "raw", "received", "relayed",
        "repeats", "reply", "seq", "socket", "wants_relay",
    )  # fmt: skip

    def __init__(
        self,
        channel: ChannelBook,
        raw: bytes,
        received: int,
        control_id: str | None = None,
        socket: int = 0,
        reply: Any = None,
        wants_relay: bool = False,
        flaw: str | None = None,
    ) -> None:
        self.channel = channel
        self.raw = raw
        self.received = received
        self.control_id = control_id
        self.socket = socket
        self.reply = reply
        self.wants_relay = wants_relay
        self.relayed = False
        self.damaged = False  # read from the file, and not as they were stored: nothing may be made of these bytes
        self.flaw = flaw  # why `live` would refuse it, where it is taken all the same
        self.large: int | None = None  # where the rest of a large one stands already; its row holds the beginning
        self.crc: int | None = None  # CRC-32 of a large one's bytes
        self.digest: bytes | None = None  # of a large one, by which `Repeats` knows it
        self.repeats: First | None = None  # the message that it was stored as a repeat of
        self.id = self.seq = 0


class Together:
    """Messages that are stored in one transaction, or not at all: the copies of a feed, the messages of a file.

    `rows` are written with them, as (statement, values). `done` hears whether it was written; where it was not, whoever
    gave the messages still has them.
    """

    __slots__ = ("done", "messages", "rows")

    def __init__(
        self,
        messages: Sequence[Message],
        rows: Sequence[tuple[str, tuple[Any, ...]]] = (),
        done: Callable[[bool], None] | None = None,
    ) -> None:
        self.messages = messages
        self.rows = rows
        self.done = done


class Settlement:
    """What became of one part of one message at one destination: a receipt, or a change of open work.

    `at` and `due` are microseconds since 1970; `due` says when an open part is to be tried again (0: not by itself).
    `why` is the reason, `answer` the peer's answer; both are kept with the receipt. `blocks`: later messages of the
    lane wait. `parts`: how many outputs the message becomes here; while `part` is not the last of them, its settlement
    makes the next one the message's open work. `revision`: of the message's bytes, that were sent. `made_by`: the epoch
    by whose mapping it was made, None where nothing was; of what is open: by whose it must be (`OpenWork.bound`).
    """

    __slots__ = (
        "answer", "at", "blocks", "course", "delivery", "due", "made_by", "message", "output", "part", "parts",
        "revision", "seq", "state", "tries", "why",
    )  # fmt: skip

    def __init__(
        self,
        course: Course,
        message: Message,
        state: State,
        at: int,
        why: str = "",
        answer: bytes | None = None,
        *,
        output: bytes | None = None,
        due: int = 0,
        tries: int = 0,
        blocks: bool = True,
        part: int = 1,
        parts: int = 1,
        delivery: int = 1,
        revision: int = 1,
        made_by: int | None = None,
    ) -> None:
        self.course = course
        self.message = message
        self.seq = message.seq
        self.state = state
        self.at = at
        self.why = why
        self.answer = answer
        self.output = output
        self.due = due
        self.tries = tries
        self.blocks = blocks
        self.part = part
        self.parts = parts
        self.delivery = delivery
        self.revision = revision
        self.made_by = made_by


@dataclass(slots=True)
class OpenWork:
    """A row of `open_work`: at or below the frontier, and not settled. A delivery of a message has at most one: its
    parts go one after the other, and those behind `part` have not begun.

    parts: how many there are, 1 until more are known. so_far: of the parts before this one, the state that counts for
    the message (`first_of`); 0 where there are none. revision: of the message's bytes, that is to be sent. bound: the
    epoch by whose mapping it must be made, None: the present one's. It is bound to the one by which parts before it
    went out, by which it may have gone out itself, or for which a replay asked.
    """

    seq: int
    part: int
    delivery: int
    message: int  # message.id
    epoch: int
    state: State
    due: int
    tries: int
    why: str
    blocks: bool
    parts: int = 1
    so_far: int = 0
    revision: int = 1
    bound: int | None = None

    @property
    def key(self) -> tuple[int, int, int]:
        return (self.seq, self.part, self.delivery)


@dataclass(frozen=True, slots=True)
class IntakeEvent:
    """Input that got no sequence number, or would not get one in `live`: its bytes, the reason, the answer given.

    `message`: the stored message that it speaks of, where it was stored all the same (`would_refuse`).
    `size` is the whole input's, of which `raw` may be only the beginning.
    """

    channel: ChannelBook
    kind: str
    reason: str
    at: int
    peer: str
    socket: int
    raw: bytes
    size: int
    answer: bytes | None = None
    message: Message | None = None
    reply: Any = None


class TapOutput:
    """What the old engine sent to a tap, and what was done with it: the bytes are kept, whatever was.

    decision: `forwarded`, `captured` or `parked`. `seq`: the input that it belongs to, None where that is not known.
    `id` is given by the transaction; `reply` belongs to the tap.
    """

    __slots__ = (
        "answer", "at", "channel", "control_id", "decision", "id", "large", "packed", "raw", "reply", "seq", "socket",
        "tap",
    )  # fmt: skip

    def __init__(
        self,
        channel: ChannelBook,
        tap: str,
        raw: bytes,
        at: int,
        *,
        socket: int,
        control_id: str | None,
        decision: str,
        seq: int | None,
        answer: bytes | None = None,
        reply: Any = None,
    ) -> None:
        self.channel = channel
        self.tap = tap
        self.raw = raw
        self.at = at
        self.socket = socket
        self.control_id = control_id
        self.decision = decision
        self.seq = seq
        self.answer = answer
        self.reply = reply
        self.packed: bytes | None = None  # compressed already, where that takes long
        self.large: int | None = None  # where the rest of it stands already
        self.id = 0
