"""v2 mappings for tests: written from their steps, and run on a message."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from engine.mapping.library import Context
from engine.mapping.v2.library import Filtered, V2Library, V2Mapping

CONTEXT = Context("acme-results", "acme", {}, "America/Chicago", "auto", 1_767_225_600_000_000)
TABLE = "table: Flags\ncodes: {H: [HIGH, High], L: [LOW, Low], X: ~}\n"

ORU = (
    b"MSH|^~\\&|LAB|ACME|EMR|CLINIC|20260507080910||ORU^R01|ID1|P|2.5.1\r"
    b"PID|1|ALT1|MRN1^^^ACME^MR~900^^^USA^SS||Quillfeather^Alba||19800228|F\r"
    b"NTE|1||of the patient\r"
    b"PV1|1|O|WARD^1^^NORTH\r"
    b"ORC|RE|P1|F1\r"
    b"OBR|1|P1|F1|24323-8^Panel^LN|||||||||||||||||||||F\r"
    b"NTE|1||of the order\r"
    b"OBX|1|NM|2345-7^Glucose^LN||99.5|mg/dL|70-99|H|||F\r"
    b"NTE|1||of glucose\r"
    b"OBX|2|NM|2160-0^Creatinine^LN||1.1|mg/dL||Q|||X\r"
    b"ORC|RE|P2|F2\r"
    b"OBR|2|P2|F2|57021-8^Count^LN\r"
    b'OBX|1|ST|718-7^Hemoglobin^LN||""|g/dL||L|||F\r'
    b"ZAC|1|unknown to all|^~\r"
)


def library(text: str, folder: Path, tables: Mapping[str, str] | None = None) -> V2Library:
    """A folder with this mapping, called `m`, and some tables: file name → text."""
    (folder / "v2" / "tables").mkdir(parents=True, exist_ok=True)
    (folder / "tables").mkdir(exist_ok=True)
    (folder / "tables" / "flags.yaml").write_text(TABLE)
    (folder / "v2" / "m.yaml").write_text(text, encoding="utf-8")
    for name, content in (tables or {}).items():
        (folder / "v2" / "tables" / name).write_text(content)
    return V2Library.load(folder)


def mapping(text: str, tables: Mapping[str, str] | None = None) -> V2Mapping:
    """A mapping of its own, from its file's text."""
    with tempfile.TemporaryDirectory() as folder:
        return library(text, Path(folder), tables).mapping("m")


def steps(text: str) -> V2Mapping:
    """A mapping with these steps."""
    return mapping("steps:\n" + "".join(f"  {line}\n" for line in text.strip("\n").split("\n")))


def run(text: str, raw: bytes = ORU, **context: object) -> bytes:
    """The one message that steps make of a message."""
    (made,) = outputs(text, raw, **context)
    return made


def outputs(text: str, raw: bytes = ORU, **context: object) -> list[bytes]:
    """All messages that steps make of a message."""
    made = steps(text).run(raw, replace(CONTEXT, **context))  # type: ignore[arg-type]
    assert not isinstance(made, Filtered)
    return made


def changed(made: bytes, raw: bytes = ORU) -> list[tuple[bytes, bytes]]:
    """(before, after) of the lines that differ; only where no line came or went."""
    before, after = raw.split(b"\r"), made.split(b"\r")
    assert len(before) == len(after)
    return [(one, other) for one, other in zip(before, after, strict=True) if one != other]
