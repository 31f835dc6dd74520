"""What the API wants to know of a running service: the questions, and the shapes of their answers.

`Reading` is implemented over the ledger; the API never sees SQL. Times are ISO 8601 in UTC with a `Z`; ages are
seconds; bytes of messages and answers are base64, since they may be in any character set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, Protocol, TypedDict

from engine.api.moving import Selection
from engine.api.shape import Within
from engine.hl7.search_keys import Kind
from engine.migration.selection import Selector

LIMIT_MAX = 1000


class DestinationStatus(TypedDict):
    """One destination of a channel, the legacy path (`legacy`) among them.

    mode: what its newest epoch says: send, capture, defer, mirror or off.
    counts: messages by state, only states that have any; all epochs together.
    replayed: of replays, which are counted apart, those that are open. wanted: open ones that only a person moves, by
    state, replays among them. frontier, claim: sequence numbers.
    open: messages not settled. oldest_s: age of the oldest of them.
    breaker: why nothing is sent there at the moment; None while it is closed. next_trial_s: seconds until its endpoint
    is asked again. rests_until: when its delivery hours begin, while nothing is sent because of them.
    balanced: stored = settled + open, counted from both sides.
    """

    name: str
    kind: str
    mode: str
    counts: dict[str, int]
    replayed: dict[str, int]
    wanted: dict[str, int]
    frontier: int
    claim: int
    open: int
    oldest_s: float | None
    breaker: str | None
    next_trial_s: float | None
    rests_until: str | None
    balanced: bool


class HoldStatus(TypedDict):
    """A freeze. until: from then on it pages. stopped: the channel stopped by itself, behind a dead message."""

    stopped: bool
    who: str
    why: str
    since: str
    until: str


class TapStatus(TypedDict):
    """Where the old engine's own output arrives. forward: host:port of the real endpoint behind it."""

    name: str
    listening: bool
    down: str | None
    address: str
    peers: list[str]
    forward: str


class AnswersStatus(TypedDict):
    """A port of ours where an endpoint's answers come. down: why none can."""

    endpoint: str
    listening: bool
    down: str | None
    address: str
    peers: list[str]


class ChannelStatus(TypedDict):
    """One channel as it is now. address: host:port of its listener, or the feed or folder that its messages come from;
    down: why nothing can come in there, None where it can; peers: host:port of who is connected.

    hold: None while it is not held. run: the run whose barrier it is behind, None while there is none.
    parked: tap → how many outputs of the old engine it keeps for a person, where it keeps any.
    """

    id: str
    connection: str
    title: str
    phase: str
    listening: bool
    down: str | None
    address: str
    peers: list[str]
    stored: int
    last_received: str | None
    hold: HoldStatus | None
    run: int | None
    taps: list[TapStatus]
    parked: dict[str, int]
    destinations: list[DestinationStatus]


class Status(TypedDict):
    """The whole service. writable: the ledger took its last transaction; balanced: of every channel and destination;
    delivering: no worker of an earlier process is left; workers: number → '' or why it takes nothing; unmapped: how
    many codes that no table knew nobody has decided about, where there are any."""

    version: str
    started: str
    incarnation: str
    term: int
    ledger: str
    writable: bool
    balanced: bool
    delivering: bool
    workers: dict[str, str]
    channels: list[ChannelStatus]
    answers: list[AnswersStatus]
    unmapped: NotRequired[int]


class ChannelInfo(TypedDict):
    """One channel as configured. source: its file."""

    id: str
    connection: str
    title: str
    direction: str
    owner: str
    labels: dict[str, str]
    phase: str
    address: str
    source: str


SearchKey = Annotated[str, Within(1, 1000)]


