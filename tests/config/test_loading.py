"""What a configuration that is right becomes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.config.address import Address
from engine.config.edge import Ack, Listen
from engine.config.endpoint import Endpoint
from engine.config.loading import load as load_file
from engine.config.loading import load_with_notes
from engine.config.model import (
    Compare,
    Destination,
    Gate,
    Ignored,
    Medplum,
    Rollback,
    Tap,
    Target,
    Tolerated,
    Window,
)
from tests.config.conftest import CHANNEL, SETTINGS, Load, Write, problems

DESIGN = """\
id: acme-results
connection: acme
title: Acme Reference Lab, results
direction: results
labels: {region: west}
owner: interfaces@example.org
timezone: America/Chicago
phase: legacy
listen: {port: 6101, allow: [10.20.0.0/16], accepts: [ORU^R01], encoding: auto}
ack: {from: authoritative}
identity: {patient: "https://acme.example/mrn", placer: "https://acme.example/order"}
legacy:
  mllp: old-engine
  taps: [{listen: 7201, forward: acme-emr}]
target:
  mapping: oru_r01
  destinations:
    - medplum: {}
    - mllp: acme-emr
silence_alert: {after: 30m, during: "mon-fri 07:00-19:00"}
compare: {key: [OBR-3.1, OBR-25, OBR-4.1], nth: true, ignore: [{path: MSH-7, reason: "stamped by each engine"}]}
gate: {min_match: 0.999}
window: {days: [sat, sun], from: "01:00", to: "05:00"}
rollback: {replay: guarded, until: 72h}
"""


def test_a_whole_channel_becomes_values(write: Write, load: Load) -> None:
    write("channels/acme.yaml", DESIGN)
    (channel,) = load().channels
    assert (channel.id, channel.connection, channel.direction, channel.phase) == (
        "acme-results",
        "acme",
        "results",
        "legacy",
    )
    assert channel.source.port == 6101
    assert channel.source.allow == ("10.20.0.0/16",)
    assert channel.takes.accepts == ("ORU^R01",)
    assert channel.ack == Ack("authoritative", "silent")
    assert channel.identity["placer"] == "https://acme.example/order"
    assert channel.legacy is not None
    assert channel.legacy.endpoint.mllp == Address("10.0.0.5", 6661)
    emr = Endpoint("acme-emr", Address("10.0.0.6", 6662), on_unknown="resend")
    assert channel.target == Target(
        "oru_r01",
        (
            Destination("medplum", "medplum", None, order_by="patient"),
            Destination("acme-emr", "mllp", emr, order_by="channel"),
        ),
    )
    assert channel.taps == (Tap("acme-emr", Listen(7201, "0.0.0.0"), emr),)
    assert channel.compare == Compare(
        ("OBR-3.1", "OBR-25", "OBR-4.1"), ignore=(Ignored("MSH-7", "stamped by each engine"),)
    )
    assert channel.gate == Gate(min_match=0.999, min_messages=100)
    assert channel.window == Window(("sat", "sun"), "01:00", "05:00")
    assert channel.rollback == Rollback("guarded", 72 * 3600.0)
    assert channel.file == "channels/acme.yaml"
    assert channel.raw["window"]["days"] == ["sat", "sun"]


def test_what_is_only_checked_so_far_is_noted_never_silent(write: Write) -> None:
    write("channels/acme.yaml", DESIGN)
    _, notes = load_with_notes(Path("interlock.yaml"), {})
    assert [str(note) for note in notes] == [
        "channels/acme.yaml:20:1: note: silence_alert is checked; this version does not raise it yet"
    ]


TAPS = CHANNEL.replace("{mllp: old-engine}", "{mllp: old-engine, taps: [TAP]}")


def test_a_tap_may_have_an_address_of_its_own_and_a_quiet_time(write: Write, load: Load) -> None:
    tap = "{listen: {port: 7201, host: 10.0.0.1, allow: [10.0.0.5/32]}, forward: '10.0.0.9:7000', settle: 5s}"
    write("channels/acme.yaml", TAPS.replace("TAP", tap))
    (channel,) = load().channels
    forward = Endpoint("10.0.0.9:7000", Address("10.0.0.9", 7000))
    assert channel.taps == (Tap("10.0.0.9:7000", Listen(7201, "10.0.0.1", ("10.0.0.5/32",)), forward, 5.0),)


@pytest.mark.parametrize("listen", ["7201", "{port: 7201}"])
def test_a_tap_listens_where_its_channel_does_unless_told(listen: str, write: Write, load: Load) -> None:
    text = TAPS.replace("TAP", f"{{listen: {listen}, forward: acme-emr}}")
    write("channels/acme.yaml", text.replace("{port: 6101}", "{port: 6101, host: 127.0.0.1}"))
    assert load().channels[0].taps[0].source.address == Address("127.0.0.1", 7201)


def test_a_tap_whose_output_nothing_of_ours_can_be_compared_with_is_noted(write: Write) -> None:
    write("channels/acme.yaml", TAPS.replace("TAP", "{listen: 7201, forward: acme-emr}"))
    _, notes = load_with_notes(Path("interlock.yaml"), {})
    assert [str(note) for note in notes] == [
        "channels/acme.yaml:6:59: note: what this tap takes is forwarded and cannot be compared: "
        "no destination of target: is 'acme-emr'"
    ]


def test_rules_of_the_comparison_become_values(write: Write, load: Load) -> None:
    rules = (
        "ignore: [{path: ZDS, reason: r}], tolerate: [{how: case, reason: s, path: PID-5}, {how: padding, reason: t}]"
    )
    write("channels/acme.yaml", CHANNEL + f"compare: {{nth: false, within: 2h, {rules}}}\n")
    assert load().channels[0].compare == Compare(
        nth=False,
        within=7200.0,
        ignore=(Ignored("ZDS", "r"),),
        tolerate=(Tolerated("case", "s", "PID-5"), Tolerated("padding", "t")),
    )


def test_a_window_without_days_opens_every_day_and_its_hours_have_two_digits(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL + "window: {from: 1:00, to: 24:00}\n")
    assert load().channels[0].window == Window((), "01:00", "24:00")


def test_a_sink_is_told_by_its_endpoint(write: Write, load: Load) -> None:
    write("channels/endpoints.yaml", "old-engine: {mllp: '10.0.0.5:6661', sink: true}\n")
    assert load().endpoints["old-engine"].sink


def test_the_defaults_of_a_small_channel(load: Load) -> None:
    (channel,) = load().channels
    assert channel.title == "acme"
    assert channel.phase == "legacy"
    assert channel.source.host == "0.0.0.0"
    assert channel.takes.max_bytes == 32 * 1024 * 1024
    assert channel.ack.source == "authoritative"
    assert channel.legacy is not None
    assert channel.legacy.settle == 600.0
    assert (channel.taps, channel.compare, channel.gate, channel.window) == ((), Compare(), Gate(), None)


def test_a_channel_without_an_old_engine_is_live_and_answers_itself(write: Write, load: Load) -> None:
    text = CHANNEL.replace("legacy: {mllp: old-engine}\n", "target: {destinations: [{medplum: {}}]}\n")
    write("channels/acme.yaml", text)
    (channel,) = load().channels
    assert (channel.phase, channel.ack.source, channel.rollback) == ("live", "stored", None)


def test_defaults_lie_beneath_every_channel_and_merge_key_by_key(write: Write, load: Load) -> None:
    write("channels/defaults.yaml", "owner: us\nlisten: {host: 127.0.0.1, port: 1, accepts: [ORU^R01]}\n")
    (channel,) = load().channels
    assert (channel.owner, channel.source.host, channel.source.port) == ("us", "127.0.0.1", 6101)
    assert channel.takes.accepts == ("ORU^R01",)


def test_an_endpoint_may_be_given_in_place_and_is_one_however_often(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL.replace("old-engine", "'10.0.0.9:7000'"))
    write(
        "channels/beta.yaml",
        CHANNEL.replace("old-engine", "'10.0.0.9:7000'").replace("acme", "b").replace("6101", "6102"),
    )
    write(
        "channels/gamma.yaml",
        CHANNEL.replace("old-engine", "'10.0.0.5:6661'").replace("acme", "c").replace("6101", "6103"),
    )
    configuration = load()
    first, second, third = (channel.legacy.endpoint for channel in configuration.channels if channel.legacy)
    assert first is second
    assert first == Endpoint("10.0.0.9:7000", Address("10.0.0.9", 7000))
    assert third.name == "old-engine"
    assert set(configuration.endpoints) == {"old-engine", "acme-emr", "10.0.0.9:7000"}


def test_settings_have_defaults_and_paths_relative_to_their_file(load: Load, tmp_path: Path) -> None:
    service = load().service
    assert service.root == tmp_path
    assert service.channels == tmp_path / "channels"
    assert service.ledger == tmp_path / "var/interlock.db"
    assert service.http == Address("127.0.0.1", 8600)
    assert service.medplum == Medplum("http://127.0.0.1:8104", "app", "pass")


def test_four_slashes_are_a_path_from_the_root(write: Write, load: Load) -> None:
    write("interlock.yaml", SETTINGS + "ledger: sqlite:////srv/ledger.db\n")
    assert load().service.ledger == Path("/srv/ledger.db")


def test_the_environment_wins_over_the_file_key_by_key(load: Load) -> None:
    service = load(INTERLOCK_MEDPLUM__BASE_URL="https://m.example/", INTERLOCK_HTTP="127.0.0.1:9000").service
    assert service.medplum == Medplum("https://m.example", "app", "pass")
    assert service.http.port == 9000


def test_an_empty_variable_and_one_of_somebody_else_do_not_count(load: Load) -> None:
    service = load(INTERLOCK_HTTP="", INTERLOCK_REFERENCE="/somewhere").service
    assert service.http.port == 8600


def test_secrets_come_from_the_environment(write: Write, load: Load) -> None:
    write("interlock.yaml", SETTINGS.replace("pass", "'${SECRET}'"))
    medplum = load(SECRET="hunter2").service.medplum
    assert medplum is not None
    assert medplum.client_secret == "hunter2"
    assert "hunter2" not in repr(medplum)


def test_a_dollar_before_a_secret_keeps_it_as_written(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL + "owner: $${OWNER}\n")
    assert load().channels[0].owner == "${OWNER}"


def test_a_port_may_come_from_the_environment(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL.replace("6101", "'${PORT}'"))
    assert load(PORT="7001").channels[0].source.port == 7001


def test_json_is_yaml_too(write: Write, load: Load, tmp_path: Path) -> None:
    (tmp_path / "channels/acme.yaml").unlink()
    write(
        "channels/acme.json",
        '{"id": "j", "connection": "a", "direction": "adt", "timezone": "UTC", "listen": {"port": 1234},'
        ' "legacy": {"mllp": "old-engine"}}',
    )
    assert load().channels[0].id == "j"


@pytest.mark.parametrize("name", ["oru_r01", "ORU_R01", "oul_r21", "Oul_R21", "ACME_ORU", "acme_oru", "Odd", "deep"])
def test_a_mapping_has_the_name_of_its_message_whatever_its_file_is_called(name: str, write: Write, load: Load) -> None:
    write("interlock.yaml", SETTINGS + "mappings: ./own\n")
    write("own/messages/site.yaml", "# ours\n'message': 'ACME_ORU'\nuse: ORU_R01\n---\n{message: Odd, use: ORU_R01}\n")
    write("own/lab/messages.yaml", "message: deep # down\n")
    write("channels/acme.yaml", CHANNEL + f"target: {{mapping: {{use: {name}}}, destinations: [{{medplum: {{}}}}]}}\n")
    target = load().channels[0].target
    assert target is not None
    assert target.mapping == name


@pytest.mark.parametrize("name", ["site", "odd", "example", "v2"])
def test_a_file_and_an_example_give_a_mapping_no_name(name: str, write: Write) -> None:
    write("interlock.yaml", SETTINGS + "mappings: ./own\n")
    write("own/messages/site.yaml", "message: Odd\nresources: {report: {message: site}}\n")
    write("own/examples/a.yaml", "message: example\n")
    write("own/v2/v2.yaml", "message: v2\n")
    write("channels/acme.yaml", CHANNEL + f"target: {{mapping: {name}, destinations: [{{medplum: {{}}}}]}}\n")
    (told,) = problems()
    assert told.startswith(f"channels/acme.yaml:7:19: found the unknown mapping '{name}'; expected ")


def test_an_alias_within_itself_ends(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL + "labels: &a {x: '1'}\nidentity: {}\n")
    assert load().channels[0].labels == {"x": "1"}


@pytest.mark.parametrize("count", [250])
def test_250_channels_load_in_a_fraction_of_a_second(count: int, write: Write) -> None:
    for number in range(count):
        text = DESIGN.replace("acme-results", f"c{number}").replace("6101", str(10000 + number))
        text = text.replace("7201", str(20000 + number))
        write(f"channels/c{number:03}.yaml", text)
    best = min(_seconds() for _ in range(3))
    assert best < 0.45, "the goal is 0.15 s on a quiet machine"


def _seconds() -> float:
    begun = time.perf_counter()
    assert len(load_file(Path("interlock.yaml"), {}).channels) == 251
    return time.perf_counter() - begun
