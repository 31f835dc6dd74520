"""What a destination's file says of messages that it will never take."""

from __future__ import annotations

import pytest

from engine.config.declared import json_schema
from engine.config.problem import ConfigError
from tests.config.conftest import HEAD, Load, Write

LIVE = HEAD + "listen: {port: 6101}\n"


@pytest.mark.parametrize("word", ["waits", "goes_on", "stops_channel"])
@pytest.mark.parametrize("target", ["medplum: {dead: WORD}", "mllp: acme-emr, dead: WORD"])
def test_each_destination_has_its_own(load: Load, write: Write, target: str, word: str) -> None:
    write("channels/acme.yaml", LIVE + f"target: {{destinations: [{{{target.replace('WORD', word)}}}]}}\n")
    (channel,) = load().channels
    assert channel.target is not None
    assert [each.dead for each in channel.target.destinations] == [word]


def test_left_out_its_lane_waits(load: Load, write: Write) -> None:
    write("channels/acme.yaml", LIVE + "target: {destinations: [{medplum: {}}, {mllp: acme-emr}]}\n")
    (channel,) = load().channels
    assert channel.target is not None
    assert {each.dead for each in channel.target.destinations} == {"waits"}


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (
            "mllp: acme-emr, dead: goes-on",
            "6:48: found 'goes-on'; expected 'goes_on', perhaps (one of waits, goes_on, stops_channel)",
        ),
        (
            "medplum: {dead: stop}",
            "6:42: found 'stop'; expected one of waits, goes_on, stops_channel",
        ),
        (
            "medplum: {}, dead: waits",
            "6:45: found 'dead' beside medplum:; expected it inside: medplum: {dead: …}",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(load: Load, write: Write, target: str, sentence: str) -> None:
    write("channels/acme.yaml", LIVE + f"target: {{destinations: [{{{target}}}]}}\n")
    with pytest.raises(ConfigError) as raised:
        load()
    assert f"channels/acme.yaml:{sentence}" in str(raised.value)


def test_the_schema_offers_the_words() -> None:
    target = json_schema()["$defs"]["channel"]["properties"]["target"]
    destination = target["properties"]["destinations"]["items"]["properties"]
    words = ["waits", "goes_on", "stops_channel"]
    assert destination["dead"]["enum"] == destination["medplum"]["properties"]["dead"]["enum"] == words
