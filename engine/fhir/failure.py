"""What an answer, or none, says about the message: one table for every status a FHIR server or its proxy may send.

Bodies are read for an OperationOutcome's codes only. `diagnostics` and `details.text` may repeat what was sent, so
they never become part of a reason.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import aiohttp
import orjson

from engine.ledger.outcome import Result
from engine.mllp.dial import why

TRACING = "https://medplum.com/fhir/StructureDefinition/tracing"
LONGEST_REASON = 200
DANGLING = "invalid-reference"
LOCAL = "local"  # trouble of our own making, which says nothing about the server

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_EXPRESSION = re.compile(r"[A-Za-z][A-Za-z0-9_.\[\]()-]{0,100}")


class Trouble(Exception):
    """Something that ends an attempt: its class, a reason without patient data, what the peer wishes.

    status: the HTTP status, or 0 where none came. code: the outcome's id or first issue code ('multiple-matches').
    after: seconds to wait before another attempt. request_id: what the server's own log calls the request.
    """

    def __init__(
        self,
        result: Result,
        reason: str,
        *,
        status: int = 0,
        code: str = "",
        after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason
        self.status = status
        self.code = code
        self.after = after
        self.request_id = request_id

    @property
    def of_endpoint(self) -> bool:
        """The server as a whole seems to be down or busy; nothing was sent that could have been taken."""
        return self.result is Result.NOT_TAKEN and self.code != LOCAL and not (self.gone or self.stale)

    @property
    def gone(self) -> bool:
        """A resource that was addressed by its id, or referred to, is not there (any more)."""
        return self.status in (404, 410) or self.code == DANGLING

    @property
    def stale(self) -> bool:
        """Somebody else wrote meanwhile: read, merge and write again."""
        return self.status == 409 or (self.status == 412 and self.code != "multiple-matches")


def unreached(error: Exception) -> str:
    """Why there was no connection, in the words that MLLP has for it; else the kind of the error."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        return why(cause) if isinstance(cause, OSError) else "tls: certificate not trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return why(error.os_error)
    if isinstance(error, TimeoutError):
        return "connect timed out" if isinstance(error, aiohttp.ConnectionTimeoutError) else "answer timed out"
    return type(error).__name__


@dataclass(frozen=True, slots=True)
class Problem:
    """The parts of an OperationOutcome that can't hold patient data."""

    id: str
    codes: tuple[str, ...]
    expressions: tuple[str, ...]
    request_id: str
    dangling: bool = False

    @property
    def code(self) -> str:
        if self.dangling:
            return DANGLING
        return self.id or (self.codes[0] if self.codes else "")

    def __str__(self) -> str:
        words = [self.id, *self.codes[:3], *self.expressions[:3]]
        return " ".join(dict.fromkeys(word for word in words if word))[:LONGEST_REASON]


def parse_problem(body: bytes) -> Problem | None:
    """The problem in an OperationOutcome, or None when the body is none (a proxy's page)."""
    try:
        outcome = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return problem_of(outcome)


def problem_of(outcome: Any) -> Problem | None:
    if not isinstance(outcome, dict) or outcome.get("resourceType") != "OperationOutcome":
        return None
    issues = [issue for issue in outcome.get("issue") or () if isinstance(issue, dict)]
    return Problem(
        _clean(_CODE, outcome.get("id")),
        tuple(code for issue in issues for code in _codes(issue)),
        tuple(_clean(_EXPRESSION, text) for issue in issues for text in issue.get("expression") or ()),
        _request_id(outcome),
        any(_is_dangling(issue) for issue in issues),
    )


def _is_dangling(issue: dict[str, Any]) -> bool:
    """Medplum's words for a reference to what is not there; it has no code of its own for that."""
    details = issue.get("details")
    text = details.get("text") if isinstance(details, dict) else None
    return isinstance(text, str) and text.startswith("Invalid reference")


def _codes(issue: dict[str, Any]) -> Iterator[str]:
    yield _clean(_CODE, issue.get("code"))
    details = issue.get("details")
    for coding in (details.get("coding") or ()) if isinstance(details, dict) else ():
        yield _clean(_CODE, coding.get("code"))


