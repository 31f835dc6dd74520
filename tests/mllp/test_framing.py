"""Rules of engine.mllp.framing."""

from __future__ import annotations

import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.mllp.framing import HEAD_BYTES, Decoder, Event, Frame, Noise, TooLarge, Unfinished, encode

ORU = b"MSH|^~\\&|ACME|LAB|EMR|CLINIC|20260102030405||ORU^R01|1|P|2.3\rPID|1||77^^^ACME^MR\r"

PAYLOADS = st.binary(max_size=40).filter(lambda b: b"\x1c" not in b and b"\x0b" not in b)
GAPS = st.sampled_from([b"", b"\n", b"\r\n", b"\x00\x00", b"hello", b"\x1c\r", b" \x1c", b"\r\n\x00text"])
BLOCKS = st.tuples(st.sampled_from([b"\x0b", b"\x0b\x0b"]), PAYLOADS, st.sampled_from([b"\x1c\r", b"\x1c"]), GAPS)
PIECES = st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\n", b"MSH", b"FHS", b"x", b"\x00"])
STREAMS = st.one_of(
    st.lists(BLOCKS, max_size=6).map(lambda blocks: b"".join(b"".join(block) for block in blocks)),
    st.lists(PIECES, max_size=24).map(b"".join),
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
    return event.data if isinstance(event, Noise) else event.head


class TestProperties:
    @given(STREAMS, st.lists(st.integers(0, 10_000), max_size=12))
    def test_events_do_not_depend_on_how_the_stream_is_cut(self, stream: bytes, places: list[int]) -> None:
        whole, pieces = Decoder(), Decoder()
        assert joined(feed_all(pieces, cut(stream, places))) == joined(whole.feed(stream))
        assert (pieces.pending, pieces.framing) == (whole.pending, whole.framing)
        assert pieces.serial == whole.serial

    @given(STREAMS, st.lists(st.integers(0, 10_000), max_size=12))
    def test_every_byte_is_in_an_event_or_framing_or_pending(self, stream: bytes, places: list[int]) -> None:
        decoder = Decoder()
        events = feed_all(decoder, cut(stream, places))
        assert sum(len(content(e)) for e in events) + decoder.framing + len(decoder.pending) == len(stream)

    @given(st.lists(BLOCKS, max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
    def test_frames_in_are_frames_out(self, blocks: list[tuple[bytes, bytes, bytes, bytes]], places: list[int]) -> None:
        stream = b"".join(b"".join(block) for block in blocks)
        frames = [e.payload for e in feed_all(Decoder(), cut(stream, places)) if isinstance(e, Frame)]
        assert frames == [payload for _, payload, _, _ in blocks]

    @given(STREAMS, st.integers(0, 12), st.lists(st.integers(0, 10_000), max_size=12))
    def test_a_limit_stops_at_the_same_block_however_the_stream_is_cut(
        self, stream: bytes, limit: int, places: list[int]
    ) -> None:
        whole, pieces = Decoder(limit), Decoder(limit)
        once, often = joined(whole.feed(stream)), joined(feed_all(pieces, cut(stream, places)))
        assert whole.stopped == pieces.stopped
        if whole.stopped:
            assert isinstance(once.pop(), TooLarge)
            assert isinstance(often.pop(), TooLarge)
        assert once == often


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
