"""What an answer, or none, says about the message: one table for every status a FHIR server or its proxy may send.

Bodies are read for an OperationOutcome's codes only. `diagnostics` and `details.text` may repeat what was sent, so
they never become part of a reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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


# status → class. What is not here: any other 4xx and 3xx is the endpoint's own fault, any other 5xx is unknown.
_BY_STATUS: dict[int, Result] = {
    400: Result.NEVER,
    408: Result.UNKNOWN,
    409: Result.NOT_TAKEN,
    412: Result.NEVER,
    413: Result.NEVER,
    422: Result.NEVER,
    429: Result.NOT_TAKEN,
}


def classify(status: int, problem: Problem | None) -> Result:
    """The class of an answer that is not 2xx, for a request that writes.

    503 is "not taken" only where the server itself says so by an OperationOutcome: a proxy says 503 also when the
    server was cut off in mid-work. 400 without one was not written by a FHIR server, so the address is wrong.
    412 means many matches, or (with If-Match) that somebody else wrote: that is "later".
    """
    if status == 503:
        return Result.NOT_TAKEN if problem else Result.UNKNOWN
    if status == 400 and problem is None:
        return Result.FAULT
    if status == 412 and problem is not None and problem.code == "precondition-failed":
        return Result.NOT_TAKEN
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Result.UNKNOWN if status >= 500 else Result.FAULT


def trouble(status: int, problem: Problem | None, *, writes: bool, after: float | None = None) -> Trouble:
    """The end of an attempt that was answered so. A request that only reads never leaves anything unknown."""
    result = classify(status, problem)
    if result is Result.UNKNOWN and not writes:
        result = Result.NOT_TAKEN
    said = f"HTTP {status} {problem}" if problem else f"HTTP {status} without an outcome"
    code, request_id = (problem.code, problem.request_id) if problem else ("", "")
    return Trouble(result, said.strip(), status=status, code=code, after=after, request_id=request_id)
