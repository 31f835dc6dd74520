"""Which sockets a connection has, and who is said to come back there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.config.address import Address
from engine.config.edge import Connect, Directory, Files, FromFeed, Listen
from engine.config.feed import Feed, Rule, Table
from engine.config.model import Channel, Tap
from engine.migration.doors import doors, expected, not_probes, shut_out
from engine.migration.selection import by_socket
from engine.migration.verbs.copies import copied
from tests.support.house import channel, emr, feed


def at(id: str, source: Listen | Connect | FromFeed | Files) -> Channel:
    return channel(id, source=source, old_engine=2, destinations=(emr(3),))


def lab(*to: tuple[str, ...], table: bool = False) -> dict[str, Feed]:
    """Feeds: one, whose frames go to these."""
    channels = sorted({name for names in to for name in names})
    rules = () if table else tuple(Rule((("MSH-6", (str(n),)),), names) for n, names in enumerate(to))
    rows = Table("MSH-6", {str(n): names for n, names in enumerate(to)}) if table else None
    return {"lab": feed("lab", *channels, port=6100, old_engine=2, rules=rules, table=rows)}


ORDERS = at("acme-orders", Listen(6102))
RESULTS = at("acme-results", FromFeed("lab"))
MORE = at("acme-more", FromFeed("lab"))
LAB = lab(("acme-results",), ("acme-more",))
KNOWN = ["acme-orders", "acme-results", "acme-more", "lab", "beta-orders"]


def test_channels_of_a_feed_share_its_socket() -> None:
    found = doors([RESULTS, ORDERS, MORE], LAB)
    assert [(door.name, door.said, [each.id for each in door.channels]) for door in found] == [
        ("lab", "port 6100", ["acme-results", "acme-more"]), ("acme-orders", "port 6102", ["acme-orders"]),
    ]  # fmt: skip
    others = [at("a", Connect(Address("lab", 7000))), at("b", Files(Directory(Path("/in"))))]
    assert [door.said for door in doors(others, {})] == ["the connection to lab:7000", "the folder of b"]


TOKENS: dict[str, tuple[list[str], dict[str, list[str]], list[str]]] = {
    "by a channel": (["acme-orders=10.0.0.1"], {"acme-orders": ["10.0.0.1"]}, []),
    "by a channel of a feed": (["acme-more=10.0.0.1"], {"lab": ["10.0.0.1"]}, []),
    "by a feed": (["lab=10.0.0.1", "lab=10.0.0.2", "lab=10.0.0.1"], {"lab": ["10.0.0.1", "10.0.0.2"]}, []),
    "by a port": (["6100=::ffff:10.0.0.1"], {"lab": ["10.0.0.1"]}, []),
    "another port": (["6109=10.0.0.1"], {}, []),
    "another connection's channel": (["beta-orders=10.0.0.1"], {}, []),
    "nobody": (["none"], {"lab": [], "acme-orders": []}, []),
    "nobody at one": (["lab=none"], {"lab": []}, []),
    "nowhere": (["10.0.0.1"], {},
        ["--peers 10.0.0.1: at which of port 6100 of lab and port 6102 of acme-orders? Such as lab=10.0.0.1"]),
    "unknown": (["acme-order=10.0.0.1"], {}, ["--peers acme-order=10.0.0.1: there is no channel or feed 'acme-order'"]),
    "no address": (["lab=lab.example"], {},
        ["--peers lab=lab.example: 'lab.example' is no IP address; wanted is an address, or none"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENS)
def test_who_is_said_to_come_back(name: str) -> None:
    tokens, found, problems = TOKENS[name]
    assert expected(tokens, doors([RESULTS, MORE, ORDERS], LAB), KNOWN) == (found, problems)


def test_with_one_port_there_is_no_question() -> None:
    assert expected(["10.0.0.1"], doors([ORDERS], {}), KNOWN) == ({"acme-orders": ["10.0.0.1"]}, [])


def test_load_balancers_are_not_expected_and_strangers_would_not_get_in() -> None:
    source = Listen(6101, probes=("10.0.0.0/30",), allow=("10.0.0.0/24",))
    assert not_probes(source, ["10.0.0.9", "10.0.0.1"]) == ["10.0.0.9"]
    assert shut_out(source, ["10.0.0.9", "10.9.9.9"]) == ["10.9.9.9"]
    assert shut_out(Listen(6101), ["10.9.9.9"]) == []


def test_connections_of_one_feed_move_together() -> None:
    acme, beta, gamma = (
        replace(at(f"{name}-results", FromFeed(lab)), connection=name)
        for name, lab in (("acme", "lab"), ("beta", "lab"), ("gamma", "other"))
    )
    orders = replace(ORDERS, connection="beta")
    every = (acme, gamma, beta, orders)
    groups = by_socket((acme, gamma, beta), every)
    assert [(group.connection, [each.id for each in group.channels], group.added) for group in groups] == [
        ("gamma", ["gamma-results"], ()),
        ("acme, beta", ["acme-results", "beta-results", "acme-orders"], ("acme-orders",)),
    ]
    assert [group.connection for group in by_socket((acme,), every)] == ["acme"]


# -- copies


def tapped(id: str) -> Channel:
    made = at(id, FromFeed("lab"))
    assert made.legacy is not None
    endpoint = emr(3).endpoint
    assert endpoint is not None
    return replace(made, legacy=replace(made.legacy, taps=(Tap(endpoint.name, Listen(7), endpoint),)))


@pytest.mark.parametrize("table", [False, True])
def test_a_channel_whose_frames_the_old_engine_still_gets_for_another_needs_taps_or_a_sink(table: bool) -> None:
    both = lab(("acme-results", "beta-results"), ("acme-more",), table=table)
    (said,) = copied(RESULTS, both, {"acme-results"})
    assert said == (
        "acme-results: the feed lab copies its frames to beta-results as well, for which they go on to the old engine:"
        " emr-3 needs a tap that forwards to it, or sink: true"
    )
    assert copied(tapped("acme-results"), both, {"acme-results"}) == []
    assert copied(MORE, both, {"acme-more"}) == []
    assert copied(RESULTS, both, {"acme-results", "beta-results"}) == []
    assert copied(ORDERS, both, {"acme-orders"}) == []


def test_a_sink_and_an_old_engine_that_is_not_there_need_nothing() -> None:
    both = lab(("acme-results", "beta-results"))
    assert RESULTS.target is not None
    sinks = tuple(
        replace(each, endpoint=replace(each.endpoint, sink=True))
        for each in RESULTS.target.destinations
        if each.endpoint
    )
    assert copied(replace(RESULTS, target=replace(RESULTS.target, destinations=sinks)), both, set()) == []
    assert copied(RESULTS, {"lab": replace(both["lab"], legacy=None)}, set()) == []
