"""Mapping a ten-segment ORU^R01 to JSON bytes, and python-hl7's parse of the same message, interleaved."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import hl7
import orjson

from engine.config.shipped import shipped_mappings
from engine.mapping.library import Context, Library
from engine.simulate.messages import Messages

ROUNDS = 40
REPEATS = 50


def figures() -> dict[str, Any]:
    mapping = Library.load(shipped_mappings()).mapping("ORU_R01")
    raw = Messages("oru", seed=1).message(1)
    text = raw.decode()
    context = Context("c", "bench", {}, "UTC", "auto", time.time_ns() // 1000)

    def ours() -> bytes:
        return orjson.dumps([entry.resource for entry in mapping.run(raw, context).entries])

    mapped, parsed = [], []
    for _ in range(ROUNDS):
        mapped.append(_microseconds(ours))
        parsed.append(_microseconds(lambda: hl7.parse(text)))
    mapped.sort()
    parsed.sort()
    middle = ROUNDS // 2
    return {
        "segments": raw.count(b"\r"),
        "bytes": len(raw),
        "resources": len(mapping.run(raw, context).entries),
        "map_us_best": round(mapped[0], 1),
        "map_us_median": round(mapped[middle], 1),
        "python_hl7_parse_us_median": round(parsed[middle], 1),
        "ratio_of_medians": round(mapped[middle] / parsed[middle], 3),
    }


def _microseconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(REPEATS):
        act()
    return (time.perf_counter() - began) / REPEATS * 1e6
