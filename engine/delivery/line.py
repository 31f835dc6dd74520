"""A line: one connection to a peer, on which one message at a time goes out and its answer comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.mllp.replies import Reply

Final = Callable[[bytes], bool]
"""Whether a frame is the answer that is waited for, and not one that comes before it."""


class Line(Protocol):
    """What `engine.mllp.client.Client` is, and whatever else can take its place."""

    def send(
        self,
        payload: bytes,
        timeout: float,
        done: Callable[[Reply], None],
        *,
        final: Final | None = None,
        expects: bool = True,
    ) -> None:
        """`done` is called once, from the event loop. `timeout`: seconds from writing to the end of the answer.
        `expects`: False where no answer will come: then `Written` is the end."""

    def transmit(self, payload: bytes) -> bool:
        """Write something that gets no answer, now; False where there is no connection."""

    def hang_up(self) -> None:
        """Close the connection, since what comes on it can no longer be trusted."""

    async def aclose(self) -> None:
        """Close; returns when nothing is left."""
