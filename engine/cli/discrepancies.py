"""discrepancies: the classes of difference between the two sides, and what people decided about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from engine.cli.console import Stop, age, clock, minute, out, out_json, printable, since, table, usage, wrapped
from engine.cli.listing import command_group
from engine.cli.options import SETTINGS_FILE, Config, Json
from engine.cli.selecting import Connections, Everything, Ids, Labels, or_everything, reasoned, selector, who

STATES = ("open", "explained", "fixed", "accepted")
SETTLING = {
    "explain": ("explained", "The difference is as it should be; say why."),
    "accept": ("accepted", "The difference is known and taken as it is; say why."),
    "fixed": ("fixed", "Its cause is gone; if it comes again, it is open again."),
    "reopen": ("open", "It wants a decision again."),
}
"""Word → the state it leads to, and its help."""

Id = Annotated[int, typer.Argument(metavar="ID", min=1, help="The discrepancy's number.")]

discrepancies = command_group("List, show and settle the differences that were found.")


@discrepancies.command("list")
def listing(
    ids: Ids = None,
    connections: Connections = None,
    labels: Labels = None,
    everything: Everything = False,
    state: Annotated[str, typer.Option(metavar="STATE", help="open, explained, fixed, accepted, or any.")] = "open",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=10000)] = 200,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """List them, the worst first; only open ones unless told."""
    from engine.cli.service_client import ask

    if state not in (*STATES, "any"):
        usage(f"--state {state}: wanted is one of {', '.join(STATES)}, any")
    question = {
        "selector": or_everything(selector(ids, connections, labels, everything)),
        "state": None if state == "any" else state,
        "limit": limit,
    }
    rows: list[dict[str, Any]] = ask(config, "/api/v1/discrepancies", question)
    if json:
        return out_json(rows)
    if not rows:
        return out("no discrepancies" if state == "any" else f"no discrepancies are {state}")
    out(listed(rows))
    out(summed(rows))
    return None


def listed(rows: list[dict[str, Any]]) -> str:
    head = ["ID", "CHANNEL", "TAP", "PATH", "KIND", "SEVERITY", "STATE", "COUNT", "LAST", "DECIDE", "OWNER"]
    lines = [
        [
            str(row["id"]),
            row["channel"],
            row["tap"] or "(answers)",
            row["path"],
            row["kind"].replace("_", " "),
            row["severity"],
            row["state"],
            str(row["count"]),
            since(row["last"]),
            due(row),
            row["owner"] or "",
        ]
        for row in rows
    ]
    if len({row["state"] for row in rows}) == 1:
        head, lines = _without(head, lines, "STATE")  # the question said it already
    if not any(row["owner"] for row in rows):
        head, lines = _without(head, lines, "OWNER")
    return table(head, lines, right=("ID", "COUNT", "LAST"))


def _without(head: list[str], lines: list[list[str]], name: str) -> tuple[list[str], list[list[str]]]:
    at = head.index(name)
    return head[:at] + head[at + 1 :], [line[:at] + line[at + 1 :] for line in lines]


def due(row: dict[str, Any], now: datetime | None = None) -> str:
    """`in 5 h`, or `OVERDUE`: until when somebody should have decided; a dash where somebody has."""
    if row["state"] != "open" or not row["due"]:
        return "-"
    left = (datetime.fromisoformat(row["due"].replace("Z", "+00:00")) - (now or datetime.now(UTC))).total_seconds()
    return f"in {age(left)}" if left > 0 else "OVERDUE"


def summed(rows: list[dict[str, Any]]) -> str:
    counts = Counter(row["severity"] for row in rows)
    said = ", ".join(f"{counts[severity]} {severity}" for severity in ("clinical", "business", "cosmetic"))
    return f"{len(rows)} in all: {said}"


@discrepancies.command("show")
def show(id: Id, config: Config = SETTINGS_FILE, json: Json = False) -> None:
    """Show one, with values from messages."""
    from engine.cli.service_client import ask

    found: dict[str, Any] = _of(id, lambda: ask(config, f"/api/v1/discrepancies/{id}"))
    if json:
        return out_json(found)
    return out("\n".join(told(found)))


def _of(id: int, question: Callable[[], Any]) -> Any:
    from engine.cli.service_client import Missing

    try:
        return question()
    except Missing:
        raise Stop(f"there is no discrepancy {id}; see `interlock discrepancies`") from None


def told(found: dict[str, Any]) -> list[str]:
    where = f"tap {found['tap']}" if found["tap"] else "answers to the sender"
    kind = found["kind"].replace("_", " ")
    lines = [
        f"discrepancy {found['id']}: {found['path']} of {found['channel']}, {where}",
        f"kind      {kind}, {found['severity']}",
        f"state     {found['state']}" + (f", decide {due(found)}" if due(found) != "-" else ""),
        f"count     {found['count']}, first {minute(found['first'])}, last {minute(found['last'])}",
    ]
    if found["owner"]:
        lines.append(f"owner     {printable(found['owner'])}")
    if found["reason"]:
        lines += wrapped(f"reason    {found['reason']}", indent=" " * 10)
    for example in found["examples"]:
        lines += ["", *_example(found["channel"], example)]
    return lines


def _example(channel: str, example: dict[str, Any]) -> list[str]:
    head = f"{channel}/{example['seq']}  {clock(example['at'])}  control id {printable(example['control_id'] or '-')}"
    sides = (("old engine", example["legacy"]), ("interlock", example["target"]))
    return [head, *(line for name, value in sides for line in _side(name, value))]


def _side(name: str, value: str | None) -> list[str]:
    return wrapped(f"    {name.ljust(10)}  {'(nothing)' if value is None else value or '(empty)'}", indent=" " * 16)


def _settler(state: str) -> Callable[..., None]:
    def settle(
        ids: Annotated[list[int], typer.Argument(metavar="ID", min=1, help="The discrepancies' numbers.")],
        reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it stands with the discrepancy.")],
        owner: Annotated[str | None, typer.Option(metavar="NAME", help="Who takes care of it.")] = None,
        config: Config = SETTINGS_FILE,
        json: Json = False,
    ) -> None:
        from engine.cli.service_client import ask

        decided = {"state": state, "reason": reasoned(reason), "owner": owner, "who": who()}
        rows = [_of(id, lambda id=id: ask(config, f"/api/v1/discrepancies/{id}", decided)) for id in ids]  # type: ignore[misc]
        if json:
            return out_json(rows)
        for row in rows:
            out(f"discrepancy {row['id']} ({row['path']} of {row['channel']}) is {row['state']}")
        return None

    return settle


for _word, (_state, _help) in SETTLING.items():
    discrepancies.command(_word, help=_help)(_settler(_state))
