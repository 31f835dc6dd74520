"""Rules of engine.mllp.framing."""

from __future__ import annotations

import re
import timeit
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.edge import MLLP, Framing
from engine.mllp.framing import (
    FILLER,
    HEAD_BYTES,
    NOT_STORED,
    STORED,
    Commit,
    Decoder,
    Event,
    Frame,
    Noise,
    TooLarge,
    Unfinished,
    encode,
)

ORU = b"MSH|^~\\&|ACME|LAB|EMR|CLINIC|20260102030405||ORU^R01|1|P|2.3\rPID|1||77^^^ACME^MR\r"

STX_ETX = Framing(b"\x02", b"\x03")
END_ONLY = Framing(b"", b"\x1c\r")
BLANK_LINE = Framing(b"", b"\r\r")
LINE_FEED = Framing(b"", b"\n")
LITERAL = Framing(b"\x0b", b"\r\x1c")
RELEASE_2 = Framing(release=2)
FRAMINGS = [MLLP, STX_ETX, END_ONLY, BLANK_LINE, LINE_FEED, LITERAL, RELEASE_2]
NAMES = ["mllp", "stx etx", "end only", "blank line", "line feed", "literal end", "release 2"]
every_framing = pytest.mark.parametrize("framing", FRAMINGS, ids=NAMES)

PLACES = st.lists(st.integers(0, 10_000), max_size=12)
GAPS = st.sampled_from([b"", b"\n", b"\r\n", b"\x00\x00", b"hello", b"END", b" END", b"\r\n\x00text"])


def blocks(framing: Framing) -> st.SearchStrategy[list[tuple[bytes, bytes, bytes, bytes]]]:
    """Start, payload, end and what comes after it, as many peers send them. Payloads of peers without a start byte
    begin with a header, so that what is a message and what is not is beyond doubt."""
    taken = {*framing.start, *framing.end, *b"\r\n"}
    payloads = st.binary(max_size=40).map(lambda text: bytes(byte for byte in text if byte not in taken))
    starts = [framing.start, framing.start * 2]
    ends = [framing.end, framing.end * 2]
    if len(framing.end) == 2 and framing.end[:1] not in b"\r\n":
        ends += [framing.end[:1], framing.end[:1] + b"\n"]
    if not framing.start:
        payloads = payloads.map(lambda text: b"MSH|" + text)
    if framing.release == 2:
        payloads = st.one_of(payloads, st.sampled_from([STORED, NOT_STORED]))
    gaps = GAPS.map(lambda gap: gap.replace(b"END", framing.end))
    if not framing.start:
        gaps = gaps.map(lambda gap: b"" if gap.strip(b"\x00\r\n") else gap)
    return st.lists(st.tuples(st.sampled_from(starts), payloads, st.sampled_from(ends), gaps), max_size=6)


def streams(framing: Framing) -> st.SearchStrategy[bytes]:
    pieces = [
        framing.start,
        framing.end,
        framing.end[:1],
        b"\r",
        b"\n",
        b"MSH",
        b"FHS",
        b"x",
        b"\x00",
        b"\x0b",
        b"\x1c",
        STORED,
        NOT_STORED,
    ]
    return st.one_of(
        blocks(framing).map(lambda many: b"".join(b"".join(block) for block in many)),
        st.lists(st.sampled_from(pieces), max_size=24).map(b"".join),
    )


