"""What the sender of a stored message has heard from us, told again for people. Pure.

No row says so for each message: it follows from MSH-15 and MSH-16 and from how the channel or feed answers. That is as
it is set now; where it is not the usual, the words say so.
"""

from __future__ import annotations

from engine.config.edge import Ack, Batch
from engine.hl7.ack import PLAIN
from engine.hl7.batch import is_batch, peek_batch
from engine.hl7.modes import wanted
from engine.hl7.peek import peek

_BY_OPTIONS = ", as the options are now"
_OF_A_BATCH = {"each": "{} for each message", "errors": "a batch answer without errors", "none": ""}


def told(raw: bytes, ack: Ack, batch: Batch) -> str:
    """Our own answers to a message that was stored: `AA`, `CA, then AA`, `nothing, as MSH-15 and MSH-16 ask`."""
    whole = is_batch(raw)
    first, last = committed(raw, ack), _code(ack, "AA")
    asks = wanted(peek_batch(raw) if whole else peek(raw), ack.mode)
    if not asks.application.success:
        last = ""
    elif whole and batch != "one":
        last = _OF_A_BATCH.get(batch, "{}").format(last)
    if last and ack.apart is not None:
        where = "at" if ack.listen is not None else "to"
        last += f" {where} {ack.apart} (whether it was taken there, the log says)"
    said = ", then ".join(filter(None, (first, last)))
    usual = ack.mode == "auto" and ack.form == PLAIN and ack.apart is None and (not whole or batch == "one")
    if not said:
        said = "nothing, as MSH-15 and MSH-16 ask" if not asks.application.success else "nothing"
    return said if usual else said + _BY_OPTIONS


def committed(raw: bytes, ack: Ack) -> str:
    """The accept acknowledgement, which is given when a message is stored; empty where its sender wants none."""
    asks = wanted(peek_batch(raw) if is_batch(raw) else peek(raw), ack.mode)
    return _code(ack, "CA") if asks.enhanced and asks.accept.success else ""


def _code(ack: Ack, code: str) -> str:
    if ack.form.bare:
        return "0x06"
    return ack.form.codes.get(code, code)
