"""A message's lineage as lines for people: what each element is from, and what is in none, and why."""

from __future__ import annotations

from collections.abc import Iterator

from engine.fhir.output import Output
from engine.mapping.lineage import Lineage
from engine.mapping.reasons import Reasons


def traced(output: Output, lineage: Lineage, reasons: Reasons) -> Iterator[str]:
    """Elements in the order of their making, then the values that went nowhere, the codes that a table does not know,
    and what was noted on the way."""
    for origin in lineage.origins:
        yield f"{origin.element} <- {', '.join(origin.places)}  ({origin.rule})"
    for leaf in lineage.lost:
        reason = reasons.why(lineage.name(leaf), leaf[1], leaf[3], leaf[4])
        yield f"{lineage.path(leaf)} -> nothing: {reason.kind}: {reason.text}"
    for code in output.unmapped:
        yield f"{code.field} {code.code}: table {code.table} does not know it; it went on as it came"
    for diagnostic in output.diagnostics:
        yield f"{diagnostic.code} at {diagnostic.where}: expected {diagnostic.wanted}"
