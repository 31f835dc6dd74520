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
    assert lane.channel(HEAD) == lane.channel(b"x") == b""
