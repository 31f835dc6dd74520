"""Effective mappings by their versions: those of the running configuration, and earlier ones, read from the ledger when
an output is to be made by them again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Final

from engine.ledger.sqlite.mappings import KeptMapping
from engine.mapping.effective import Effective
from engine.mapping.packing import NotKept, unpack

MOST_HELD: Final = 32  # earlier versions in memory


class Versions:
    """Of one process. May be asked from several threads."""

    def __init__(self, kept: Callable[[str], KeptMapping | None]) -> None:
        """`kept` reads one from the ledger (`engine.ledger.sqlite.mappings.read_from`)."""
        self._kept = kept
        self._present: dict[str, Effective] = {}
        self._before: dict[str, Effective] = {}
        self._earlier: OrderedDict[str, Effective] = OrderedDict()
        self._loading = Lock()

    def use(self, present: Iterable[Effective]) -> None:
        """Have these at hand: what the configuration, with its tables, has now."""
        fresh = {each.version: each for each in present if each.version}
        self._before, self._present = self._present, fresh  # until the epochs are opened, they name those before

    def at_hand(self, version: str) -> Effective | None:
        """Without waiting; None where it has to be loaded first."""
        return self._present.get(version) or self._before.get(version) or self._earlier.get(version)

    def load(self, version: str) -> Effective:
        """From memory, else from the ledger. Reads and compiles, up to a second: not for the event loop. Raises
        NotKept, and whatever reading the ledger raises."""
        found = self.at_hand(version)
        if found is not None:  # whoever asks for what is there does not wait for somebody else's
            return found
        with self._loading:
            found = self.at_hand(version)
            if found is None:
                kept = self._kept(version)
                if kept is None:
                    raise NotKept(f"mapping {version} is not kept")
                found = self._earlier[version] = unpack(kept)
                while len(self._earlier) > MOST_HELD:
                    self._earlier.popitem(last=False)
            return found
