"""Order keys read from the bytes: the same patient, the same lane; no patient, the shared one."""

from __future__ import annotations

import pytest

from engine.delivery import lane

HEAD = b"MSH|^~\\&|A|B|C|D|20260101||ORU^R01|1|P|2.5\r"


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (HEAD + b"PID|1||123^^^HOSP^MR||X\rPV1|1", b"123^HOSP"),
        (HEAD + b"PID|1||123^^^HOSP^MR~9^^^SSN||X\rPV1|1", b"123^HOSP"),
        (HEAD + b"PID|1||123||X\r", b"123"),
        (HEAD + b"PID|1||123", b"123"),
        (HEAD.replace(b"\r", b"\n") + b"PID|1||123^^^HOSP\n", b"123^HOSP"),
        (HEAD + b"PV1|1||ward\r", b""),
        (HEAD + b"PID|1||||X\r", b""),
        (HEAD + b"PID\r", b""),
        (b"", b""),
        (b"\xef\xbb\xbf" + HEAD + b"PID|1||123^^^HOSP|\r", b"123^HOSP"),
        (HEAD + b"NTE|1||a\nPID|1||9\rPID|1||123\r", b"123"),
        (b"garbage", b""),
        (b"MSH#!~\\&#A\rPID#1##123!!!HOSP~4#X", b"123^HOSP"),
    ],
)
def test_the_key_is_the_first_identifier_with_its_authority(raw: bytes, key: bytes):
    assert lane.patient(raw) == key


def test_one_lane_for_a_channel():
    assert lane.channel(HEAD) == lane.channel(b"x") == lane.by("channel")(HEAD) == (b"",)


A40 = HEAD.replace(b"ORU^R01", b"ADT^A40")


@pytest.mark.parametrize(
    ("raw", "keys"),
    [
        (HEAD + b"PID|1||123^^^HOSP^MR||X\r", (b"123^HOSP",)),
        (HEAD + b"PV1|1\r", (b"",)),
        (A40 + b"PID|1||2^^^H\rPD1|1\rMRG|1^^^H~7\r", (b"2^H", b"1^H")),
        (A40 + b"PID|1||2^^^H\rMRG|2^^^H\r", (b"2^H",)),
        (A40 + b"PID|1||2^^^H\rMRG|1^^^H\rPID|2||4^^^H\rMRG|3^^^H\r", (b"2^H", b"4^H", b"1^H", b"3^H")),
        (A40.replace(b"A40", b"A37") + b"PID|1||2\rPV1|1\rPID|2||3\r", (b"2", b"3")),
        (A40 + b"PID|1||\rMRG|1^^^H\r", (b"1^H",)),
        (b"BHS|^~\\&|A\r" + HEAD + b"PID|1||5\r" + HEAD + b"PID|1||6\rBTS|2\r", (b"5", b"6")),
        (b"BHS|^~\\&|A\r" + HEAD + b"PV1|1\r" + HEAD + b"PID|1||6\rBTS|2\r", (b"6",)),
    ],
)
def test_a_message_stands_in_the_lanes_of_all_patients_that_it_names(raw: bytes, keys: tuple[bytes, ...]):
    assert lane.patients(raw) == lane.by("patient")(raw) == keys


RESULT = HEAD + b"PID|1||1\rOBR|1|P^EMR~Q|F^LAB\rOBX|1|NM|A||5\rOBR|2|R|S\r"


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("OBR-2", (b"P^EMR",)), ("OBR-2.1", (b"P",)), ("OBR-2.2", (b"EMR",)), ("OBR-2.3", (b"",)), ("OBR-9", (b"",)),
        ("MSH-3", (b"A",)), ("MSH-10", (b"1",)), ("MSH-9.2", (b"R01",)), ("PV1-19", (b"",)),
    ],
)  # fmt: skip
def test_any_field_or_component_can_be_the_key(path: str, keys: tuple[bytes, ...]):
    assert lane.by(path)(RESULT) == keys


@pytest.mark.parametrize("order", ["", "OBR", "obr-2", "OBR-0", "OBR-2.1.1", "patients"])
def test_what_is_no_path_is_no_order(order: str):
    with pytest.raises(ValueError, match="order key"):
        lane.by(order)