def _clean(shape: re.Pattern[str], text: Any) -> str:
    return text if isinstance(text, str) and shape.fullmatch(text) else ""


def _request_id(outcome: dict[str, Any]) -> str:
    for extension in outcome.get("extension") or ():
        if isinstance(extension, dict) and extension.get("url") == TRACING:
            for part in extension.get("extension") or ():
                if isinstance(part, dict) and part.get("url") == "requestId":
                    return _clean(_CODE, part.get("valueId"))
    return ""


class Said(Enum):
    """Who wrote the answer, as its body shows."""

    ANYTHING = "whatever the body is"
    OUTCOME = "a FHIR server, by an OperationOutcome"
    NO_OUTCOME = "a proxy, or another server"


class Answered(NamedTuple):
    """A kind of answer to a request that writes. when: an outcome's code, or who wrote the answer."""

    statuses: Container[int]
    when: str | Said
    result: Result
    why: str


class Absence(NamedTuple):
    """What no answer to a request that writes means, by the error that the HTTP client raised."""

    errors: tuple[type[Exception], ...]
    result: Result
    why: str


ANSWERS = (
    Answered((409,), Said.ANYTHING, Result.NOT_TAKEN, "somebody else wrote at the same time: ours was rolled back"),
    Answered((429,), Said.ANYTHING, Result.NOT_TAKEN, "the quota is used up"),
    Answered((503,), Said.OUTCOME, Result.NOT_TAKEN, "the server itself says later"),
    Answered((503,), Said.NO_OUTCOME, Result.UNKNOWN, "a proxy says it too when the server is cut off in mid-work"),
    Answered((412,), "precondition-failed", Result.NOT_TAKEN, "If-Match: somebody else wrote; read and merge again"),
    Answered((412,), Said.ANYTHING, Result.NEVER, "several match the condition: a person decides which is meant"),
    Answered((400,), Said.NO_OUTCOME, Result.FAULT, "no FHIR server wrote it: the address is another's"),
    Answered((400, 413, 422), Said.ANYTHING, Result.NEVER, "the message will be no other the next time"),
    Answered((408,), Said.ANYTHING, Result.UNKNOWN, "whoever lost patience did not see what was done"),
    Answered(range(300, 500), Said.ANYTHING, Result.FAULT, "credentials, rights or address: no message is to blame"),
    Answered(range(1000), Said.ANYTHING, Result.UNKNOWN, "500, 502, 504: in mid-work; or no status that there is"),
)
"""The first row that fits holds. 401 is one that a fresh token was answered with."""

ABSENCES = (
    Absence((aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError), Result.NOT_TAKEN, "no byte left"),
    Absence((aiohttp.ClientError, TimeoutError, OSError), Result.UNKNOWN, "bytes may have arrived"),
)
"""The first row that fits holds."""


def classify(status: int, problem: Problem | None) -> Result:
    """The class of an answer that is not 2xx, for a request that writes."""
    return next(row.result for row in ANSWERS if status in row.statuses and _fits(row.when, problem))


def _fits(when: str | Said, problem: Problem | None) -> bool:
    if isinstance(when, Said):
        return when is Said.ANYTHING or (when is Said.OUTCOME) is (problem is not None)
    return problem is not None and problem.code == when


def unanswered(error: Exception, *, writes: bool) -> Trouble:
    """The end of an attempt that got no answer. A request that only reads never leaves anything unknown."""
    result = next(row.result for row in ABSENCES if isinstance(error, row.errors))
    if result is Result.NOT_TAKEN:
        return Trouble(result, unreached(error))
    return Trouble(result if writes else Result.NOT_TAKEN, f"no answer: {type(error).__name__}")


def trouble(status: int, problem: Problem | None, *, writes: bool, after: float | None = None) -> Trouble:
    """The end of an attempt that was answered so. A request that only reads never leaves anything unknown."""
    result = classify(status, problem)
    if result is Result.UNKNOWN and not writes:
        result = Result.NOT_TAKEN
    said = f"HTTP {status} {problem}" if problem else f"HTTP {status} without an outcome"
    code, request_id = (problem.code, problem.request_id) if problem else ("", "")
    return Trouble(result, said.strip(), status=status, code=code, after=after, request_id=request_id)