class MessageSearch(TypedDict):
    """Messages to which all that is given applies, at least one thing; newest first. Case and blanks of a key do not
    count (`engine.hl7.search_keys` says where each is looked for).

    order: placer's or filler's number. patient: any identifier of PID or MRG, or an account; `4711^^^ACME` names the
    authority too. type: `ORU^R01`, or `ORU` alone. since, until: when it was received, ISO 8601 with a zone; the first
    within, the last without. channel: also one that is no longer configured. before: CHANNEL/SEQ, only messages stored
    before that one. limit: 50 unless given.
    """

    control_id: NotRequired[SearchKey]
    order: NotRequired[SearchKey]
    accession: NotRequired[SearchKey]
    patient: NotRequired[SearchKey]
    type: NotRequired[SearchKey]
    since: NotRequired[str]
    until: NotRequired[str]
    selector: NotRequired[Selection]
    channel: NotRequired[str | None]
    before: NotRequired[str]
    limit: NotRequired[Annotated[int, Within(1, LIMIT_MAX)]]


class MessageRow(TypedDict):
    """One message in a list. states: destination → state, where work is due."""

    channel: str
    seq: int
    received: str
    control_id: str | None
    type: str
    size: int
    phase: str
    states: dict[str, str]


class ReceiptRow(TypedDict):
    """What became of a part of a message at a destination, one step. answer: base64 of what the peer said. revision:
    above 1 where a person had changed the bytes."""

    destination: str
    part: int
    delivery: int
    revision: int
    state: str
    at: str
    reason: str
    answer: str | None


class LaterAnswer(TypedDict):
    """What a destination said of a message that was settled. answer: base64."""

    at: str
    reason: str
    answer: str


class MessageDetail(MessageRow):
    """One message with its history. raw: base64 of the bytes as received; left empty for who may not read them.

    acknowledged: what its sender was told, such as AA, or `CA, then AA`, as far as that is known: our own answers
    follow from the message and from how its channel answers now; None while it waits or where the answer was silence.
    removed: what of it is no longer kept, when that went and by which rule, a sentence each. damaged: the bytes are not
    those that were stored.
    """

    connection_number: int
    epoch: int
    acknowledged: str | None
    raw: str
    removed: list[str]
    damaged: bool
    receipts: list[ReceiptRow]
    later: list[LaterAnswer]


class Readiness(TypedDict):
    """ready: all ports that should be open are, and the ledger can be written. Destinations never count.

    listeners: channel, or channel/tap → '' or why its port is not open. destinations: endpoint → '' or why nothing is
    sent. workers: number → '' or why it takes nothing; they never count either.
    """

    ready: bool
    ledger: str
    listeners: dict[str, str]
    destinations: dict[str, str]
    workers: dict[str, str]


class Reading(Protocol):
    """The questions. Each answer is of one moment; the shapes named here are what a plain dict must hold."""

    async def status(self) -> dict[str, Any]:
        """A `Status`."""
        ...

    async def channels(self) -> list[dict[str, Any]]:
        """A `ChannelInfo` each."""
        ...

    async def messages(self, *, channel: str | None, before: int | None, limit: int) -> list[dict[str, Any]] | None:
        """A `MessageRow` each, newest first; None where there is no such channel. before: only numbers below it."""
        ...

    async def search(
        self,
        *,
        keys: Mapping[Kind, str],
        selector: Selector,
        channel: str | None,
        since: int | None,
        until: int | None,
        before: tuple[str, int] | None,
        limit: int,
    ) -> list[dict[str, Any]] | None:
        """A `MessageRow` each, newest first; None where there is no such channel. keys: as typed. An empty selector
        means every channel. since, until: in microseconds since 1970. before: channel and number. Raises Refused where
        it cannot be answered."""
        ...

    async def message(self, channel: str, seq: int) -> dict[str, Any] | None:
        """A `MessageDetail`, or None where there is no such message."""
        ...

    async def readiness(self) -> dict[str, Any]:
        """A `Readiness`."""
        ...

    def scraped(self, agent: str) -> None:
        """/metrics was asked for, by a client that calls itself `agent`: the gate wants to know that somebody looks."""
        ...
