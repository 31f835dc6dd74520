"""map: a bundle a line, an error a line, and the exit status."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Interlock

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
RESULT = str(SAMPLES / "result.hl7")


def kinds(line: str) -> list[str]:
    return [entry["resource"]["resourceType"] for entry in orjson.loads(line)["entry"]]


@pytest.mark.parametrize("file", ["order.hl7", "order-oml.hl7", "result.hl7", "result-harbor.hl7"])
def test_each_sample_becomes_one_bundle(file: str, interlock: Interlock) -> None:
    result = interlock("map", str(SAMPLES / file))
    assert (result.status, result.err) == (0, "")
    (line,) = result.out.splitlines()
    assert {"Patient", "Observation" if "result" in file else "ServiceRequest"} <= set(kinds(line))


def test_several_messages_and_files_are_a_line_each(interlock: Interlock, tmp_path: Path) -> None:
    both = tmp_path / "both.hl7"
    both.write_bytes((SAMPLES / "order.hl7").read_bytes() + (SAMPLES / "result.hl7").read_bytes())
    assert len(interlock("map", str(both), RESULT).out.splitlines()) == 3


def test_the_same_message_gives_the_same_bytes(interlock: Interlock) -> None:
    assert interlock("map", RESULT).out == interlock("map", RESULT).out


def test_a_message_that_cannot_be_mapped_is_a_line_of_errors_and_1(interlock: Interlock, tmp_path: Path) -> None:
    bad = tmp_path / "bad.hl7"
    bad.write_bytes(b"MSH|^~\\&|A|B|C|D|20260101||ZZZ^Z01|1|P|2.5\rPID|1||CANARY\r" + Path(RESULT).read_bytes())
    result = interlock("map", str(bad))
    assert result.status == 1
    assert len(result.out.splitlines()) == 1
    error = orjson.loads(result.err)
    assert error["error"] == "no mapping for ZZZ^Z01"
    assert (error["file"], error["message"]) == (str(bad), 1)
    assert "CANARY" not in result.err


def test_a_trace_tells_what_is_from_where_what_went_nowhere_and_what_no_table_knows(
    interlock: Interlock, tmp_path: Path
) -> None:
    file = tmp_path / "one.hl7"
    file.write_bytes(
        b"MSH|^~\\&|LIS|LAB|||20260301||ORU^R01|1|P|2.5.1\rPID|1||P1^^^ACME^MR\rOBR|1||F1|A^A^L\r"
        b"OBX|1|NM|G^G^L||5|||QQ|||F|||soon\r"
    )
    result = interlock("map", "--trace", str(file))
    assert result.out == interlock("map", str(file)).out
    told = [line.removeprefix(f"{file}: message 1: ") for line in result.err.splitlines()]
    assert any(line.startswith("Patient[1].identifier[0].value <- PID[1]-3[1].1  (datatypes/CX.yaml:") for line in told)
    assert any(line.startswith("OBR[1]-1[1].1.1 -> nothing: left-out: A set id (segments/OBR.yaml:") for line in told)
    assert "OBX-8 QQ: table Interpretation does not know it; it went on as it came" in told
    assert "not-dateTime at OBX-14: expected a date or time" in told


def test_a_mapping_may_be_named(interlock: Interlock) -> None:
    assert interlock("map", RESULT, "--mapping", "oru_r01").status == 0


def test_an_unknown_mapping_is_wrong_usage(interlock: Interlock) -> None:
    result = interlock("map", RESULT, "--mapping", "nonsense")
    assert result.status == 2
    assert result.err.startswith("interlock: there is no mapping 'nonsense'")


def test_a_channel_gives_its_namespaces(interlock: Interlock, tmp_path: Path) -> None:
    (tmp_path / "channels").mkdir()
    (tmp_path / "interlock.yaml").write_text("medplum: {base_url: http://m.example, client_id: a, client_secret: b}\n")
    (tmp_path / "channels/acme.yaml").write_text(
        "id: acme\nconnection: acme\ndirection: results\ntimezone: UTC\nlisten: {port: 6101}\n"
        "identity: {patient: 'https://acme.example/mrn'}\ntarget: {mapping: oru_r01, destinations: [{medplum: {}}]}\n"
    )
    plain = tmp_path / "plain.hl7"  # an identifier without an authority is what the channel's namespace is for
    plain.write_bytes(Path(RESULT).read_bytes().replace(b"700101^^^ACME^MR", b"700101"))
    assert "https://acme.example/mrn" in interlock("map", str(plain), "--channel", "acme").out
    result = interlock("map", RESULT, "--channel", "other")
    assert (result.status, result.err) == (2, "interlock: there is no channel 'other'; there are acme\n")


def test_a_channel_and_a_mapping_do_not_go_together(interlock: Interlock) -> None:
    result = interlock("map", RESULT, "--channel", "acme", "--mapping", "oru_r01")
    assert result.status == 2
