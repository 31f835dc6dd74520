"""What becomes of an existing resource when a message brings its own idea of it. Pure: dicts in, a new dict out.

An anchor is shared, so an update never blanks what this message does not know (`fill`, `overwrite`). A fact is the
message's own: a correction replaces it whole, for a flag of the old value beside the new value can hurt somebody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import orjson

from engine.fhir import event_time
from engine.fhir.output import Policy, Resource

# Lists that grow instead of being replaced, with what makes two of their elements the same one.
_UNITED = ("identifier", "link")
# Lists of which a message brings a part, told by its group: another part is another field that it may be silent about.
_GROUPED: dict[str, Callable[[Any], Any]] = {
    "extension": lambda one: one.get("url"),
    "modifierExtension": lambda one: one.get("url"),
    "telecom": lambda one: one.get("use") == "work",  # PID-13 and PID-14, NK1-5 and NK1-6
    "participant": lambda one: repr(one.get("type")),  # PV1-7, PV1-8, PV1-9, PV1-17
    "component": lambda one: repr(one.get("code")),
}
# What FHIR requires and a message does not always tell: a mapping says "unknown" then.
_REQUIRED = frozenset(("status", "class", "code", "subject", "patient", "beneficiary"))
# What no sender can declare empty: without these a resource is invalid, nobody's, or loses what others say of it.
_LASTING = _REQUIRED | {"resourceType", "id", "meta", "identifier", "link", "extension", "contained", "intent", "payor"}
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
_UNKNOWN = ("unknown", "UNK")
_CONTAINED = re.compile(rb'"reference":"#([^"]+)"')


def merge_anchor(
    existing: Resource, ours: Resource, policy: Policy, clears: Collection[str] = frozenset()
) -> Resource | None:
    """The existing anchor with what ours may add under the policy (without its meta); None where nothing changes.

    clears: elements that the sender has declared empty.
    """
    if policy == "create":
        return None
    left = cleared(existing, clears) if clears else existing
    result = _merge(left, ours, overwrite=policy == "overwrite")
    if "contained" in result:
        _keep_contained(result, existing, ours, ours_first=policy == "overwrite")
    return None if same(result, existing) else result


def cleared(existing: Resource, clears: Collection[str]) -> Resource:
    """The resource without the elements that are declared empty, as far as it can be without them. A dot leads into an
    element (`hospitalization.dischargeDisposition`), brackets name the use of those that go (`telecom[home]`)."""
    gone = {name for name in clears if re.split(r"[.\[]", name, maxsplit=1)[0] not in _LASTING}
    result = {name: value for name, value in existing.items() if name.removeprefix("_") not in gone}
    for path in gone - existing.keys():
        name, _, inner = path.partition("." if "." in path else "[")
        if isinstance(result.get(name), dict):
            result[name] = cleared(result[name], {inner})
        elif isinstance(result.get(name), list):
            kind = inner.rstrip("]")
            group = _GROUPED.get(name, lambda one: one.get("use"))
            result[name] = [one for one in result[name] if group(one) != group({"use": kind}) and not _typed(one, kind)]
        if name in result and not result[name]:
            del result[name]
    return result


def _is_bare(content: Any) -> bool:
    """Whether a document's content is there only because FHIR requires one: a notice without the document (MDM T01)."""
    return bool(content) and all(one.get("attachment") == {"title": "unknown"} for one in content)


def _typed(one: Any, code: str) -> bool:
    """Whether an element (a participant) is of a type."""
    return any(coding.get("code") == code for kind in one.get("type") or () for coding in kind.get("coding", ()))


def says_nothing(value: Any) -> bool:
    """Whether it only says that nothing is known: `unknown`, as code, display or text."""
    if isinstance(value, str):
        return value in _UNKNOWN
    if not isinstance(value, dict):
        return False
    if "coding" in value:
        return says_nothing(value.get("text", "unknown")) and all(map(says_nothing, value["coding"]))
    if "code" in value:
        return value["code"] in _UNKNOWN
    return value.keys() <= {"text", "display"} and all(one == "unknown" for one in value.values())


