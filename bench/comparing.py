"""What one comparison costs: the old engine's output against ours, microseconds, without taps and ledger."""

from __future__ import annotations

import time
from typing import Any

from engine.compare.diff import compare
from engine.compare.rules import Rules
from engine.config.model import Compare
from engine.simulate.alterations import FAULTS, HABITS
from engine.simulate.messages import Messages


def figures() -> dict[str, Any]:
    """Medians of twenty different reports, each compared fifty times."""
    rules = Rules.of(Compare())
    messages = [Messages("oru", seed=3).message(number) for number in range(1, 21)]
    stamped = [_stamped(message) for message in messages]
    every = {"equal but for its stamps": [*zip(stamped, messages, strict=True)]}
    for name, alter in (FAULTS | HABITS).items():
        changed = [(alter(one), message) for one, message in zip(stamped, messages, strict=True)]
        if pairs := [(one, message) for one, message in changed if one not in stamped]:
            every[name] = pairs
    return {name: _median(pairs, rules) for name, pairs in every.items()}


def _stamped(message: bytes) -> bytes:
    fields = message.split(b"|", 10)
    fields[6], fields[9] = b"20260101120000", b"OE1"
    return b"|".join(fields)


def _median(pairs: list[tuple[bytes, bytes]], rules: Rules) -> float:
    found = []
    for legacy, target in pairs:
        began = time.perf_counter()
        for _ in range(50):
            compare(legacy, target, rules)
        found.append((time.perf_counter() - began) / 50)
    return round(sorted(found)[len(found) // 2] * 1e6, 1)
