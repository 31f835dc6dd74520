"""One row that sets an element to a value: converted, looked up, decided, referred to, or walked over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.mapping.convert import CONVERSIONS
from engine.mapping.expression import Call, Name, Path, Text, Value
from engine.mapping.model import Assign, Constant, Decision, Row
from engine.mapping.scope import COMPONENT, FIELD, REPETITION, TEXT, Note, Raw, Scope
from engine.mapping.targets import Found
from engine.mapping.uses import Uses, leaves, shown
from engine.mapping.writer import Writer

if TYPE_CHECKING:
    from engine.mapping.emit import Emitter

WHOLE = frozenset({"string", "markdown"})
"""Types that take a value as it stands; the others take its first leaf."""

KNOWN = {"dateTime": "X.times.get", "instant": "X.instants.get", "decimal": "X.numbers.get"}
"""What looks among the times and numbers that the connection has seen before."""

URIS = frozenset({"authority", "coding_system", "local"})
"""Functions whose result needs no check."""


class Assigns:
    """Writes for the rows of an emitter."""

    def __init__(self, emitter: Emitter, uses: Uses) -> None:
        self.emitter, self.uses = emitter, uses
        self.files, self.schema, self.problems = emitter.files, emitter.schema, emitter.problems
        self.shop, self.values, self.targets = emitter.shop, emitter.values, emitter.targets

    def assign(self, row: Assign, scope: Scope, out: Writer, before: Row | None) -> None:
        """before: the row that is always written in front of this one."""
        link = self._link(row.values[0], scope) if len(row.values) == 1 else None
        if not row.target.steps:
            self.uses.merge(row, scope, out)
            return
        found = self.targets.resolve(row.target, scope)
        if not found:
            return
        if scope.nulls and scope.root and len(row.values) == 1:
            self._nulled(row, found, scope, out)
        if row.use is not None and self.uses.of_segment(row.use):
            self.uses.party(row, found, scope, out)
        elif link:
            self._refer(row.values[0], link, found, scope, out)
        elif row.decide:
            self._decide(row, found, scope, out)
        elif len(row.values) > 1:
            self.problems.add(row.place, "several values", "decide and the name of a decision table")
        elif row.rows:
            self._walk(row, found, scope, out)
        elif isinstance(row.values[0], Name) and row.values[0].name == "received":
            self.targets.store(found, scope, self.values.raw(row.values[0], scope).code, out)  # an instant already
        else:
            self._convert(row, found, scope, out, before)

    def _link(self, value: Value, scope: Scope) -> str | None:
        if not isinstance(value, Name) or (value.name in scope.names and not value.how):
            return None
        return scope.entry(value.name, value.how)

    def _nulled(self, row: Assign, found: Found, scope: Scope, out: Writer) -> None:
        """A field that is explicitly null declares its element empty (2.5.3): of elements that repeat those of the use
        or type that the row gives them, `telecom[home]`, `participant[ATND]`."""
        value = row.values[0]
        if not isinstance(value, Path) or value.component or value.dotted or found[0][2]:
            return
        if found[0][1].many:
            kinds = [one.code for one in row.rows if isinstance(one, Constant) and str(one.target) in ("use", "type")]
            cleared = found[0][0] + (f"[{kinds[0]}]" if kinds else "")
        else:
            cleared = ".".join(key for key, _, _ in found)
        variable = scope.fields(value)
        if variable is not None:
            with out.block(f"if {value.field} in nulls({variable}):"):
                out(f"X.cleared.add({cleared!r})")

    def _refer(self, value: Value, code: str, found: Found, scope: Scope, out: Writer) -> None:
        assert isinstance(value, Name)
        element = found[-1][1]
        if element.type != "Reference":
            self.problems.add(value.place, f"{value.name}, a resource", f"a value; {element.name} takes {element.type}")
            return
        top = scope.root or "r"
        if value.how == "every":
            name = self.shop.temporary()
            with out.block(f"if {name} := {code}:"):
                self.targets.store(found, scope, name, out, once=True, extend=True)
        elif value.how == "each":
            with out.block(f"if {code}:"):
                self.targets.store(
                    found,
                    scope,
                    f"[e.reference if e.key else link(X, {top}, e) for e in {code}]",
                    out,
                    once=True,
                    extend=True,
                )
        elif value.how in ("first", "only"):
            with out.block(f"if {code}:" if value.how == "first" else f"if len({code}) == 1:"):
                self.targets.store(found, scope, f"link(X, {top}, {code}[0])", out, once=True)
        else:
            with out.block(f"if {code} is not None:"):
                reference = f"{code}.reference if {code}.key else link(X, {top}, {code})"
                self.targets.store(found, scope, reference, out, once=True)

    def _decide(self, row: Assign, found: Found, scope: Scope, out: Writer) -> None:
        assert row.decide is not None
        name, place = row.decide
        decision = self.files.decisions.get(name)
        if decision is None:
            self.problems.unknown(place, "decision", name, self.files.decisions)
            return
        if len(row.values) != len(decision.inputs):
            self.problems.add(
                row.place, f"{len(row.values)} values", f"{len(decision.inputs)}: {', '.join(decision.inputs)}"
            )
            return
        self.shop.unit.used[f"decision {name}"] = decision.source
        element = found[-1][1]
        for result, at in [(r, p) for _, r, p in decision.rows] + [(decision.otherwise, decision.place)]:
            if result and element.codes is not None and result not in element.codes:
                self.problems.unknown(at, f"code of {element.name}", result, element.codes)
        rows = self.shop.constant([(cells, result) for cells, result, _ in decision.rows], "D")
        memo = f"M_{self.shop.constant((rows, decision.otherwise), 'D')}"
        self.shop.unit.namespace[memo] = {}
        cells = self.shop.temporary()
        value = self.shop.temporary()
        texts = ", ".join(self._cell(decision, index, value, scope) for index, value in enumerate(row.values))
        out(f"{cells} = ({texts},)")
        out(f"{value} = {memo}.get({cells})")
        with out.block(f"if {value} is None:"):
            out(f"{value} = decide({rows}, {decision.otherwise!r}, {cells}, {memo})")
        note = self.values.note(row.values, scope)
        with out.block(f"if {value}:"):
            if element.type == "boolean":
                self.targets.store(found, scope, f'{value} == "true"', out, note=note)
            else:
                self.targets.store(found, scope, value, out, note=note)

    def _cell(self, decision: Decision, index: int, value: Value, scope: Scope) -> str:
        """A value as a decision looks at it: where all that counts is whether there is one, no more than that."""
        text = self.values.text(value, scope)
        wanted = {cell for cells, _, _ in decision.rows for cell in cells[index]}
        return f"({text} and '1')" if wanted <= {"any", "valued", "empty"} else text

    def _walk(self, row: Assign, found: Found, scope: Scope, out: Writer) -> None:
        """One element for each repetition, filled by rows."""
        raw = self.values.raw(row.values[0], scope)
        walked = row.values[0]
        many = any(element.many for _, element, _ in found)

        def fill(one: Raw) -> None:
            name = self.shop.temporary()
            out(f"{name} = {{}}")
            inner = scope.inside(name, found[-1][1].type, this=one, root="")
            if isinstance(walked, Path) and not walked.component:
                inner.walked = scope.walked | {(walked.owner, walked.field): one}
            self.emitter.rows(row.rows, inner, out)
            self.emitter.needed(row.needs, found[-1][1].type, row.rows)
            with self.emitter.whole_object(name, found[-1][1].type, row.needs, out):
                self.targets.store(found, scope, name, out)

        self._each(raw, many, out, fill, self.uses.source(row, scope))

    def _said(self, row: Assign, before: Row | None, scope: Scope) -> str:
        """The field that the row before has made the same of: two segments often have one number. Where what is made
        is traced, it is made again, since both have said it."""
        if not isinstance(before, Assign) or before.when or self.shop.full or self.shop.traced:
            return ""
        if row.table or len(row.target.steps) > 1 or _made_by(before) != _made_by(row):
            return ""
        raw = self.values.raw(before.values[0], scope)
        return raw.code if isinstance(before.values[0], Path) and raw.level == FIELD else ""

    def _each(
        self,
        raw: Raw,
        many: bool,
        out: Writer,
        fill: Callable[[Raw], None],
        note: Note | None,
        said: str = "",
        leaf: bool = False,
    ) -> None:
        """For all repetitions where the target repeats, else for the first. said: where the same may stand. leaf: no
        more is read of it than its first leaf."""
        name = self.shop.temporary()
        first = note.first() if note else None
        if raw.level == FIELD and many:
            value = self.shop.temporary()
            with out.block(
                f"if ({value} := {raw.code}) and {value} != {said}:" if said else f"if {value} := {raw.code}:"
            ):
                loop = (
                    f"X.repetitions({value})"
                    if self.shop.full
                    else f'{value}.split("~") if "~" in {value} else ({value},)'
                )
                count = self.shop.temporary() if note else ""
                if note:
                    loop = f"enumerate({loop.replace('X.repetitions', 'X.turns')}, 1)"
                with out.block(f"for {f'{count}, {name}' if note else name} in {loop}:"):
                    if self.shop.full and not note:
                        fill(Raw(name, REPETITION))
                    else:
                        with out.block(f"if {name}:"):
                            fill(Raw(name, REPETITION, note.turned(count) if note else None))
            return
        one = self.values.repetition(raw)
        if raw.level == FIELD:
            with out.block(f"if {name} := {raw.code}:"):
                if self.shop.full:
                    out(f"{name} = X.first({name})")
                elif not leaf:
                    with out.block(f'if "~" in {name}:'):
                        out(f"{name} = first({name})")
                fill(Raw(name, REPETITION, first))
            return
        with out.block(f"if {name} := {one.code}:"):
            fill(Raw(name, one.level, note))

    def _convert(self, row: Assign, found: Found, scope: Scope, out: Writer, before: Row | None) -> None:
        element = found[-1][1]
        raw = self.values.raw(row.values[0], scope)
        many = any(one.many for _, one, _ in found)
        note = self.uses.source(row, scope)
        if note and isinstance(row.values[0], Call) and row.values[0].function == "first":
            note = note.first()
        if row.use:
            said = self._said(row, before, scope)
            self._each(raw, many, out, lambda one: self.uses.mapped(row, one, found, scope, out), note, said)
        elif row.table and not element.primitive:
            self._each(raw, many, out, lambda one: self._tabled(row, one, found, scope, out), note, leaf=True)
        elif not element.primitive:
            fitting = [f"as {m.name}" for m in self.files.maps.values() if m.target == element.type]
            wanted = "one of " + ", ".join(sorted(fitting)) if fitting else "rows that fill it"
            self.problems.add(row.place, f"{row.target} of type {element.type} without a map", wanted)
        else:
            leaf = element.type not in WHOLE
            self._each(raw, many, out, lambda one: self._primitive(row, one, found, scope, out), note, leaf=leaf)

    def _primitive(self, row: Assign, one: Raw, found: Found, scope: Scope, out: Writer) -> None:
        element = found[-1][1]
        name = self.shop.temporary()
        # a component that is a code is an ST: an ampersand in it was not escaped, or begins a suffix (7.4.2.3)
        whole = element.type in WHOLE or (element.type == "code" and one.level == COMPONENT and not row.table)
        note = leaves(one, whole and not row.table)
        text = self.values.leaf(one, whole, scope)
        if row.table:
            self._looked_up(row, one, text, name, found, scope, out, note)
            return
        if element.codes is not None:
            self.problems.add(
                row.place, f"{row.target} straight from a field", "table or decide: only some codes are allowed here"
            )
            return
        wanted, function = CONVERSIONS[element.type]
        if isinstance(row.values[0], Text) and _as_it_stands(row.values[0].text, element.type):
            self.targets.store(found, scope, repr(row.values[0].text), out, note=note)
            return
        told = ", ".join(map(shown, row.values))
        if element.type in WHOLE and one.level != TEXT and not self.shop.full:
            if text == one.code:
                name = text  # `_each` has made it for this row
            else:
                out(f"{name} = {text}")
            with out.block(f"if not {name}.isprintable():"):
                out(f"{name} = as_string({name}, X)")
            with out.block(f"if {name}:"):
                self.targets.store(found, scope, name, out, note=note)
            return
        if element.type == "uri" and isinstance(row.values[0], Call) and row.values[0].function in URIS:
            if text == one.code:  # `_each` has asked whether there is one
                self.targets.store(found, scope, text, out, note=note)
                return
            with out.block(f"if {name} := {text}:"):
                self.targets.store(found, scope, name, out, note=note)
            return
        self.shop.unit.namespace[f"as_{element.type}"] = function
        given = self.shop.temporary()
        known = KNOWN.get(element.type, "")
        if known and text == f"head({one.code})":
            out(f"{name} = {known}({one.code})")  # as it stands: what is known has no parts
            with out.block(f"if {name} is None and ({given} := {text}):"):
                self._converted(f"{known}({given}) or ", name, given, element.type, (told, wanted), out)
            with out.block(f"if {name} is not None:"):
                self.targets.store(found, scope, name, out, note=note)
            return
        if text == f"head({one.code})" and one.code.isidentifier():
            text = f"{one.code} if {one.code}.isalnum() else {text}"
        out(f"{given} = {text}")
        with out.block(f"if {given}:"):
            as_it_is = f"{given} if {given}.isprintable() and not {given}.isspace() else "
            ready = as_it_is if element.type in WHOLE else f"{known}({given}) or " if known else ""
            self._converted(ready, name, given, element.type, (told, wanted), out)
            with out.block(f"if {name} is not None:"):
                self.targets.store(found, scope, name, out, note=note)

    def _converted(self, ready: str, name: str, given: str, type: str, said: tuple[str, str], out: Writer) -> None:
        """A text as a primitive, or a note that it is none. ready: what is tried before."""
        out(f"{name} = {ready}as_{type}({given}, X)")
        with out.block(f"if {name} is None:"):
            out(f'X.note("not-{type}", {said[0]!r}, {said[1]!r})')

    def _looked_up(
        self, row: Assign, one: Raw, text: str, given: str, found: Found, scope: Scope, out: Writer, note: Note | None
    ) -> None:
        """What a table has for a code. Most codes stand there as they are, without parts."""
        element = found[-1][1]
        table = self.uses.table(row, element)
        if table is None:
            return
        codes = {code: target for code, (target, _) in table.codes.items()}
        other = table.otherwise[0] if table.otherwise else None
        const = self.shop.constant(codes, "C")
        value = self.shop.temporary()
        if text == f"head({one.code})" and not any(mark in code for code in codes for mark in "~^&"):
            out(f"{value} = {const}.get({one.code})")
            test = f"if {value} is None and ({given} := {text}) and ({value} := {const}.get({given})) is None:"
        else:
            out(f"{value} = {const}.get({given}) if ({given} := {text}) else ''")
            test = f"if {value} is None:"
        with out.block(test):
            if table.otherwise is None:
                out(f'X.note("unknown-code", {shown(row.values[0])!r}, "a code of {table.name}")')
                out(f"X.miss({table.name!r}, {shown(row.values[0])!r}, {given})")
            out(f"{value} = {other!r}")
        with out.block(f"if {value}:"):
            self.targets.store(found, scope, value, out, note=note)

    def _tabled(self, row: Assign, one: Raw, found: Found, scope: Scope, out: Writer) -> None:
        """A Coding or CodeableConcept from a table alone."""
        element = found[-1][1]
        table = self.uses.table(row, element)
        if table is None:
            return
        if element.type not in ("Coding", "CodeableConcept"):
            self.problems.add(row.place, f"a table for {element.type}", "as and a map")
            return
        codings = table.codings(self.files.systems)
        made = codings if element.type == "Coding" else {code: {"coding": [one]} for code, one in codings.items()}
        const = self.shop.constant(dict.fromkeys(table.codes) | made, "C")
        name = self.shop.temporary()
        note = leaves(one, False)
        value = self.shop.temporary()
        out(f"{name} = {self.values.leaf(one, False, scope)}")
        out(f"{value} = {const}.get({name})")
        with out.block(f"if {value} is not None:"):
            self.targets.store(found, scope, value, out, note=note)
        other = table.other(self.files.systems)
        if table.otherwise is not None and other is None:
            return
        with out.block(f"elif {name} and {name} not in {const}:"):
            if other is not None:
                whole = other if element.type == "Coding" else {"coding": [other]}
                self.targets.store(found, scope, self.shop.constant(whole), out, note=note)
                return
            out(f"X.miss({table.name!r}, {shown(row.values[0])!r}, {name})")
            if element.type == "CodeableConcept":
                self.targets.store(found, scope, f'{{"text": as_string({name}, X) or "?"}}', out, note=note)


def _made_by(row: Assign) -> tuple[str, str, str]:
    """What a row sets, and the map and the table that it sets it by; those with arguments are like no other."""
    use = row.use.name if row.use and not row.use.arguments else f"{row.place}"
    return str(row.target), use, row.table[0] if row.table else ""


def _as_it_stands(text: str, type: str) -> bool:
    """Whether a literal needs no conversion."""
    plain = text.isprintable() and text == text.strip() != ""
    return plain and (type in WHOLE or (type in ("uri", "url", "canonical") and " " not in text))