def _merge(existing: Resource, ours: Resource, *, overwrite: bool) -> Resource:
    result = dict(existing)
    for name, value in ours.items():
        if name in _BOOKKEEPING:
            continue
        mine = result.get(name)
        if name in _REQUIRED and mine is not None and says_nothing(value):
            continue
        if name in _UNITED and isinstance(mine, list):
            result[name] = _united(mine, value, overwrite=overwrite)
        elif name in _GROUPED and isinstance(mine, list) and (overwrite or name.endswith("xtension")):
            result[name] = _regrouped(mine, value, _GROUPED[name], overwrite=overwrite)
        elif isinstance(mine, dict) and isinstance(value, dict) and not (_WHOLE & mine.keys() | _WHOLE & value.keys()):
            result[name] = _merge(mine, value, overwrite=overwrite)
        elif mine is None or overwrite or (name in _REQUIRED and says_nothing(mine)):
            _set(result, name, value, existing, ours, overwrite=overwrite)
    return result


def _set(result: Resource, name: str, value: Any, existing: Resource, ours: Resource, *, overwrite: bool) -> None:
    """Set a property; of a choice (`deceased[x]`) only one may stand, and what extends a value (`_birthDate`) goes with
    the value that it extends."""
    if name.startswith("_"):
        extended = name[1:]
        if extended in existing and extended in ours and existing[extended] != ours[extended] and not overwrite:
            return
    elif f"_{name}" in result and f"_{name}" not in ours and result.get(name) != value:
        del result[f"_{name}"]
    others = rivals(result, name)
    if others and not overwrite:
        return
    for other in others:
        del result[other]
    result[name] = value


def rivals(resource: Resource, name: str) -> list[str]:
    """The elements of a resource that are another of the same choice."""
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
    if "value" in element:
        return element.get("system"), element["value"]
    return repr(element)


def _regrouped(existing: list[Any], ours: list[Any], group: Callable[[Any], Any], *, overwrite: bool) -> list[Any]:
    """The groups that ours has in the place of the existing ones, or only the new ones; the others as they are."""
    mine, other = _groups(existing, group), _groups(ours, group)
    changed = {key for key in other if key in mine and overwrite and mine[key] != other[key]}
    result: list[Any] = []
    for one in existing:
        key = group(one)
        if key not in changed:
            result.append(one)
        elif one is mine[key][0]:
            result.extend(other[key])
    return [*result, *(one for one in ours if group(one) not in mine)]


