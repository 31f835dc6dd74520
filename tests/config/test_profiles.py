"""Profiles and defaults: what lies beneath a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from engine.config.declared.profile import PROFILE
from engine.config.edge import Connect, Files, Framing, Listen
from engine.config.nodes import Findings, compose
from engine.config.profiles import SHIPPED
from tests.config.conftest import BETA, CHANNEL, ENDPOINTS, HEAD, TARGET, Load, Write, problems


@pytest.fixture
def listen(write: Write, load: Load) -> Callable[..., Listen]:
    """The listener of a channel with these profiles, and with more keys of its own."""

    def listen(profiles: str, keys: str = "") -> Listen:
        text = CHANNEL.replace("port: 6101", f"port: 6101{', ' if keys else ''}{keys}")
        write("channels/acme.yaml", text + f"profile: {profiles}\n")
        source = load().channels[0].source
        assert isinstance(source, Listen)
        return source

    return listen


def test_the_shipped_profiles_have_no_mistake() -> None:
    findings = Findings({})
    root = compose(SHIPPED, findings)
    assert root is not None
    for _, profile in root.value:
        PROFILE.read(profile, findings)
    assert list(findings.problems) == []


@pytest.mark.parametrize("name", yaml.safe_load(SHIPPED.read_text()))
def test_every_shipped_profile_goes_with_a_channel_a_feed_and_an_endpoint(name: str, write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL + f"profile: {name}\n")
    write("channels/beta.yaml", HEAD.replace("id: acme", "id: beta") + "feed: lis\n" + TARGET)
    write("channels/feeds/lis.yaml", f"id: lis\nlisten: {{port: 6200}}\nprofile: {name}\ndefault: beta\n")
    write("channels/endpoints.yaml", ENDPOINTS + f"x: {{mllp: 'h:1', profile: {name}}}\n")
    assert load().feeds


def test_mirth_as_it_comes(listen: Callable[..., Listen], write: Write, load: Load) -> None:
    source = listen("mirth-default")
    assert (source.sockets.most, source.sockets.idle, source.sockets.one_message) == (10, None, False)
    ack = load().channels[0].ack
    assert (ack.mode, ack.form.err) == ("original", "none")
    write("channels/endpoints.yaml", ENDPOINTS + "x: {mllp: 'h:1', profile: mirth-default}\n")
    sender = load().endpoints["x"]
    assert (sender.persistent, sender.ack_timeout) == (False, 5.0)
    assert (sender.answers.accepted, sender.answers.rejected, sender.answers.check) == (
        ("AA", "CA"),
        ("AR", "CR"),
        True,
    )


def test_what_a_channel_says_itself_goes_before_its_profile(listen: Callable[..., Listen]) -> None:
    sockets = listen("mirth-default", "connections: {max: 3}").sockets
    assert (sockets.most, sockets.one_message) == (3, False)


def test_the_last_of_several_profiles_wins(listen: Callable[..., Listen], write: Write) -> None:
    write("channels/profiles.yaml", "ours: {listen: {connections: {max: 4, one_message: false}}}\n")
    assert listen("[mirth-default, one-message, ours]").sockets.most == 4
    last = listen("[ours, mirth-default, one-message]").sockets
    assert (last.most, last.one_message) == (10, True)


def test_the_last_of_an_endpoints_profiles_wins(write: Write, load: Load) -> None:
    write("channels/profiles.yaml", "slow: {endpoint: {ack_timeout: 90s}}\n")
    both = "x: {mllp: 'h:1', profile: [mirth-default, slow]}\ny: {mllp: 'h:2', profile: [slow, mirth-default]}\n"
    write("channels/endpoints.yaml", ENDPOINTS + both)
    endpoints = load().endpoints
    assert (endpoints["x"].ack_timeout, endpoints["y"].ack_timeout) == (90.0, 5.0)


def test_a_profile_lies_above_the_defaults(listen: Callable[..., Listen], write: Write) -> None:
    write("channels/defaults.yaml", "listen: {host: 127.0.0.1, connections: {max: 4, keepalive: 5s}}\n")
    source = listen("mirth-default")
    assert (source.host, source.sockets.most, source.sockets.keepalive) == ("127.0.0.1", 10, 5.0)


def test_a_site_may_have_a_profile_of_a_shipped_name(listen: Callable[..., Listen], write: Write) -> None:
    write("channels/profiles.yaml", "mirth-default: {listen: {framing: {start: none}}}\n")
    source = listen("mirth-default")
    assert (source.framing, source.sockets.most) == (Framing(b""), 256)


def test_a_profile_may_stand_in_the_defaults(write: Write, load: Load) -> None:
    write("channels/defaults.yaml", "profile: mirth-default\n")
    write("channels/beta.yaml", BETA + "profile: one-message\n")
    acme, beta = (channel.source for channel in load().channels)
    assert isinstance(acme, Listen)
    assert isinstance(beta, Listen)
    assert (acme.sockets.most, beta.sockets.most) == (10, 256)


def test_a_profile_has_something_for_each_source_and_only_that_is_taken(write: Write, load: Load) -> None:
    write("channels/acme.yaml", HEAD + "connect: {to: 'h:1'}\nprofile: mirth-default\n" + TARGET)
    assert isinstance(load().channels[0].source, Connect)
    write("channels/acme.yaml", HEAD + "files: {directory: in}\nprofile: mirth-default\n" + TARGET)
    assert isinstance(load().channels[0].source, Files)


def test_a_profile_says_nothing_to_a_folder_that_only_sockets_have(write: Write, load: Load) -> None:
    write("channels/profiles.yaml", "ours: {endpoint: {persistent: false, rate: 5/s, probe: none}}\n")
    write("channels/endpoints.yaml", ENDPOINTS + "x: {directory: out, profile: [mirth-default, ours]}\n")
    found = load().endpoints["x"]
    assert (found.probe, found.rate, found.persistent) == ("none", 0.0, True)


def test_a_channel_as_written_has_its_profile_in_it(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL + "profile: mirth-default\n")
    raw = load().channels[0].raw
    assert raw["listen"]["connections"]["max"] == 10
    assert raw["listen"]["port"] == 6101
    assert "endpoint" not in raw


@pytest.mark.parametrize(
    ("channel", "phase"),
    [
        ("files: {directory: in}\n" + TARGET, "live"),
        ("files: {directory: in}\nlegacy: {file: drop}\n", "legacy"),
        ("listen: {port: 6102}\n", "legacy"),
        ("listen: {port: 6102}\nlegacy: {settle: 1m}\n", "legacy"),
        ("listen: {port: 6102}\nlegacy: {observed: true}\n", "legacy"),
        ("connect: {to: 'h:1'}\n", "legacy"),
    ],
)
def test_defaults_for_most_channels_do_not_hinder_the_others(
    channel: str, phase: str, write: Write, load: Load
) -> None:
    """What they have of another source, of answers that nobody gets, or of another old engine, does not go with it."""
    write("channels/endpoints.yaml", ENDPOINTS + "drop: {directory: out}\n")
    write(
        "channels/defaults.yaml",
        "listen: {host: 127.0.0.1}\nack: {from: authoritative}\nlegacy: {mllp: old-engine, settle: 5m}\n",
    )
    write("channels/beta.yaml", HEAD.replace("id: acme", "id: beta") + channel)
    assert load().channels[1].phase == phase


def test_a_profile_is_no_channel(write: Write, load: Load) -> None:
    write("channels/profiles.yaml", "ours: {}\n")
    assert len(load().channels) == 1


MISTAKES: dict[str, tuple[str, str]] = {
    "a misspelt key": (
        "ours: {listen: {hots: x}}\n",
        "1:17: found the unknown key 'hots' in listen; expected 'host', perhaps (one of port, host, allow, probes, "
        "frame_timeout, framing, connections, tls, accepts, encoding, undeclared, max_bytes, batch)",
    ),
    "a wrong value that no channel has yet": (
        "ours: {files: {poll: 5}}\n",
        "1:22: found the number 5; expected a duration such as 30s, 10m or 72h",
    ),
    "an id": (
        "ours: {id: x}\n",
        "1:8: found the unknown key 'id' in a profile; expected one of connection, title, direction, labels, owner, "
        "timezone, phase, listen, connect, feed, files, ack, identity, legacy, target, remember, rollback, "
        "silence_alert, compare, gate, retention, window, duplicates, emit, endpoint",
    ),
    "an address": (
        "ours: {endpoint: {mllp: 'h:1'}}\n",
        "1:19: found the unknown key 'mllp' in an endpoint; expected one of connections, persistent, idle, keepalive, "
        "framing, source_address, connect_timeout, ack_timeout, accept, reject, check_control_id, answers, "
        "ack_mode, answers_on, tls, on_unknown, probe, sink, rate, deliver, user, key, password, known_hosts, timeout, "
        "name",
    ),
    "a list": ("- ours\n", "1:1: found a list; expected a table of profiles by name"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_a_profile_is_told_though_nobody_has_it(case: str, write: Write) -> None:
    text, told = MISTAKES[case]
    write("channels/profiles.yaml", text)
    assert problems() == [f"channels/profiles.yaml:{told}"]


def test_a_mistake_in_defaults_that_no_channel_has_is_told(write: Write) -> None:
    write("channels/defaults.yaml", "connect: {reconnect: 5}\n")
    assert problems() == [
        "channels/defaults.yaml:1:22: found the number 5; expected a duration such as 30s, 10m or 72h"
    ]


KNOWN = "one of cloverleaf-mllp, end-block-only, mirth-default, one-message, or one of channels/profiles.yaml"

NAMES: dict[str, tuple[str, str]] = {
    "an unknown name": (
        "mirth-defualt",
        f"7:10: found the unknown profile 'mirth-defualt'; expected 'mirth-default', perhaps ({KNOWN})",
    ),
    "an unknown name in a list": (
        "[one-message, x]",
        f"7:24: found the unknown profile 'x'; expected {KNOWN}",
    ),
    "no name": ("[]", "7:10: found an empty list; expected at least one item"),
    "a name twice": (
        "[one-message, one-message]",
        "7:10: found a list that names something twice; expected each once",
    ),
    "a table": ("{name: x}", "7:10: found a table of keys; expected letters, digits, '-', '_' and '.', at most 64"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_wrong_name_of_a_profile_is_told(case: str, write: Write) -> None:
    text, told = NAMES[case]
    write("channels/acme.yaml", CHANNEL + f"profile: {text}\n")
    assert problems() == [f"channels/acme.yaml:{told}"]


def test_the_shipped_profiles_lie_beside_the_code() -> None:
    assert Path(__file__).parents[2] / "engine/config/profiles.yaml" == SHIPPED
