"""Mapping results to JSON bytes: of the generator's message, of ten and sixty segments, with lineage and without; and
loading all mappings. python-hl7's parse of the same message runs in turn with it, for scale."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hl7
import orjson

from engine.config.shipped import shipped_mappings
from engine.mapping.library import Context, Library, Mapping
from engine.simulate.messages import Messages

ROUNDS = 40
REPEATS = 50
MANY = 64  # messages that differ in their numbers
HEADER = "MSH|^~\\&|LAB|REF|EMR|CLINIC|20260105060007||ORU^R01^ORU_R01|C{n}|P|2.5.1"
PATIENT = (
    "PID|1||220207^^^SIM^MR||DRUMLIN^ABEL^A||19831005|M|||53 QUARRY AVENUE^^SPRINGVALE^IL^62999^USA^H"
    "||(555)555-6527^PRN^PH"
)
ORDER = "ORC|RE|P{n}^EMR|F{n}^LAB||CM"
REQUEST = "OBR|1|P{n}^EMR|F{n}^LAB|58410-2^CBC panel^LN|||20260105042507|||||||||||||||20260105060007||LAB|F"
RESULT = (
    "OBX|{i}|NM|{code}-2^Leukocytes [#/volume] in Blood^LN||9.{i}|10*3/uL^10*3/uL^UCUM|4.5-11.0|N|||F|||20260105060007"
)


def figures() -> dict[str, Any]:
    load = _loads()  # first: what is compiled once in a process is not compiled again
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
        "ten": _sized(mapping, context, 6),
        "sixty": _sized(mapping, context, 56),
        "load": load,
    }


def _sized(mapping: Mapping, context: Context, results: int) -> dict[str, Any]:
    """Messages with an order and some results, in µs a message: as they are, and with notes of what is from where."""
    raws = [_message(number, results) for number in range(MANY)]

    def plain() -> None:
        for raw in raws:
            orjson.dumps([entry.resource for entry in mapping.run(raw, context).entries])

    def traced() -> None:
        for raw in raws:
            orjson.dumps([entry.resource for entry in mapping.noted(raw, context).entries])

    found: dict[str, list[float]] = {"map": [], "noted": []}
    for _ in range(ROUNDS // 2):
        found["map"].append(_once(plain) / MANY)
        found["noted"].append(_once(traced) / MANY)
    best = {name: round(min(times), 1) for name, times in found.items()}
    return {
        "segments": raws[0].count(b"\r"),
        "resources": len(mapping.run(raws[0], context).entries),
        "map_us_best": best["map"],
        "map_us_median": round(sorted(found["map"])[ROUNDS // 4], 1),
        "with_lineage_us_best": best["noted"],
        "lineage_ratio": round(best["noted"] / best["map"], 2),
    }


def _message(number: int, results: int) -> bytes:
    tests = range(1, results + 1)
    lines = [HEADER, PATIENT, ORDER, REQUEST, *(RESULT.format(i=test, code=6690 + test) for test in tests)]
    return "".join(f"{line.replace('{n}', str(number))}\r" for line in lines).encode()


def _loads() -> dict[str, float]:
    """Milliseconds of CPU: everything read and checked; and all functions compiled; and the next start, with what was
    compiled kept."""
    began = time.process_time()
    library = Library.load(shipped_mappings())
    checked = time.process_time() - began
    library.data()  # has each function compiled, as for a worker
    cold = time.process_time() - began
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "mappings"
        Library.load(shipped_mappings(), None, kept)
        again = min(_cpu(lambda: Library.load(shipped_mappings(), None, kept)) for _ in range(5))
    return {"checked_ms": round(checked * 1e3, 1), "cold_ms": round(cold * 1e3, 1), "kept_ms": round(again, 1)}


def _cpu(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return (time.process_time() - began) * 1e3


def _once(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1e6


def _microseconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(REPEATS):
        act()
    return (time.perf_counter() - began) / REPEATS * 1e6
