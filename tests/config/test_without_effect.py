"""Keys that are right and change nothing where they stand: a note says so."""

from __future__ import annotations

import pytest

from tests.config.conftest import CHANNEL, ENDPOINTS, HEAD, TARGET, Write, notes

LIVE = HEAD + "listen: {port: 6101}\n" + TARGET


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("{mllp: 'h:1', persistent: false, idle: 10m}", ["3:43: note: idle: has no effect beside persistent: false"]),
        (
            "{mllp: 'h:1', answers: false, accept: [AA], check_control_id: false}",
            [
                "3:42: note: accept: has no effect beside answers: false",
                "3:66: note: check_control_id: has no effect beside answers: false",
            ],
        ),
        ("{mllp: 'h:1', answers: false, ack_timeout: 5s}", []),  # within which it must be written
        ("{mllp: 'h:1', idle: 10m, accept: [AA]}", []),
    ],
)
def test_at_an_endpoint(endpoint: str, told: list[str], write: Write) -> None:
    write("channels/endpoints.yaml", f"{ENDPOINTS}x: {endpoint}\n")
    assert notes() == [f"channels/endpoints.yaml:{each}" for each in told]


@pytest.mark.parametrize(
    ("channel", "told"),
    [
        (
            LIVE + "ack: {on_relay_timeout: ae}\n",
            ["7:25: note: on_relay_timeout: has no effect where we answer ourselves"],
        ),
        (
            CHANNEL + "ack: {from: stored, on_relay_timeout: ae}\n",
            ["7:39: note: on_relay_timeout: has no effect where we answer ourselves"],
        ),
        (CHANNEL + "ack: {on_relay_timeout: ae}\n", []),
        (LIVE + "ack: {from: medplum, on_relay_timeout: ae}\n", []),
        (
            CHANNEL.replace("6101", "6101, connections: {max: 4, per_address: 5}"),
            ["5:57: note: per_address: has no effect above max:, which is 4"],
        ),
        (CHANNEL.replace("6101", "6101, connections: {max: 4, per_address: 4}"), []),
    ],
)
def test_in_a_channel(channel: str, told: list[str], write: Write) -> None:
    write("channels/acme.yaml", channel)
    assert notes() == [f"channels/acme.yaml:{each}" for each in told]
