"""Regular expressions for conditions, of a kind that never takes long, whatever text it is tried on.

A pattern has at most 200 characters and must fit the whole text. What repeats is not repeated again; at most two parts
repeat without limit, and what repeats within limits has few ways to do so. No look-around, no references.
"""

from __future__ import annotations

import re
from typing import Any

_PARSER: Any = re._parser  # type: ignore[attr-defined]
_CODES: Any = re._constants  # type: ignore[attr-defined]
_REPEATS = (_CODES.MAX_REPEAT, _CODES.MIN_REPEAT, _CODES.POSSESSIVE_REPEAT)
_BEYOND = (_CODES.GROUPREF, _CODES.GROUPREF_EXISTS, _CODES.ASSERT, _CODES.ASSERT_NOT, _CODES.ATOMIC_GROUP)

_LONGEST = 200  # characters of a pattern
_UNLIMITED = 100  # repetitions from which on they count as unlimited
_OPEN = 2  # parts that repeat without limit
_WAYS = 10_000  # in which all other repeating parts together may fit
_LONGEST_TEXT = 4096  # characters; a few million steps at worst


class Pattern:
    """One pattern. Raises ValueError, with what would be right, where it will not do."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise ValueError(f"a pattern of at most {_LONGEST} characters")
        try:
            tree = _PARSER.parse(text)
            self._fullmatch = re.compile(text, re.DOTALL).fullmatch
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"a regular expression ({error})") from None
        self._open, self._ways = 0, 1
        self._walk(tree, False)
        if self._open > _OPEN or self._ways > _WAYS:
            raise ValueError(f"at most {_OPEN} of *, + and {{n,}}, and few other repetitions: it may take for ever")

    def fits(self, text: str) -> bool:
        """Whether it fits the whole text. Of a very long one only its beginning is looked at, and it must fit that."""
        return self._fullmatch(text, 0, _LONGEST_TEXT) is not None

    def _walk(self, items: Any, inside: bool) -> None:
        for code, argument in items:
            if code in _REPEATS:
                self._repeat(argument, inside)
            elif code is _CODES.SUBPATTERN:
                self._walk(argument[-1], inside)
            elif code is _CODES.BRANCH:
                if inside:
                    raise ValueError("no alternatives within a repetition: it may take for ever")
                self._ways *= len(argument[1])
                for branch in argument[1]:
                    self._walk(branch, inside)
            elif code in _BEYOND:
                raise ValueError("no look-around and no reference to a group")

    def _repeat(self, repeat: Any, inside: bool) -> None:
        low, high, body = repeat
        if inside and high != low:
            raise ValueError("no repetition within a repetition: it may take for ever")
        if high - low >= _UNLIMITED:
            self._open += 1
        else:
            self._ways *= high - low + 1
        self._walk(body, inside or high > 1)
