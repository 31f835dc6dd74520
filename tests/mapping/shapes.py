"""Checks an output against FHIR R4 as a server that validates would: shapes, codes, and the invariants of the types.

Only what is in the schema here is known, and of the invariants those that a mapping could break. A server that
validates (Medplum 5) refuses most of what breaks them; dom-3, org-1 and sqty-1 it leaves out, and it is lenient about
per-1 and rng-2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cache
from typing import Any

from engine.fhir.output import Output
from engine.mapping.schema import Element, r4

DAY = r"(?!0000)\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?"
CLOCK = r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d{1,9})?"
ZONE = r"(Z|[+-]((0\d|1[0-3]):[0-5]\d|14:00))"
TEXT = r"[\r\n\t\u0020-\U0010ffff]*"
FORMS = {
    "code": r"\S+( \S+)*",
    "id": r"[A-Za-z0-9.-]{1,64}",
    "uri": r"\S+",
    "url": r"\S+",
    "canonical": r"\S+",
    "oid": r"urn:oid:[0-2](\.(0|[1-9]\d*))+",
    "date": DAY,
    "dateTime": rf"{DAY}|{DAY[:-1]}T{CLOCK}{ZONE}",
    "instant": rf"{DAY[:-1]}T{CLOCK}{ZONE}",
    "time": CLOCK,
    "string": TEXT,
    "markdown": TEXT,
    "base64Binary": r"(?=.)([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
}
KINDS: dict[str, Any] = {
    "boolean": bool,
    "integer": int,
    "positiveInt": int,
    "unsignedInt": int,
    "decimal": (int, float),
}
LEAST = {"integer": -(2**31), "unsignedInt": 0, "positiveInt": 1}
BLANK = "\ufeff"  # besides what Python strips
LONGEST = 1024 * 1024  # characters of a string
UCUM = "http://unitsofmeasure.org"
TERMS = "http://terminology.hl7.org/CodeSystem/"
Object = dict[str, Any]


def faults(output: Output) -> list[str]:
    """Everything that is wrong with an output."""
    names = {entry.reference["reference"] for entry in output.entries}
    found = [] if len(names) == len(output.entries) else ["two entries of one name"]
    keys = [(entry.type, *entry.key[0]) for entry in output.entries if entry.key]
    if len(set(keys)) != len(keys):
        found.append("two entries of one key")
    for entry in output.entries:
        if entry.role != "provenance" and not entry.key:
            found.append(f"{entry.name}: no key")
        if any(not system or not value for system, value in entry.key):
            found.append(f"{entry.name}: half a key")
        if entry.event and not re.fullmatch(FORMS["dateTime"], entry.event):
            found.append(f"{entry.name}: an event without a time")
        if "id" in entry.resource:
            found.append(f"{entry.name}: an id of its own")
        own = names | {f"#{one['id']}" for one in entry.resource.get("contained", ())}
        found.extend(f"{entry.name}: {fault}" for fault in _object(entry.resource, entry.type, entry.type, own))
        found.extend(f"{entry.name}: {fault}" for fault in _contained(entry.resource))
    return found


def _object(value: Object, type: str, path: str, names: set[str]) -> Iterator[str]:
    if not value:
        yield f"{path}: empty"
    elements = r4().types[type]
    for name, one in value.items():
        if name == "resourceType":
            continue
        if name == "contained":
            for inner in one:
                yield from _object(inner, inner["resourceType"], f"{path}.contained", names)
            continue
        element = elements.get(name.removeprefix("_"))
        if element is None:
            yield f"{path}: no element {name}"
        elif name.startswith("_"):
            yield from _beside(one, value.get(name[1:]), element, f"{path}.{name}", names)
        else:
            yield from _element(one, element, f"{path}.{name}", names, value.get(f"_{name}"))
    for need in _required(type):
        if not any(name == need or elements.get(name, elements["id"]).choice == need for name in value):
            yield f"{path}: no {need}"
    chosen = [elements[name].choice for name in value if name in elements and elements[name].choice]
    if len(chosen) != len(set(chosen)):
        yield f"{path}: two values of one choice"
    if type == "Reference" and "reference" in value and value["reference"] not in names:
        yield f"{path}: refers to nothing"
    for invariant, holds in INVARIANTS.get(type, {}).items():
        if not holds(value):
            yield f"{path}: {invariant}"


@cache
def _required(type: str) -> list[str]:
    return r4().required(type)


def _beside(value: Any, primitive: Any, element: Element, path: str, names: set[str]) -> Iterator[str]:
    """What stands beside a primitive value: its extensions."""
    if not element.primitive:
        yield f"{path}: beside no primitive value"
    elif element.many != isinstance(value, list):
        yield f"{path}: {'one' if element.many else 'many'}"
    elif element.many and primitive is not None and len(primitive) != len(value):
        yield f"{path}: not as many as there are values"
    else:
        for one in value if element.many else [value]:
            if one is not None:
                yield from _object(one, "Element", path, names)


def _element(value: Any, element: Element, path: str, names: set[str], beside: Any) -> Iterator[str]:
    if element.many != isinstance(value, list):
        yield f"{path}: {'one' if element.many else 'many'}"
        return
    for index, one in enumerate(value if element.many else [value]):
        if element.primitive:
            if one is not None or not isinstance(beside, list) or not beside[index : index + 1]:
                yield from _primitive(one, element, path)
        elif not isinstance(one, dict):
            yield f"{path}: a {type(one).__name__}"
        else:
            yield from _object(one, element.type, path, names)
            if element.codes is not None and not any(each.get("code") in element.codes for each in _codings(one)):
                yield f"{path}: not an allowed code"
    if element.many and not value:
        yield f"{path}: empty"


def _primitive(value: Any, element: Element, path: str) -> Iterator[str]:
    kind = KINDS.get(element.type, str)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        yield f"{path}: a {type(value).__name__}"
    elif isinstance(value, str):
        if (
            not re.fullmatch(FORMS.get(element.type, TEXT), value)
            or not value.strip(BLANK).strip()
            or len(value) > LONGEST
        ):
            yield f"{path}: not a {element.type}"
        elif element.type in ("date", "dateTime", "instant") and not _in_calendar(value):
            yield f"{path}: no such day"
        elif element.codes is not None and value not in element.codes:
            yield f"{path}: not an allowed code"
    elif kind is int and not LEAST[element.type] <= value < 2**31:
        yield f"{path}: not a {element.type}"


def _contained(resource: Object) -> Iterator[str]:
    """dom-2, dom-3, dom-4, dom-5: what is contained is flat, without a version, and something refers to it."""
    held = resource.get("contained", [])
    ids = [one.get("id") for one in held]
    if len(set(ids)) != len(ids):
        yield "two contained of one id"
    used = set(references(resource))
    for one in held:
        if "contained" in one:
            yield "contained: dom-2"
        if "meta" in one:
            yield "contained: dom-4 or dom-5"
        if f"#{one.get('id')}" not in used and "#" not in set(references(one)):
            yield "contained: dom-3"


def references(value: Any) -> Iterator[str]:
    """Everything that a resource, or what is in it, refers to."""
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def _in_calendar(value: str) -> bool:
    try:
        datetime.strptime(value[:10], "%Y-%m-%d")
    except ValueError:
        return len(value) < 10
    return True


# -- invariants


def _any(*names: str) -> Callable[[Object], bool]:
    """One of some elements; a choice by its common name."""
    return lambda one: any(name in one or any(_is_choice(key, name) for key in one) for name in names)


def _is_choice(key: str, name: str) -> bool:
    return key.startswith(name) and key[len(name) : len(name) + 1].isupper()


def _needs(name: str, other: str) -> Callable[[Object], bool]:
    """The one not without the other."""
    return lambda one: name not in one or other in one


def _not_both(name: str, other: str) -> Callable[[Object], bool]:
    return lambda one: not (_any(name)(one) and _any(other)(one))


def _codings(concept: Any) -> list[Object]:
    return list(concept.get("coding", ())) if isinstance(concept, dict) else []


def _has(one: Object, element: str, system: str, *codes: str) -> bool:
    found = [(each.get("system"), each.get("code")) for each in _codings(one.get(element))]
    return any((TERMS + system, code) in found for code in codes)


def _in_order(start: str, end: str) -> Callable[[Object], bool]:
    return lambda one: not (start in one and end in one) or not _after(one[start], one[end])


def _after(one: str, other: str) -> bool:
    """Whether a time is surely after another; of two days the longer text is not after its own beginning."""
    if "T" in one and "T" in other:
        return datetime.fromisoformat(_exact(one)) > datetime.fromisoformat(_exact(other))
    length = min(len(one[:10]), len(other[:10]))
    return one[:length] > other[:length]


def _exact(time: str) -> str:
    """As Python reads it: no leap seconds, six digits of a second's parts at most."""
    return re.sub(r"(\.\d{6})\d+", r"\1", time.replace(":60", ":59").replace("Z", "+00:00"))


