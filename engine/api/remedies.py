"""The paths of what people do about single messages: what waits for them, and the verbs about it.

`Remedies` is implemented by the service. What may not be done raises `engine.migration.refused.Refused`. Times are
ISO 8601 in UTC with a `Z`; bytes of messages are base64. No path and no query holds anything of a message.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, NotRequired, Protocol, TypedDict

from aiohttp import web

from engine.api.exchange import LARGEST, answer, body, origin, place_of, whole
from engine.api.moving import Selection, Sentence
from engine.api.problems import Refusal
from engine.api.reading import MessageSearch
from engine.api.searching import asked_for
from engine.api.shape import Within
from engine.api.verbs import chosen
from engine.migration.selection import Selector

EDIT_LIMIT = 96 * 1024 * 1024
"""Bytes of an order that holds a message."""

Place = Annotated[str, Within(3, 200)]
Numbers = Annotated[str, Within(1, 50)]
Reason = Annotated[str, Within(0, 2000)]
OpenState = Literal["dead", "parked", "unknown", "retrying"]
Which = Literal["as-is", "as-was"]


class WorkQuestion(TypedDict):
    """Open work: of the messages named as CHANNEL/SEQ, else all of the selected channels that wants a person; of all
    channels where nothing is selected. state: this one instead. destination: only there."""

    selector: NotRequired[Selection]
    messages: NotRequired[list[Place]]
    destination: NotRequired[str]
    state: NotRequired[OpenState]


class WorkRow(TypedDict):
    """One open part of a message. person: nobody but a person moves it. behind: how many messages wait for it there.
    due: when it is tried again by itself; null where it is not."""

    channel: str
    seq: int
    destination: str
    part: int
    parts: int
    delivery: int
    revision: int
    state: str
    person: bool
    why: str
    tries: int
    due: str | None
    received: str
    behind: int


class WorkOrder(WorkQuestion):
    """Of retry and discard. confirm: the number of messages, wanted for more than a few."""

    who: Sentence
    reason: NotRequired[Reason]
    dry_run: NotRequired[bool]
    confirm: NotRequired[int]


class EditOrder(TypedDict):
    """Of edit-and-retry. message: CHANNEL/SEQ, which is open at the destination. raw: the new bytes, base64."""

    message: Place
    destination: str
    raw: str
    who: Sentence
    reason: NotRequired[Reason]
    dry_run: NotRequired[bool]


class ReplayOrder(TypedDict):
    """Of replay: messages of one channel by number (`812` or `812-900`), or those that a search finds in it. mapping:
    the present one (as-is, where it is left out), or for each message the one by which it first went there (as-was)."""

    channel: str
    destination: str
    numbers: NotRequired[list[Numbers]]
    search: NotRequired[MessageSearch]
    mapping: NotRequired[Which]
    who: Sentence
    reason: NotRequired[Reason]
    dry_run: NotRequired[bool]
    confirm: NotRequired[int]


class StopOrder(TypedDict):
    """Of the end of a replay."""

    who: Sentence
    reason: Sentence


class WorkPlan(TypedDict):
    """What would be done. confirm: whether the number has to be said."""

    verb: str
    count: int
    lines: list[str]
    refused: list[str]
    confirm: bool


class ReplayState(TypedDict):
    """A replay. begun: how many of `total` messages have been begun. state: running, done or stopped. mapping: as-is or
    as-was."""

    id: int
    channel: str
    destination: str
    total: int
    begun: int
    state: str
    who: str
    why: str
    at: str
    ended: str | None
    mapping: str


class WorkAnswer(TypedDict):
    """What became of an order: the plan, how many messages it was done to, the replay that it began."""

    plan: WorkPlan
    done: int
    replay: ReplayState | None


class Remedies(Protocol):
    """The orders. The shapes named here are what a plain dict must hold."""

    async def work(
        self, *, selector: Selector | None, messages: list[tuple[str, int]], destination: str | None, state: str | None
    ) -> list[dict[str, Any]]:
        """A `WorkRow` each."""
        ...

    async def decide(
        self, verb: str, *, selector: Selector | None, messages: list[tuple[str, int]], destination: str | None,
        state: str | None, who: str, reason: str, origin: str, dry_run: bool, confirm: int | None,
    ) -> dict[str, Any]:  # fmt: skip
        """A `WorkAnswer`. verb: retry or discard."""
        ...

    async def edit(
        self,
        message: tuple[str, int],
        destination: str,
        raw: bytes,
        *,
        who: str,
        reason: str,
        origin: str,
        dry_run: bool,
    ) -> dict[str, Any]:
        """A `WorkAnswer`."""
        ...

    async def replay(
        self, channel: str, destination: str, *, numbers: list[tuple[int, int]], search: dict[str, Any] | None,
        who: str, reason: str, origin: str, dry_run: bool, confirm: int | None, mapping: str,
    ) -> dict[str, Any]:  # fmt: skip
        """A `WorkAnswer`. search: as `Reading.search` wants it. mapping: as-is or as-was."""
        ...

    async def replays(self) -> list[dict[str, Any]]:
        """A `ReplayState` each, newest first."""
        ...

    async def stop_replay(self, id: int, *, who: str, reason: str, origin: str) -> dict[str, Any]:
        """The `ReplayState` of one that begins no more."""
        ...


class Remedying:
    """Each handler checks what was asked and passes it on."""

    def __init__(self, remedies: Remedies) -> None:
        self._remedies = remedies

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/open-work", self.work),
            web.post("/api/v1/open-work/retry", self.retry),
            web.post("/api/v1/open-work/discard", self.discard),
            web.post("/api/v1/open-work/edit", self.edit),
            web.get("/api/v1/replays", self.replays),
            web.post("/api/v1/replays", self.replay),
            web.post("/api/v1/replays/{id}/stop", self.stop),
        ]

    async def work(self, request: web.Request) -> web.Response:
        return answer(await self._remedies.work(**_chosen(await body(request, WorkQuestion), needed=False)))

    async def retry(self, request: web.Request) -> web.Response:
        return await self._decide(request, "retry")

    async def discard(self, request: web.Request) -> web.Response:
        return await self._decide(request, "discard")

    async def _decide(self, request: web.Request, verb: str) -> web.Response:
        order = await body(request, WorkOrder)
        told = _told(order, request)
        return answer(
            await self._remedies.decide(verb, **_chosen(order, needed=True), **told, confirm=order.get("confirm"))
        )

    async def edit(self, request: web.Request) -> web.Response:
        order = await body(request, EditOrder, EDIT_LIMIT)
        try:
            raw = base64.b64decode(order["raw"], validate=True)
        except binascii.Error:
            raise Refusal(400, "raw is not base64") from None
        return answer(
            await self._remedies.edit(_place(order["message"]), order["destination"], raw, **_told(order, request))
        )

    async def replay(self, request: web.Request) -> web.Response:
        order = await body(request, ReplayOrder)
        if bool(order.get("numbers")) == ("search" in order):
            raise Refusal(400, "give numbers, such as 812 or 812-900, or a search; one of them")
        done = await self._remedies.replay(
            order["channel"],
            order["destination"],
            numbers=[_stretch(text) for text in order.get("numbers", ())],
            search=asked_for(order["search"]) if "search" in order else None,
            **_told(order, request),
            confirm=order.get("confirm"),
            mapping=order.get("mapping", "as-is"),
        )
        return answer(done)

    async def replays(self, _: web.Request) -> web.Response:
        return answer(await self._remedies.replays())

    async def stop(self, request: web.Request) -> web.Response:
        order = await body(request, StopOrder)
        id = whole("id", request.match_info["id"], 1, LARGEST) or 0
        who, reason = order["who"], order["reason"]
        return answer(await self._remedies.stop_replay(id, who=who, reason=reason, origin=origin(request)))


def _chosen(asked: dict[str, Any], *, needed: bool) -> dict[str, Any]:
    messages = [_place(text) for text in asked.get("messages", ())]
    selection = asked.get("selector")
    selector = chosen(selection, needed=needed and not messages) if selection is not None else None
    if needed and selector is None and not messages:
        raise Refusal(400, "nothing is selected: give messages as CHANNEL/SEQ, or a selector")
    where = {"destination": asked.get("destination"), "state": asked.get("state")}
    return {"selector": selector, "messages": messages, **where}


def _told(order: dict[str, Any], request: web.Request) -> dict[str, Any]:
    reason, dry_run = order.get("reason", ""), order.get("dry_run", False)
    if not dry_run and not reason.strip():
        raise Refusal(400, "a reason is wanted, as text: it goes into the audit record")
    return {"who": order["who"], "reason": reason, "origin": origin(request), "dry_run": dry_run}


def _place(text: str) -> tuple[str, int]:
    return place_of(text, f"a message is named as CHANNEL/SEQ, such as acme-results/812, not as {text[:60]}")


def _stretch(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not (first.isascii() and first.isdigit()) or (dash and not (last.isascii() and last.isdigit())):
        raise Refusal(400, f"numbers are 812 or 812-900, not {text}")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high < 1 << 60:
        raise Refusal(400, f"{text} is no stretch of numbers: they begin at 1, and the second is the higher one")
    return low, high
