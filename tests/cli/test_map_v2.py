"""map, test and validate for v2 mappings: what each destination would get, the examples, the mistakes."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Interlock

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
RESULT = str(SAMPLES / "result.hl7")
MAPPING = "steps:\n  - set: MSH-5\n    to: CLINIC\n  - delete: PV1\n  - split: OBX\n    when: PID-8 = 'M'\n"
CHANNEL = """\
id: acme
connection: acme
direction: results
timezone: UTC
listen: {port: 6101}
target:
  filter: [{drop: PID-8 = 'X', reason: no}]
  destinations:
    - mllp: emr
      mapping: clinic
    - mllp: old
"""


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    (tmp_path / "channels").mkdir()
    (tmp_path / "maps/v2").mkdir(parents=True)
    (tmp_path / "maps/v2/clinic.yaml").write_text(MAPPING)
    (tmp_path / "interlock.yaml").write_text(
        "mappings: ./maps\nmedplum: {base_url: http://m.example, client_id: a, client_secret: b}\n"
    )
    (tmp_path / "channels/endpoints.yaml").write_text(
        "emr: {mllp: '127.0.0.1:6102', on_unknown: resend}\nold: {mllp: '127.0.0.1:6103', on_unknown: resend}\n"
    )
    file = tmp_path / "channels/acme.yaml"
    file.write_text(CHANNEL)
    return file


def messages(out: str) -> list[tuple[str, int, str]]:
    found = [orjson.loads(line) for line in out.splitlines()]
    return [(one["destination"], one["part"], one["message"]) for one in found]


def test_a_channel_shows_what_each_destination_would_get(interlock: Interlock, channel: Path) -> None:
    result = interlock("map", RESULT, "--channel", "acme")
    assert (result.status, result.err) == (0, "")
    raw = Path(RESULT).read_text().rstrip("\n")
    (emr, part, made), old = messages(result.out)
    assert (emr, part, old) == ("emr", 1, ("old", 1, raw))
    kept = [line for line in raw.split("\n") if not line.startswith("PV1")]
    assert made.split("\n") == [kept[0].replace("ACMEEMR", "CLINIC", 1), *kept[1:]]


def test_parts_are_lines_each_with_its_own_control_id(interlock: Interlock, channel: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.hl7"
    file.write_bytes(Path(RESULT).read_bytes().replace(b"|19580304|F|", b"|19580304|M|"))
    found = [
        message for name, _, message in messages(interlock("map", str(file), "--channel", "acme").out) if name == "emr"
    ]
    ids = {message.split("|")[9] for message in found}
    assert len(found) == len(ids) == 5
    assert "ACME-RES-0001" in ids


def test_what_is_filtered_says_why_and_what_is_refused_is_an_error(
    interlock: Interlock, channel: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x.hl7"
    file.write_bytes(Path(RESULT).read_bytes().replace(b"|19580304|F|", b"|19580304|X|"))
    result = interlock("map", str(file), "--channel", "acme")
    assert [orjson.loads(line) for line in result.out.splitlines()] == [
        {"destination": "emr", "filtered": "no"}, {"destination": "old", "filtered": "no"}
    ]  # fmt: skip
    (tmp_path / "maps/v2/clinic.yaml").write_text("accepts: [ADT]\n" + MAPPING)
    result = interlock("map", RESULT, "--channel", "acme")
    assert result.status == 1
    assert [name for name, _, _ in messages(result.out)] == ["old"]
    assert orjson.loads(result.err) == {
        "error": "not-accepted", "where": "MSH-9", "expected": "ADT", "file": RESULT, "message": 1, "destination": "emr"
    }  # fmt: skip


def test_a_filter_holds_back_from_medplum_too(interlock: Interlock, channel: Path, tmp_path: Path) -> None:
    channel.write_text(channel.read_text().replace("PID-8 = 'X'", "PID-8 = 'F'") + "    - medplum: {}\n")
    result = interlock("map", RESULT, "--channel", "acme")
    assert [orjson.loads(line).get("filtered") for line in result.out.splitlines()] == ["no", "no", "no"]


def test_a_v2_mapping_may_be_named(interlock: Interlock, channel: Path) -> None:
    result = interlock("map", RESULT, "--mapping", "clinic")
    (line,) = result.out.splitlines()
    assert orjson.loads(line)["message"].split("|")[4] == "CLINIC"


def test_validate_finds_the_mistakes_of_mappings_and_of_conditions(
    interlock: Interlock, channel: Path, tmp_path: Path
) -> None:
    assert interlock("validate").status == 0
    (tmp_path / "maps/v2/clinic.yaml").write_text(MAPPING.replace("set: MSH-5", "set: MSH5"))
    (tmp_path / "maps/tables").mkdir()
    (tmp_path / "maps/tables/t.yaml").write_text("table: T\ncodse: {a: b}\n")
    channel.write_text(channel.read_text().replace("PID-8 = 'X'", "PID-8 == 'X'"))
    result = interlock("validate")
    assert result.status == 1
    said = result.out.splitlines()
    assert [line for line in said if "v2/clinic" in line or "channels" in line] == [
        "maps/v2/clinic.yaml:2:10: found MSH5; expected a path such as PID-3.1, OBX[2]-5 or PID-3[*].4",
        "channels/acme.yaml:7:26: found =; expected a path such as PID-3.1, a name, or 'text'",
    ]
    assert len([line for line in said if "unknown key codse" in line]) == 1


def test_the_examples_of_the_site_are_run_with_those_of_the_product(
    interlock: Interlock, channel: Path, tmp_path: Path
) -> None:
    (tmp_path / "maps/v2/examples").mkdir()
    examples = tmp_path / "maps/v2/examples/clinic.yaml"
    text = "name: relabelled\nmapping: clinic\nmessage: |\n  MSH|^~\\&|A|B|C|D\n  PID|1\nexpect: {MSH-5: CLINIC}\n"
    examples.write_text(text)
    result = interlock("test")
    assert result.status == 0
    assert result.out.splitlines()[-1].endswith("examples: all of them hold")
    examples.write_text(text.replace("CLINIC", "OTHER"))
    result = interlock("test")
    assert result.status == 1
    assert (
        result.out.splitlines()[0]
        == "maps/v2/examples/clinic.yaml: relabelled: MSH-5: expected 'OTHER', found 'CLINIC'"
    )
    examples.write_text("name: relabelled\n")
    assert interlock("test").status == 1


def test_a_destination_without_a_mapping_shows_the_control_id_that_it_would_get(
    interlock: Interlock, channel: Path
) -> None:
    channel.write_text(channel.read_text().replace("mllp: old", "mllp: old\n      emit: {control_id: ours, prefix: Q}"))
    _, (_, part, made) = messages(interlock("map", RESULT, "--channel", "acme").out)
    before, after = Path(RESULT).read_text().rstrip("\n").split("|", 10), made.split("|", 10)
    assert (part, after[9][:1], len(after[9])) == (1, "Q", 20)
    assert (before[:9], before[10]) == (after[:9], after[10])