def _range(one: Object) -> bool:
    low, high = one.get("low", {}), one.get("high", {})
    if not {"value"} <= low.keys() & high.keys() or low.get("unit") != high.get("unit"):
        return True
    return bool(low["value"] <= high["value"])


def _simple(*names: str) -> Callable[[Object], bool]:
    """Quantities without a comparator (sqty-1)."""
    return lambda one: not any("comparator" in one.get(name, {}) for name in names)


def _of_use(name: str) -> Callable[[Object], bool]:
    """None of use `home`."""
    return lambda one: all(each.get("use") != "home" for each in one.get(name, ()))


def _duration(one: Object) -> bool:
    return "code" not in one or (one.get("system") == UCUM and "value" in one)


def _coded(system: str) -> Callable[[Object], bool]:
    return lambda one: ("value" not in one or "code" in one) and one.get("system", system) == system


def _ratio(one: Object) -> bool:
    return ("numerator" in one) == ("denominator" in one) and ("numerator" in one or "extension" in one)


def _not_of_a_component(one: Object) -> bool:
    own = [(each.get("system"), each.get("code")) for each in _codings(one.get("code"))]
    others = [(c.get("system"), c.get("code")) for each in one.get("component", ()) for c in _codings(each.get("code"))]
    return not _any("value")(one) or not set(own) & set(others)


