"""How attempts over MLLP and into folders end, and what each end says about the message: data. What FHIR's ends say
stands in `engine.fhir.failure`; what follows from a class, in `engine.delivery.decision`.

The line that matters is between what is provably not taken, and may be sent again, and what may have been taken.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from engine.ledger.outcome import Outcome, Result


class End(Enum):
    """What happened at the end of an attempt."""

    TAKEN = "it said that it has it"
    WRITTEN = "every byte was written, and no answer is due"
    LATER = "it said no, and that may pass"
    LOCKED = "it said no, as somebody works on the record"
    NEVER = "it said no, and would again"
    ILLEGIBLE = "what came is no acknowledgement"
    ANOTHERS = "the answer names another message"
    STRANGE = "the answer's code means nothing that is known"
    UNSENT = "the peer has nothing of it"
    LOST = "it was written, at least in part, and no whole answer came"
    NO_PLACE = "nothing could be written into the folder"
    SHUT_PLACE = "the folder does not let us in"
    DOUBTED = "it was to get its name in the folder, and nothing said whether it did"
    NAME_TAKEN = "another file has its name"


class Class(NamedTuple):
    """trouble: whether the endpoint as a whole may be down, so that it counts towards its breaker. passes: as of an
    `Outcome`."""

    result: Result
    trouble: bool
    why: str
    passes: bool = False


CLASSES: dict[End, Class] = {
    End.TAKEN: Class(Result.DELIVERED, False, "its word, for this very message"),
    End.WRITTEN: Class(Result.DELIVERED, False, "more cannot be known of a peer that does not answer"),
    End.LATER: Class(Result.NOT_TAKEN, False, "AE and CE: may be repeated (HL7 v2 chapter 2, 2.9)"),
    End.LOCKED: Class(Result.NOT_TAKEN, False, "people need minutes; given up, the order would be lost", passes=True),
    End.NEVER: Class(Result.NEVER, False, "AR and CR: not as it is; or an error that no repetition mends"),
    End.ILLEGIBLE: Class(Result.UNKNOWN, False, "it may have been taken: nothing says that it was not"),
    End.ANOTHERS: Class(Result.UNKNOWN, False, "a late answer must not be taken for this message's"),
    End.STRANGE: Class(Result.UNKNOWN, False, "neither a yes nor a no"),
    End.UNSENT: Class(Result.NOT_TAKEN, True, "no connection, or the peer's own NAK: nothing can be doubled"),
    End.LOST: Class(Result.UNKNOWN, True, "a time-out or a reset says nothing about what came before it"),
    End.NO_PLACE: Class(Result.NOT_TAKEN, True, "no file has its name yet"),
    End.SHUT_PLACE: Class(Result.FAULT, False, "rights or credentials: no message is to blame"),
    End.DOUBTED: Class(Result.UNKNOWN, True, "the connection ended between the question and its answer"),
    End.NAME_TAKEN: Class(Result.NEVER, False, "nothing that is there is overwritten, today or tomorrow"),
}

ERRORS: dict[str, End] = {
    "100": End.NEVER,  # segment sequence error
    "101": End.NEVER,  # required field missing
    "102": End.NEVER,  # data type error
    "103": End.NEVER,  # table value not found
    "104": End.NEVER,  # value too long
    "200": End.NEVER,  # unsupported message type
    "201": End.NEVER,  # unsupported event code
    "202": End.NEVER,  # unsupported processing id
    "203": End.NEVER,  # unsupported version id
    "204": End.NEVER,  # unknown key identifier
    "205": End.NEVER,  # duplicate key identifier
    "206": End.LOCKED,  # application record locked
    "207": End.LATER,  # application internal error
}
"""HL7 table 0357: what a no with this error means, where its code alone does not say never. Any other error: LATER."""


def outcome(end: End, reason: str = "", answer: bytes | None = None) -> Outcome:
    """The outcome of an attempt that ended so."""
    of = CLASSES[end]
    return Outcome(of.result, reason, answer, trouble=of.trouble, passes=of.passes)
