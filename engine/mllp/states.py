"""The states of a client's connection, and what leads from one to the other."""

from __future__ import annotations

from enum import IntEnum, auto


class State(IntEnum):
    """What is known of the connection."""

    CLOSED = auto()  # there is none
    CONNECTING = auto()  # one is being made; nothing has been written
    IDLE = auto()  # there is one, and no answer is due
    WAITING = auto()  # a message is written, its answer is due
    APART = auto()  # the peer took the message and closed; its answer is due on a connection that it makes
    ENDED = auto()  # `aclose` was called


class Step(IntEnum):
    """What may happen to it."""

    CONNECT = auto()
    CONNECTED = auto()
    FAILED = auto()
    SENT = auto()
    ANSWERED = auto()
    WRITTEN = auto()  # no answer is expected, and every byte has left
    PARTED = auto()
    DROPPED = auto()
    END = auto()


MOVES: dict[tuple[State, Step], State] = {
    (State.CLOSED, Step.CONNECT): State.CONNECTING,
    (State.CONNECTING, Step.CONNECTED): State.IDLE,
    (State.CONNECTING, Step.FAILED): State.CLOSED,
    (State.IDLE, Step.SENT): State.WAITING,
    (State.IDLE, Step.DROPPED): State.CLOSED,
    (State.WAITING, Step.ANSWERED): State.IDLE,
    (State.WAITING, Step.WRITTEN): State.IDLE,
    (State.WAITING, Step.PARTED): State.APART,
    (State.WAITING, Step.DROPPED): State.CLOSED,
    (State.APART, Step.ANSWERED): State.CLOSED,
    (State.APART, Step.DROPPED): State.CLOSED,
    **{(state, Step.END): State.ENDED for state in State},
}


def advance(state: State, step: Step) -> State:
    """The state after `step`. RuntimeError where the two do not go together."""
    after = MOVES.get((state, step))
    if after is None:
        allowed = ", ".join(s.name for (at, s) in MOVES if at is state)
        raise RuntimeError(f"MLLP client: {step.name} is not possible in state {state.name}; possible: {allowed}")
    return after
