"""The steps of a v2 mapping: read from YAML, checked, and compiled to functions.

Each step is a mapping with one verb, what belongs to that, and perhaps `when:`.

    - set: MSH-5                     - copy: OBR-2               - move: PID-2
      to: "{PID-3.4}-EMR"              to: ORC-2                   to: PID-3[+]
    - delete: NTE                    - delete: OBR               - add: ZPI
                                       with: group                 after: PID
    - translate: OBX-8               - lookup: OBR-27.6          - each: OBX
      table: AcmeFlags                 in: acme-orders             when: OBX-2 = 'NM'
      unmapped: keep                   key: OBR-2.1                steps: […]
    - split: OBR                       value: priority
                                       missing: keep

What is not valued is never set: a value goes only by `delete`. HL7's null is copied, and set as to: '""'.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.hl7.message import HEADERS
from engine.mapping.library import Unmappable
from engine.mapping.problems import Place, Problems
from engine.mapping.source import Source, fields, texts
from engine.mapping.v2 import acts, groups, path
from engine.mapping.v2.acts import Step
from engine.mapping.v2.conditions import Test, Value
from engine.mapping.v2.draft import Draft
from engine.mapping.v2.expression import Parser, template
from engine.mapping.v2.path import ALL, NOWHERE, Around, Path
from engine.mapping.v2.tables import Table

VERBS = {
    "set": (("to",), ("to",)),
    "copy": (("to",), ("to",)),
    "move": (("to",), ("to",)),
    "delete": (("with",), ()),
    "add": (("after",), ("after",)),
    "translate": (("from", "table", "column", "default", "unmapped"), ("table",)),
    "lookup": (("in", "key", "value", "missing"), ("in", "key", "value")),
    "each": (("steps",), ("steps",)),
    "split": ((), ()),
}
"""Verb → the keys that may stand beside it, those that must."""


@dataclass(frozen=True, slots=True)
class Split:
    """A step after which there are several messages."""

    name: str
    when: Test | None

    def parts(self, draft: Draft) -> list[Draft]:
        """One draft for each group of the name; the draft itself where there is one only."""
        if self.when and not self.when(draft, None):
            return [draft]
        if draft.groups.specimens_first and groups.rank(self.name) == groups.ORDER:
            raise Unmappable("specimens-first", "SPM", "orders before their specimens, to split by them")
        found = groups.parts(draft.lines, self.name)
        return [draft] if len(found) < 2 else [draft.branch(lines, 1, 1) for lines in found]


@dataclass(slots=True)
class Reading:
    """What reads steps: the tables there are, and what has been used of them."""

    tables: dict[str, Table]
    problems: Problems
    used: set[str] = field(default_factory=set)
    recalls: dict[str, set[str]] = field(default_factory=dict)
    declares_charset: bool = False

    def steps(self, source: Source, around: Around = NOWHERE) -> list[Step | Split]:
        """The steps of a list, in order; those with mistakes are left out."""
        if source.kind != "list":
            self.problems.add(source.place, f"a {source.kind}", "a list of steps, each with - in front")
            return []
        found = (self._step(item, around) for item in source.items())
        return [step for step in found if step is not None]

    def condition(self, source: Source, around: Around = NOWHERE) -> Test | None:
        """A condition, written as text."""
        if source.kind != "scalar" or not source.text:
            self.problems.add(source.place, f"a {source.kind}", "a condition such as PID-8 = 'F'")
            return None
        return Parser(source.text, text_place(source), around, self.problems).condition()

    def _step(self, source: Source, around: Around) -> Step | Split | None:
        verbs = [key for key, _ in source.pairs() if key.text in VERBS]
        if source.kind != "mapping" or len(verbs) != 1:
            known = f"one of {', '.join(VERBS)}"
            first = source.pairs()[0][0] if source.pairs() and not verbs else None
            if first is not None:
                self.problems.unknown(first.place, "step", first.text, VERBS)
            else:
                self.problems.add(
                    source.place, f"a step with {len(verbs)} verbs" if verbs else f"a {source.kind}", known
                )
            return None
        verb = verbs[0].text
        more, needed = VERBS[verb]
        before = len(self.problems.found)
        got = fields(source, verb, (verb, *more, "when"), (verb, *needed), self.problems)
        when = self.condition(got["when"], around) if "when" in got and verb != "each" else None
        if not {verb, *needed} <= got.keys():
            return None
        step: Step | Split | None = getattr(self, f"_{verb}")(got, around)
        if step is None or len(self.problems.found) > before:
            return None
        if isinstance(step, Split):
            return Split(step.name, when)
        return step if when is None else acts.conditional(step, when)

    def _set(self, got: dict[str, Source], around: Around) -> Step | None:
        to = self._target(got["set"])
        value = self._template(got["to"], around)
        return None if to is None or value is None else acts.put(to, around, value)

    def _copy(self, got: dict[str, Source], around: Around) -> Step | None:
        return self._transfer(got["copy"], got["to"], around, False)

    def _move(self, got: dict[str, Source], around: Around) -> Step | None:
        return self._transfer(got["move"], got["to"], around, True)

    def _transfer(self, source: Source, to: Source, around: Around, moves: bool) -> Step | None:
        start, end = self._path(source), self._target(to)
        if start is not None and ALL in (start.nth, start.repetition):
            self.problems.add(source.place, start.text, "one place; each: goes over several")
            return None
        if start is None or end is None:
            return None
        return acts.transfer(start, end, around, moves)

    def _delete(self, got: dict[str, Source], around: Around) -> Step | None:
        found = path.parse(got["delete"].text, text_place(got["delete"]), self.problems, segment=True)
        if found is None:
            return None
        both = "with: group (and what belongs to it, such as its NTE) or with: nothing"
        if "with" in got and (got["with"].text not in ("group", "nothing") or found.field):
            self.problems.add(got["with"].place, f"with {got['with'].text}", f"for a segment, {both}")
            return None
        if not found.field and "with" not in got and groups.leads(found.segment):
            self.problems.add(found.place, f"delete {found.text} alone", both)
            return None
        if found.field:
            return acts.clear(found, around)
        if groups.rank(found.segment) == groups.HEADER and found.segment in HEADERS:
            self.problems.add(found.place, found.text, "a segment that a message can be without")
            return None
        return acts.remove(found, around, "with" in got and got["with"].text == "group")

    def _add(self, got: dict[str, Source], around: Around) -> Step | None:
        new, after = got["add"], path.parse(got["after"].text, text_place(got["after"]), self.problems, segment=True)
        name = path.parse(new.text, text_place(new), self.problems, segment=True)
        if name is None or after is None:
            return None
        if name.field or name.nth or name.segment in HEADERS or after.field:
            self.problems.add(new.place, f"add {new.text} after {after.text}", "the names of segments, such as NTE")
            return None
        return acts.add(name.segment, after, around)

    def _translate(self, got: dict[str, Source], around: Around) -> Step | None:
        to = self._target(got["translate"], more=False)
        table = self.tables.get(got["table"].text)
        if table is None:
            self.problems.unknown(got["table"].place, "table", got["table"].text, self.tables)
        if to is None or table is None:
            return None
        self.used.add(table.name)
        keys = [self._value(item, around) for item in texts(got["from"])] if "from" in got else None
        if keys is not None and len(keys) != len(table.keys):
            self.problems.add(got["from"].place, f"{len(keys)} values", f"{len(table.keys)}: {', '.join(table.keys)}")
        if keys is None and len(table.keys) > 1:
            self.problems.add(got["translate"].place, "translate without from", f"from: [{', '.join(table.keys)}]")
        column = got["column"].text if "column" in got else table.values[0]
        if column not in table.values:
            self.problems.unknown(got["column"].place, f"column of {table.name}", column, table.values)
            return None
        default = self._template(got["default"], around) if "default" in got else None
        unmapped = self._unmapped(got, table)
        return acts.translation(to, around, keys, table, table.values.index(column), default, unmapped)

    def _unmapped(self, got: dict[str, Source], table: Table) -> str:
        if "unmapped" not in got:
            if "default" not in got and table.otherwise is None:
                wanted = "unmapped: keep, clear or refuse, or default: and a value"
                self.problems.add(got["translate"].place, "translate without unmapped", wanted)
            return "refuse"
        return self._word(got["unmapped"], "unmapped", ("keep", "clear", "refuse"))

    def _lookup(self, got: dict[str, Source], around: Around) -> Step | None:
        to, key = self._target(got["lookup"]), self._path(got["key"])
        missing = (
            self._word(got["missing"], "missing", ("keep", "clear", "refuse", "later")) if "missing" in got else ""
        )
        if not missing:
            self.problems.add(got["lookup"].place, "lookup without missing", "missing: keep, clear, refuse or later")
        if to is None or key is None:
            return None
        store, name = got["in"].text, got["value"].text
        self.recalls.setdefault(store, set()).add(name)
        return acts.lookup(to, key, around, (store, name), missing)

    def _each(self, got: dict[str, Source], around: Around) -> Step | None:
        over = path.parse(got["each"].text, text_place(got["each"]), self.problems, segment=True)
        if over is None:
            return None
        if over.component or over.repetition not in (0, ALL) or over.nth not in (0, ALL):
            self.problems.add(over.place, over.text, "a segment or a field, such as OBX or PID-3")
            return None
        inside = Around(over.segment, over.field)
        when = self.condition(got["when"], inside) if "when" in got else None
        steps = self.steps(got["steps"], inside)
        if any(isinstance(step, Split) for step in steps):
            self.problems.add(got["steps"].place, "split within each", "split among the steps of the mapping")
        inner = [step for step in steps if not isinstance(step, Split)]
        return acts.walk(over, around, when, inner)

    def _split(self, got: dict[str, Source], around: Around) -> Split | None:
        found = path.parse(got["split"].text, text_place(got["split"]), self.problems, segment=True)
        if found is None:
            return None
        if found.field or found.nth or groups.rank(found.segment) in (groups.HEADER, groups.COMPANION):
            self.problems.add(found.place, found.text, "a segment that others belong to, such as OBR, PID or OBX")
            return None
        return Split(found.segment, None)

    def _path(self, source: Source) -> Path | None:
        return path.parse(source.text, text_place(source), self.problems)

    def _target(self, source: Source, more: bool = True) -> Path | None:
        found = path.parse(source.text, text_place(source), self.problems, more=more)
        if found is None:
            return None
        self.declares_charset = self.declares_charset or (found.segment, found.field) == ("MSH", 18)
        return found

    def _value(self, source: Source, around: Around) -> Value | None:
        return Parser(source.text, text_place(source), around, self.problems).value()

    def _template(self, source: Source, around: Around) -> Value | None:
        if source.kind != "scalar" or not source.text:
            self.problems.add(
                source.place, "nothing" if source.kind == "scalar" else f"a {source.kind}", "a text; delete: clears"
            )
            return None
        return template(source.text, text_place(source), around, self.problems)

    def _word(self, source: Source, what: str, known: tuple[str, ...]) -> str:
        if source.text not in known:
            self.problems.unknown(source.place, what, source.text, known)
        return source.text


def text_place(source: Source) -> Place:
    """Where a scalar's text begins."""
    return source.place if source.plain else source.place.shifted(1)
