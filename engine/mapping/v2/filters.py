"""Filters: rules that say which messages a destination does not get, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.config.filtering import Rule
from engine.hl7.batch import read_batch
from engine.mapping.library import Context, Unmappable
from engine.mapping.problems import Place, Problems
from engine.mapping.source import Source, fields
from engine.mapping.v2.conditions import Test
from engine.mapping.v2.draft import Draft
from engine.mapping.v2.expression import Parser
from engine.mapping.v2.path import ALONE, NOWHERE


@dataclass(frozen=True, slots=True)
class Filtered:
    """A message that a rule holds back. reason: the rule's own words, never anything of the message."""

    reason: str


class Filter:
    """Rules in order: the first that holds a message back gives the reason."""

    def __init__(self, rules: Iterable[tuple[Test, bool, str]]) -> None:
        """(condition, whether it holds back what it fits or what it does not, reason)"""
        self._rules = list(rules)

    @staticmethod
    def of(rules: Iterable[Rule], problems: Problems) -> Filter:
        """The filter that a channel's file declares."""
        found = []
        for rule in rules:
            place = Place(rule.when.file, rule.when.line, rule.when.column)
            test = Parser(rule.when.text, place, ALONE, problems).condition()
            if test is not None:
                found.append((test, rule.drop, rule.reason))
        return Filter(found)

    def verdict(self, raw: bytes, encoding: str = "auto", undeclared: str | None = None) -> str | None:
        """Why a message is held back; None where it is not. A batch is held back if all of its messages are.

        Raises `Unmappable` where the bytes are no text or no message, or where only some of a batch are held back.
        """
        if not self._rules:
            return None
        context = Context("", "", {}, "UTC", encoding, 0, undeclared=undeclared)
        batch = read_batch(raw)
        if batch is None:
            return self.reason(Draft(raw, context))
        reasons = [self.reason(Draft(message, context)) for message in batch.messages]
        if len(set(map(bool, reasons))) > 1:
            wanted = "messages that all pass or all do not; a v2 mapping takes each by itself"
            raise Unmappable("mixed-batch", "the batch", wanted)
        return reasons[0] if reasons else None

    def reason(self, draft: Draft) -> str | None:
        """The same for a message that was read."""
        for test, drop, reason in self._rules:
            if test(draft, None) is drop:
                return reason
        return None


def read_filter(source: Source, problems: Problems) -> Filter:
    """The `filter:` of a mapping file: [{drop | keep: CONDITION, reason: WORDS}]."""
    found = []
    for item in source.items():
        got = fields(item, "a filter", ("drop", "keep", "reason"), ("reason",), problems)
        if not got:
            continue
        words = [word for word in ("drop", "keep") if word in got]
        if len(words) != 1:
            problems.add(item.place, f"a filter with {len(words)} of drop: and keep:", "one of them, with a condition")
            continue
        source = got[words[0]]
        place = source.place if source.plain else source.place.shifted(1)
        test = Parser(source.text, place, NOWHERE, problems).condition()
        if test is not None and "reason" in got:
            found.append((test, words[0] == "drop", got["reason"].text))
    return Filter(found)
