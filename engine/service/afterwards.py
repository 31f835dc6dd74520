"""What an endpoint says of a message that is settled there: the application's answer that follows an accept
acknowledgement, or one that nobody waited for. It changes no state: whoever sent the message may have been answered
long ago. A sender that still waits for it gets it; a "no" is told to people; both are kept, with the message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.config.edge import Answers
from engine.delivery.destinations.mllp import classify
from engine.hl7.ack import parse_ack
from engine.intake.inlet import LATER, Inlet
from engine.ledger.interface import Ledger
from engine.ledger.model import IntakeEvent, Message
from engine.ledger.outcome import Result
from engine.ledger.routing import LEGACY
from engine.observe.delivery_events import LaterNo
from engine.observe.events import emit


class Afterwards:
    """Of all channels of a service."""

    def __init__(
        self,
        ledger: Ledger,
        inlets: Mapping[str, Inlet],
        answers: Callable[[str, str], Answers],
        now: Callable[[], int],
    ) -> None:
        """`inlets` by channel. `answers`: what those of a channel's destination mean. `now`: microseconds since
        1970."""
        self._ledger = ledger
        self._inlets = inlets
        self._answers = answers
        self._now = now

    def heard(self, destination: str, message: Message, reply: Any, answer: bytes) -> None:
        """`reply`: who waits for this destination's answers, if anybody does."""
        if parse_ack(answer) is None:
            return
        channel = message.channel.name
        said = classify(answer, None, self._answers(channel, destination))
        taken = said.result is Result.DELIVERED
        passed_on = reply is not None and (destination == LEGACY or _awaits(reply, taken=taken))
        if not taken and not (passed_on and destination == LEGACY):
            emit(LaterNo(channel, destination, message.seq, said.reason))
        if passed_on:
            self._inlets[channel].answered_later(message, reply, answer)
        elif not taken:
            reason = f"{destination}: {said.reason}"
            self._ledger.event(IntakeEvent(message.channel, LATER, reason, self._now(), "", 0, b"", 0, answer, message))


def _awaits(reply: Any, *, taken: bool) -> bool:
    """Whether a sender that has our accept acknowledgement wants to hear this of the application."""
    return bool(reply.asks.enhanced and reply.asks.application.on(taken))
