"""Which answers a sender wants: original and enhanced mode (HL7 v2 chapter 2, 2.9.2 and 2.9.3, table 0155).

Original: one answer when the message has been processed, AA, AE or AR. Enhanced, where the sender says something in
MSH-15 or MSH-16: an accept answer, CA, CE or CR, once the message is stored or refused; and when it has been processed
an application answer, AA, AE or AR. Each only on the condition that the sender names: AL always, NE never, ER on error
or rejection, SU on success.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from engine.config.edge import AckMode
from engine.hl7.ack import AckCode, answers
from engine.hl7.peek import Peek


class When(NamedTuple):
    """Whether an answer is wanted: after success, and after an error or a rejection."""

    success: bool
    error: bool

    def on(self, success: bool) -> bool:
        return self.success if success else self.error


class Wanted(NamedTuple):
    """The answers that a sender wants. In original mode there is no accept answer, and the application's always."""

    enhanced: bool
    accept: When
    application: When


ALWAYS: Final = When(True, True)
NEVER: Final = When(False, False)
ORIGINAL: Final = Wanted(False, NEVER, ALWAYS)

_CONDITIONS: Final = {"AL": ALWAYS, "NE": NEVER, "ER": When(False, True), "SU": When(True, False)}
_ACCEPT: Final[dict[AckCode, AckCode]] = {"AA": "CA", "AE": "CE", "AR": "CR"}
ACCEPTS: Final = frozenset(_ACCEPT.values())
"""Codes of an accept answer."""
_NO_MSA: Final = frozenset({b"PID", b"EVN", b"ORC", b"OBR", b"NTE", b"SCH", b"TXA", b"QPD", b"MFI"})
"""Second segments of nearly all messages."""
_LONGEST: Final = 16  # bytes of a condition that are worth remembering


def wanted(head: Peek, mode: AckMode) -> Wanted:
    """The answers to the message with this header.

    mode: `auto` goes by MSH-15 and MSH-16; `original` does not look at them; `enhanced` takes a sender that fills
    neither as one that wants an accept answer, and no other. A condition that is not in the table means always: a
    sender that waits for nothing can pass over an answer, and one that waits in vain stands still.
    """
    fields = head.fields
    if mode == "original" or (mode == "auto" and len(fields) < 15):
        return ORIGINAL
    accept, application = head.raw(15), fields[15] if len(fields) > 15 else b""
    if not accept and not application and mode == "auto":  # nearly always
        return ORIGINAL
    return _by_header(accept[:_LONGEST], application[:_LONGEST], head.raw(2)[:2], mode)


@lru_cache(maxsize=64)
def _by_header(accept_ack: bytes, application_ack: bytes, marks: bytes, mode: AckMode) -> Wanted:
    accept, application = _condition(accept_ack, marks), _condition(application_ack, marks)
    if not accept and not application:
        return ORIGINAL if mode == "auto" else Wanted(True, ALWAYS, NEVER)
    return Wanted(True, _when(accept), _when(application))


def _condition(field: bytes, marks: bytes) -> str:
    """The first component of the first repetition."""
    for mark in (marks[1:2], marks[:1]):
        field = field.split(mark, 1)[0] if mark else field
    return field.decode("latin-1").strip().upper()


def _when(condition: str) -> When:
    """Empty in enhanced mode is never (MSH-15, MSH-16: 2.14.9.15 and 16)."""
    return _CONDITIONS.get(condition, ALWAYS) if condition else NEVER


def accept_code(code: AckCode) -> AckCode:
    """The accept answer's code that says the same: CA for AA, CE for AE, CR for AR."""
    return _ACCEPT.get(code, code)


def is_acknowledgement(head: Peek, frame: bytes | None = None) -> bool:
    """Whether a frame answers another message, so that it must never be acknowledged itself (2.9.2).

    It does if MSH-9.1 is ACK, or MCF (the delayed acknowledgement of up to v2.3), or if MSA follows the header, with
    SFT and UAC at most between them: the responses that carry data (ORR, ORL, RSP, ADR …). `head` is the frame's;
    without the frame only the type decides.
    """
    if head.type == "ACK" or head.type == "MCF":
        return True
    if frame is None:
        return False
    at = frame.find(b"\r", 0, 1024) + 1
    if frame[at : at + 3] in _NO_MSA:
        return False
    return head.ok and answers(frame) is not None