def _groups(elements: list[Any], group: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    result: dict[Any, list[Any]] = {}
    for one in elements:
        result.setdefault(group(one), []).append(one)
    return result


def _keep_contained(result: Resource, existing: Resource, ours: Resource, *, ours_first: bool) -> None:
    """Of both sides' contained resources those that the result points at, so that no `#reference` points nowhere."""
    sides = (existing.get("contained") or [], ours.get("contained") or [])
    pool = {one.get("id"): one for side in (sides if ours_first else reversed(sides)) for one in side}
    names = [*dict.fromkeys(one.get("id") for side in sides for one in side)]
    wanted: set[Any] = set()
    ahead: list[Any] = [{name: value for name, value in result.items() if name != "contained"}]
    while ahead:
        found = {name.decode() for name in _CONTAINED.findall(orjson.dumps(ahead.pop()))} & pool.keys() - wanted
        wanted |= found
        ahead += [pool[name] for name in found]
    del result["contained"]
    if kept := [pool[name] for name in names if name in wanted]:
        result["contained"] = kept


def alike(one: Any, other: Any) -> bool:
    """Whether two CodeableConcepts say the same: they share a code, or have one text."""
    shared = _codes(one) & _codes(other)
    text = str(one.get("text", "")).casefold()
    return bool(shared) or (text != "" and text == str(other.get("text", "")).casefold())


def opposed(one: Any, other: Any) -> bool:
    """Whether two CodeableConcepts surely are of something else: they have other codes of one system. (What one site
    calls a thing says nothing of what another one does.)"""
    systems = {system for system, _ in _codes(one)} & {system for system, _ in _codes(other)}
    return bool(systems) and not alike(one, other)


def _codes(concept: Any) -> set[tuple[str, str]]:
    codings = concept.get("coding") or ()
    return {(coding.get("system", ""), coding["code"]) for coding in codings if coding.get("code")}


def replace_fact(
    existing: Resource, ours: Resource, *, unite: bool = True, clears: Collection[str] = frozenset()
) -> Resource:
    """Our fact in the place of the existing one (without its meta): all ours, all known identifiers, what FHIR requires
    and ours does not know, and of a report the parts that this message is silent about.

    unite: whether a report keeps the results that ours does not have. Not where only this message wrote it: in a
    transaction that was not atomic after all it may refer to what was never stored.
    clears: elements that the sender has declared empty.
    """
    result = {**ours, "id": existing["id"]}
    if isinstance(existing.get("identifier"), list) and isinstance(ours.get("identifier"), list):
        result["identifier"] = _united(existing["identifier"], ours["identifier"], overwrite=True)
    for name in _REQUIRED & result.keys() & existing.keys():
        if says_nothing(result[name]):
            result[name] = existing[name]
    if "content" in existing and _is_bare(ours.get("content")):
        result["content"] = existing["content"]
    for name in _KEPT_WHEN_ABSENT.get(ours["resourceType"], ()):
        if name not in existing or name in clears:
            continue
        if name not in result:
            result[name] = existing[name]
        elif name in _REPORT_LISTS and unite:
            result[name] = _united_references(existing[name], result[name])
    if ours["resourceType"] in _KEPT_WHEN_ABSENT:
        _keep_contained_of_lists(result, existing)
    return result


def add_parts(existing: Resource, ours: Resource) -> Resource:
    """The existing report with the results that only ours has, an older one, and nothing else of it: whatever the order
    in which two reports came, the same results stand in it. A result that was confirmed before its value came has the
    value."""
    if ours["resourceType"] == "Observation":
        return {**ours, **existing} if _waits_for_its_value(existing) else dict(existing)
    result = dict(existing)
    if ours["resourceType"] != "DiagnosticReport":
        return result
    for name in _REPORT_LISTS:
        known = {one.get("reference") for one in existing.get(name) or ()}
        new = [one for one in ours.get(name) or () if one.get("reference", "#")[0] != "#"]
        if missing := [one for one in new if one["reference"] not in known]:
            result[name] = [*(existing.get(name) or ()), *missing]
    return result


def _waits_for_its_value(result: Resource) -> bool:
    told = any(name.startswith(("value", "dataAbsentReason", "component", "hasMember")) for name in result)
    return result.get("status") == "final" and not told


def _keep_contained_of_lists(result: Resource, existing: Resource) -> None:
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


def older(ours: Resource, existing: Resource, event: str = "") -> bool | None:
    """Whether ours was issued before the existing one, or where they do not say, its event was before that of the
    existing one; None where nobody knows, or it was the same time."""
    verdict = event_time.older(ours.get("issued") or "", existing.get("issued") or "")
    return event_time.older(event, event_time.event_of(existing)) if verdict is None else verdict


def contradicts(ours: Resource, existing: Resource) -> bool:
    """Whether a patient with our identifier is somebody else."""
    return agrees(ours, existing) is False


def agrees(ours: Resource, existing: Resource) -> bool | None:
    """Whether two patients with one identifier are the same: by birth date and name, as far as both sides know them.
    One that agrees is enough (a marriage changes the name, a correction the birth date). None: neither is known."""
    verdicts = []
    if ours.get("birthDate") and existing.get("birthDate"):
        verdicts.append(_common_start(ours["birthDate"], existing["birthDate"]))
    mine, theirs = _names(ours), _names(existing)
    if mine and theirs:
        verdicts.append(bool(mine & theirs))
    return any(verdicts) if verdicts else None


def _common_start(left: str, right: str) -> bool:
    """Dates may be known to the year or month only."""
    return left.startswith(right) or right.startswith(left)


def _names(patient: Resource) -> set[str]:
    """Family names, without case; only those count, for given names are abbreviated at will."""
    return {name["family"].casefold() for name in patient.get("name") or () if name.get("family")}
