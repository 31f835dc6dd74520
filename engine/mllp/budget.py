"""How much memory messages may take that are coming in, or wait for their answer, all connections together.

A large message is in memory from its first byte until it is answered: meanwhile it is stored, and maybe passed on. When
all of them together pass the budget, those that began last are read no further until others are done; the sender's
own buffers fill, and it waits. Where nothing is held that will be answered, the one that began first is read on all
the same, so that there is an end to it: the most that is held is the budget and one message.

Only what is larger than `WEIGHTY` counts, so that the usual message costs nothing here.
"""

from __future__ import annotations

from typing import Protocol

MOST = 256 << 20
"""Bytes, unless said otherwise."""
WEIGHTY = 256 << 10
"""Bytes from which a message is counted."""


class Reader(Protocol):
    """A connection that can be told to wait."""

    def ration(self, wait: bool) -> None:
        """Read no further, or go on."""


class _Share:
    """What one connection holds: of the message that is coming in, and of those that came and are not done with."""

    __slots__ = ("coming", "held", "waiting")

    def __init__(self) -> None:
        self.coming = self.held = 0
        self.waiting = False


class Budget:
    """One for all connections of a process."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.peak = 0
        self._shares: dict[Reader, _Share] = {}  # in the order in which they began
        self._total = self._held = 0

    @property
    def total(self) -> int:
        """Bytes that are held now."""
        return self._total

    def coming(self, reader: Reader, size: int) -> None:
        """So much of a message has come on a connection."""
        share = self._share(reader)
        self._add(size - share.coming)
        share.coming = size
        if self._total > self.most:
            self._hold_back()

    def came(self, reader: Reader, size: int) -> None:
        """A message has come whole; it is held until `done`."""
        share = self._share(reader)
        self._add(size - share.coming)
        share.held += size
        self._held += size
        share.coming = 0
        self._let(reader, share)  # what had been read already was the rest of it
        self._go_on()

    def broken(self, reader: Reader) -> None:
        """The message that was coming is not; nothing of it is held."""
        share = self._shares.get(reader)
        if share is not None:
            self._add(-share.coming)
            share.coming = 0
            self._let(reader, share)
            self._over(reader, share)

    def done(self, reader: Reader) -> None:
        """What came on a connection is not held any more."""
        share = self._shares.get(reader)
        if share is not None:
            self._add(-share.held)
            self._held -= share.held
            share.held = 0
            self._over(reader, share)

    # -- inside

    def _share(self, reader: Reader) -> _Share:
        share = self._shares.get(reader)
        if share is None:
            share = self._shares[reader] = _Share()
        return share

    def _add(self, size: int) -> None:
        self._total += size
        self.peak = max(self.peak, self._total)

    def _hold_back(self) -> None:
        """All wait that are in mid-message, except one where nothing else would make room."""
        first = self._held == 0
        for reader, share in self._shares.items():
            if not share.coming:
                continue
            if not first and not share.waiting:
                share.waiting = True
                reader.ration(True)
            first = False

    def _over(self, reader: Reader, share: _Share) -> None:
        if not share.coming and not share.held:
            del self._shares[reader]
        self._go_on()

    def _let(self, reader: Reader, share: _Share) -> None:
        """It is not in mid-message any more."""
        if share.waiting:
            share.waiting = False
            reader.ration(False)

    def _go_on(self) -> None:
        """Read those again that began first, as far as there is room; at least one where nothing is held."""
        if self._total > self.most:
            self._hold_back()
        first = self._held == 0
        for reader, share in list(self._shares.items()):
            if not share.coming:
                continue
            if share.waiting and (first or self._total <= self.most):
                share.waiting = False
                reader.ration(False)
            first = False
