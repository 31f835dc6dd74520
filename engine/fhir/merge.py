"""What becomes of an existing resource when a message brings its own idea of it. Pure: dicts in, a new dict out.

An anchor is shared, so an update never blanks what this message does not know (`fill`, `overwrite`). A fact is the
message's own: a correction replaces it whole, for a flag of the old value beside the new value can hurt somebody.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from engine.fhir.output import Policy, Resource

# Lists that grow instead of being replaced, with what makes two of their elements the same one.
_UNITED = ("identifier", "link", "extension", "modifierExtension")
# A report's own references: a correction often sends the corrected results only, and the others still belong to it.
_REPORT_LISTS = ("result", "specimen", "basedOn", "imagingStudy", "media")
_KEPT_WHEN_ABSENT = {"DiagnosticReport": ("presentedForm", "conclusion", "conclusionCode", *_REPORT_LISTS)}
# Datatypes are replaced whole: mixing two codings or two quantities makes a third that nobody sent.
_WHOLE = frozenset(("coding", "reference", "value", "system", "code", "data", "text", "url", "contentType"))
_CHOICE = re.compile(
    r"(abatement|age|asNeeded|born|deceased|defaultValue|diagnosed|effective|medication|multipleBirth|occurred|"
    r"occurrence|onset|performed|product|quantity|scheduled|serviced|timing|value)([A-Z]\w*)"
)
_BOOKKEEPING = ("id", "meta")


def merge_anchor(existing: Resource, ours: Resource, policy: Policy) -> Resource | None:
    """The existing anchor with what ours may add under the policy (without its meta); None where nothing changes."""
    if policy == "create":
        return None
    result = _merge(existing, ours, overwrite=policy == "overwrite")
    return None if same(result, existing) else result


def _merge(existing: Resource, ours: Resource, *, overwrite: bool) -> Resource:
    result = dict(existing)
    for name, value in ours.items():
        if name in _BOOKKEEPING:
            continue
        mine = result.get(name)
        if name in _UNITED and isinstance(mine, list):
            result[name] = _united(mine, value, overwrite=overwrite)
        elif isinstance(mine, dict) and isinstance(value, dict) and not (_WHOLE & mine.keys() | _WHOLE & value.keys()):
            result[name] = _merge(mine, value, overwrite=overwrite)
        elif mine is None or (overwrite and not (name == "status" and value == "unknown")):
            _set(result, name, value, overwrite=overwrite)
    return result


def _set(result: Resource, name: str, value: Any, *, overwrite: bool) -> None:
    """Set a property; of a choice (`deceased[x]`) only one may stand."""
    rivals = _rivals(result, name)
    if rivals and not overwrite:
        return
    for rival in rivals:
        del result[rival]
    result[name] = value


def _rivals(resource: Resource, name: str) -> list[str]:
    choice = _CHOICE.fullmatch(name)
    if choice is None:
        return []
    found = [(other, _CHOICE.fullmatch(other)) for other in resource if other != name]
    return [other for other, match in found if match and match[1] == choice[1]]


def _united(existing: list[Any], ours: list[Any], *, overwrite: bool) -> list[Any]:
    result = list(existing)
    for element in ours:
        key = _element_key(element)
        at = next((n for n, other in enumerate(result) if _element_key(other) == key), None)
        if at is None:
            result.append(element)
        elif overwrite:
            result[at] = {**result[at], **element}
    return result


def _element_key(element: Any) -> Any:
    if "value" in element and "url" not in element:
        return element.get("system"), element["value"]
    if "url" in element:
        return element["url"]
    return repr(element)


def replace_fact(existing: Resource, ours: Resource, *, unite: bool = True) -> Resource:
    """Our fact in the place of the existing one (without its meta): all ours, all known identifiers, and of a report
    the parts that this message is silent about.

    unite: whether a report keeps the results that ours does not have. Not where only this message wrote it: in a
    transaction that was not atomic after all it may refer to what was never stored.
    """
    result = {**ours, "id": existing["id"]}
    if isinstance(existing.get("identifier"), list) and isinstance(ours.get("identifier"), list):
        result["identifier"] = _united(existing["identifier"], ours["identifier"], overwrite=True)
    for name in _KEPT_WHEN_ABSENT.get(ours["resourceType"], ()):
        if name not in existing:
            continue
        if name not in result:
            result[name] = existing[name]
        elif name in _REPORT_LISTS and unite:
            result[name] = _united_references(existing[name], result[name])
    _keep_contained(result, existing)
    return result


def _keep_contained(result: Resource, existing: Resource) -> None:
    """A kept `#reference` needs the contained resource that it points at."""
    references = (element.get("reference") or "" for name in _REPORT_LISTS for element in result.get(name, ()))
    wanted = {reference[1:] for reference in references if reference.startswith("#")}
    wanted -= {resource.get("id") for resource in result.get("contained", ())}
    if kept := [resource for resource in existing.get("contained", ()) if resource.get("id") in wanted]:
        result["contained"] = [*result.get("contained", ()), *kept]


def _united_references(existing: list[Any], ours: list[Any]) -> list[Any]:
    known = {element.get("reference") for element in ours if isinstance(element, dict)}
    extra = [element for element in existing if element.get("reference") not in known]
    if not extra:
        return existing if _by_reference(existing) == _by_reference(ours) else ours
    new = [element for element in ours if element.get("reference") not in {e.get("reference") for e in existing}]
    return [*existing, *new]


def _by_reference(elements: list[Any]) -> list[str]:
    return sorted(str(element.get("reference")) for element in elements)


def same(left: Resource, right: Resource) -> bool:
    """Whether two resources say the same, whatever their ids, versions, times and tags."""
    keys = left.keys() | right.keys()
    return all(left.get(key) == right.get(key) for key in keys if key not in _BOOKKEEPING)


def older(ours: Resource, existing: Resource) -> bool | None:
    """Whether ours was issued before the existing one; None where they do not say, or say the same."""
    mine, theirs = _instant(ours.get("issued")), _instant(existing.get("issued"))
    if mine is None or theirs is None or mine == theirs:
        return None
    return mine < theirs


def _instant(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else None


def contradicts(ours: Resource, existing: Resource) -> bool:
    """Whether a patient with our identifier is somebody else: birth date and name, as far as both sides know them,
    all differ. One that agrees is enough (a marriage changes the name, a correction the birth date)."""
    verdicts = []
    if ours.get("birthDate") and existing.get("birthDate"):
        verdicts.append(_common_start(ours["birthDate"], existing["birthDate"]))
    mine, theirs = _names(ours), _names(existing)
    if mine and theirs:
        verdicts.append(bool(mine & theirs))
    return bool(verdicts) and not any(verdicts)


def _common_start(left: str, right: str) -> bool:
    """Dates may be known to the year or month only."""
    return left.startswith(right) or right.startswith(left)


def _names(patient: Resource) -> set[str]:
    """Family names, without case; only those count, for given names are abbreviated at will."""
    return {name["family"].casefold() for name in patient.get("name") or () if name.get("family")}
