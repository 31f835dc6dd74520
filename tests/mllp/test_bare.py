"""Answers that are a byte outside of any block: 0x06 for yes, 0x15 for no."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.address import Address
from engine.config.edge import BARE, Framing
from engine.mllp.client import Answered, Lost, State
from engine.mllp.diagnose import diagnose
from engine.mllp.framing import NOT_STORED, STORED, Bare, Decoder, Frame, Noise, check, encode
from tests.mllp.test_client import scene
from tests.support.scripted import Scripted

BYTES = Framing(bare=True)
PLAIN = st.binary(max_size=20).map(lambda text: bytes(byte for byte in text if byte not in b"\x0b\x1c\r\n" + BARE))
PARTS = st.one_of(
    st.tuples(st.just("block"), PLAIN),
    st.tuples(st.just("bare"), st.sampled_from([STORED, NOT_STORED])),
    st.tuples(st.just("noise"), PLAIN),
)


@given(st.lists(PARTS, max_size=12), st.lists(st.integers(0, 300), max_size=8))
def test_each_is_found_however_the_stream_is_cut(parts: list[tuple[str, bytes]], cuts: list[int]) -> None:
    stream = b"".join(encode(text) if kind == "block" else text for kind, text in parts)
    decoder, frames, noise = Decoder(framing=BYTES), [], b""
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for begin, end in itertools.pairwise(edges):
        for event in decoder.feed(stream[begin:end]):
            if isinstance(event, Frame):
                frames.append((type(event.payload) is Bare, event.payload))
            else:
                assert isinstance(event, Noise)
                noise += event.data
    assert frames == [(kind == "bare", text) for kind, text in parts if kind != "noise"]
    assert noise == b"".join(text for kind, text in parts if kind == "noise")


def test_without_the_option_it_is_noise_and_in_a_block_it_is_a_payload() -> None:
    assert Decoder().feed(STORED) == [Noise(STORED)]
    (event,) = Decoder(framing=BYTES).feed(encode(STORED))
    assert isinstance(event, Frame)
    assert type(event.payload) is bytes


def test_it_is_written_without_a_block_in_any_framing() -> None:
    assert encode(Bare(STORED)) == encode(Bare(STORED), Framing(b"\x02", b"\x03")) == STORED
    assert encode(STORED) == b"\x0b\x06\x1c\r"


@pytest.mark.parametrize(
    "framing",
    [
        Framing(b"", bare=True),
        Framing(release=2, bare=True),
        Framing(b"\x06", bare=True),
        Framing(b"\x0b", b"\x15\r", bare=True),
    ],
    ids=["no start byte", "release 2", "a start of its own", "an end of its own"],
)
def test_where_it_could_not_be_told_from_a_block_it_is_refused(framing: Framing) -> None:
    with pytest.raises(ValueError, match="bare answers"):
        check(framing)


class TestClient:
    @pytest.mark.parametrize("said", [STORED, NOT_STORED])
    async def test_it_answers_the_message_on_the_line(self, said: bytes) -> None:
        async with scene(framing=BYTES) as it:
            for name in (b"one", b"two"):
                it.send(name)
                if name == b"one":
                    conn = await it.peer.accept()
                await it.peer.receive(conn, name)
                conn.sendall(said)
                ((_, reply),) = (await it.replies.until(len(it.replies.came) + 1))[-1:]
                assert reply == Answered(said)
                assert type(reply.payload) is Bare
            assert it.client.state is State.IDLE

    async def test_a_second_one_is_not_taken_for_the_next_messages(self) -> None:
        async with scene(framing=BYTES) as it:
            it.send(b"one")
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            conn.sendall(STORED + STORED)
            assert await it.replies.until(1) == [("one", Answered(STORED))]
            assert it.client.state is State.CLOSED
            assert it.strays == [STORED]

    async def test_a_late_one_is_not_taken_for_the_next_messages(self) -> None:
        async with scene(framing=BYTES) as it:
            it.send(b"one", timeout=0.1)
            conn = await it.peer.accept()
            await it.peer.receive(conn, b"one")
            assert await it.replies.until(1) == [("one", Lost("answer timed out"))]
            conn.sendall(STORED)
            it.send(b"two")
            again = await it.peer.accept()
            await it.peer.receive(again, b"two")
            again.sendall(NOT_STORED)
            assert (await it.replies.until(2))[1:] == [("two", Answered(NOT_STORED))]

    async def test_a_block_is_an_answer_all_the_same(self) -> None:
        async with scene(framing=BYTES) as it:
            await it.ask(b"one", b"AA")


async def test_the_connectivity_test_hears_it() -> None:
    async with Scripted(lambda payload: (bytearray(STORED),)) as peer:
        there = Address("127.0.0.1", peer.port)
        found = await diagnose(there, framing=BYTES, message=b"MSH|x", timeout=2.0)
        assert (found.code, found.payload) == ("answered", STORED)
        deaf = await diagnose(there, message=b"MSH|x", timeout=0.2)
        assert deaf.code == "peer_answers_bare"
