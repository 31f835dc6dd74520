"""Which channels a verb is about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.config.model import Channel
from engine.migration.refused import Refused
from engine.migration.selection import BOTH, NOTHING, Selector, by_connection, select
from tests.support.house import channel


def made(id: str, port: int, **labels: str) -> Channel:
    return replace(channel(id, port=port), labels=labels)


CHANNELS = (
    made("acme-orders", 1, region="west", kind="emr"),
    made("acme-results", 2, region="west"),
    made("beta-results", 3, region="east"),
    made("gamma-adt", 4),
)
ALL = ["acme-orders", "acme-results", "beta-results", "gamma-adt"]

FOUND = {
    "an id": (Selector(ids=("beta-results",)), ["beta-results"]),
    "ids, in the order of the configuration and once": (
        Selector(ids=("beta-results", "acme-orders", "beta-results")),
        ["acme-orders", "beta-results"],
    ),
    "a connection": (Selector(connections=("acme",)), ["acme-orders", "acme-results"]),
    "ids and connections add up": (
        Selector(ids=("gamma-adt",), connections=("acme",)),
        ["acme-orders", "acme-results", "gamma-adt"],
    ),
    "a label": (Selector(labels={"region": "west"}), ["acme-orders", "acme-results"]),
    "every label must be there": (Selector(labels={"region": "west", "kind": "emr"}), ["acme-orders"]),
    "labels narrow a connection": (Selector(connections=("acme",), labels={"kind": "emr"}), ["acme-orders"]),
    "all": (Selector(everything=True), ALL),
    "labels narrow all": (Selector(everything=True, labels={"region": "east"}), ["beta-results"]),
}


@pytest.mark.parametrize("case", FOUND)
def test_a_selector_finds(case: str):
    selector, ids = FOUND[case]
    assert [found.id for found in select(selector, CHANNELS)] == ids


REFUSED = {
    "nothing": (Selector(), [NOTHING]),
    "all and some": (Selector(ids=("acme-orders",), everything=True), [BOTH]),
    "an unknown id, with a guess": (
        Selector(ids=("acme-order",)),
        ["There is no channel 'acme-order'; 'acme-orders', perhaps."],
    ),
    "a connection in the place of an id": (Selector(ids=("zzzz",)), ["There is no channel 'zzzz'."]),
    "every unknown name at once": (
        Selector(ids=("acme-orders", "Gamma-ADX", "zzzz"), connections=("acne",)),
        [
            "There is no channel 'Gamma-ADX'; 'gamma-adt', perhaps.",
            "There is no channel 'zzzz'.",
            "There is no connection 'acne'; 'acme', perhaps.",
        ],
    ),
    "a label that none has": (
        Selector(labels={"region": "wset"}),
        ["No channel that is meant has the label region=wset; 'region=west', perhaps."],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_selector_is_refused_with_every_mistake(case: str):
    selector, sentences = REFUSED[case]
    with pytest.raises(Refused) as caught:
        select(selector, CHANNELS)
    assert list(caught.value.sentences) == sentences


def test_the_channels_of_a_connection_move_together_and_it_is_said():
    (group,) = by_connection([CHANNELS[1]], CHANNELS)
    assert [one.id for one in group.channels] == ["acme-orders", "acme-results"]
    assert group.said == "acme-orders moves too: the channels of the connection acme move together."


def test_a_connection_that_was_chosen_whole_says_nothing():
    first, second = by_connection(
        select(Selector(ids=("acme-orders", "acme-results", "gamma-adt")), CHANNELS), CHANNELS
    )
    assert (first.connection, first.said, second.connection, second.said) == ("acme", "", "gamma", "")
