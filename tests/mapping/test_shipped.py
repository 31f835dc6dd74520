"""The shipped mappings: valid output whatever comes, stable identities, few writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.fhir.output import Output
from engine.hl7.message import split_segments
from engine.hl7.text_lines import joined
from engine.mapping.library import Context
from tests.mapping.folders import CONTEXT, shipped
from tests.mapping.shapes import faults

LIBRARY = shipped()
REFERENCE = os.environ.get("INTERLOCK_REFERENCE", "")
SAMPLES = sorted(Path(REFERENCE, "samples").glob("*.hl7")) if REFERENCE else []
ORU = [
    "MSH|^~\\&|LAB|ACME|||20260507080910-0500||ORU^R01|A1|P|2.5.1",
    "PID|1||M1^^^ACME||Doe^Jane",
    "PV1|1|O|||||1^Doc||||||||||||V1",
    "ORC|RE|P1|F1||CM",
    "OBR|1|P1|F1|24323-8^Panel^LN|||20260507060000|||||||||1^Doc||||||20260507080000|||F",
    *(f"OBX|{n}|NM|{n}-1^Test^LN||{n}|mg/dL|||||F|||20260507060000" for n in range(1, 6)),
]
SEGMENTS = {
    "PID": 40, "PD1": 5, "NK1": 16, "PV1": 52, "ORC": 20, "OBR": 49, "OBX": 26, "NTE": 7, "SPM": 32, "DG1": 22, "TQ1": 11,  # noqa: E501
}  # fmt: skip
VALUES = [
    "", "", "", "F", "1", "x y", "20260507", "20260507080910", "2026", "99999999", '""', "A^B^C", "M1^^^ACME&1.2.3&ISO^MR",  # noqa: E501
    "1^Doe^Jane^^^^^^ACME", "Doe^Jane", "a~b", "a&b^c&d", "\\T\\", " ", "~~", "^^", "&", "<5", "-1", "3.5", "N", "Y", "NM",  # noqa: E501
    "CE", "ED", "^AP^PDF^Base64^JVBERi0x", "^AP^PDF^Base64^!", ">^5", "1^:^2", "2.16.840.1", "W", "\x07", "é",
]  # fmt: skip
line = st.sampled_from(sorted(SEGMENTS)).flatmap(
    lambda name: st.lists(st.sampled_from(VALUES), min_size=1, max_size=SEGMENTS[name]).map(
        lambda values: "|".join([name, *values])
    )
)
obx = st.tuples(
    st.sampled_from(["NM", "SN", "CE", "TX", "ED", "RP", "TS", "TM", "DT", "NR", "CQ", "DR", "ZZ", ""]),
    st.lists(st.sampled_from(VALUES), min_size=23, max_size=23),
)


def mapped(lines: list[str], context: Context = CONTEXT) -> Output:
    raw = "\r".join(lines).encode()
    type, trigger = lines[0].split("|")[8].split("^")[:2]
    mapping = LIBRARY.for_message(type, trigger)
    assert mapping is not None
    return mapping.run(raw, context)


def facts(output: Output) -> list[Any]:
    return [entry for entry in output.entries if entry.role == "fact"]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["ORU^R01", "ORM^O01", "OML^O21"]), st.lists(line, max_size=14), st.sampled_from(["", "é", "\\T\\"])
)
def test_whatever_comes_the_output_is_valid(kind: str, lines: list[str], mark: str) -> None:
    header = f"MSH|^~\\&|LAB|ACME|||20260507080910||{kind}|A1|P|2.5.1|{mark}|||||UNICODE UTF-8"
    assert faults(mapped([header, *lines])) == []


@pytest.mark.parametrize(
    "lines",
    [
        ["PID|1||7^^^A", "NK1|||F|  |"],  # a contact of whom nothing is said but that he is a friend: pat-1
        [
            "PID|1||7^^^A",
            "NK1|1" + "|" * 12 + "^CAR^^-3" + "|" * 17 + "Marlow^Ann",
        ],  # an organization without name and number: org-1
        ["OBR||||\x07" + "|" * 26 + "F"],  # details of a service whose code no text may hold: prr-1
        ["OBR|1|P1|F1|a^b|||||||||||\ufeff", "OBX|1|ST|a^b||1"],  # a byte order mark, which ECMAScript takes for blank
    ],
)
def test_nothing_is_made_of_what_says_nothing(lines: list[str]) -> None:
    header = "MSH|^~\\&|LAB|ACME|||20260507080910||ORU^R01|A1|P|2.5.1||||||UNICODE UTF-8"
    assert faults(mapped([header, *lines])) == []


def test_who_is_asked_for_at_an_employer_without_a_name_is_the_contact() -> None:
    asked = ORU[0], "PID|1||7^^^A", "NK1|1" + "|" * 12 + "^CAR" + "|" * 17 + "Marlow^Ann"
    patient = next(entry.resource for entry in mapped([*asked]).entries if entry.name == "patient")
    assert patient["contact"] == [{"name": {"family": "Marlow", "given": ["Ann"]}}]


@settings(max_examples=150, deadline=None)
@given(st.lists(obx, min_size=1, max_size=4))
def test_whatever_a_result_holds_it_is_valid(results: list[tuple[str, list[str]]]) -> None:
    lines = [f"OBX|{n}|{kind}|" + "|".join(values) for n, (kind, values) in enumerate(results)]
    output = mapped(ORU[:5] + lines)
    assert faults(output) == []
    read = split_segments("\r".join(lines))  # blanks at a message's end are none of it
    texts_as_one = joined(read, "|", "~", frozenset({"OBX"}))
    assert sum(entry.name == "observation" for entry in output.entries) == len(texts_as_one)


@settings(max_examples=60, deadline=None)
@given(st.lists(line, max_size=10))
def test_careful_reading_gives_what_fast_reading_gives(lines: list[str]) -> None:
    lines = [one for one in lines if "\\" not in one and '""' not in one and " " not in one]
    fast, careful = mapped([ORU[0], *lines]), mapped([ORU[0] + '|""', *lines])
    assert [e.resource for e in _named(fast)] == [e.resource for e in _named(careful)]


def _named(output: Output) -> list[Any]:
    for number, entry in enumerate(output.entries):
        entry.reference["reference"] = f"urn:{number}"
    return output.entries


def test_a_plain_result_writes_seven_facts_one_order_and_its_provenance() -> None:
    output = mapped(ORU)
    names = [entry.name for entry in output.entries if entry.role != "anchor"]
    assert names == ["observation"] * 5 + ["report", "provenance"]
    assert [e.name for e in output.entries if e.role == "anchor" and e.type == "ServiceRequest"] == ["order"]
    assert not any(entry.type == "PractitionerRole" for entry in output.entries)


def test_a_producer_named_by_many_results_is_made_once_for_each_message() -> None:
    lab = "|" * 9 + "REFERENCE LABORATORY^L^^^^CLIA^XX^^^99D0000001"
    lines = [one + lab if one.startswith("OBX") else one for one in ORU]
    first, second = mapped(lines), mapped([lines[0].replace("A1", "A2"), *lines[1:]])
    for output in (first, second):
        producers = [entry for entry in output.entries if entry.key[:1] and entry.key[0][1] == "99D0000001"]
        assert len(producers) == 1
        results = [entry.resource for entry in output.entries if entry.name == "observation"]
        assert all(one["performer"] == [producers[0].reference] for one in results)
    assert first.entries[0].reference != second.entries[0].reference


def test_a_specimen_without_a_number_is_contained_once() -> None:
    order = ORU[4].replace("|||||||||1^Doc", "||||||||Blood|1^Doc")
    assert order != ORU[4]
    names = [entry.type for entry in facts(mapped([*ORU[:4], order, *ORU[5:]]))]
    assert names == ["Observation"] * 5 + ["DiagnosticReport"]


def test_what_is_referred_to_comes_first() -> None:
    output = mapped(ORU)
    seen: set[str] = set()
    for entry in output.entries:
        assert set(_references(entry.resource)) <= seen
        seen.add(entry.reference["reference"])
    assert output.entries[-1].role == "provenance"


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["reference"]] if isinstance(value.get("reference"), str) else []
        return own + [name for one in value.values() for name in _references(one)]
    return [name for one in value for name in _references(one)] if isinstance(value, list) else []


def test_one_assignment_makes_all_references_to_an_entry_concrete() -> None:
    output = mapped(ORU)
    patient = next(entry for entry in output.entries if entry.name == "patient")
    before = patient.reference["reference"]
    patient.reference["reference"] = "Patient/1"
    found = [name for entry in output.entries for name in _references(entry.resource)]
    assert before not in found
    assert found.count("Patient/1") == 8


def test_a_report_has_all_of_its_results() -> None:
    output = mapped(ORU)
    report = next(entry for entry in output.entries if entry.name == "report")
    results = [entry.reference for entry in output.entries if entry.name == "observation"]
    assert report.resource["result"] == results


@pytest.mark.parametrize("status", ["P", "F", "C", "W"])
def test_a_result_keeps_its_identity_through_its_statuses(status: str) -> None:
    changed = [one.replace("|||||F|||2026", f"|||||{status}|||2027") if one.startswith("OBX") else one for one in ORU]
    later = mapped([changed[0].replace("A1", "A2"), *changed[1:]])
    assert [entry.key for entry in facts(later)] == [entry.key for entry in facts(mapped(ORU))]


def test_each_resource_carries_its_key() -> None:
    for entry in mapped(ORU).entries:
        if entry.role != "provenance":
            values = [(one.get("system"), one["value"]) for one in entry.resource["identifier"]]
            assert entry.key[0] in values


def test_every_message_has_the_zone_of_its_header() -> None:
    report = next(entry for entry in mapped(ORU).entries if entry.name == "report")
    assert report.resource["issued"] == "2026-05-07T08:00:00-05:00"


def test_repaired_segments_tell_no_values() -> None:
    output = mapped([ORU[0], "ZPI|secret", *ORU[1:]])
    assert all("secret" not in str(diagnostic) for diagnostic in output.diagnostics)


@pytest.mark.skipif(not SAMPLES, reason="INTERLOCK_REFERENCE does not name a folder with samples/")
def test_every_sample_becomes_valid_resources() -> None:
    found = []
    for path in SAMPLES:
        raw = path.read_bytes()
        header = raw.split(b"\r", 1)[0].split(raw[3:4])
        kind = header[8].decode().split("^")
        mapping = LIBRARY.for_message(*kind[:2]) if len(kind) > 1 else None
        if mapping is not None:
            output = mapping.run(raw, CONTEXT)
            assert output.entries or output.diagnostics
            found.extend(f"{path.name}: {fault}" for fault in faults(output))
    assert found == []
