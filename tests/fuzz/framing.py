"""Coverage-guided fuzzing of the frame decoder: any framing, any bytes, cut anywhere.

    python -m tests.fuzz.framing -runs=1000000      libFuzzer's options; `make fuzz` runs every target of this folder

An input is: two bytes for the framing, one for the limit, then pieces, each with a byte for its length. A finding is an
exception of any kind: the decoder refuses framings with ValueError when it is made, and raises nothing afterwards.
"""

from __future__ import annotations

from tests.fuzz import atheris, fuzz

with atheris.instrument_imports(include=["engine.mllp.framing"]):
    from engine.mllp.framing import Decoder, Event, Frame, Noise, TooLarge

from engine.config.edge import MLLP, Framing

FRAMINGS = (
    MLLP,
    Framing(b"\x02", b"\x03"),
    Framing(b"", b"\x1c\r"),
    Framing(b"", b"\r\r"),
    Framing(b"", b"\n"),
    Framing(b"\x0b", b"\r\x1c"),
)


def framing_of(choice: int, data: bytes) -> Framing | None:
    """A known framing, or one of the input's own; None where no blocks could be told apart by it."""
    if choice < 192:
        return FRAMINGS[choice % len(FRAMINGS)]
    own = Framing(data[: choice & 1], data[1 : 2 + (choice >> 1 & 1)])
    try:
        Decoder(framing=own)
    except ValueError:
        return None
    return own


def content(event: Event) -> bytes:
    if isinstance(event, Frame):
        return event.payload
    return event.data if isinstance(event, Noise) else event.head


def told(events: list[Event]) -> list[tuple[str, bytes]]:
    """Events with neighbouring noise as one, and without the sizes of what was too large: those depend on the cuts."""
    out: list[tuple[str, bytes]] = []
    for event in events:
        if isinstance(event, Noise) and out and out[-1][0] == "Noise":
            out[-1] = ("Noise", out[-1][1] + event.data)
        else:
            out.append((type(event).__name__, b"" if isinstance(event, TooLarge) else content(event)))
    return out


def pieces_of(data: bytes) -> list[bytes]:
    pieces = []
    while data:
        length = data[0] % 40
        pieces.append(data[1 : 1 + length])
        data = data[1 + length :]
    return pieces


def one_input(data: bytes) -> None:
    if len(data) < 4:
        return
    framing = framing_of(data[0], data[1:3])
    if framing is None:
        return
    limit = 1_000_000 if data[3] < 128 else data[3] - 128
    pieces = pieces_of(data[4:])
    whole, often = Decoder(limit, framing), Decoder(limit, framing)
    stream = b"".join(pieces)
    once = whole.feed(stream)
    many = [event for piece in pieces for event in often.feed(piece)]
    assert told(once) == told(many), "the events depend on the cuts"
    assert whole.stopped == often.stopped == (bool(once) and isinstance(once[-1], TooLarge))
    assert all(len(event.payload) <= limit for event in once if isinstance(event, Frame))
    if not whole.stopped:
        assert (whole.pending, whole.framing, whole.inside) == (often.pending, often.framing, often.inside)
        assert whole.serial == often.serial
        kept = sum(len(content(event)) for event in once)
        assert kept + whole.framing + len(whole.pending) == len(stream), "bytes have disappeared"


if __name__ == "__main__":
    fuzz(one_input, "-max_len=512")
