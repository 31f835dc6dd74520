"""How the files that we write are called. Pure.

A file's name follows from its message alone, so that the same message is the same file whenever it is written again.
"""

from __future__ import annotations

import re
from string import Formatter

from engine.files.folder import LONGEST_NAME, plain

PLACES = ("channel", "sequence", "control_id")
LONGEST_ID = 40  # characters of a control id that stand in a name

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


class Naming:
    """A name such as `{channel}-{sequence}.hl7`.

    `{sequence}` has ten digits, so that files in the order of their names are in the order of their messages; after a
    restore of the ledger `1r` stands before them, after the next one `2r`. Of
    `{control_id}` (MSH-10) only letters, digits, `-` and `_` are kept.
    """

    def __init__(self, template: str, channel: str) -> None:
        """Raises ValueError where two messages could get one name, or where it would be no file of the folder."""
        try:
            parts = [(text, name, spec, kind) for text, name, spec, kind in Formatter().parse(template)]
        except ValueError:
            raise ValueError(f"found the file name {template!r}; its braces do not match") from None
        for _, name, spec, kind in parts:
            if name is not None and (name not in PLACES or spec or kind):
                raise ValueError(f"found {{{name}}} in the file name {template!r}; expected one of {_words(PLACES)}")
        if not any(name == "sequence" for _, name, _, _ in parts):
            raise ValueError(
                f"found the file name {template!r}; expected {{sequence}} in it: without it two messages would be one"
                " file"
            )
        self._template = template
        self._channel = channel
        longest = self.of(10**10 - 1, 99, 99, "x" * LONGEST_ID, 99)
        if not plain(longest) or not longest.isprintable():
            raise ValueError(f"found the file name {template!r}; expected no slash, and no dot at its beginning")
        if len(longest.encode()) > LONGEST_NAME:
            raise ValueError(f"found the file name {template!r}; expected at most {LONGEST_NAME} bytes, all filled in")

    def of(self, seq: int, part: int, delivery: int, control_id: str | None, restores: int = 0) -> str:
        """The name of a message's part, at its first delivery or at one that a person has asked for. restores: of the
        ledger before the message came; each gives numbers a second time."""
        sequence = f"{restores}r{seq:010}" if restores else f"{seq:010}"
        if (part, delivery) != (1, 1):
            sequence += f".{part}.{delivery}"
        return self._template.format(
            channel=self._channel, sequence=sequence, control_id=_UNSAFE.sub("_", control_id or "none")[:LONGEST_ID]
        )


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
