"""Conditions on identifiers and tags, encoded so that a server reads the value that was meant.

Two encodings lie on top of each other: FHIR's own (https://hl7.org/fhir/R4/search.html#escaping: `\\`, `,`, `$`, `|`
get a backslash in front) and the percent-encoding of a query, without which a `+` reads as a space, nothing matches,
and a conditional create makes a duplicate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

from engine.fhir.failure import Trouble
from engine.ledger.outcome import Result

MESSAGE_TAG = "urn:interlock:message"

_PLAIN = re.compile(r"[A-Za-z0-9._~/:@-]+")  # what stands for itself in a query (RFC 3986 section 3.4) and in FHIR
_SAFE = "/:@"
_ESCAPES = str.maketrans({"\\": "\\\\", ",": "\\,", "$": "\\$"})


def token(system: str, value: str) -> str:
    """`system|value`, escaped and percent-encoded.

    Raises Trouble(NEVER) for what no condition can say: an identifier without a system, without a value, or with a
    vertical bar inside (Medplum splits there, escaped or not, and would find nothing: a duplicate at every delivery).
    """
    if not system or not value or "|" in system or "|" in value:
        raise Trouble(Result.NEVER, "an identifier without a system or value, or with a vertical bar, is no condition")
    return f"{_encoded_system(system)}%7C{value if _PLAIN.fullmatch(value) else _encoded(value)}"


@lru_cache(maxsize=1024)
def _encoded_system(system: str) -> str:
    return _encoded(system)


def _encoded(text: str) -> str:
    return quote(text.translate(_ESCAPES), safe=_SAFE)


def identifiers(keys: Iterable[tuple[str, str]]) -> str:
    """A search for resources that have any of these identifiers; also the form of If-None-Exist."""
    return "identifier=" + ",".join([token(system, value) for system, value in keys])


def tagged(code: str, system: str = MESSAGE_TAG) -> str:
    """A search for resources that bear the mark of the message `code`."""
    return "_tag=" + token(system, code)
