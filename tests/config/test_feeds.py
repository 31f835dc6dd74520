"""Feeds: one socket, many channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config.edge import Ack, Connect, FromFeed, Takes
from engine.config.feed import Rule
from engine.config.loading import load_with_notes
from tests.config.conftest import CHANNEL, HEAD, TARGET, Load, Write, notes, problems

FEED = "id: lis\nlisten: {port: 6200}\ndefault: acme\n"
ACME = HEAD + "feed: lis\n" + TARGET
BETA = ACME.replace("id: acme", "id: beta")
OTHER = CHANNEL.replace("id: acme", "id: other")
BOTH = "routes: [{when: {MSH-4: L}, to: [acme, beta]}]\n"


@pytest.fixture
def feed(write: Write) -> Callable[..., None]:
    """Writes a feed `lis` and its channels `acme` and, where wanted, `beta`."""

    def feed(text: str = FEED, acme: str = ACME, beta: str = "") -> None:
        write("channels/feeds/lis.yaml", text)
        write("channels/acme.yaml", acme)
        if beta:
            write("channels/beta.yaml", beta)

    return feed


def test_a_feed_becomes_values(feed: Callable[..., None], load: Load) -> None:
    routes = """\
routes:
  - {when: {MSH-4: [LAB1, LAB2], MSH-9: ORU^R01}, to: acme}
  - {when: {PV1-3.4: CLINIC7}, to: [acme, beta]}
