"""The paths of what taps keep for a person: outputs of the old engine, and the verbs about them.

`Taps` is implemented by the service. What may not be done raises `engine.migration.refused.Refused`. Times are ISO 8601
in UTC with a `Z`; bytes of messages are base64. No path and no query holds anything of a message.
"""

from __future__ import annotations

from typing import Any, NotRequired, Protocol, TypedDict

from aiohttp import web

from engine.api.exchange import LARGEST, answer, body, origin, place_of, whole
from engine.api.moving import Selection, Sentence
from engine.api.problems import Handler, Refusal
from engine.api.remedies import Place, Reason, WorkPlan
from engine.api.verbs import chosen
from engine.migration.selection import Selector


class OutputQuestion(TypedDict):
    """What waits at the taps of the selected channels; of all where nothing is selected."""

    selector: NotRequired[Selection]


class OutputRow(TypedDict):
    """One output that a tap has kept for a person. at: when it came. seq: the input that it belongs to; null where that
    is not known. why: it was kept.

    state: parked; sending; unknown (it may have been taken); and, where it waits no more, forwarded, captured (given to
    an input that is ours to send) or discarded. said: how its last sending ended. who, reason, decided: of what was
    done about it last; null where nothing was.
    """

    id: int
    channel: str
    tap: str
    at: str
    control_id: str | None
    type: str
    size: int
    seq: int | None
    why: str
    state: str
    said: str
    who: str | None
    reason: str | None
    decided: str | None
    waits: bool


class OutputDetail(OutputRow):
    """With its bytes, which hold patient data, and the endpoint's answer to what a person had forwarded; base64."""

    raw: str
    answer: str | None


class OutputOrder(TypedDict):
    """Of discard."""

    who: Sentence
    reason: NotRequired[Reason]
    dry_run: NotRequired[bool]


class ForwardOrder(OutputOrder):
    """Of forward. again: although it may have been taken already."""

    again: NotRequired[bool]


class GiveOrder(OutputOrder):
    """Of give. message: CHANNEL/SEQ of the input that it belongs to."""

    message: Place


class OutputAnswer(TypedDict):
    """What became of an order: the plan, and the output as it is now."""

    plan: WorkPlan
    output: OutputRow


class Taps(Protocol):
    """The questions and orders. The shapes named here are what a plain dict must hold."""

    async def outputs(self, selector: Selector | None) -> list[dict[str, Any]]:
        """An `OutputRow` each, oldest first, of those that wait. Raises Refused where channels do not exist."""
        ...

    async def output(self, id: int) -> dict[str, Any] | None:
        """An `OutputDetail`, decided or not; None where there is no such one."""
        ...

    async def decide(
        self, verb: str, id: int, *, who: str, reason: str, origin: str, dry_run: bool,
        message: tuple[str, int] | None = None, again: bool = False,
    ) -> dict[str, Any] | None:  # fmt: skip
        """An `OutputAnswer`, or None where there is no such output. verb: forward, give (message: the input that it
        belongs to) or discard."""
        ...


class Tapping:
    """Each handler checks what was asked and passes it on."""

    def __init__(self, taps: Taps) -> None:
        self._taps = taps

    def routes(self) -> list[web.RouteDef]:
        verbs: dict[str, Any] = {"forward": ForwardOrder, "give": GiveOrder, "discard": OutputOrder}
        return [
            web.post("/api/v1/tap-outputs", self.outputs),
            web.get("/api/v1/tap-outputs/{id}", self.output),
            *(web.post(f"/api/v1/tap-outputs/{{id}}/{verb}", self._decide(verb, kind)) for verb, kind in verbs.items()),
        ]

    async def outputs(self, request: web.Request) -> web.Response:
        selection = (await body(request, OutputQuestion)).get("selector")
        selector = None if selection is None else chosen(selection, needed=False)
        return answer(await self._taps.outputs(selector))

    async def output(self, request: web.Request) -> web.Response:
        return _found(await self._taps.output(_id(request)))

    def _decide(self, verb: str, kind: Any) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            order = await body(request, kind)
            reason, dry_run = order.get("reason", ""), order.get("dry_run", False)
            if not dry_run and not reason.strip():
                raise Refusal(400, "a reason is wanted, as text: it goes into the audit record")
            more: dict[str, Any] = {"again": order["again"]} if "again" in order else {}
            if "message" in order:
                more["message"] = _place(order["message"])
            told = {"who": order["who"], "reason": reason, "origin": origin(request), "dry_run": dry_run}
            return _found(await self._taps.decide(verb, _id(request), **told, **more))

        return handle


def _id(request: web.Request) -> int:
    return whole("id", request.match_info["id"], 1, LARGEST) or 0


def _place(text: str) -> tuple[str, int]:
    return place_of(text, f"an input is named as CHANNEL/SEQ, such as acme-results/812, not as {text[:60]}")


def _found(row: dict[str, Any] | None) -> web.Response:
    if row is None:
        raise Refusal(404, "no such output was kept for a person")
    return answer(row)
