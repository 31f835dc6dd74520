"""Whatever bytes come as a message of a type that has a mapping: valid resources, or the refusal of a mapping.

    python -m tests.fuzz.mappings -runs=1000000

Coverage-guided, through the code that the mappings were compiled to. The first two bytes of an input say what the rest
is put behind: the header of a type, and the first segments of a message. One mapping of each type serves all inputs, as
in the service, and must not remember what it should not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

from tests.fuzz import atheris, fuzz

with atheris.instrument_imports(include=["engine.mapping.run", "engine.mapping.convert", "engine.hl7"]):
    from engine.fhir.output import Output
    from engine.mapping import library as libraries
    from engine.mapping.compiled import link
    from engine.mapping.library import Context, Library, Mapping, Unmappable

from tests.mapping.shapes import faults

LIBRARY = Library.load(Path(__file__).parents[2] / "mappings")
KINDS = (
    "ORU^R01", "ORU^R01", "ORM^O01", "OML^O21", "OML^O33", "OMG^O19", "OUL^R22", "OUL^R21", "ADT^A01", "ADT^A08",
    "ADT^A40", "ADT^A45", "ADT^A24", "ADT^A37", "MDM^T02",
)  # fmt: skip
FRONTS = (
    b"",
    b"PID|1||M1^^^A||",
    b"PID|1||M1\rPV1|1|",
    b"PID|1||M1\rORC|NW|1^A|",
    b"PID|1||M1\rOBR|1|1^A|2^B|3^c^L|",
    b"PID|1||M1\rOBR|1|1^A|2^B|3^c^L\rOBX|1|",
    b"PID|1||M1\rORC|NW|1\rOBR|1|1||3^c^L\rTQ1|1|",
    b"PID|1||M1\rOBR|1||2|3^c^L\rOBX|1|NM|4^d^L||5\rSPM|1|",
    b"PID|1||M1\rNK1|1|",
    b"PID|1||M1\rMRG|",
    b"PID|1||M1\rPV1|1|I\rAL1|1|",
    b"PID|1||M1\rPV1|1|I\rIN1|1|",
    b"EVN||2026\rPID|1||M1\rTXA|1|",
    b"PID|1||M1\rOBR|1||2|3^c^L\rNTE|1||",
)
MARKS = (b"|^~\\&", b"|^~\\&", b"|^~\\&", b"#@!$%", b"|^~!&")
HERE = Context("fuzz", "fuzz", {"patient": "https://acme.example/mrn"}, "America/Chicago", "auto", 0)

FRESH: dict[str, Mapping] = {}


PATCHED: dict[int, tuple[CodeType, CodeType]] = {}  # with what was patched, lest another get its id


class Instrumented(dict[str, Any]):
    """Compiled units, whose code tells what it covers. Each is patched when it is first needed: that takes its time."""

    def __getitem__(self, name: str) -> Any:
        code, *rest = super().__getitem__(name)
        if id(code) not in PATCHED:
            PATCHED[id(code)] = code, atheris.patch_code(code, trace_dataflow=False)
        return (PATCHED[id(code)][1], *rest)


def instrumented(parts: dict[str, Any], name: str) -> Callable[..., None]:
    return link(Instrumented(parts), name)


libraries.link = instrumented


def one_input(data: bytes) -> None:
    kind, front = (*data[:2], 0, 0)[:2]
    type = KINDS[kind % len(KINDS)]
    mark = MARKS[(kind >> 4) % len(MARKS)]
    head = f"MSH|^~\\&|LAB|ACME|EMR|CLINIC|20260507080910-0500||{type}|1|P|2.5.1\r".encode()
    raw = (head + FRONTS[front % len(FRONTS)]).translate(bytes.maketrans(b"|^~\\&", mark)) + data[2:]
    mapping = LIBRARY.for_message(*type.split("^"))
    assert mapping is not None
    output = made(mapping, raw)
    fresh = FRESH.setdefault(mapping.name, Mapping(mapping._compiled, mapping._shelf, mapping._maker))
    fresh._connections.clear()
    again = made(fresh, raw)
    assert (output is None) == (again is None)
    if output is not None and again is not None:
        assert faults(output) == []
        assert [entry.resource for entry in output.entries] == [entry.resource for entry in again.entries]


def made(mapping: Mapping, raw: bytes) -> Output | None:
    try:
        return mapping.run(raw, HERE)
    except Unmappable:
        return None


if __name__ == "__main__":
    fuzz(one_input, "-max_len=2048")
