"""Small mapping folders for tests: a complete one, to which a test adds or from which it changes a file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from engine.fhir.output import Output
from engine.mapping.library import Context, Library, Mapping

SHIPPED = Path(__file__).parents[2] / "mappings"
CONTEXT = Context("acme-results", "acme", {"patient": "https://acme.example/mrn"}, "America/Chicago", "auto", 0)

FILES = {
    "systems.yaml": "systems:\n  kind: http://example.org/kind\n",
    "extensions.yaml": "extensions:\n  religion: http://example.org/religion\n",
    "tables/sex.yaml": "table: Sex\ncodes: {F: female, M: male}\n",
    "tables/order.yaml": "decision: Active\ninputs: [a, b]\nrows:\n  - [X, any, 'true']\notherwise: ''\n",
    "datatypes/CX.yaml": (
        "map: CX[Identifier]\n"
        "takes: [namespace]\n"
        "needs: [value]\n"
        "rows:\n"
        "  - CX.1 -> value\n"
        "  - authority(CX.4.1, CX.4.2, namespace) -> system\n"
    ),
    "segments/PID.yaml": (
        "map: PID[Patient]\n"
        "rows:\n"
        "  - PID-3 -> identifier as CX[Identifier]('patient')\n"
        "  - PID-7 -> birthDate\n"
        "  - PID-8 -> gender table Sex\n"
    ),
    "messages/ZZZ.yaml": (
        "message: ZZZ\n"
        "accepts: [ZZZ^Z01]\n"
        "groups:\n"
        "  - MSH\n"
        "  - PATIENT*: [PID, NTE*]\n"
        "resources:\n"
        "  patient:\n"
        "    for: PATIENT\n"
        "    make: Patient\n"
        "    role: anchor\n"
        "    from: PID[Patient]\n"
        "    key: identifier\n"
    ),
}


def write(folder: Path, **changes: str) -> Path:
    """The folder, with some files' text replaced: `segments_PID` for segments/PID.yaml."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(changes.get(name.removesuffix(".yaml").replace("/", "_"), text), encoding="utf-8")
    return folder


def rows(*lines: str) -> str:
    """A PID[Patient] with rows."""
    return "map: PID[Patient]\nrows:\n" + "".join(f"  - {line}\n" for line in lines)


def run(folder: Path, *segments: str, header: str = "MSH|^~\\&|LAB|||||x|ZZZ^Z01|1") -> Output:
    """What the folder's only message makes of some segments."""
    return mapping(folder).run("\r".join([header, *segments]).encode(), CONTEXT)


def mapping(folder: Path) -> Mapping:
    """The folder's only message map."""
    return Library.load(folder).mapping("ZZZ")


def patient(folder: Path, *segments: str, header: str = "MSH|^~\\&|LAB|||||x|ZZZ^Z01|1") -> dict[str, object]:
    """The first resource, as made from a PID and what else is given."""
    return run(folder, *segments, header=header).entries[0].resource


@cache
def shipped() -> Library:
    """The shipped mappings, compiled once for all tests."""
    return Library.load(SHIPPED)
