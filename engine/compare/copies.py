"""A feed's copies of a frame: the other channels in which an input stands, and whose path took it to the old engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from engine.ledger.course import ChannelBook
from engine.ledger.model import Message
from engine.ledger.routing import LEGACY, Mode

Copy: TypeAlias = tuple[ChannelBook, int]
"""A channel, and the frame's number in it."""


class Copies:
    """Told of every message in the order in which they are stored, where the copies of a frame follow one another. What
    came in the same moment, as the messages of one file, is no copy: a channel has one."""

    def __init__(self) -> None:
        self._frame = (0, 0)
        self._copies: list[Copy] = []

    def told(self, message: Message) -> Sequence[Copy]:
        """The copies of a message's frame, itself among them. Those that are told after it are added."""
        frame = (message.received, message.socket)
        if frame != self._frame or any(book is message.channel for book, _ in self._copies):
            self._frame, self._copies = frame, []
        self._copies.append((message.channel, message.seq))
        return self._copies


def in_front(book: ChannelBook, seq: int) -> bool:
    """Whether the old engine had a frame before us: in the epoch of its number nothing is passed on to it."""
    return book.epoch_of(seq).routing.route(LEGACY) is None


def reached(book: ChannelBook, seq: int) -> bool:
    """Whether the old engine may have a frame: it is in front, or a channel's path has taken it there."""
    if in_front(book, seq):
        return True
    legacy = book.course(LEGACY)
    return legacy is not None and legacy.mode(seq) is Mode.SEND and legacy.claim >= seq