def _allergy_active(one: Object) -> bool:
    wrong = _has(one, "verificationStatus", "allergyintolerance-verification", "entered-in-error")
    return wrong != ("clinicalStatus" in one)


def _abated(one: Object) -> bool:
    over = _has(one, "clinicalStatus", "condition-clinical", "resolved", "remission", "inactive")
    return over or not _any("abatement")(one)


def _condition_active(one: Object) -> bool:
    return "clinicalStatus" not in one or not _has(
        one, "verificationStatus", "condition-ver-status", "entered-in-error"
    )


def _offset(one: Object) -> bool:
    return "offset" not in one or ("when" in one and not {"C", "CM", "CD", "CV"} & set(one["when"]))


def _planned(one: Object) -> bool:
    return "start" in one or one.get("status") in ("proposed", "cancelled", "waitlist")


INVARIANTS: dict[str, dict[str, Callable[[Object], bool]]] = {
    "Age": {"age-1": _coded(UCUM), "qty-3": _needs("code", "system")},
    "AllergyIntolerance": {"ait-1, ait-2": _allergy_active},
    "Appointment": {"app-2": lambda one: ("start" in one) == ("end" in one), "app-3": _planned},
    "Appointment.participant": {"app-1": _any("type", "actor")},
    "Attachment": {"att-1": _needs("data", "contentType")},
    "CarePlan.activity": {"cpl-3": _not_both("detail", "reference")},
    "Composition.section": {"cmp-1": _any("text", "entry", "section"), "cmp-2": _not_both("emptyReason", "entry")},
    "Condition": {"con-4": _abated, "con-5": _condition_active},
    "Condition.evidence": {"con-2": _any("code", "detail")},
    "Condition.stage": {"con-1": _any("summary", "assessment")},
    "Consent": {"ppc-1": _any("policy", "policyRule")},
    "ContactPoint": {"cpt-2": _needs("value", "system")},
    "Coverage.costToBeneficiary": {"sqty-1": _simple("valueQuantity")},
    "Dosage.doseAndRate": {"sqty-1": _simple("doseQuantity", "rateQuantity")},
    "Duration": {"drt-1": _duration, "qty-3": _needs("code", "system")},
    "Extension": {"ext-1": lambda one: ("extension" in one) != _any("value")(one)},
    "FamilyMemberHistory": {"fhs-1": _not_both("age", "born")},
    "Group": {"grp-1": lambda one: "member" not in one or one.get("actual") is True},
    "Linkage": {"lnk-1": lambda one: len(one.get("item", ())) > 1},
    "List": {"lst-1": _not_both("emptyReason", "entry")},
    "MedicationAdministration.dosage": {"mad-1": _any("dose", "rate"), "sqty-1": _simple("dose", "rateQuantity")},
    "Observation": {"obs-6": _not_both("dataAbsentReason", "value"), "obs-7": _not_of_a_component},
    "Observation.component": {"obs-6": _not_both("dataAbsentReason", "value")},
    "Observation.referenceRange": {"obs-3": _any("low", "high", "text"), "sqty-1": _simple("low", "high")},
    "Organization": {
        "org-1": _any("identifier", "name", "_name"),
        "org-2": _of_use("address"),
        "org-3": _of_use("telecom"),
    },
    "Patient.contact": {"pat-1": _any("name", "telecom", "address", "organization")},
    "Period": {"per-1": _in_order("start", "end")},
    "Quantity": {"qty-3": _needs("code", "system")},
    "QuestionnaireResponse.item": {"qrs-1": lambda one: not ("item" in one and "answer" in one)},
    "Range": {"rng-2": _range, "sqty-1": _simple("low", "high")},
    "Ratio": {"rat-1": _ratio},
    "SampledData": {"sqty-1": _simple("origin")},
    "ServiceRequest": {"prr-1": _needs("orderDetail", "code")},
    "Specimen.collection": {"sqty-1": _simple("quantity")},
    "Specimen.container": {"sqty-1": _simple("capacity", "specimenQuantity")},
    "Task": {"inv-1": _in_order("authoredOn", "lastModified")},
    "Timing.repeat": {
        "tim-1": _needs("duration", "durationUnit"),
        "tim-2": _needs("period", "periodUnit"),
        "tim-4": lambda one: one.get("duration", 0) >= 0,
        "tim-5": lambda one: one.get("period", 0) >= 0,
        "tim-6": _needs("periodMax", "period"),
        "tim-7": _needs("durationMax", "duration"),
        "tim-8": _needs("countMax", "count"),
        "tim-9": _offset,
        "tim-10": _not_both("timeOfDay", "when"),
    },
}
"""By type, what must hold of each of its values."""
