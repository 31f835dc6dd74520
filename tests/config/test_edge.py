"""What right YAML about sockets, TLS, answers, folders and endpoints becomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.config.edge import (
    Ack,
    AckForm,
    Answers,
    Connect,
    Directory,
    Files,
    Framing,
    Hours,
    Listen,
    Sftp,
    Sockets,
    Takes,
    Tls,
)
from engine.config.endpoint import Endpoint
from engine.config.loading import load as load_file
from engine.config.model import Channel, Destination, Legacy, OnLink, Tap
from engine.config.problem import ConfigError
from tests.config.conftest import BETA, CHANNEL, ENDPOINTS, HEAD, LEGACY, TARGET, Load, Write, notes, us


@pytest.fixture
def one(write: Write, load: Load) -> Callable[[str], Channel]:
    """The channel that a text becomes."""

    def one(text: str) -> Channel:
        write("channels/acme.yaml", text)
        return load().channels[0]

    return one


One = Callable[[str], Channel]


@pytest.fixture
def endpoint(write: Write, load: Load) -> Callable[[str], Endpoint]:
    """The endpoint `x` that a text becomes."""

    def endpoint(text: str) -> Endpoint:
        write("channels/endpoints.yaml", ENDPOINTS + f"x: {text}\n")
        return load().endpoints["x"]

    return endpoint


def test_a_listener_can_be_set_in_everything(one: One, write: Write, tmp_path: Path) -> None:
    for name in ("our.pem", "our.key", "partners.pem"):
        write(f"tls/{name}", us())
    channel = one(
        HEAD
        + """\
listen:
  port: 6101
  probes: [10.0.0.5/32]
  frame_timeout: 5s
  framing: {start: none, end: "0x1C 0x0D"}
  connections: {max: 8, per_address: 2, newest_wins: true, idle: 10m, keepalive: 30s, one_message: true}
  tls: {certificate: tls/our.pem, key: tls/our.key, ca: tls/partners.pem, names: [acme.example]}
  accepts: [ORU^R01]
  encoding: cp1252
  undeclared: utf-8
  max_bytes: 1MiB
  batch: each