table: {by: MSH-6, of: {CLINIC1: acme, 7: [acme, beta]}}
"""
    feed(FEED + routes, beta=BETA)
    (lis,) = load().feeds
    assert lis.rules == (
        Rule((("MSH-4", ("LAB1", "LAB2")), ("MSH-9", ("ORU^R01",))), ("acme",)),
        Rule((("PV1-3.4", ("CLINIC7",)),), ("acme", "beta")),
    )
    assert lis.table is not None
    assert (lis.table.by, dict(lis.table.of)) == ("MSH-6", {"CLINIC1": ("acme",), "7": ("acme", "beta")})
    assert (lis.id, lis.default, lis.channels) == ("lis", "acme", ("acme", "beta"))
    assert (lis.legacy, lis.ack, lis.file) == (None, Ack("stored"), "channels/feeds/lis.yaml")


def test_a_feed_may_connect_out(feed: Callable[..., None], load: Load) -> None:
    feed("id: lis\nconnect: {to: '10.0.0.9:1'}\ndefault: acme\n")
    assert isinstance(load().feeds[0].source, Connect)


def test_a_table_may_be_a_file_with_several_rows_of_one_value(
    feed: Callable[..., None], write: Write, load: Load
) -> None:
    write(
        "channels/feeds/clinics.csv",
        "\ufeffvalue,channel\nCLINIC1, acme\n\n'A,B',acme\nCLINIC1,beta\n".replace("'", '"'),
    )
    feed(FEED + "table: {by: MSH-6, file: clinics.csv}\n", beta=BETA)
    (lis,) = load().feeds
    assert lis.table is not None
    assert lis.table.of == {"CLINIC1": ("acme", "beta"), "A,B": ("acme",)}


def test_what_a_channel_leaves_out_is_as_its_feed_has_it(feed: Callable[..., None], load: Load) -> None:
    feed(
        FEED.replace("6200", "6200, encoding: latin-1, max_bytes: 1MiB, batch: each")
        + "ack: {mode: enhanced}\n"
        + BOTH,
        beta=BETA.replace("feed: lis", "feed: {name: lis, encoding: cp1252, accepts: [ORU^R01]}"),
    )
    acme, beta = load().channels
    assert (acme.source, beta.source) == (FromFeed("lis"), FromFeed("lis"))
    assert acme.takes == Takes(encoding="iso8859-1", max_bytes=1024 * 1024, batch="each")
    assert beta.takes == Takes(("ORU^R01",), "cp1252", None, 1024 * 1024, "each")
    assert acme.ack is beta.ack
    assert acme.ack.mode == "enhanced"


def test_the_old_engine_of_a_feed_is_that_of_its_channels(feed: Callable[..., None], load: Load) -> None:
    feed(
        FEED + "legacy: {mllp: old-engine}\n" + BOTH,
        beta=BETA + "legacy: {settle: 1m, taps: [{listen: 7201, forward: acme-emr}]}\n",
    )
    configuration = load()
    acme, beta = configuration.channels
    assert configuration.feeds[0].legacy is configuration.endpoints["old-engine"]
    assert acme.legacy is not None
    assert acme.legacy.endpoint is configuration.feeds[0].legacy
    assert (acme.phase, acme.ack.source) == ("legacy", "authoritative")
    assert beta.legacy is not None
    assert (beta.legacy.endpoint, beta.legacy.settle) == (acme.legacy.endpoint, 60.0)


def test_a_tap_of_a_feeds_channel_listens_where_the_feed_does(feed: Callable[..., None], load: Load) -> None:
    feed(
        FEED.replace("6200", "6200, host: 127.0.0.1") + "legacy: {mllp: old-engine}\n",
        ACME + "legacy: {taps: [{listen: 7201, forward: acme-emr}]}\n",
    )
    assert str(load().channels[0].taps[0].source.address) == "127.0.0.1:7201"  # type: ignore[union-attr]


def test_defaults_of_channels_mean_nothing_to_a_feed_and_little_to_its_channels(
    feed: Callable[..., None], write: Write, load: Load
) -> None:
    write(
        "channels/defaults.yaml",
        "owner: us\nlisten: {host: 127.0.0.1}\nack: {mode: enhanced}\nlegacy: {mllp: old-engine, settle: 1m}\n",
    )
    feed()
    configuration = load()
    (lis,), (acme,) = configuration.feeds, configuration.channels
    assert (lis.source.host, lis.ack) == ("0.0.0.0", Ack("stored"))  # type: ignore[union-attr]
    assert (acme.owner, acme.source, acme.ack, acme.legacy) == ("us", FromFeed("lis"), Ack("stored"), None)


def test_copies_are_noted_where_channels_can_only_go_live_together(feed: Callable[..., None], load: Load) -> None:
    tapped = BETA + "legacy: {taps: [{listen: 7201, forward: acme-emr}]}\n"
    feed(FEED + "legacy: {mllp: old-engine}\n" + BOTH, beta=tapped + "compare: {}\n")
    assert [note for note in notes() if "go to this channel" in note] == [
        "channels/acme.yaml:5:7: note: messages of 'beta' go to this channel as well: without taps in legacy:, or "
        "endpoints with sink: true, it can be live only together with it"
    ]


def test_copies_without_an_old_engine_are_nothing_to_note(feed: Callable[..., None]) -> None:
    feed(FEED + BOTH, beta=BETA)
    assert load_with_notes(Path("interlock.yaml"), {})[1] == []


MISTAKES: dict[str, tuple[str, str]] = {
    "no default": (
        "id: lis\nlisten: {port: 6200}\n",
        "1:1: found a feed without 'default'; expected default: the channel of what nothing else fits",
    ),
    "no socket": ("id: lis\ndefault: acme\n", "1:1: found a feed without listen: or connect:; expected one of them"),
    "two sockets": (
        FEED + "connect: {to: '10.0.0.9:1'}\n",
        "4:10: found a feed with both listen: and connect:; expected only one of them",
    ),
    "files": (
        FEED + "files: {directory: in}\n",
        "4:1: found the unknown key 'files' in a feed; "
        "expected 'profile', perhaps (one of id, profile, listen, connect, ack, legacy, routes, table, default)",
    ),
    "the answer of a destination": (
        FEED + "ack: {from: acme-emr}\n",
        "4:13: found 'acme-emr'; expected one of authoritative, stored",
    ),
    "an old engine that is not known": (
        FEED + "legacy: {mllp: old}\n",
        "4:16: found the unknown endpoint 'old'; expected a name in channels/endpoints.yaml, or host:port",
    ),
    "the port of http": (
        FEED.replace("6200", "8600"),
        "2:16: found port 8600, which http of the settings has too; expected a port of its own",
    ),
    "an unknown channel": (
        FEED + "routes: [{when: {MSH-4: L}, to: acmee}]\n",
        "4:33: found the unknown channel 'acmee'; expected 'acme', perhaps (a channel with feed: lis)",
    ),
    "an unknown default": (
        FEED.replace("acme", "unrouted") + "routes: [{when: {MSH-4: L}, to: acme}]\n",
        "3:10: found the unknown channel 'unrouted'; expected a channel with feed: lis",
    ),
    "a channel with a socket of its own": (
        FEED + "routes: [{when: {MSH-4: L}, to: other}]\n",
        "4:33: found the channel 'other', which does not take from this feed; expected a channel with feed: lis",
    ),
    "a route without a condition": (
        FEED + "routes: [{to: acme}]\n",
        "4:10: found a route without 'when'; "
        "expected when: fields, and the value or values that each of them must have",
    ),
    "a route for everything": (
        FEED + "routes: [{when: {}, to: acme}]\n",
        "4:17: found a route without a field; expected at least one, such as MSH-4: LAB1",
    ),
    "a field that is none": (
        FEED + "routes: [{when: {MSH4: L}, to: acme}]\n",
        "4:18: found 'MSH4'; expected a field such as OBR-3.1",
    ),
    "a field that has no value": (
        FEED + "routes: [{when: {MSH-4: []}, to: acme}]\n",
        "4:25: found an empty list; expected at least one item",
    ),
    "a message type without its trigger": (
        FEED + 'routes: [{when: {MSH-9: "ORU"}, to: acme}]\n',
        "4:25: found 'ORU'; expected a message type and its trigger event such as ORU^R01, "
        "or MSH-9.1 for all of a type",
    ),
    "a message type that is looked up without its trigger": (
        FEED + "table: {by: MSH-9, of: {ORU^R01: acme, ADT: acme}}\n",
        "4:40: found 'ADT'; expected a message type and its trigger event such as ORU^R01, "
        "or MSH-9.1 for all of a type",
    ),
    "a message type with its structure, which is not compared": (
        FEED + "routes: [{when: {MSH-9: [ADT^A01, ORU^R01^ORU_R01]}, to: acme}]\n",
        "4:35: found 'ORU^R01^ORU_R01'; expected a message type and its trigger event such as ORU^R01, "
        "or MSH-9.1 for all of a type",
    ),
    "a wildcard": (
        FEED + "routes: [{when: {MSH-4: 'LAB*'}, to: acme}]\n",
        "4:25: found 'LAB*'; expected a value as a whole: there are no wildcards",
    ),
    "a wildcard in a list": (
        FEED + "routes: [{when: {MSH-4: [LAB1, 'LAB?']}, to: acme}]\n",
        "4:32: found 'LAB?'; expected a value as a whole: there are no wildcards",
    ),
    "a route a second time": (
        FEED + "routes: [{when: {MSH-4: L}, to: acme}, {when: {MSH-4: L}, to: acme}]\n",
        "4:47: found a route whose messages all go by the one at channels/feeds/lis.yaml:4, which stands before it; "
        "expected it before that one, or one route with the channels of both in to:",
    ),
    "a route that a wider one covers": (
        FEED + "routes: [{when: {MSH-4: [L, M]}, to: acme}, {when: {MSH-9: ORU^R01, MSH-4: L}, to: acme}]\n",
        "4:52: found a route whose messages all go by the one at channels/feeds/lis.yaml:4, which stands before it; "
        "expected it before that one, or one route with the channels of both in to:",
    ),
    "two copies for one channel": (
        FEED + "routes: [{when: {MSH-4: L}, to: [acme, acme]}]\n",
        "4:33: found a list that names something twice; expected each once",
    ),
    "two tables": (
        FEED + "table: {by: MSH-6, of: {A: acme}, file: x.csv}\n",
        "4:41: found table with both of: and file:; expected only one of them",
    ),
    "an empty table": (FEED + "table: {by: MSH-6}\n", "4:8: found table without of: or file:; expected one of them"),
    "an unknown channel in a table": (
        FEED + "table: {by: MSH-6, of: {A: acmee}}\n",
        "4:24: found the unknown channel 'acmee'; expected 'acme', perhaps (a channel with feed: lis)",
    ),
    "a table that is not there": (
        FEED + "table: {by: MSH-6, file: x.csv}\n",
        "4:26: found <root>/channels/feeds/x.csv, which cannot be read (No such file or directory); "
        "expected a CSV file with the columns value and channel",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_a_feed_is_told(case: str, feed: Callable[..., None], write: Write) -> None:
    text, told = MISTAKES[case]
    feed(text)
    write("channels/other.yaml", OTHER)
    assert problems() == [f"channels/feeds/lis.yaml:{told}"]


def test_routes_that_only_overlap_are_right(feed: Callable[..., None], load: Load) -> None:
    feed(
        FEED + "routes: [{when: {MSH-4: L, MSH-9: ORU^R01}, to: acme}, {when: {MSH-4: [L, M]}, to: beta}]\n", beta=BETA
    )
    assert len(load().feeds[0].rules) == 2


def test_a_table_may_hold_what_looks_like_a_wildcard_and_a_note_says_that_it_is_none(
    feed: Callable[..., None], write: Write
) -> None:
    """Codes of laboratories have stars."""
    feed(FEED + "table: {by: OBR-4, file: x.csv}\n")
    write("channels/feeds/x.csv", "value,channel\nGLU*,acme\n")
    assert notes() == ["channels/feeds/x.csv:2:1: note: 'GLU*' is compared as it stands: there are no wildcards"]


ROWS: dict[str, tuple[str, str]] = {
    "no first row": ("CLINIC1,acme\n", "1:1: found a first row that does not name the columns; expected value,channel"),
    "a row of three": ("value,channel\nA,acme,x\n", "2:1: found a row of 3 cells; expected a value and a channel"),
    "an empty cell": ("value,channel\n\nA,\n", "3:1: found a row with an empty cell; expected a value and a channel"),
    "a row twice": (
        "value,channel\nA,acme\nA, acme\n",
        "3:1: found 'A' and 'acme' a second time; expected each row once",
    ),
    "an unknown channel": (
        "value,channel\nA,acme\nLONG,acmee\n",
        "3:6: found the unknown channel 'acmee'; expected 'acme', perhaps (a channel with feed: lis)",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_mistake_in_a_table_has_its_line(case: str, feed: Callable[..., None], write: Write) -> None:
    text, told = ROWS[case]
    feed(FEED + "table: {by: MSH-6, file: x.csv}\n")
    write("channels/feeds/x.csv", text)
    assert problems() == [f"channels/feeds/x.csv:{told}"]


def test_a_table_that_is_not_utf_8_is_told(feed: Callable[..., None], tmp_path: Path) -> None:
    feed(FEED + "table: {by: MSH-6, file: x.csv}\n")
    (tmp_path / "channels/feeds/x.csv").write_bytes(b"value,channel\nA\xff,acme\n")
    assert problems() == [
        "channels/feeds/lis.yaml:4:26: found <root>/channels/feeds/x.csv, which cannot be read "
        "(it is no CSV in UTF-8); expected a CSV file with the columns value and channel"
    ]


IN_CHANNELS: dict[str, tuple[str, str, str]] = {
    "an answer of its own": (
        FEED,
        ACME + "ack: {from: stored}\n",
        "7:6: found ack: in a channel with feed:; expected it in the feed's file: a sender gets one answer",
    ),
    "a limit of its own": (
        FEED,
        ACME.replace("feed: lis", "feed: {name: lis, max_bytes: 1MiB}"),
        "5:19: found 'max_bytes'; expected it in the feed's file: its channels share one socket",
    ),
    "an old engine of its own": (
        FEED,
        ACME + "legacy: {mllp: old-engine}\n",
        "7:16: found mllp: in legacy: of a channel with feed:; "
        "expected it in the feed's file: its channels share one connection",
    ),
    "an old engine that the feed has not": (
        FEED,
        ACME + "legacy: {}\n",
        "7:9: found legacy: in a channel of the feed 'lis', which has none; "
        "expected legacy: {mllp: …} in the feed's file, or observed: true here",
    ),
    "an old engine behind the feed and in front of it": (
        FEED + "legacy: {mllp: old-engine}\n",
        ACME + "legacy: {observed: true}\n",
        "7:20: found observed: in a channel of the feed 'lis', which has legacy:; expected one of the two",
    ),
    "live without a way back to the feed's old engine": (
        FEED + "legacy: {mllp: old-engine}\n",
        ACME + "phase: live\n",
        "7:8: found phase live in a channel with legacy: and without rollback:; "
        "expected rollback: {replay: guarded | undelivered | all | none}, which has no default",
    ),
    "the feed's id": (
        FEED.replace("id: lis", "id: acme"),
        ACME.replace("feed: lis", "feed: acme"),
        "1:5: found the id 'acme' a second time (first at channels/feeds/lis.yaml:1); "
        "expected an id of its own for each channel and feed",
    ),
}


@pytest.mark.parametrize("case", IN_CHANNELS)
def test_a_mistake_in_a_channel_of_a_feed_is_told(case: str, feed: Callable[..., None]) -> None:
    text, channel, told = IN_CHANNELS[case]
    feed(text, channel)
    assert problems() == [f"channels/acme.yaml:{told}"]


def test_a_channel_that_its_feed_never_names_is_told(feed: Callable[..., None]) -> None:
    feed(beta=BETA)
    assert problems() == [
        "channels/beta.yaml:5:7: found the feed 'lis', which sends this channel nothing; "
        "expected the channel's id in routes:, table: or default: of the feed"
    ]


def test_an_unknown_feed_is_told(feed: Callable[..., None], write: Write) -> None:
    feed()
    write(
        "channels/other.yaml", OTHER.replace("listen: {port: 6101}\nlegacy: {mllp: old-engine}", "feed: lsi\n" + TARGET)
    )
    assert problems() == [
        "channels/other.yaml:5:7: found the unknown feed 'lsi'; "
        "expected 'lis', perhaps (the id of a file in channels/feeds)"
    ]


def test_a_feed_that_cannot_be_read_is_missed_by_nobody(feed: Callable[..., None]) -> None:
    feed("id: [\n", ACME + "phase: legacy\n")
    assert [told.split(":")[0] for told in problems()] == ["channels/feeds/lis.yaml"]


def test_a_feed_with_a_mistake_does_not_make_its_channels_wrong(feed: Callable[..., None]) -> None:
    feed(FEED + "legacy: {mllp: old}\n" + BOTH, ACME + "legacy: {}\nphase: legacy\n", BETA + "phase: parallel\n")
    assert [told.split(":")[0] for told in problems()] == ["channels/feeds/lis.yaml"]


def test_a_channel_that_cannot_be_read_is_missed_by_no_feed(feed: Callable[..., None]) -> None:
    feed(acme="id: [\n")
    assert [told.split(":")[0] for told in problems()] == ["channels/acme.yaml"]


def test_a_tap_and_a_channel_may_have_one_port_on_two_addresses(
    feed: Callable[..., None], write: Write, load: Load
) -> None:
    feed(
        FEED.replace("6200", "6200, host: 127.0.0.1") + "legacy: {mllp: old-engine}\n",
        ACME + "legacy: {taps: [{listen: 7201, forward: acme-emr}]}\n",
    )
    write("channels/other.yaml", OTHER.replace("6101", "7201, host: 10.0.0.1"))
    assert len(load().channels) == 2


def test_the_port_of_a_feed_is_taken_for_channels(feed: Callable[..., None], write: Write) -> None:
    feed()
    write("channels/other.yaml", OTHER.replace("6101", "6200"))
    assert problems() == [
        "channels/other.yaml:5:16: found port 6200, which the feed 'lis' has too; expected a port of its own"
    ]


def test_a_feeds_channel_has_no_connection_of_its_own(feed: Callable[..., None], write: Write) -> None:
    feed()
    write("channels/other.yaml", OTHER + "target: {destinations: [{mllp: {via: acme}}]}\n")
    assert problems() == [
        "channels/other.yaml:7:38: found the channel 'acme', which has no connection of its own; "
        "expected a channel with listen: or connect:"
    ]


def test_only_one_channel_of_a_feed_may_tap_its_link(feed: Callable[..., None]) -> None:
    tap = "legacy: {taps: [{on_link: true, forward: acme-emr}]}\n"
    feed(FEED + "legacy: {mllp: old-engine}\n" + BOTH, ACME + tap, BETA + tap)
    assert problems() == [
        "channels/beta.yaml:7:27: found on_link: in a second channel of the feed 'lis', after 'acme'; "
        "expected one: nothing tells whose an output is"
    ]