def feed_all(decoder: Decoder, pieces: list[bytes]) -> list[Event]:
    return [event for piece in pieces for event in decoder.feed(piece)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream as reads that end at `places`."""
    ends = sorted({place % (len(stream) + 1) for place in places} | {len(stream)})
    return [stream[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def joined(events: list[Event]) -> list[Event]:
    """Events with neighbouring noise as one: noise is told as it comes."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, Noise) and out and isinstance(out[-1], Noise):
            out[-1] = Noise(out[-1].data + event.data)
        else:
            out.append(event)
    return out


def content(event: Event) -> bytes:
    if isinstance(event, Frame):
        return event.payload
    if isinstance(event, Commit):
        return STORED if event.stored else NOT_STORED
    return event.data if isinstance(event, Noise) else event.head


def by_the_rules(stream: bytes, framing: Framing) -> tuple[list[Event], bytes]:
    """The rules of the module's docstring, said once more and without any haste: events, and what is pending."""
    events: list[Event] = []
    start, end, rest = framing.start, framing.end, stream
    whole = end[:1] in (b"\r", b"\n")
    while rest:
        before = re.match(b"[%b]*" % re.escape(FILLER + end) if not start else b"[^%b]*" % re.escape(start), rest, re.S)
        assert before is not None
        if before.group():
            events.append(Noise(before.group()))
        rest = rest[before.end() :]
        if not rest:
            break
        body, mark, after = rest[len(start) :].partition(end if whole else end[:1])
        if not mark:
            return joined(events), body
        events += of_release_2(of_a_block(body, start)) if framing.release == 2 else of_a_block(body, start)
        rest = after.lstrip(end + b"\r\n")
    return joined(events), b""


def of_a_block(body: bytes, start: bytes) -> list[Event]:
    if not start:
        lines = re.split(rb"(?<=[\r\n\x00])", body)
        first = next((n for n, line in enumerate(lines) if line[:3] in (b"MSH", b"FHS", b"BHS")), 0)
        noise, message = b"".join(lines[:first]), b"".join(lines[first:])
        return [Noise(noise), Frame(message)] if noise else [Frame(message)]
    body = body.lstrip(start)
    tries = re.split(re.escape(start) + b"(?=MSH|FHS|BHS)", body)
    head = start.join(tries[:-1])
    return [Unfinished(head), Frame(tries[-1])] if len(tries) > 1 else [Frame(body)]


def of_release_2(events: list[Event]) -> list[Event]:
    said: dict[Event, Event] = {Frame(STORED): Commit(True), Frame(NOT_STORED): Commit(False)}
    return [said.get(event, event) for event in events]


@every_framing
class TestProperties:
    @given(st.data(), PLACES)
    def test_events_do_not_depend_on_how_the_stream_is_cut(
        self, framing: Framing, data: st.DataObject, places: list[int]
    ) -> None:
        stream = data.draw(streams(framing))
        whole, pieces = Decoder(framing=framing), Decoder(framing=framing)
        assert joined(feed_all(pieces, cut(stream, places))) == joined(whole.feed(stream))
        assert (pieces.pending, pieces.framing) == (whole.pending, whole.framing)
        assert pieces.serial == whole.serial

    @given(st.data(), PLACES)
    def test_events_are_those_of_the_rules(self, framing: Framing, data: st.DataObject, places: list[int]) -> None:
        stream = data.draw(streams(framing))
        decoder = Decoder(framing=framing)
        events = joined(feed_all(decoder, cut(stream, places)))
        assert (events, decoder.pending) == by_the_rules(stream, framing)

    @given(st.data(), PLACES)
    def test_every_byte_is_in_an_event_or_framing_or_pending(
        self, framing: Framing, data: st.DataObject, places: list[int]
    ) -> None:
        stream = data.draw(streams(framing))
        decoder = Decoder(framing=framing)
        events = feed_all(decoder, cut(stream, places))
        assert sum(len(content(e)) for e in events) + decoder.framing + len(decoder.pending) == len(stream)

    @given(st.data(), PLACES)
    def test_frames_in_are_frames_out(self, framing: Framing, data: st.DataObject, places: list[int]) -> None:
        sent = data.draw(blocks(framing))
        stream = b"".join(b"".join(block) for block in sent)
        events = feed_all(Decoder(framing=framing), cut(stream, places))
        assert [content(e) for e in events if isinstance(e, Frame | Commit)] == [payload for _, payload, _, _ in sent]

    @given(st.data(), st.integers(0, 12), PLACES)
    def test_a_limit_stops_at_the_same_block_however_the_stream_is_cut(
        self, framing: Framing, data: st.DataObject, limit: int, places: list[int]
    ) -> None:
        stream = data.draw(streams(framing))
        whole, pieces = Decoder(limit, framing), Decoder(limit, framing)
        once, often = joined(whole.feed(stream)), joined(feed_all(pieces, cut(stream, places)))
        assert whole.stopped == pieces.stopped
        if whole.stopped:
            assert isinstance(once.pop(), TooLarge)
            assert isinstance(often.pop(), TooLarge)
        assert once == often

    def test_what_is_encoded_is_decoded(self, framing: Framing) -> None:
        message = b"MSH|^~\\&|x\rPID|1"
        assert Decoder(framing=framing).feed(encode(message, framing) * 2) == [Frame(message)] * 2


class TestTolerance:
    @pytest.mark.parametrize(
        ("stream", "events"),
        [
            pytest.param(encode(ORU), [Frame(ORU)], id="a plain block"),
            pytest.param(encode(ORU) * 3, [Frame(ORU)] * 3, id="several blocks in a read"),
            pytest.param(b"\x0bA\x1c", [Frame(b"A")], id="the last CR missing at the end of a read"),
            pytest.param(b"\x0bA\x1c\x0bB\x1c", [Frame(b"A"), Frame(b"B")], id="the last CR missing between blocks"),
            pytest.param(b"\x0bA\x1c\r\n\x0bB\x1c\r\n", [Frame(b"A"), Frame(b"B")], id="LF after a block"),
            pytest.param(b"\x0b\x0bA\x1c\r\x1c\r", [Frame(b"A")], id="a block doubled in its framing"),
            pytest.param(b"\x0b\x1c\r", [Frame(b"")], id="an empty block"),
            pytest.param(b"\x00\x00\x0bA\x1c\r\x00", [Noise(b"\x00\x00"), Frame(b"A"), Noise(b"\x00")], id="NULs"),
            pytest.param(
                b"\x0bA\x1c\rhi\r\n\x0bB\x1c\r", [Frame(b"A"), Noise(b"hi\r\n"), Frame(b"B")], id="text between"
            ),
            pytest.param(b"MSH|no framing\r", [Noise(b"MSH|no framing\r")], id="no framing at all"),
            pytest.param(b"\x0bOBX|line\x0bline\x1c\r", [Frame(b"OBX|line\x0bline")], id="a vertical tab in a text"),
            pytest.param(
                b"\x0bMSH|1\rPI\x0bMSH|2\r\x1c\r", [Unfinished(b"MSH|1\rPI"), Frame(b"MSH|2\r")], id="begun again"
            ),
        ],
    )
    def test_what_peers_send_is_understood(self, stream: bytes, events: list[Event]) -> None:
        assert Decoder().feed(stream) == events

    def test_a_start_byte_may_come_alone(self) -> None:
        assert feed_all(Decoder(), [b"\x0b", ORU, b"\x1c", b"\r"]) == [Frame(ORU)]

    def test_a_late_cr_or_lf_is_no_noise(self) -> None:
        assert feed_all(Decoder(), [b"\x0bA\x1c", b"\r", b"\n", encode(b"B")]) == [Frame(b"A"), Frame(b"B")]

    def test_an_open_block_shows_what_has_come(self) -> None:
        decoder = Decoder()
        assert decoder.feed(b"\x0bMSH|") == []
        assert (decoder.inside, decoder.pending) == (True, b"MSH|")


class TestOtherFramings:
    @pytest.mark.parametrize(
        ("framing", "stream", "events"),
        [
            pytest.param(STX_ETX, b"\x02A\x0bB\x1cC\x03", [Frame(b"A\x0bB\x1cC")], id="other bytes are data"),
            pytest.param(STX_ETX, b"\x02\x02A\x03\r\x03\r\n", [Frame(b"A")], id="doubled, with line ends"),
            pytest.param(END_ONLY, ORU + b"\x1c\r" + ORU + b"\x1c\r", [Frame(ORU), Frame(ORU)], id="end block only"),
            pytest.param(
                END_ONLY, b"\r\nhello\r\n" + ORU + b"\x1c", [Noise(b"\r\nhello\r\n"), Frame(ORU)], id="text before"
            ),
            pytest.param(
                END_ONLY, ORU + b"\x1c\r\x00\x00\t", [Frame(ORU), Noise(b"\x00\x00\t")], id="filler begins no block"
            ),
            pytest.param(END_ONLY, b"hello\x1c\r", [Frame(b"hello")], id="a block without a header is a frame"),
            pytest.param(
                END_ONLY, b"\xef\xbb\xbfMSH|1\x1c\r", [Frame(b"\xef\xbb\xbfMSH|1")], id="a BOM belongs to its message"
            ),
            pytest.param(
                BLANK_LINE,
                b"MSH|1\rPID|1\r\rMSH|2\rPID|2\r\r",
                [Frame(b"MSH|1\rPID|1"), Frame(b"MSH|2\rPID|2")],
                id="a blank line between messages",
            ),
            pytest.param(
                Framing(b"", b"\n\r"),
                b"MSH|1\r\nPID|1\r\n\r\nMSH|2\r\n\r\n",
                [Frame(b"MSH|1\r\nPID|1\r"), Frame(b"MSH|2\r")],
                id="a blank line where lines end in CR LF",
            ),
        ],
    )
    def test_what_peers_send_is_understood(self, framing: Framing, stream: bytes, events: list[Event]) -> None:
        assert joined(Decoder(framing=framing).feed(stream)) == events

    @pytest.mark.parametrize(
        ("start", "end", "why"),
        [
            (b"\x0b\x0b", b"\x1c", "one byte or none at the start"),
            (b"\x0b", b"", "one or two at the end"),
            (b"\x0b", b"\x1c\r\n", "one or two at the end"),
            (b"\x1c", b"\x1c\r", "a byte of its own"),
            (b"\x0b", b"\x1c\x0b", "a byte of its own"),
            (b"\r", b"\x1c", "which stand inside every message"),
            (b"", b"\r", "an end: that segments end in"),
            (b"", b"\r\n", "an end: that segments end in"),
        ],
    )
    def test_bytes_that_cannot_tell_blocks_apart_are_refused(self, start: bytes, end: bytes, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            Decoder(framing=Framing(start, end))


class TestRelease2:
    @pytest.mark.parametrize(
        ("stream", "events"),
        [
            pytest.param(b"\x0b\x06\x1c\r", [Commit(True)], id="stored"),
            pytest.param(b"\x0b\x15\x1c\r", [Commit(False)], id="not stored"),
            pytest.param(b"\x0b\x06\x1c\x0b\x15\x1c", [Commit(True), Commit(False)], id="the last CR missing"),
            pytest.param(b"\x0b\x06\x1c\r" + encode(ORU), [Commit(True), Frame(ORU)], id="and an answer"),
            pytest.param(b"\x0b\x06\x06\x1c\r", [Frame(b"\x06\x06")], id="two of them are none"),
            pytest.param(b"\x06", [Noise(b"\x06")], id="outside of a block it is noise"),
        ],
    )
    def test_a_block_of_one_control_character_says_what_became_of_ours(
        self, stream: bytes, events: list[Event]
    ) -> None:
        assert Decoder(framing=RELEASE_2).feed(stream) == events

    def test_in_release_1_it_is_a_message_like_any_other(self) -> None:
        assert Decoder().feed(b"\x0b\x06\x1c\r") == [Frame(b"\x06")]


class TestLimit:
    def test_a_payload_of_exactly_the_limit_passes(self) -> None:
        assert Decoder(5).feed(encode(b"12345")) == [Frame(b"12345")]

    def test_one_byte_more_does_not(self) -> None:
        assert Decoder(5).feed(encode(b"123456")) == [TooLarge(b"123456", 6)]

    def test_a_block_that_never_ends_is_stopped_when_it_passes_the_limit(self) -> None:
        decoder = Decoder(100_000)
        events = feed_all(decoder, [b"\x0bMSH|", *[b"x" * 40_000] * 10])
        assert events == [TooLarge((b"MSH|" + b"x" * 120_000)[:HEAD_BYTES], 120_004)]

    def test_after_too_large_nothing_is_read(self) -> None:
        decoder = Decoder(2)
        decoder.feed(encode(b"123"))
        assert decoder.feed(encode(b"1")) == []
        assert decoder.stopped


class TestCost:
    def test_a_block_in_tiny_pieces_takes_hardly_more_memory_than_its_bytes(self) -> None:
        reads = [b"\x0b", *[bytes((65 + n % 20, 66)) for n in range(500_000)]]  # each read an object of its own
        decoder = Decoder()
        tracemalloc.start()
        try:
            feed_all(decoder, reads)
            assert tracemalloc.get_traced_memory()[1] < 3 * 1_000_000
        finally:
            tracemalloc.stop()
        assert len(decoder.pending) == 1_000_000

    def test_a_20_mb_block_in_64_kb_reads_costs_no_more_than_its_bytes(self) -> None:
        body = b"MSH|" + b"x" * (20 * 1024 * 1024)
        stream = encode(body)
        reads = [stream[at : at + 65536] for at in range(0, len(stream), 65536)]
        start = timeit.default_timer()
        assert feed_all(Decoder(), reads) == [Frame(body)]
        assert timeit.default_timer() - start < 1.0  # linear: some 20 ms; quadratic: many seconds

    def test_a_block_in_single_bytes_costs_in_proportion(self) -> None:
        stream = encode(b"x" * 200_000)
        decoder = Decoder()
        start = timeit.default_timer()
        frames = [event for at in range(len(stream)) for event in decoder.feed(stream[at : at + 1])]
        assert len(frames) == 1
        assert timeit.default_timer() - start < 3.0