"""
        + LEGACY
    )
    tls = Tls(tmp_path / "tls/our.pem", tmp_path / "tls/our.key", tmp_path / "tls/partners.pem", ("acme.example",))
    assert channel.source == Listen(
        6101,
        probes=("10.0.0.5/32",),
        frame_timeout=5.0,
        framing=Framing(b"", b"\x1c\r"),
        sockets=Sockets(8, 2, True, 600.0, 30.0, True),
        tls=tls,
    )
    assert channel.takes == Takes(("ORU^R01",), "cp1252", "utf-8", 1024 * 1024, "each")


@pytest.mark.parametrize(
    ("written", "framing"),
    [
        ("mllp", Framing()),
        ("{start: ''}", Framing(b"")),
        ("{start: none}", Framing(b"")),
        ("{start: 0x02, end: 0x03}", Framing(b"\x02", b"\x03")),
        ("{end: '0x1c 0x0a'}", Framing(b"\x0b", b"\x1c\n")),
        ("{start: none, end: '0x0D 0x0D'}", Framing(b"", b"\r\r")),
        ("{release: 1}", Framing()),
        ("{release: 2}", Framing(release=2)),
        ("{start: 0x0B, end: 0x1C 0x0D, release: 2}", Framing(release=2)),
    ],
)
def test_the_bytes_around_a_message(written: str, framing: Framing, one: One) -> None:
    source = one(HEAD + f"listen: {{port: 1, framing: {written}}}\n" + LEGACY).source
    assert isinstance(source, Listen)
    assert source.framing == framing


def test_a_channel_may_connect_out(one: One) -> None:
    channel = one(
        HEAD
        + "connect: {to: 'lis.example:6661', reconnect: 1s, connect_timeout: 2s, source_address: 10.1.1.1, idle: none,"
        " keepalive: 5s, frame_timeout: 3s, framing: {start: 0x02}, tls: {server_name: lis}, accepts: [ORU^R01]}\n"
        + LEGACY
    )
    assert channel.source == Connect(
        Address("lis.example", 6661),
        1.0,
        2.0,
        3.0,
        Framing(b"\x02"),
        Sockets(keepalive=5.0),
        "10.1.1.1",
        Tls(server_name="lis"),
    )
    assert channel.takes.accepts == ("ORU^R01",)
    assert channel.ack.source == "authoritative"


def test_a_channel_may_read_a_folder(one: One, tmp_path: Path) -> None:
    channel = one(
        HEAD
        + "files: {directory: in, pattern: 'r*.txt', poll: 1s, stable: 3s, after: delete, archive: done, failed: bad,"
        " encoding: latin-1}\n" + TARGET
    )
    assert channel.source == Files(Directory(tmp_path / "in"), "r*.txt", 1.0, 3.0, "delete", "done", "bad")
    assert (channel.takes.encoding, channel.ack.source) == ("iso8859-1", "stored")


def test_paths_are_relative_to_the_settings_file_wherever_somebody_stands(
    write: Write, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("channels/acme.yaml", HEAD + "connect: {to: 'h:1', tls: {ca: us.pem}}\n" + TARGET)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    source = load_file(tmp_path / "interlock.yaml", {}).channels[0].source
    assert isinstance(source, Connect)
    assert source.tls == Tls(ca=tmp_path / "us.pem")


SERVER = (
    "server: {sftp: 'h:22', user: u, known_hosts: interlock.yaml, password: '${SFTP}', directory: in, timeout: 9s}\n"
)


def test_a_folder_of_a_server_is_the_endpoints_unless_the_channel_has_its_own(
    write: Write, load: Load, tmp_path: Path
) -> None:
    write("channels/endpoints.yaml", ENDPOINTS + SERVER)
    write("channels/acme.yaml", HEAD + "files: {sftp: server}\n" + TARGET)
    write("channels/beta.yaml", HEAD.replace("id: acme", "id: beta") + "files: {sftp: server, directory: b}\n" + TARGET)
    acme, beta = (channel.source for channel in load(SFTP="secret").channels)
    place = Sftp(Address("h", 22), "u", tmp_path / "interlock.yaml", password="secret", directory="in", timeout=9.0)
    assert isinstance(acme, Files)
    assert isinstance(beta, Files)
    assert (acme.place, beta.place) == (place, Sftp(**{**_fields(place), "directory": "b"}))
    assert "secret" not in repr(acme)


def _fields(place: Sftp) -> dict[str, Any]:
    return {name: getattr(place, name) for name in place.__dataclass_fields__}


def test_an_old_engine_that_reads_files_answers_nobody(one: One, write: Write, tmp_path: Path) -> None:
    write("channels/endpoints.yaml", ENDPOINTS + "drop: {directory: old/in}\nnew: {directory: new}\n")
    taps = "[{files: {directory: old/out}, forward: new, shape: 0..1}]"
    channel = one(HEAD + f"files: {{directory: in}}\nlegacy: {{file: drop, taps: {taps}}}\n")
    assert channel.legacy is not None
    assert channel.legacy.endpoint is not None
    assert channel.legacy.endpoint.place == Directory(tmp_path / "old/in")
    (tap,) = channel.taps
    assert (tap.source, tap.shape) == (Files(Directory(tmp_path / "old/out")), "0..1")
    assert (channel.phase, channel.ack) == ("legacy", Ack("stored"))


def test_an_old_engine_in_front_is_noted_and_answers_its_sender_itself(one: One) -> None:
    channel = one(HEAD + "listen: {port: 6101}\nlegacy: {observed: true}\n")
    assert (channel.legacy, channel.ack) == (Legacy(None), Ack("stored"))
    assert notes() == [
        "channels/acme.yaml:6:20: note: only a copy reaches us: this channel may go to parallel, and live only after a "
        "takeover with mllp:"
    ]


def test_answers_can_be_set_in_everything(one: One) -> None:
    channel = one(
        CHANNEL
        + "ack: {from: stored, on_relay_timeout: close, mode: enhanced, codes: {AA: CA, AE: CE}, type: ACK^trigger,"
        " err: 2.3, text: false, to: '10.0.0.1:99'}\n"
    )
    form = AckForm({"AA": "CA", "AE": "CE"}, "ACK^trigger", "2.3", False)
    there = Endpoint("10.0.0.1:99", Address("10.0.0.1", 99))
    assert channel.ack == Ack("stored", "close", "enhanced", form, there)


def test_answers_may_be_heard_at_a_port_of_ours_in_the_frames_of_the_messages(one: One, write: Write) -> None:
    framed = HEAD + "listen: {port: 6101, host: 127.0.0.1, framing: {release: 2}}\n" + LEGACY
    two = Framing(release=2)
    assert one(framed + "ack: {listen: 6102}\n").ack.listen == Listen(6102, "127.0.0.1", framing=two)
    built = one(
        framed + "ack: {listen: {port: 6102, host: '::1', allow: [10.0.0.0/8],"
        " tls: {certificate: us.pem, key: us.pem}}}\n"
    )
    tls = Tls(Path("us.pem").absolute(), Path("us.pem").absolute())
    assert built.ack.listen == Listen(6102, "::1", ("10.0.0.0/8",), framing=two, tls=tls)


def test_answers_may_be_a_byte_each(one: One) -> None:
    assert one(CHANNEL + "ack: {bare: true}\n").ack == Ack("authoritative", mode="original", form=AckForm(bare=True))
    same = one(CHANNEL + "ack: {bare: true, mode: original, err: none, text: false}\n").ack
    assert (same.mode, same.form.bare) == ("original", True)


def test_a_peer_that_answers_by_a_byte_answers_each_message(endpoint: Callable[[str], Endpoint]) -> None:
    built = endpoint("{mllp: 'h:1', answers: bare}")
    assert built == Endpoint("x", Address("h", 1), framing=Framing(bare=True), answers=Answers(mode="original"))
    assert endpoint("{mllp: 'h:1', answers: true}") == Endpoint("x", Address("h", 1))


def test_a_sender_that_gets_bytes_from_the_old_engine_and_messages_from_us_is_noted(one: One, write: Write) -> None:
    write("channels/endpoints.yaml", "old-engine: {mllp: '10.0.0.5:6661', answers: bare}\n")
    one(CHANNEL)
    assert notes() == [
        "channels/acme.yaml:6:9: note: the old engine answers by a byte; what we answer ourselves is a message, unless "
        "ack: {bare: true} says otherwise"
    ]
    one(CHANNEL + "ack: {bare: true}\n")
    assert notes() == []


@pytest.mark.parametrize("name", ["medplum", "acme-emr"])
def test_the_answer_may_be_a_destinations(name: str, one: One) -> None:
    text = CHANNEL + "target: {destinations: [{medplum: {}}, {mllp: acme-emr}]}\n" + f"ack: {{from: {name}}}\n"
    assert one(text).ack.source == name


def test_an_mllp_endpoint_can_be_set_in_everything(
    endpoint: Callable[[str], Endpoint], write: Write, tmp_path: Path
) -> None:
    write("tls/ca.pem", us())
    built = endpoint(
        "{mllp: 'h:1', connections: 2, persistent: false, idle: 5m, keepalive: 30s, framing: {start: 0x02},"
        " source_address: '::1', probe: none, rate: 600/m, deliver: {during: 'sat-mon 19:00-07:00', timezone: UTC},"
        " ack_timeout: 3s, connect_timeout: 2s, accept: [AA], reject: [AR, AE], check_control_id: false,"
        " ack_mode: enhanced,"
        " answers_on: {port: 7300, host: 127.0.0.1, allow: [10.0.0.0/8],"
        " tls: {certificate: tls/ca.pem, key: tls/ca.pem, ca: tls/ca.pem, names: [emr]}},"
        " on_unknown: park, sink: true, tls: {ca: tls/ca.pem}}"
    )
    assert built == Endpoint(
        "x",
        Address("h", 1),
        connections=2,
        ack_timeout=3.0,
        on_unknown="park",
        connect_timeout=2.0,
        probe="none",
        sink=True,
        framing=Framing(b"\x02"),
        persistent=False,
        idle=300.0,
        keepalive=30.0,
        source_address="::1",
        rate=10.0,
        hours=Hours(("sat", "sun", "mon"), "19:00", "07:00", "UTC"),
        answers=Answers(
            ("AA",),
            ("AR", "AE"),
            False,
            True,
            Listen(
                7300,
                "127.0.0.1",
                ("10.0.0.0/8",),
                tls=Tls(*[tmp_path / "tls/ca.pem"] * 3, names=("emr",)),
            ),
            "enhanced",
        ),
        tls=Tls(ca=tmp_path / "tls/ca.pem"),
    )


def test_a_port_for_answers_may_stand_alone(endpoint: Callable[[str], Endpoint]) -> None:
    assert endpoint("{mllp: 'h:1', answers_on: 7300}").answers.listen == Listen(7300)


def test_a_peer_that_never_answers(endpoint: Callable[[str], Endpoint]) -> None:
    assert endpoint("{mllp: 'h:1', answers: false}").answers == Answers(expected=False)


def test_tls_may_be_all_defaults(endpoint: Callable[[str], Endpoint]) -> None:
    assert endpoint("{mllp: 'h:1', tls: {}}").tls == Tls()


def test_days_without_hours_are_whole_days(endpoint: Callable[[str], Endpoint]) -> None:
    hours = endpoint("{mllp: 'h:1', deliver: {during: mon, timezone: UTC}}").hours
    assert hours == Hours(("mon",), "00:00", "24:00", "UTC")


def test_one_host_is_one_endpoint_in_whatever_letters_and_stays_as_it_was_written(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL.replace("old-engine", "'Old.Acme.example:1'"))
    write("channels/beta.yaml", BETA.replace("old-engine", "'old.ACME.example:1'"))
    first, second = (channel.legacy.endpoint for channel in load().channels if channel.legacy)
    assert first is second
    assert first is not None
    assert str(first.mllp) == "Old.Acme.example:1", "files of known hosts may have it so"


def test_a_folder_is_an_endpoint(endpoint: Callable[[str], Endpoint], tmp_path: Path) -> None:
    built = endpoint("{directory: out, name: '{control_id}-{sequence}.txt', probe: always}")
    place = Directory(tmp_path / "out")
    expected = Endpoint("x", None, place=place, file_name="{control_id}-{sequence}.txt", probe="always")
    assert built == expected


def test_a_destination_may_be_a_folder(one: One, write: Write) -> None:
    write("channels/endpoints.yaml", ENDPOINTS + "drop: {directory: out}\n")
    channel = one(HEAD + "listen: {port: 6101}\ntarget: {destinations: [{file: drop}]}\n")
    assert channel.phase == "live", "a file is written again without harm: nobody has to say on_unknown"
    assert channel.target is not None
    (destination,) = channel.target.destinations
    assert (destination.name, destination.kind, destination.order_by) == ("drop", "file", "channel")


def test_a_folder_has_one_order(write: Write, load: Load) -> None:
    write("channels/endpoints.yaml", ENDPOINTS + "drop: {directory: out}\n")
    target = "target: {destinations: [{file: drop, order_by: patient}]}\n"
    write("channels/acme.yaml", HEAD + "listen: {port: 6101}\n" + target)
    with pytest.raises(ConfigError, match="order_by: patient at a folder; expected order_by: channel"):
        load()


@pytest.mark.parametrize("order", ["channel", "patient", "OBR-2", "PV1-19.1"])
def test_any_field_may_be_what_stays_in_order(one: One, order: str) -> None:
    target = f"target: {{destinations: [{{medplum: {{order_by: {order}}}}}]}}\n"
    channel = one(HEAD + "listen: {port: 6101}\n" + target)
    assert channel.target is not None
    assert channel.target.destinations[0].order_by == order


VIA = "target: {destinations: [{mllp: {via: acme}, name: back}]}\n"


def test_all_who_go_back_on_a_channels_connections_share_one_endpoint(write: Write, load: Load) -> None:
    write("channels/beta.yaml", BETA + VIA)
    write("channels/gamma.yaml", BETA.replace("id: beta", "id: gamma").replace("6102", "6103") + VIA)
    configuration = load()
    _, beta, gamma = configuration.channels
    assert beta.target == gamma.target
    assert beta.target is not None
    (destination,) = beta.target.destinations
    via = Endpoint("via:acme", None, via="acme")
    assert destination == Destination("back", "mllp", via, order_by="channel")
    assert destination.endpoint is configuration.endpoints["via:acme"]


def test_limits_of_a_sender_are_an_endpoint_which_a_channel_finds(write: Write, load: Load) -> None:
    write("channels/endpoints.yaml", ENDPOINTS + "x: {via: acme, ack_timeout: 10s, on_unknown: resend}\n")
    write("channels/beta.yaml", BETA + VIA.replace("}, name", "}, name").replace("[{", "[{mllp: x}, {"))
    target = load().channels[1].target
    assert target is not None
    named, found = target.destinations
    assert named.endpoint is found.endpoint
    assert named.endpoint == Endpoint("x", None, ack_timeout=10.0, on_unknown="resend", via="acme")


def test_a_tap_may_come_on_our_own_connection_and_go_back_to_a_sender(write: Write, load: Load) -> None:
    taps = "[{on_link: true, forward: {via: acme}, settle: 5s, shape: '1:n'}]"
    write("channels/beta.yaml", BETA.replace("old-engine}", f"old-engine, taps: {taps}}}"))
    via = Endpoint("via:acme", None, via="acme")
    assert load().channels[1].taps == (Tap("via:acme", OnLink(), via, 5.0, "1:n"),)


def test_a_tap_has_a_socket_like_any_other(one: One) -> None:
    listen = "{port: 7201, probes: [10.0.0.5/32], framing: {start: none}, connections: {max: 3}}"
    channel = one(CHANNEL.replace("old-engine}", f"old-engine, taps: [{{listen: {listen}, forward: acme-emr}}]}}"))
    assert channel.taps[0].source == Listen(
        7201, probes=("10.0.0.5/32",), framing=Framing(b""), sockets=Sockets(most=3)
    )
