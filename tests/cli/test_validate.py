"""validate: every problem of every file, and the exit status scripts rely on."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from engine.mapping.library import Library
from tests.cli.conftest import Interlock

CHANNEL = """\
id: acme
connection: acme
direction: results
timezone: UTC
listen: {port: 6101}
target: {destinations: [{medplum: {}}]}
silence_alert: {after: 30m}
"""


def write(folder: Path, channel: str = CHANNEL) -> None:
    (folder / "channels").mkdir(exist_ok=True)
    (folder / "interlock.yaml").write_text("medplum: {base_url: http://m.example, client_id: a, client_secret: b}\n")
    (folder / "channels/acme.yaml").write_text(channel)


def test_files_that_are_right(interlock: Interlock, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "channels/beta.yaml").write_text(CHANNEL.replace("6101", "6102").replace("id: acme", "id: beta"))
    result = interlock("validate")
    assert result.status == 0
    assert result.out.splitlines() == [
        "channels/acme.yaml:7:1: note: silence_alert is checked; this version does not raise it yet (and 1 more place)",
        "2 channels: every file is right",
    ]


def test_problems_are_lines_and_1(interlock: Interlock, tmp_path: Path) -> None:
    write(tmp_path, CHANNEL.replace("6101", "0") + "idd: 1\n")
    result = interlock("validate")
    assert result.status == 1
    lines = result.out.splitlines()
    assert lines[0] == "channels/acme.yaml:5:16: found the number 0; expected a port from 1 to 65535"
    assert lines[1].startswith(
        "channels/acme.yaml:8:1: found the unknown key 'idd' in a channel; expected 'id', perhaps"
    )
    assert lines[2:] == ["2 problems in 1 file"]


def test_a_variable_of_the_environment_is_no_file(
    interlock: Interlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.setenv("INTERLOCK_WROKERS", "1")
    monkeypatch.setenv("INTERLOCK_HTTP", "nowhere")
    lines = interlock("validate").out.splitlines()
    assert lines[0].startswith("environment INTERLOCK_HTTP: found 'nowhere'; expected ")
    assert lines[1].startswith("environment INTERLOCK_WROKERS: found a variable that is no setting; expected ")
    assert lines[-1] == "2 problems in the environment"
    write(tmp_path, CHANNEL.replace("6101", "0"))
    assert interlock("validate").out.splitlines()[-1] == "3 problems in 1 file and the environment"


def test_problems_for_scripts(interlock: Interlock, tmp_path: Path) -> None:
    write(tmp_path, CHANNEL.replace("6101", "0"))
    result = interlock("validate", "--json")
    assert result.status == 1
    told = orjson.loads(result.out)
    assert told["ok"] is False
    assert told["problems"] == [
        {
            "file": "channels/acme.yaml",
            "line": 5,
            "column": 16,
            "found": "the number 0",
            "expected": "a port from 1 to 65535",
        }
    ]


def test_mistakes_in_the_sites_mappings_are_told_with_those_of_the_channels(
    interlock: Interlock, tmp_path: Path
) -> None:
    write(tmp_path, CHANNEL.replace("6101", "0"))
    (tmp_path / "interlock.yaml").write_text("mappings: own\n" + (tmp_path / "interlock.yaml").read_text())
    (tmp_path / "own/messages").mkdir(parents=True)
    (tmp_path / "own/messages/BAD.yaml").write_text("nonsense: 1\n")
    lines = interlock("validate").out.splitlines()
    assert any(line.startswith("own/messages/BAD.yaml:1:") for line in lines)
    assert any(line.startswith("channels/acme.yaml:5:16:") for line in lines)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site's mapping and no shipped ones, which take a second."""
    monkeypatch.setattr("engine.config.shipped.shipped_mappings", lambda: tmp_path / "shipped")
    write(tmp_path)
    (tmp_path / "interlock.yaml").write_text("mappings: own\n" + (tmp_path / "interlock.yaml").read_text())
    (tmp_path / "own").mkdir()
    (tmp_path / "own/site.yaml").write_text(SITE)
    (tmp_path / "channels/acme.yaml").unlink()
    return tmp_path


