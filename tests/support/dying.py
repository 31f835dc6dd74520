"""`interlock run` that ends itself by SIGKILL, exactly at a step between a message's first byte and its receipt.

    python -m tests.support.dying STEP MARK NTH run --config FILE

MARK: what the message has in its bytes, and so have its acknowledgement and whatever is sent of it; at the NTH passing
of the step by such a message the process is gone. The product has no part in it: the functions that a step lies before
or behind are wrapped here, by their names, so that one that is renamed is an error at the start.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, NamedTuple

from tests.support import disk

LEDGER = "interlock.db"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Passing:
    """What is on its way in this process, for steps that lie below where a message is known."""

    mark = b""
    left = 1
    operations: tuple[Any, ...] = ()  # of the transaction that is being written
    committing = ended = switched = last = False

    def reached(self) -> None:
        """The message has come to the step."""
        self.left -= 1
        if self.left == 0:
            die()


PASSING = Passing()


def of_message(operation: Any) -> bool:
    return type(operation).__name__ == "Message" and PASSING.mark in operation.raw


def of_settlement(operation: Any) -> bool:
    return type(operation).__name__ == "Settlement" and PASSING.mark in operation.message.raw


def stores() -> bool:
    return any(map(of_message, PASSING.operations))


def settles() -> bool:
    return any(map(of_settlement, PASSING.operations))


class Step(NamedTuple):
    """place: the function. when: `before` or `after` it, or `instead` (then `counts` does its part of it).
    counts: whether a call, by its arguments, is the message's."""

    place: str
    when: str
    counts: Callable[..., bool]


CONNECTION, LINK = "engine.mllp.connection:Connection", "engine.mllp.link:Link"
PUT, COMMIT = "engine.ledger.sqlite.writer:Writer.put", "engine.ledger.sqlite.committer:Committer._commit"
TRANSACTION = "engine.fhir.client:FhirClient.succeeds"


def is_sent(link: Any, data: bytes) -> bool:
    return PASSING.mark in data and b"|ACK" not in data


def acknowledged(connection: Any, payload: bytes) -> bool:
    """The whole acknowledgement goes out at once, past the event loop."""
    from engine.mllp.framing import encode

    if PASSING.mark not in payload:
        return False
    if PASSING.left == 1:
        os.write(connection.transport.get_extra_info("socket").fileno(), encode(payload))
    return True


def half_sent(link: Any, data: bytes) -> bool:
    if not is_sent(link, data):
        return False
    if PASSING.left == 1:
        os.write(link.sock.fileno(), data[: len(data) // 2])
    return True


STEPS = {
    "first bytes of a frame read": Step(f"{CONNECTION}.data_received", "after", lambda at, data: PASSING.mark in data),
    "frame complete, before the ledger has it": Step(PUT, "before", lambda writer, what: of_message(what)),
    "row put, before the commit": Step(COMMIT, "before", lambda *_: stores()),
    "committed, before the acknowledgement is written": Step(COMMIT, "after", lambda *_: stores()),
    "acknowledged, before delivery has it": Step(f"{CONNECTION}._write", "instead", acknowledged),
    "claim durable, before the first byte": Step(f"{LINK}.write", "before", is_sent),
    "half of the frame sent": Step(f"{LINK}.write", "instead", half_sent),
    "answer read, before the settlement is put": Step(PUT, "before", lambda writer, what: of_settlement(what)),
    "settlement put, before its commit": Step(COMMIT, "before", lambda *_: settles()),
    "receipt durable": Step(COMMIT, "after", lambda *_: settles()),
    "before the transaction request": Step(TRANSACTION, "before", lambda client, body, n: PASSING.mark in body),
    "an epoch put, before its commit": Step(COMMIT, "before", lambda *_: PASSING.switched),
    "an epoch durable, before it is known": Step(COMMIT, "after", lambda *_: PASSING.switched),
}


def log_written(part: str) -> disk.Wrote:
    """In the message's commit, at the last page of it that goes into the log."""

    def wrote(file: str, data: bytes, write: Callable[[int], Any]) -> None:
        if file != "log" or not (PASSING.committing and stores()):
            return
        if PASSING.last:
            write(len(data) // 2 if part == "half" else len(data))
            PASSING.reached()
        PASSING.last = disk.ends_a_transaction(data)

    return wrote


def ledger_written(*, ending: bool) -> disk.Wrote:
    """While pages are brought from the log into the ledger's file, in the middle of one."""

    def wrote(file: str, data: bytes, write: Callable[[int], Any]) -> None:
        if file == "ledger" and (PASSING.ended if ending else PASSING.committing and stores()):
            write(len(data) // 2)
            PASSING.reached()

    return wrote


WRITES = {
    "half of the commit's last page in the log": log_written("half"),
    "all of the commit in the log, before it is synced": log_written("all"),
    "at a checkpoint, half of a page in the file": ledger_written(ending=False),
    "at the last checkpoint, half of a page in the file": ledger_written(ending=True),
}
"""Steps within SQLite."""


def wrap(place: str, around: Callable[..., Any]) -> None:
    """Put `around(function, *arguments)` in the place of a function of the product."""
    module, _, names = place.partition(":")
    holder, (*within, name) = import_module(module), names.split(".")
    for each in within:
        holder = getattr(holder, each)
    real = getattr(holder, name)

    @wraps(real)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        return around(real, *arguments, **options)

    setattr(holder, name, wrapped)


def die_at(step: Step) -> None:
    def around(real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        counts = step.when != "after" and step.counts(*arguments, **options)
        if counts:
            PASSING.reached()
        result = real(*arguments, **options)
        if step.when == "after" and step.counts(*arguments, **options):
            PASSING.reached()
        return result

    wrap(step.place, around)


def look_on() -> None:
    """Note what is being written, for the steps that are within."""

    def prepare(real: Callable[..., Any], writer: Any, operations: list[Any], commit: Any) -> Any:
        PASSING.operations, PASSING.switched = tuple(operations), False
        return real(writer, operations, commit)

    def switch(real: Callable[..., Any], *arguments: Any) -> Any:
        PASSING.switched = True
        return real(*arguments)

    def committing(real: Callable[..., Any], *arguments: Any) -> Any:
        PASSING.committing, PASSING.last = True, False
        try:
            return real(*arguments)
        finally:
            PASSING.committing = False

    def end(real: Callable[..., Any], *arguments: Any) -> Any:
        PASSING.ended = True
        return real(*arguments)

    wrap("engine.ledger.sqlite.writer:Writer.prepare", prepare)
    wrap("engine.ledger.book:Book.switch", switch)
    wrap(COMMIT, committing)
    wrap("engine.ledger.sqlite.committer:Committer.end", end)


def checkpoint_always() -> None:
    """After each commit, however little the log holds."""
    from engine.ledger.sqlite import schema

    schema.PRAGMAS = tuple(  # type: ignore[assignment]
        "pragma wal_autocheckpoint = 1" if "autocheckpoint" in pragma else pragma for pragma in schema.PRAGMAS
    )


def main() -> None:
    _, step, mark, nth, *command = sys.argv
    PASSING.mark, PASSING.left = mark.encode(), int(nth)
    look_on()
    if step in WRITES:
        if step.startswith("at a checkpoint"):
            checkpoint_always()
        disk.watch(LEDGER, WRITES[step])
    else:
        die_at(STEPS[step])
    sys.argv = ["interlock", *command]
    from engine.cli.main import main as interlock

    interlock()


if __name__ == "__main__":
    main()
