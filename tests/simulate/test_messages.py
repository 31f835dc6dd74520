"""Rules of engine.simulate.messages."""

from __future__ import annotations

import subprocess
import sys

import hl7
import pytest
from hl7apy.parser import parse_message

from engine.hl7.peek import peek
from engine.simulate.messages import PATIENTS, Kind, Messages

KINDS: tuple[Kind, ...] = ("oru", "orm", "oml")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_numbers_give_the_same_bytes(kind: Kind) -> None:
    assert Messages(kind, 3).message(77) == Messages(kind, 3).message(77)
    assert Messages(kind, 3).message(77) != Messages(kind, 3).message(78)
    assert Messages(kind, 3).message(77) != Messages(kind, 4).message(77)


def test_they_do_so_in_another_process() -> None:
    code = "import sys; from engine.simulate.messages import Messages; sys.stdout.buffer.write(Messages().message(5))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == Messages().message(5)


@pytest.mark.parametrize(("kind", "expected"), list(zip(KINDS, ["ORU^R01", "ORM^O01", "OML^O21"], strict=True)))
def test_the_header_says_what_it_is(kind: Kind, expected: str) -> None:
    messages = Messages(kind, seed=7, prefix="ACME")
    head = peek(messages.message(12))
    assert head.ok
    assert f"{head.type}^{head.trigger}" == expected
    assert head.control_id == messages.control_id(12) == "ACME0070000012"


def test_a_report_has_ten_segments_and_about_one_and_a_half_kilobytes() -> None:
    sizes = []
    for number in range(200):
        message = Messages().message(number)
        names = [segment[:3] for segment in message.split(b"\r")[:-1]]
        assert names == [b"MSH", b"PID", b"PV1", b"ORC", b"OBR", *[b"OBX"] * 5]
        sizes.append(len(message))
    assert 1300 < sum(sizes) / len(sizes) < 1700


def test_patients_recur_and_orders_do_not() -> None:
    parsed = [hl7.parse(Messages().message(number).decode()) for number in range(400)]
    patients = [str(message.segment("PID")[3]) for message in parsed]
    assert 50 < len(set(patients)) <= PATIENTS
    assert len({str(message.segment("OBR")[3]) for message in parsed}) == 400


def test_a_patient_keeps_name_and_birth_date() -> None:
    seen: dict[bytes, bytes] = {}
    for number in range(600):
        pid = Messages().message(number).split(b"\r")[1]
        assert seen.setdefault(pid.split(b"|")[3], pid) == pid


def test_flags_agree_with_values_and_ranges() -> None:
    for number in range(100):
        for obx in Messages().message(number).split(b"\r")[5:10]:
            fields = obx.decode().split("|")
            low, high = (float(bound) for bound in fields[7].split("-"))
            value = float(fields[5])
            assert fields[8] in ({"L", "N"} if value <= low else {"H", "N"} if value >= high else {"N"})


@pytest.mark.parametrize("kind", KINDS)
def test_hl7apy_finds_every_segment_in_its_place_and_every_required_field(kind: Kind) -> None:
    parsed = parse_message(Messages(kind).message(1).decode(), find_groups=kind != "orm")
    for segment in ("msh", "pid", "pv1", "orc", "obr") if kind == "orm" else ():
        getattr(parsed, segment).validate()  # hl7apy wants all of ORM_O01's alternatives at once
    if kind != "orm":
        parsed.validate()
