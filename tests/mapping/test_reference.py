"""The shipped mappings on published messages: values are kept, and a FHIR server has nothing against the bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.fhir.single import single
from engine.hl7.peek import peek
from engine.mapping.effective import ToFhir
from engine.mapping.library import Context, Library, Unmappable
from tests.mapping import reference
from tests.mapping.folders import shipped
from tests.mapping.reference import PACKAGES, Measures, Share
from tests.support.sandbox import start

FOUND, OUTSIDE = 0.97, 0.90  # of a type's values: anywhere in the bundle, and outside extensions
SCOPE = ("ADT", "MDM", "OMG", "OML", "ORM", "ORU", "OUL")
CONTEXT = Context("lab", "lab", {}, "UTC", "auto", 1_767_225_600_000_000)
LACKS = reference.missing()
pytestmark = pytest.mark.skipif(bool(LACKS), reason=LACKS)


@pytest.fixture(scope="module")
def library() -> Library:
    return shipped()


@pytest.fixture(scope="module")
def measures(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Measures:
    """With the bundles of all samples of the types in scope."""
    found = Measures(tmp_path_factory.mktemp("reference"))
    for sample in reference.samples():
        raw = sample.read_bytes()
        head = peek(raw)
        mapping = library.for_message(head.type, head.trigger)
        if mapping is not None:
            found.add(sample, single(mapping.run(raw, CONTEXT)))
    return found


@pytest.mark.parametrize("sample", reference.samples(), ids=lambda path: path.stem)
def test_a_type_in_scope_has_a_mapping_and_no_other(library: Library, sample: Path) -> None:
    head = peek(sample.read_bytes())
    assert (library.for_message(head.type, head.trigger) is not None) == (head.type in SCOPE)


def test_another_type_is_refused_in_clear_words(library: Library) -> None:
    raws = [sample.read_bytes() for sample in reference.samples()]
    others = [raw for raw in raws if peek(raw).ok and peek(raw).type not in SCOPE]
    assert {peek(raw).type for raw in others} == {"BAR", "DFT", "PPR", "RDE", "RDS", "REF", "SIU", "VXU"}
    for raw in others:
        head = peek(raw)
        way = ToFhir(library, None, frozenset({f"{head.type}^{head.trigger}"}))
        with pytest.raises(Unmappable, match="no-mapping at MSH-9"):
            way.run(raw, CONTEXT)


def test_the_values_of_every_type_are_kept(measures: Measures) -> None:
    shares = measures.shares()
    assert {kind.split("^")[0] for kind in shares} == set(SCOPE)
    short = [_line(kind, one) for kind, one in shares.items() if one.found < FOUND or one.outside < OUTSIDE]
    assert not short, "\n".join(["less than 97 % found, or than 90 % outside extensions:", *short])


def _line(kind: str, one: Share) -> str:
    return (
        f"{kind:10} {100 * one.found:5.1f} % found, {100 * one.outside:5.1f} % outside extensions, "
        f"of {one.values} values in {one.messages} messages"
    )


def test_no_bundle_has_an_error(measures: Measures) -> None:
    node = start.node()
    if node is None:
        pytest.skip(f"not installed: Node {start.OLDEST_NODE} or newer")
    if not PACKAGES.is_dir():
        pytest.skip("not installed: the packages of deploy/sandbox (make setup)")
    errors = measures.errors(node)
    assert errors
    told = [f"{name}: {error}" for name, found in errors.items() for error in found]
    assert not told, "\n".join(told)
