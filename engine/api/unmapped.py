"""The paths of what mappings could not carry over: codes that no table knew, and fields whose values went nowhere.

`Unmapped` is implemented by the service. What may not be done raises `engine.migration.refused.Refused`. Times are ISO
8601 in UTC with a `Z`. A code stands in bodies only, never in a path or a query.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Protocol, TypedDict

from aiohttp import web

from engine.api.exchange import answer, body, origin
from engine.api.moving import Selection, Sentence
from engine.api.problems import Refusal
from engine.api.shape import Within
from engine.api.verbs import chosen
from engine.migration.selection import Selector

CodeState = Literal["open", "asked", "mapped", "as-is"]
Name = Annotated[str, Within(1, 200)]
Words = Annotated[str, Within(0, 2000)]

MOST_LISTED = 10_000
LISTED = 1000


class CodeQuestion(TypedDict):
    """Codes of the selected channels, of all where nothing is selected; only of a table, in a state, of an owner.
    limit: at most so many, 1000 unless given."""

    selector: NotRequired[Selection]
    table: NotRequired[Name]
    state: NotRequired[CodeState]
    owner: NotRequired[Name]
    limit: NotRequired[Annotated[int, Within(1, MOST_LISTED)]]


class CodeRow(TypedDict):
    """A code that a table did not know, and that went on as it came. field: where it stood, `OBX-3`. code: cut at 200
    characters. count: of messages. first_seq, last_seq: numbers of messages in which it was seen.

    state: open; asked (somebody was asked what it means); mapped (a table has it; seen again, it is open again); as-is
    (it goes on as it came). who, decided: of what a person said last, null where nobody has said anything.
    """

    channel: str
    table: str
    field: str
    system: str
    code: str
    count: int
    first: str
    last: str
    first_seq: int
    last_seq: int
    state: str
    owner: str
    note: str
    who: str | None
    decided: str | None


class MoreRow(TypedDict):
    """A channel that has as many codes as are kept. count: how often another one was seen."""

    channel: str
    count: int
    last: str
    last_seq: int


class CodeList(TypedDict):
    """The codes seen most often first. total: how many there are, listed or not."""

    codes: list[CodeRow]
    total: int
    more: list[MoreRow]


class CodeOrder(TypedDict):
    """What a person says of a code; in every field and system in which the table missed it, unless a system is named
    (empty: without one). state, owner, note: left out = as it was, one of them is wanted."""

    selector: Selection
    code: Annotated[str, Within(0, 10_000)]
    table: Name
    system: NotRequired[Annotated[str, Within(0, 10_000)]]
    state: NotRequired[CodeState]
    owner: NotRequired[Annotated[str, Within(0, 200)]]
    note: NotRequired[Words]
    who: Sentence


class LostQuestion(TypedDict):
    """Fields of the selected channels, of all where nothing is selected."""

    selector: NotRequired[Selection]


class LostRow(TypedDict):
    """A field whose values are in no resource. count: of values. last_seq: the last message with one."""

    channel: str
    field: str
    count: int
    last: str
    last_seq: int


class Unmapped(Protocol):
    """The questions and orders. The shapes named here are what a plain dict must hold."""

    def open(self) -> int:
        """How many codes nobody has decided about."""
        ...

    async def codes(
        self, selector: Selector | None, *, table: str, state: str, owner: str, limit: int
    ) -> dict[str, Any]:
        """A `CodeList`. Empty texts: all. Raises Refused where channels do not exist."""
        ...

    async def decide(
        self, selector: Selector, *, code: str, table: str, system: str | None, state: str | None, owner: str | None,
        note: str | None, who: str, origin: str,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """A `CodeRow` each, as they are then."""
        ...

    async def fields(self, selector: Selector | None) -> list[dict[str, Any]]:
        """A `LostRow` each, those with most values first."""
        ...


class Unmapping:
    """Each handler checks what was asked and passes it on."""

    def __init__(self, unmapped: Unmapped) -> None:
        self._unmapped = unmapped

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/unmapped", self.codes),
            web.post("/api/v1/unmapped/set", self.decide),
            web.post("/api/v1/unmapped/fields", self.fields),
        ]

    async def codes(self, request: web.Request) -> web.Response:
        asked = await body(request, CodeQuestion)
        given = {name: asked.get(name, "") for name in ("table", "state", "owner")}
        return answer(await self._unmapped.codes(_selector(asked), **given, limit=asked.get("limit", LISTED)))

    async def decide(self, request: web.Request) -> web.Response:
        order = await body(request, CodeOrder)
        said = {name: order.get(name) for name in ("state", "owner", "note")}
        if all(each is None for each in said.values()):
            raise Refusal(400, "give a state, an owner or a note: nothing is said of the code")
        done = await self._unmapped.decide(
            chosen(order["selector"]),
            code=order["code"],
            table=order["table"],
            system=order.get("system"),
            **said,
            who=order["who"],
            origin=origin(request),
        )
        return answer(done)

    async def fields(self, request: web.Request) -> web.Response:
        return answer(await self._unmapped.fields(_selector(await body(request, LostQuestion))))


def _selector(asked: dict[str, Any]) -> Selector | None:
    """None where nothing is selected, or all: also what is no longer configured."""
    selection = asked.get("selector")
    selector = Selector() if selection is None else chosen(selection, needed=False)
    return None if selector in (Selector(), Selector(everything=True)) else selector
