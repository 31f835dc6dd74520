"""Outputs as a mapping makes them, of synthetic patients: the bricks of the delivery tests."""

from __future__ import annotations

import uuid
from typing import Any

from engine.fhir.output import Entry, Output, Policy, Role

MRN = "https://acme.example/mrn"
FILLER = "https://lab.example/accession"
PLACER = "https://acme.example/order"


def entry(
    kind: str,
    system: str,
    value: str,
    *,
    role: Role = "fact",
    policy: Policy = "overwrite",
    seed: str = "",
    **content: Any,
) -> Entry:
    urn = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{seed}|{kind}|{system}|{value}')}"
    resource = {"resourceType": kind, "identifier": [{"system": system, "value": value}], **content}
    return Entry(kind.lower(), resource, {"reference": urn}, role, ((system, value),), policy)


def patient(mrn: str = "P1", *, seed: str = "", policy: Policy = "fill", **content: Any) -> Entry:
    content = {"name": [{"family": "Muster", "given": ["Erika"]}], "birthDate": "1980-02-03", **content}
    return entry("Patient", MRN, mrn, role="anchor", policy=policy, seed=seed, **content)


def organization(seed: str = "") -> Entry:
    return entry("Organization", "urn:oid:1.2.3", "LAB", role="anchor", policy="create", seed=seed, name="Acme Lab")


def provenance(targets: list[Entry], seed: str = "") -> Entry:
    urn = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, seed + '|provenance')}"
    resource = {
        "resourceType": "Provenance",
        "target": [one.reference for one in targets],
        "recorded": "2026-03-01T10:00:00Z",
        "agent": [{"who": {"display": "interlock"}}],
    }
    return Entry("provenance", resource, {"reference": urn}, "provenance", (), "create")


def observation(accession: str, n: int, subject: Entry, *, seed: str = "", **content: Any) -> Entry:
    content = {
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": f"718-{n}"}]},
        "subject": subject.reference,
        "valueQuantity": {"value": 13.5 + n, "unit": "g/dL", "system": "http://unitsofmeasure.org", "code": "g/dL"},
        **content,
    }
    return entry("Observation", FILLER, f"{accession}/718-{n}", seed=seed, **content)


def oru(
    accession: str = "A1",
    *,
    mrn: str = "P1",
    results: int = 5,
    seed: str = "",
    order: bool = False,
    specimen: bool = False,
    issued: str | None = "2026-03-01T09:00:00Z",
    patient_content: dict[str, Any] | None = None,
    policy: Policy = "fill",
) -> Output:
    """An ORU^R01: patient, laboratory, report, results, provenance; an order and a specimen when asked for."""
    who, lab = patient(mrn, seed=seed, policy=policy, **(patient_content or {})), organization(seed)
    anchors = [who, lab]
    common: dict[str, Any] = {} if issued is None else {"issued": issued}
    observations = [observation(accession, n, who, seed=seed, **common) for n in range(results)]
    report = entry(
        "DiagnosticReport",
        FILLER,
        accession,
        seed=seed,
        status="final",
        code={"text": "CBC"},
        subject=who.reference,
        performer=[lab.reference],
        result=[one.reference for one in observations],
        **common,
    )
    facts = [*observations, report]
    if order:
        asked = entry(
            "ServiceRequest", PLACER, f"O-{accession}", role="anchor", policy="fill", seed=seed,
            status="active", intent="order", subject=who.reference,
        )  # fmt: skip
        anchors.append(asked)
        report.resource["basedOn"] = [asked.reference]
    if specimen:
        sample = entry("Specimen", FILLER, f"S-{accession}", seed=seed, subject=who.reference)
        facts.insert(0, sample)
        report.resource["specimen"] = [sample.reference]
    return Output([*anchors, *facts, provenance([report, *observations], seed)])


def named(output: Output, kind: str) -> Entry:
    return next(one for one in output.entries if one.type == kind)


def at(output: Output, event: str) -> Output:
    """The output of a message that says when its event was."""
    for one in output.entries:
        one.event = event
    return output


def adt(mrn: str = "P1", *, clears: frozenset[str] = frozenset(), **content: Any) -> Output:
    """An ADT^A08: it may overwrite the patient. What is None, the message is silent about."""
    who = patient(mrn, policy="overwrite", **content)
    who.resource = {name: value for name, value in who.resource.items() if value is not None}
    who.clears = clears
    return Output([who, provenance([who], seed=mrn)])


def merging(survivor: str, old: str, **content: Any) -> Output:
    """An ADT^A40: the second patient is merged into the first. `content`: of the survivor (PID)."""
    new, gone = patient(survivor, policy="overwrite", **content), bare(old)
    new.resource["link"] = [{"other": gone.reference, "type": "replaces"}]
    gone.resource |= {"active": False, "link": [{"other": new.reference, "type": "replaced-by"}]}
    return Output([new, gone, provenance([new, gone], seed=f"{old} into {survivor}")])


def linking(one: str, other: str) -> Output:
    """An ADT^A24: two records of one patient, which both stay as they are."""
    left, right = patient(one, policy="overwrite"), patient(other, policy="overwrite")
    left.resource["link"] = [{"other": right.reference, "type": "seealso"}]
    right.resource["link"] = [{"other": left.reference, "type": "seealso"}]
    return Output([left, right, provenance([left, right], seed=f"{one} and {other}")])


def unlinking(one: str, other: str, **content: Any) -> Output:
    """An ADT^A37."""
    left, right = patient(one, policy="overwrite", **content), patient(other, policy="overwrite", **content)
    left.drops = right.drops = ("link",)
    return Output([left, right, provenance([left, right], seed=f"{one} from {other}")])


def bare(mrn: str) -> Entry:
    """A patient of whom only the number is told (MRG)."""
    who = patient(mrn, policy="overwrite")
    del who.resource["name"], who.resource["birthDate"]
    return who
