"""The same content as one conditional transaction, for people to look at and for servers without Medplum's limits.

Anchors that may be overwritten, and facts, are conditional updates; other anchors conditional creates.
"""

from __future__ import annotations

from typing import Any

from engine.fhir.condition import identifiers
from engine.fhir.output import Entry, Output


def single(output: Output) -> dict[str, Any]:
    """A FHIR R4 transaction Bundle; references between its entries are their urn:uuid fullUrls."""
    return {"resourceType": "Bundle", "type": "transaction", "entry": [_entry(entry) for entry in output.entries]}


def _entry(entry: Entry) -> dict[str, Any]:
    return {"fullUrl": entry.reference["reference"], "resource": entry.resource, "request": _request(entry)}


def _request(entry: Entry) -> dict[str, str]:
    if entry.role == "provenance" or not entry.key:
        return {"method": "POST", "url": entry.type}
    condition = identifiers(entry.key[:1])
    if entry.role == "anchor" and entry.policy != "overwrite":
        return {"method": "POST", "url": entry.type, "ifNoneExist": condition}
    return {"method": "PUT", "url": f"{entry.type}?{condition}"}
