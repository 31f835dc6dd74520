"""`remember:`: what a message brings that a later one's mapping may look up."""

from __future__ import annotations

from collections.abc import Iterable

from engine.config.filtering import Remember, Written
from engine.hl7.batch import read_batch
from engine.hl7.message import NULL
from engine.mapping.library import Context
from engine.mapping.problems import Place, Problems
from engine.mapping.v2 import path
from engine.mapping.v2.draft import Draft, canonical
from engine.mapping.v2.expression import Parser
from engine.mapping.v2.path import ALL, Around, Here, Path

Memory = tuple[str, str, dict[str, str]]
"""(store, key, values by name). Keys and values stand among the standard's delimiters, whoever sent them."""


class Memories:
    """All that one channel remembers."""

    def __init__(self, declared: Iterable[Remember], problems: Problems) -> None:
        self._each = [_Memory(one, problems) for one in declared]

    def remembered(self, raw: bytes, encoding: str = "auto", undeclared: str | None = None) -> list[Memory]:
        """What a message, or a batch, brings; in order. A later row of the same key replaces an earlier one's values.

        Raises `Unmappable` where the bytes are no text or no message.
        """
        if not self._each:
            return []
        context = Context("", "", {}, "UTC", encoding, 0, undeclared=undeclared)
        batch = read_batch(raw)
        drafts = [Draft(message, context) for message in (batch.messages if batch else (raw,))]
        return [row for draft in drafts for memory in self._each for row in memory.rows(draft)]


class _Memory:
    """One of them."""

    def __init__(self, declared: Remember, problems: Problems) -> None:
        self._name = declared.name
        key = _path(declared.key, problems)
        self._around = Around(key.segment, alone=True) if key else path.ALONE
        self._key = path.reader(key, self._around) if key else None
        self._segment = key.segment if key else ""
        found = {name: _path(each, problems) for name, each in declared.values.items()}
        self._values = {name: path.reader(each, self._around) for name, each in found.items() if each}
        when = declared.when
        self._when = Parser(when.text, _place(when), self._around, problems).condition() if when else None

    def rows(self, draft: Draft) -> Iterable[Memory]:
        assert self._key is not None
        for line in draft.all(self._segment):
            here = Here(line)
            key = canonical(self._key(draft, here), draft)
            if not key or key == NULL or (self._when and not self._when(draft, here)):
                continue
            read = {name: canonical(value(draft, here), draft) for name, value in self._values.items()}
            values = {name: value for name, value in read.items() if value and value != NULL}
            if values:
                yield self._name, key, values


def _path(written: Written, problems: Problems) -> Path | None:
    found = path.parse(written.text, _place(written), problems)
    if found is not None and (ALL in (found.nth, found.repetition) or found.nth):
        problems.add(_place(written), written.text, "one place, such as ORC-2 or PV1-3.1")
        return None
    return found


def _place(written: Written) -> Place:
    return Place(written.file, written.line, written.column)
