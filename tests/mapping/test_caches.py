"""What is remembered of one message never changes what becomes of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.fhir.output import Output
from engine.mapping import run as running
from engine.mapping.library import Library
from tests.mapping.folders import CONTEXT, SHIPPED

LIBRARY = Library.load(SHIPPED)
HEADER = "MSH|^~\\&|LAB|ACME|EMR|CLINIC|20260507080910{zone}||ORU^R01|C1|P|2.8"
DOCTOR = "PV1|1|O|||||1^Doc^A^^^^^^ACME^L^^^NPI^^^^^^20200101101010^20300101101010"


def fresh() -> Library:
    """One that has seen no message."""
    return Library(LIBRARY._shelf, LIBRARY._maker)


def made(library: Library, *lines: str) -> list[dict[str, object]]:
    return [entry.resource for entry in output(library, *lines).entries]


def output(library: Library, *lines: str) -> Output:
    return library.mapping("ORU_R01").run("\r".join(lines).encode(), CONTEXT)


def test_times_have_the_zone_of_their_own_message() -> None:
    library = fresh()
    made(library, HEADER.format(zone="-0500"), "PID|1||M1", DOCTOR)
    later = made(library, HEADER.format(zone="+0900"), "PID|1||M1", DOCTOR)
    [doctor] = [one for one in later if one["resourceType"] == "Practitioner"]
    assert doctor["name"][0]["period"]["start"] == "2020-01-01T10:10:10+09:00"  # type: ignore[index]


def test_escapes_are_those_of_their_own_message() -> None:
    library = fresh()
    result = "OBX|1|CE|A^x\\T\\y^L||v"
    made(library, HEADER.format(zone=""), "PID|1||M1", result)
    other = HEADER.format(zone="").replace("^~\\&", "^~!&")
    observation = made(library, other, "PID|1||M1", result)[-2]
    assert made(fresh(), other, "PID|1||M1", result)[-2]["code"] == observation["code"]


@pytest.mark.parametrize(
    ("first", "second", "system"),
    [
        ("A^x^lab", "A^x^LAB", "urn:interlock:acme:LAB"),
        ("A^x^LAB^^^^^^^^^^^1.2.3", "B^x^LAB", "urn:interlock:acme:LAB"),
        ("B^x^LAB", "A^x^LAB^^^^^^^^^^^1.2.3", "urn:oid:1.2.3"),
    ],
)
def test_a_coding_system_is_what_its_own_message_says(first: str, second: str, system: str) -> None:
    library = fresh()
    made(library, HEADER.format(zone=""), "PID|1||M1", f"OBX|1|ST|{first}||v")
    observation = made(library, HEADER.format(zone=""), "PID|1||M1", f"OBX|1|ST|{second}||v")[-2]
    assert observation["code"]["coding"][0]["system"] == system  # type: ignore[index]


def test_known_coding_systems_are_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "CACHE_LIMIT", 8)
    library = fresh()
    lines = [f"OBX|{n}|ST|A{n}^x^L{n}||v" for n in range(20)]
    made(library, HEADER.format(zone=""), "PID|1||M1", *lines)
    observation = made(library, HEADER.format(zone=""), "PID|1||M1", "OBX|1|ST|2345-7^x^LN||v")[-2]
    assert observation["code"]["coding"][0]["system"] == "http://loinc.org"  # type: ignore[index]


def test_an_identifier_with_a_bar_is_no_key_and_stays() -> None:
    found = output(LIBRARY, HEADER.format(zone=""), "PID|1||M\\F\\1^^^ACME~M2^^^ACME", "OBX|1|ST|a||v")
    patient = next(entry for entry in found.entries if entry.type == "Patient")
    assert [value for _, value in patient.key] == ["M2"]
    assert [one["value"] for one in patient.resource["identifier"]] == ["M|1", "M2"]


def test_what_a_table_lacks_is_told_however_often_it_came_before(tmp_path: Path) -> None:
    library = fresh()
    message = (HEADER.format(zone=""), "PID|1||M1|||||Q")
    told = [[one.code for one in output(library, *message).unmapped] for _ in range(3)]
    assert told[0] == told[1] == told[2]


def test_a_number_that_two_patients_share_in_one_message_joins_nothing() -> None:
    order = ("OBR|1||F1^LAB|1^x^L", "OBX|1|ST|a||v")
    found = output(LIBRARY, HEADER.format(zone=""), "PID|1||M1^^^ACME", *order, "PID|2||M2^^^ACME", *order)
    assert "two-patients" in [one.code for one in found.diagnostics]
    for entry in found.entries:
        every = (entry.resource, *entry.resource.get("contained", ()))
        subjects = {one["subject"]["reference"] for one in every if "subject" in one}
        assert len(subjects) <= 1
    orders = [entry for entry in found.entries if entry.type == "ServiceRequest"]
    assert len(orders) == 1
    second = [entry for entry in found.entries if entry.type == "Observation"][1]
    assert second.resource["basedOn"][0]["reference"].startswith("#")
