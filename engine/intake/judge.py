"""Whether a frame may be taken as a message of a channel. Pure.

In `live` a flaw is the sender's answer; in `legacy` and `parallel` the old engine is the one to judge, and the flaw is
only recorded (`would_refuse`), because it wants a decision before `live`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from engine.hl7.ack import AckCode, AckError
from engine.hl7.batch import read_batch
from engine.hl7.peek import Peek, after_junk, peek
from engine.hl7.wide import narrow

LONG = 64 * 1024  # bytes of a frame from which on its segments' ends are found faster than a header
MOST_ENDS = 10_000  # segments that are looked at one by one
MOST_EMPTY = 4  # ends of segments between a segment and a header


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a frame is not what the channel takes: the answer's code (table 0008), the error (table 0357), and words."""

    code: AckCode
    error: AckError
    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What a channel takes. `accepts`: message types as `ORU^R01`, None = any. `decodes`: whether the bytes are text in
    the charset that their MSH-18 or the channel declares. `batches`: whether FHS and BHS envelopes are taken."""

    accepts: frozenset[str] | None
    decodes: Callable[[bytes], bool]
    batches: bool = True


def _flaw(code: AckCode, error: int, field: int | None, reason: str) -> Flaw:
    return Flaw(code, AckError(error, reason, "MSH", field=field), reason)


NO_HEADER = _flaw("AR", 100, None, "no MSH segment at the beginning")
SECOND = Flaw("AR", AckError(100, "a second MSH in one block: send each message in its own, or a batch", "MSH", 2),
              "a second MSH segment in one block, and no batch envelope around them")  # fmt: skip
BATCH = _flaw("AR", 200, 9, "a batch envelope, and this channel takes single messages")
EMPTY_BATCH = _flaw("AR", 100, None, "a batch envelope without a message in it")
DELIMITERS = _flaw("AR", 102, 2, "MSH-1 and MSH-2 do not name usable delimiters")
NO_CONTROL_ID = _flaw("AE", 101, 10, "MSH-10 is empty, so that nothing could be acknowledged")
CHARSET = _flaw("AE", 102, 18, "bytes that are not text in the declared character set")
TOO_LARGE = _flaw("AR", 207, None, "larger than this channel takes")
NOT_STORED = _flaw("AE", 207, None, "this message could not be stored; please send it again")
NOT_TAKEN = _flaw("AR", 207, None, "the receiving system did not take this message")
LATE = _flaw("AE", 207, None, "no answer in time from the receiving system; please send it again")

OTHER_TYPE = frozenset({200, 201})  # errors of a type, or of its trigger, that is not taken
BATCH_ENVELOPE = "batch envelope"  # as engine.hl7.peek names it
_PROBLEMS = {"no MSH": NO_HEADER, BATCH_ENVELOPE: BATCH, "broken delimiters": DELIMITERS}


def judge(head: Peek, frame: bytes, rules: Rules) -> Flaw | None:
    """The first flaw of a frame, or None."""
    if head.problem == BATCH_ENVELOPE and rules.batches:
        return _judge_batch(frame, rules)
    if not head.ok:
        return _PROBLEMS.get(head.problem or "", NO_HEADER)
    if head.control_id is None:
        return NO_CONTROL_ID
    if rules.accepts is not None and f"{head.type}^{head.trigger}" not in rules.accepts:
        return _type_flaw(head, rules.accepts)
    if not frame.isascii() and not rules.decodes(frame):
        return CHARSET
    return SECOND if _begins_again(head, frame) else None


def _begins_again(head: Peek, frame: bytes) -> bool:
    """Whether a second message begins in a frame: only one of them could be acknowledged."""
    again = head.fields[0]
    if len(frame) < LONG and frame.startswith(again) and b"\n" not in frame:
        return b"\r" + again in frame  # as nearly always
    if head.wide is not None:
        frame = narrow(frame, head.wide)
    begin = after_junk(frame)
    end, at = (b"\n" if frame.find(b"\r", begin) < 0 else b"\r"), begin
    for _ in range(MOST_ENDS):  # in 20 MB these are found in a fifth of the time that the pattern takes
        at = frame.find(end, at)
        if at < 0:
            return False
        at += 1
        if frame[at : at + MOST_EMPTY + len(again)].lstrip(b"\r\n").startswith(again):
            return True
    return _line(end, again).search(frame, at - 1) is not None


@lru_cache(maxsize=64)
def _line(end: bytes, header: bytes) -> re.Pattern[bytes]:
    """A segment's end, a few more of them, and a header."""
    return re.compile(end + rb"[\r\n]{0,%d}+" % MOST_EMPTY + re.escape(header))


def _judge_batch(frame: bytes, rules: Rules) -> Flaw | None:
    """The flaw of a batch's envelope, which has to fit what it holds, or the first one of its messages."""
    batch = read_batch(frame)
    if batch is None:
        return NO_HEADER
    if not batch.messages:
        return EMPTY_BATCH
    if batch.problems:
        text = batch.problems[0].text
        return Flaw("AR", AckError(101, text, "BTS", field=1), text)
    flaws = (judge(peek(message), message, rules) for message in batch.messages)
    return next((flaw for flaw in flaws if flaw is not None), None)


def _type_flaw(head: Peek, accepts: frozenset[str]) -> Flaw:
    known = any(name.partition("^")[0] == head.type for name in accepts)
    wanted = ", ".join(sorted(accepts))
    return _flaw(
        "AR", 201 if known else 200, 9, f"a message type that this channel does not take (it takes {wanted})"[:200]
    )