SITE = """\
message: XYZ
accepts: [XYZ^X01]
groups: [MSH, PID]
resources:
  patient:
    for: PID
    make: Patient
    role: anchor
    from: PID[Patient]
    key: patient '{PID-3}'
---
map: PID[Patient]
rows: [PID-8 -> gender table XyzSex]
---
table: XyzSex
codes: {W: female, M: male}
---
options:
  names: {of: [few, many], default: few, about: how many}
"""
OVERRIDE = "override: {'PID[Patient]': {rows: [PID-8 -> gender table XyzSax, PID-7 -> birthDay]}}"


def add(folder: Path, name: str, mapping: str) -> None:
    target = f"target:\n  destinations: [{{medplum: {{}}}}]\n  mapping:\n    use: xyz\n{mapping}"
    channel = CHANNEL.replace("acme", name).replace("target: {destinations: [{medplum: {}}]}\n", target)
    port = 6101 + len(list((folder / "channels").iterdir()))
    (folder / f"channels/{name}.yaml").write_text(channel.replace("6101", str(port)))


def test_the_override_of_each_channel_is_compiled_and_its_mistakes_are_told_at_their_places(
    interlock: Interlock, own: Path
) -> None:
    add(own, "acme", f"    {OVERRIDE}\n")
    add(own, "beta", f"    unmapped: count\n    {OVERRIDE.replace('override: ', 'override:  ')}\n")
    add(own, "cent", "    override:\n      tables: {XyzSax: {codes: {X: other}}}\n")
    add(own, "good", "    override: {tables: {XyzSex: {codes: {X: other}}}}\n    options: {names: many}\n")
    result = interlock("validate")
    lines = [line.split("; expected")[0] for line in result.out.splitlines() if line.split(" ")[1] != "note:"]
    assert lines == [
        "channels/acme.yaml:10:62: found unknown table XyzSax",
        "channels/acme.yaml:10:79: found unknown element of Patient birthDay",
        "channels/beta.yaml:11:63: found unknown table XyzSax",
        "channels/beta.yaml:11:80: found unknown element of Patient birthDay",
        "channels/cent.yaml:11:16: found unknown table XyzSax",
        "5 problems in 3 files",
    ]
    assert result.status == 1
    assert interlock("run").status == 1


def test_an_override_that_many_channels_have_is_compiled_once_also_if_it_is_wrong(
    interlock: Interlock, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, changed = [], Library.changed
    monkeypatch.setattr(Library, "changed", lambda *given: compiled.append(1) or changed(*given))
    for name in ("acme", "beta", "cent"):
        add(own, name, f"{'    unmapped: count' if name == 'beta' else ''}\n    {OVERRIDE}\n")
    lines = [line for line in interlock("validate").out.splitlines() if "XyzSax" in line]
    assert [line.split(": ")[0] for line in lines] == [
        f"channels/{name}.yaml:11:62" for name in ("acme", "beta", "cent")
    ]
    assert len(compiled) == 1


def test_the_options_of_each_channel_are_checked(interlock: Interlock, own: Path) -> None:
    add(own, "acme", "    override: {}\n    options: {names: none}\n")
    add(own, "beta", "    options: {name: few}\n")
    add(own, "cent", "    options:\n      names: none\n    override: {}\n")
    add(own, "good", "    options: {names: few}\n")
    result = interlock("validate")
    assert [line for line in result.out.splitlines() if "note:" not in line] == [
        "channels/acme.yaml:11:15: found names: none; expected one of few, many",
        "channels/beta.yaml:10:15: found unknown option name; expected names",
        "channels/cent.yaml:11:7: found names: none; expected one of few, many",
        "3 problems in 3 files",
    ]
    assert result.status == 1


def test_the_schemas_can_be_had(interlock: Interlock) -> None:
    assert set(orjson.loads(interlock("validate", "--schema").out)["$defs"]) == {
        "channel", "endpoints", "feed", "profiles", "settings",
    }  # fmt: skip


def test_run_refuses_what_validate_refuses(interlock: Interlock, tmp_path: Path) -> None:
    write(tmp_path, CHANNEL.replace("6101", "0"))
    result = interlock("run")
    assert result.status == 1
    assert "found the number 0" in result.out
