"""Rows as Python: each row becomes a few straight lines that read a value, convert it and set an element.

A later row never overwrites what an earlier one has set; to a repeating element it adds. Constants never stand alone:
inside an element they are written once something else was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from engine.mapping.convert import CONVERSIONS
from engine.mapping.expression import Call, Else, Name, Path, Template, Text, This, Value, compared
from engine.mapping.far import COMPONENTS, FIELDS, Run, runs
from engine.mapping.files import Files
from engine.mapping.functions import Functions
from engine.mapping.lineage import KEPT
from engine.mapping.model import (
    Assign,
    Build,
    Constant,
    Decision,
    First,
    Include,
    Kept,
    Map,
    Nothing,
    Row,
    Switch,
    Table,
    Use,
    When,
)
from engine.mapping.problems import Place, Problems
from engine.mapping.schema import Element, Schema
from engine.mapping.scope import COMPONENT, FIELD, REPETITION, TEXT, Note, Raw, Scope
from engine.mapping.targets import Found, Targets
from engine.mapping.values import Values
from engine.mapping.writer import Workshop, Writer

WHOLE = frozenset({"string", "markdown"})
"""Types that take a value as it stands; the others take its first leaf."""

URIS = frozenset({"authority", "coding_system", "local"})
"""Functions whose result needs no check."""


class Emitter:
    """Compiles rows and maps into the units of a workshop."""

    def __init__(self, files: Files, schema: Schema, shop: Workshop, problems: Problems) -> None:
        self.files, self.schema, self.shop, self.problems = files, schema, shop, problems
        self.values = Values(shop, problems, files.options)
        self.functions = Functions(self)
        self.targets = Targets(files, schema, shop, problems, self.values)

    # -- rows

    def rows(self, rows: tuple[Row, ...], scope: Scope, out: Writer) -> None:
        """All rows: constants inside an element last, under the condition that it is not empty."""
        constants = [row for row in rows if isinstance(row, Constant)]
        others = rows if scope.root else [row for row in rows if not isinstance(row, Constant)]
        self._runs(runs(others, COMPONENTS if scope.owner else FIELDS), scope, out)
        if constants and not scope.root:
            with out.block(f"if {scope.target}:"):
                for row in constants:
                    self.row(row, scope, out)

    def _runs(self, rows: Sequence[Row | Run], scope: Scope, out: Writer) -> None:
        """Rows, and runs of them under the condition that what they read is there at all."""
        for row in rows:
            if not isinstance(row, tuple):
                self.row(row, scope, out)
                continue
            owner, least, inner = row
            length = "n"
            if not scope.owner:
                place = Place("", 1, 1)
                length = f"{scope.fields(Path(owner, least, 0, 0, place))}[0]"
            if scope.walked or "None" in length:
                self._runs(inner, scope, out)
                continue
            with out.block(f"if {length} > {least if not scope.owner else least - 1}:"):
                self._runs(inner, scope, out)

    def row(self, row: Row, scope: Scope, out: Writer) -> None:
        """One row. Its variables are free again behind it: a function with thousands of them is slow to enter."""
        mark, around = self.shop.mark(), self.targets.row
        self.targets.row = row
        self._row(row, scope, out)
        self.targets.row = around
        self.shop.release(mark)

    def _row(self, row: Row, scope: Scope, out: Writer) -> None:
        match row:
            case Assign():
                self._guarded(row, scope, out, lambda inner: self._assign(row, scope, inner))
            case Constant():
                self._guarded(row, scope, out, lambda inner: self._constant(row, scope, inner))
            case Build():
                self._guarded(row, scope, out, lambda inner: self._build(row, scope, inner))
            case Nothing():
                for value in row.values:
                    self.values.raw(value, scope)
            case Kept():
                self._guarded(row, scope, out, lambda inner: self._kept(row, scope, inner))
            case Switch():
                self._switch(row, scope, out)
            case First():
                self._first(row, scope, out)
            case Include():
                self._include(row, scope, out)
            case When():
                test = self.values.condition(row.condition, scope)
                with out.block(f"if {test}:"), self._guard(compared(row.condition)):
                    self.rows(row.rows, scope, out)

    def _guarded(
        self, row: Assign | Constant | Build | Kept, scope: Scope, out: Writer, emit: Callable[[Writer], None]
    ) -> None:
        out(f"# {row.place.line}: {row.text}")
        if row.when is None:
            emit(out)
            return
        with out.block(f"if {self.values.condition(row.when, scope)}:"), self._guard(compared(row.when)):
            emit(out)

    @contextmanager
    def _guard(self, values: tuple[Value, ...]) -> Iterator[None]:
        """While rows are written that stand there because of some values."""
        self.shop.unit.guards.append(values)
        try:
            yield
        finally:
            self.shop.unit.guards.pop()

    def _switch(self, row: Switch, scope: Scope, out: Writer) -> None:
        name = self.shop.temporary()
        out(f"{name} = {self.values.text(row.value, scope)}")
        word, before, after = "if", set(scope.written), set(scope.written)
        for codes, rows in row.cases:
            test = f"{name} == {codes[0]!r}" if len(codes) == 1 else f"{name} in {codes!r}"
            with out.block(f"{word} {test}:"), self._guard((row.value,)):
                self._alone(rows, before, after, scope, out)
            word = "elif"
        if row.otherwise:
            with out.block("else:"), self._guard((row.value,)):
                self._alone(row.otherwise, before, after, scope, out)
        scope.written |= after

    def _alone(self, rows: tuple[Row, ...], before: set[str], after: set[str], scope: Scope, out: Writer) -> None:
        """Rows that no others run beside: what those write is no concern of theirs."""
        scope.written.clear()
        scope.written.update(before)
        self.rows(rows, scope, out)
        after |= scope.written

    def _first(self, row: First, scope: Scope, out: Writer) -> None:
        """Each option in turn, until one has set something."""
        name = self.shop.temporary()
        before, after = set(scope.written), set(scope.written)
        out(f"{name} = False")
        self.shop.unit.flags.append((scope.target, name))
        for index, option in enumerate(row.options):
            if index == 0:
                self._alone((option,), before, after, scope, out)
                continue
            with out.block(f"if not {name}:"):
                scope.written.clear()
                scope.written.update(before)
                self.row(option, scope, out)
                after |= scope.written
        self.shop.unit.flags.pop()
        scope.written |= after

    def _kept(self, row: Kept, scope: Scope, out: Writer) -> None:
        """Each field in an extension of its own."""
        if self.schema.element(scope.type, "extension") is None:
            self.problems.add(row.place, f"kept in a {scope.type}", "a resource or data type that takes extensions")
            return
        for path in row.values:
            raw = self.values.raw(path, scope)
            name = self.shop.temporary()
            marks = ", ".join(self._kept_marks(raw, scope))
            place = KEPT + str(path).replace(".", "-", 1) if path.dotted else KEPT + str(path)
            with out.block(f"if {name} := {raw.code}:"):
                out(f"kept({scope.target}, X, {place!r}, {name}, {marks})")
                self.targets.yielded(scope, out)
                self.targets.traced(scope.target, "extension", path, scope, out)
        scope.written.add("extension")

    def _kept_marks(self, raw: Raw, scope: Scope) -> tuple[str, str, str]:
        """The marks of repetitions, components and subcomponents in a value."""
        if raw.level == FIELD:
            every = "X.delimiters" if self.shop.full else ""
            if every:
                return (f"{every}.repetition or NUL", f"{every}.component", f"{every}.subcomponent or NUL")
            return '"~"', '"^"', '"&"'
        return ("NUL", *self._marks(raw, scope))

    def _include(self, row: Include, scope: Scope, out: Writer) -> None:
        found = self.map(row.name, row.place)
        if found:
            self.shop.unit.used[f"map {found.name}"] = found.source
            self.rows(found.rows, scope, out)

    # -- one row

    def _constant(self, row: Constant, scope: Scope, out: Writer) -> None:
        found = self.targets.resolve(row.target, scope)
        if found and row.when is None and scope.root and not self.shop.unit.guards:
            scope.always.add(found[0][0])
        if found:
            self.targets.store(found, scope, self._literal(row, found[-1][1]), out, once=True)

    def _literal(self, row: Constant, element: Element) -> str:
        system = ""
        if row.system:
            system = self.files.systems.get(row.system, "")
            if not system:
                self.problems.unknown(row.place, "system", row.system, self.files.systems)
            self.shop.unit.used[f"system {row.system}"] = system
        code = row.code
        if element.codes is not None and code not in element.codes:
            self.problems.unknown(row.place, f"code of {element.name}", code, element.codes)
        coding = {"system": system, "code": code} | ({"display": row.display} if row.display else {})
        if element.type == "CodeableConcept":
            return self.shop.constant({"coding": [coding]} if row.system else {"text": code})
        if element.type == "Coding":
            return self.shop.constant(coding)
        if element.type == "boolean":
            return repr(code == "true")
        if element.type in ("integer", "positiveInt", "unsignedInt", "decimal"):
            return repr(float(code) if "." in code else int(code))
        if not element.primitive:
            self.problems.add(row.place, f"a constant for {element.type}", "rows under the path, one for each element")
        if element.type == "uri":
            return repr(system or self.files.systems.get(code, code))
        return repr(code)

    def _build(self, row: Build, scope: Scope, out: Writer) -> None:
        found = self.targets.resolve(row.target, scope)
        if found:
            self._object(row.rows, row.needs, found, scope, out)

    def _object(self, rows: tuple[Row, ...], needs: tuple[str, ...], found: Found, scope: Scope, out: Writer) -> None:
        name = self.shop.temporary()
        out(f"{name} = {{}}")
        inner = scope.inside(name, found[-1][1].type, root="")
        self._needed_first(rows, needs, inner, out)
        self.needed(needs, found[-1][1].type, rows)
        with out.block(f"if {self.whole(name, needs)}:"):
            if found[-1][1].type == "Period":
                out(f"in_order(X, {name})")
            self.targets.store(found, scope, name, out, once=True)

    def _needed_first(self, rows: tuple[Row, ...], needs: tuple[str, ...], scope: Scope, out: Writer) -> None:
        """Rows of an object that is nothing without one element: last those that say the same of every message, where
        it is there by then."""
        fixed = [row for row in rows if _is_fixed(row)]
        rest = [row for row in rows if row not in fixed and not isinstance(row, Constant)]
        decides = len(needs) == 1 and not any(self._sets([row]) & set(needs) for row in rows if row not in rest)
        if not fixed or not decides or rows.index(fixed[0]) < rows.index(rest[-1]):
            self.rows(rows, scope, out)
            return
        self.rows(tuple(rest), scope, out)
        with out.block(f'if "{needs[0]}" in {scope.target}:'):
            self.rows(tuple(row for row in rows if row not in rest), scope, out)

    def needed(self, needs: tuple[str, ...], type: str, rows: tuple[Row, ...]) -> None:
        """Check the names of `needs`."""
        for name in (name for need in needs for name in need.split(" or ")):
            if self.schema.element(type, name) is None and name not in self.schema.required(type):
                place = next((row.place for row in rows), Place("", 1, 1))
                self.problems.unknown(place, f"element of {type}", name, self.schema.types.get(type, {}))

    def whole(self, name: str, needs: tuple[str, ...]) -> str:
        """The condition that an object is worth keeping."""
        tests = [[f'"{one}" in {name}' for one in need.split(" or ")] for need in needs]
        return " and ".join(f"({' or '.join(test)})" if len(test) > 1 else test[0] for test in tests) or name

    def _assign(self, row: Assign, scope: Scope, out: Writer) -> None:
        link = self._link(row.values[0], scope) if len(row.values) == 1 else None
        if not row.target.steps:
            self._merge(row, scope, out)
            return
        found = self.targets.resolve(row.target, scope)
        if not found:
            return
        if scope.nulls and scope.root and len(row.values) == 1:
            self._nulled(row, found, scope, out)
        if row.use is not None and self._of_segment(row.use):
            self._party(row, found, scope, out)
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
            self._convert(row, found, scope, out)

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

    def _of_segment(self, use: Use) -> bool:
        found = self.files.maps.get(use.name)
        return found is not None and found.of_segment

    def _party(self, row: Assign, found: Found, scope: Scope, out: Writer) -> None:
        """A resource, or an element, that is made of several fields of the segment."""
        assert row.use is not None
        one = self.map(row.use.name, row.use.place)
        assert one is not None
        variables = [scope.fields(path) for path in row.values if isinstance(path, Path) and path.owner == one.owner]
        numbers = [path.field for path in row.values if isinstance(path, Path) and not path.component]
        if len(variables) < len(row.values) or len(numbers) < len(row.values) or None in variables or scope.owner:
            self.problems.add(row.place, row.text, f"fields of {one.owner} alone before -> for {one.name}")
            return
        if not self._fits(one, found[-1][1], row.use.place):
            return
        unit = self.functions.function(one)
        name = self.shop.call(unit)
        unread = sorted(unit.reads.get(one.owner, set()) - set(numbers))
        if unread:
            fields = ", ".join(f"{one.owner}-{number}" for number in unread)
            self.problems.add(row.place, f"{one.name}, which reads {fields} too", f"{fields} named before ->")
        segment, value = variables[0], self.shop.temporary()
        with out.block(f"if {' or '.join(f'{segment}[{number}]' for number in numbers)}:"):
            key = "|".join(f"{{{segment}[{number}]}}" for number in numbers)
            known = ""
            if one.cached and not self.schema.is_resource(one.target) and not self.shop.full and not self.shop.traced:
                known = f'{self.shop.cache(one.name)}.get(t := f"{key}") or '
            out(f"""{value} = {known}{name}({"t" if known else f'f"{key}"'}, X, {segment})""")
            with out.block(f"if {value} is not None:"):
                self.targets.passed(self.values.note(row.values, scope, True), scope, out)
                self.targets.store(found, scope, value, out)

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
                    f"[e.reference if e.key else link({top}, e) for e in {code}]",
                    out,
                    once=True,
                    extend=True,
                )
        elif value.how in ("first", "only"):
            with out.block(f"if {code}:" if value.how == "first" else f"if len({code}) == 1:"):
                self.targets.store(found, scope, f"link({top}, {code}[0])", out, once=True)
        else:
            with out.block(f"if {code} is not None:"):
                reference = f"{code}.reference if {code}.key else link({top}, {code})"
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
        memo = f"M_{rows}"
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
            self.rows(row.rows, inner, out)
            self.needed(row.needs, found[-1][1].type, row.rows)
            with out.block(f"if {self.whole(name, row.needs)}:"):
                self.targets.store(found, scope, name, out)

        self._each(raw, many, out, fill, self._from(row, scope))

    def _from(self, row: Assign, scope: Scope) -> Note | None:
        """The whole that a row's one value is from."""
        return self.values.note(row.values[:1], scope, True)

    def _each(self, raw: Raw, many: bool, out: Writer, fill: Callable[[Raw], None], note: Note | None) -> None:
        """For all repetitions where the target repeats, else for the first."""
        name = self.shop.temporary()
        first = note.turned("1") if note else None
        if raw.level == FIELD and many:
            value = self.shop.temporary()
            with out.block(f"if {value} := {raw.code}:"):
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
                else:
                    with out.block(f'if "~" in {name}:'):
                        out(f"{name} = first({name})")
                fill(Raw(name, REPETITION, first))
            return
        with out.block(f"if {name} := {one.code}:"):
            fill(Raw(name, one.level, note))

    def _convert(self, row: Assign, found: Found, scope: Scope, out: Writer) -> None:
        element = found[-1][1]
        raw = self.values.raw(row.values[0], scope)
        many = any(one.many for _, one, _ in found)
        note = self._from(row, scope)
        if row.use:
            self._each(raw, many, out, lambda one: self._mapped(row, one, found, scope, out), note)
        elif row.table and not element.primitive:
            self._each(raw, many, out, lambda one: self._tabled(row, one, found, scope, out), note)
        elif not element.primitive:
            fitting = [f"as {m.name}" for m in self.files.maps.values() if m.target == element.type]
            wanted = "one of " + ", ".join(sorted(fitting)) if fitting else "rows that fill it"
            self.problems.add(row.place, f"{row.target} of type {element.type} without a map", wanted)
        else:
            self._each(raw, many, out, lambda one: self._primitive(row, one, found, scope, out), note)

    def _primitive(self, row: Assign, one: Raw, found: Found, scope: Scope, out: Writer) -> None:
        element = found[-1][1]
        name = self.shop.temporary()
        note = _leaves(one, element.type in WHOLE and not row.table)
        text = self.values.leaf(one, element.type in WHOLE, scope)
        if row.table:
            if text == f"head({one.code})" and one.code.isidentifier():
                text = f"{one.code} if {one.code}.isalnum() else {text}"
            out(f"{name} = {text}")
            with out.block(f"if {name}:"):
                self._looked_up(row, name, found, scope, out, note)
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
        told = ", ".join(map(_shown, row.values))
        if element.type in WHOLE and one.level != TEXT and not self.shop.full:
            out(f"{name} = {text}")
            with out.block(f"if not {name}.isprintable():"):
                out(f"{name} = as_string({name}, X)")
            with out.block(f"if {name}:"):
                self.targets.store(found, scope, name, out, note=note)
            return
        if element.type == "uri" and isinstance(row.values[0], Call) and row.values[0].function in URIS:
            with out.block(f"if {name} := {text}:"):
                self.targets.store(found, scope, name, out, note=note)
            return
        self.shop.unit.namespace[f"as_{element.type}"] = function
        given = self.shop.temporary()
        if text == f"head({one.code})" and one.code.isidentifier():
            plain = f'"^" not in {one.code} and "&" not in {one.code}'  # a decimal point is no letter
            if one.level != REPETITION or element.type != "decimal" or self.shop.full or scope.owner:
                plain = f"{one.code}.isalnum()"
            out(f"{given} = {one.code} if {plain} else head({one.code})")
        else:
            out(f"{given} = {text}")
        with out.block(f"if {given}:"):
            known = self._known(element.type, given, scope)
            if element.type in WHOLE:
                known = f"{given} if {given}.isprintable() and not {given}.isspace() else "
            out(f"{name} = {known}as_{element.type}({given}, X)")
            with out.block(f"if {name} is not None:"):
                self.targets.store(found, scope, name, out, note=note)
            with out.block("else:"):
                out(f'X.note("not-{element.type}", {told!r}, {wanted!r})')

    def _known(self, type: str, given: str, scope: Scope) -> str:
        """A look at the times and numbers that the connection has seen before."""
        name = {"dateTime": "time", "instant": "instant", "decimal": "number"}.get(type)
        if name is None:
            return ""
        if name == "number" and scope.owner:
            return f"X.connection.numbers.get({given}) or "
        return f"X.{name}s.get({given}) or " if scope.owner else f"known_{name}({given}) or "

    def _looked_up(self, row: Assign, name: str, found: Found, scope: Scope, out: Writer, note: Note | None) -> None:
        element = found[-1][1]
        table = self.table(row, element)
        if table is None:
            return
        codes = {code: target for code, (target, _) in table.codes.items()}
        other = table.otherwise[0] if table.otherwise else None
        const = self.shop.constant(codes, "C")
        value = self.shop.temporary()
        out(f"{value} = {const}.get({name})")
        with out.block(f"if {value} is None:"):
            if table.otherwise is None:
                out(f'X.note("unknown-code", {_shown(row.values[0])!r}, "a code of {table.name}")')
                out(f"X.miss({table.name!r}, {_shown(row.values[0])!r}, {name})")
            out(f"{value} = {other!r}")
        with out.block(f"if {value}:"):
            self.targets.store(found, scope, value, out, note=note)

    def _tabled(self, row: Assign, one: Raw, found: Found, scope: Scope, out: Writer) -> None:
        """A Coding or CodeableConcept from a table alone."""
        element = found[-1][1]
        table = self.table(row, element)
        if table is None:
            return
        if element.type not in ("Coding", "CodeableConcept"):
            self.problems.add(row.place, f"a table for {element.type}", "as and a map")
            return
        codings = table.codings()
        out_codes = codings if element.type == "Coding" else {code: {"coding": [one]} for code, one in codings.items()}
        const = self.shop.constant(out_codes, "C")
        name = self.shop.temporary()
        note = _leaves(one, False)
        value = self.shop.temporary()
        out(f"{name} = {self.values.leaf(one, False, scope)}")
        out(f"{value} = {const}.get({name})")
        with out.block(f"if {value} is not None:"):
            self.targets.store(found, scope, value, out, note=note)
        if table.otherwise is not None and not table.otherwise[0]:
            return
        with out.block(f"elif {name}:"):
            if table.otherwise is not None:
                system = {"system": table.system, "code": table.otherwise[0]}
                whole = system if element.type == "Coding" else {"coding": [system]}
                self.targets.store(found, scope, self.shop.constant(whole), out, note=note)
                return
            out(f"X.miss({table.name!r}, {_shown(row.values[0])!r}, {name})")
            if element.type == "CodeableConcept":
                self.targets.store(found, scope, f'{{"text": as_string({name}, X) or "?"}}', out, note=note)

    def table(self, row: Assign, element: Element) -> Table | None:
        """The row's table, its codes checked against the element's required ones."""
        assert row.table is not None
        name, place = row.table
        table = self.files.tables.get(name)
        if table is None:
            self.problems.unknown(place, "table", name, self.files.tables)
            return None
        self.shop.unit.used[f"table {name}"] = table.source
        if element.codes is not None:
            for code, (target, _) in table.codes.items():
                if target and target not in element.codes:
                    self.problems.unknown(table.places[code], f"code of {element.name}", target, element.codes)
        return table

    def _mapped(self, row: Assign, one: Raw, found: Found, scope: Scope, out: Writer) -> None:
        element = found[-1][1]
        assert row.use is not None
        call = self._called(row.use, one, element, scope)
        if call is None:
            return
        value = self.shop.temporary()
        if row.table:
            table = self.table(row, element)
            if table is None:
                return
            const = self.shop.constant(table.codings(), "C")
            told = (table.name, _shown(row.values[0]), table.by_system, table.otherwise is None)
            call = f"{call}, {const}, {self.values.leaf(one, False, scope)}, X, {self.shop.constant(told)}"
            memo = self.shop.cache(f"{row.use.name} {const}") if self._shared(row.use, one, scope) else ""
            if memo:
                out(f"{value} = {memo}.get({one.code})")
                with out.block(f"if {value} is None:"):
                    out(f"{value} = translated({call}, {memo}, {one.code})")
                with out.block(f"if {value} is not None:"):
                    self.targets.store(found, scope, value, out)
                return
            call = f"translated({call})"
        elif self._is_party(row.use, one, scope):
            call = f"X.parties.get(({call.partition('(')[0]!r}, {one.code})) or {call}"
        elif self._shared(row.use, one, scope):
            call = f"{self.shop.cache(row.use.name)}.get({one.code}) or {call}"
        out(f"{value} = {call}")
        with out.block(f"if {value} is not None:"):
            self.targets.passed(one.note, scope, out)
            self.targets.store(found, scope, value, out, note=_leaves(one, False) if row.table else None)

    def _is_party(self, use: Use, one: Raw, scope: Scope) -> bool:
        """Whether a map makes a party, which the message may have already."""
        found = self.files.maps.get(use.name)
        if found is None or found.takes or not self.schema.is_resource(found.target):
            return False
        plain = not self.shop.full and not self.shop.traced
        return not scope.owner and one.level == REPETITION and plain

    def _shared(self, use: Use, one: Raw, scope: Scope) -> bool:
        """Whether what the map makes of a value may be looked up in its cache right here."""
        found = self.files.maps.get(use.name)
        if found is None or not found.cached or found.takes or self.schema.is_resource(found.target):
            return False
        plain = not self.shop.full and not self.shop.traced
        return not scope.owner and one.level == REPETITION and plain

    def _called(self, use: Use, one: Raw, element: Element | None, scope: Scope) -> str | None:
        found = self.map(use.name, use.place)
        if found is None:
            return None
        resource = self.schema.is_resource(found.target)
        if resource and scope.cached:
            self.problems.add(use.place, f"{use.name}, a resource, inside a cached map", "cached left out there")
        if element is not None and not self._fits(found, element, use.place):
            return None
        if len(use.arguments) != len(found.takes):
            self.problems.add(
                use.place,
                f"{use.name} with {len(use.arguments)} arguments",
                f"{len(found.takes)}: {', '.join(found.takes) or 'none'}",
            )
            return None
        marks = self._marks(one, scope)
        arguments = [self.values.text(argument, scope) for argument in use.arguments]
        name = self.shop.call(self.functions.function(found))
        return f"{name}({', '.join([one.code, 'X', *marks, *arguments])})"

    def _fits(self, found: Map, element: Element, place: Place) -> bool:
        """Whether what a map makes may stand in an element."""
        resource = self.schema.is_resource(found.target)
        if found.target != element.type and not (resource and element.type == "Reference"):
            self.problems.add(place, f"{found.name}, which makes {found.target}", f"a map that makes {element.type}")
            return False
        if resource and element.targets and found.target not in element.targets:
            wanted = " or ".join(element.targets)
            self.problems.add(place, f"{found.name}, a {found.target}", f"a map that makes {wanted}")
            return False
        return True

    def _marks(self, one: Raw, scope: Scope) -> tuple[str, str]:
        if one.level == COMPONENT:
            if scope.owner:
                return "T", "NUL"
            return ("X.delimiters.subcomponent or NUL", "NUL") if self.shop.full else ('"&"', "NUL")
        if one.level == TEXT:
            return "NUL", "NUL"
        if scope.owner:
            return "S", "T"
        if self.shop.full:
            return "X.delimiters.component", "X.delimiters.subcomponent or NUL"
        return '"^"', '"&"'

    def _merge(self, row: Assign, scope: Scope, out: Writer) -> None:
        """`-> .`: what a map makes becomes part of the object itself."""
        if row.use is None or len(row.values) != 1:
            self.problems.add(row.place, ".", "a FHIR path, or as and a map whose elements are to be taken over")
            return
        used = row.use
        name, value = self.shop.temporary(), self.shop.temporary()
        raw = self._single(self.values.raw(row.values[0], scope), name, out)
        note = self._from(row, scope)
        with out.block(f"if {name}:"):
            call = self._called(used, Raw(name, raw.level), None, scope)
            found = self.files.maps.get(used.name)
            if call is None or found is None:
                return
            if found.target != scope.type:
                self.problems.add(
                    used.place, f"{used.name}, which makes {found.target}", f"a map that makes {scope.type}"
                )
                return
            if self._shared(used, Raw(name, raw.level), scope):
                call = f"{self.shop.cache(used.name)}.get({name}) or {call}"
            out(f"{value} = {call}")
            scope.merged = True
            with out.block(f"if {value} is not None:"):
                self.targets.passed(note.turned("1") if note else None, scope, out, f"{value}, {scope.target}")
                lists = sorted(self._lists(found))
                if lists:
                    with out.block(f"if {' or '.join(f'{one!r} in {value}' for one in lists)}:"):
                        out(f"taken_over({scope.target}, {value})")
                with out.block("else:") if lists else nullcontext():
                    self._taken_in(value, scope, out)
                self.targets.yielded(scope, out)

    def _taken_in(self, value: str, scope: Scope, out: Writer) -> None:
        """What a map made, in front of what is there and wins."""
        target, both = scope.target, f"{{**{value}, **{scope.target}}}"
        if scope.root:
            out(f"{target}.update({both})")
        elif self.shop.traced:  # notes are of this very object
            whole = self.shop.temporary()
            out(f"{whole} = {both}")
            out(f"{target}.clear()")
            out(f"{target}.update({whole})")
        else:
            out(f"{target} = {both}")

    def _lists(self, found: Map) -> set[str]:
        """What a map sets of elements that repeat."""
        return {name for name in self._sets(found.rows) if self.schema.types[found.target][name].many}

    def _sets(self, rows: Sequence[Row]) -> set[str]:
        """The elements that rows may set."""
        found: set[str] = set()
        for row in rows:
            match row:
                case Assign() if not row.target.steps:
                    found |= self._sets_of(row.use.name) if row.use else set()
                case Assign() | Constant() | Build():
                    found.add(row.target.steps[0].name)
                case Kept():
                    found.add("extension")
                case When():
                    found |= self._sets(row.rows)
                case First():
                    found |= self._sets(row.options)
                case Switch():
                    found |= self._sets([*(one for _, inner in row.cases for one in inner), *row.otherwise])
                case Include():
                    found |= self._sets_of(row.name)
                case Nothing():
                    pass
        return found

    def _sets_of(self, name: str) -> set[str]:
        found = self.files.maps.get(name)
        return self._sets(found.rows) if found else set()

    def _single(self, raw: Raw, name: str, out: Writer) -> Raw:
        """The first repetition, in a variable."""
        if raw.level != FIELD or self.shop.full:
            raw = self.values.repetition(raw)
            out(f"{name} = {raw.code}")
            return raw
        out(f"{name} = {raw.code}")
        with out.block(f'if "~" in {name}:'):
            out(f"{name} = first({name})")
        return Raw(name, REPETITION)

    def map(self, name: str, place: Place) -> Map | None:
        """A map by name, noted as used."""
        found = self.files.maps.get(name)
        if found is None:
            self.problems.unknown(place, "map", name, self.files.maps)
            return None
        self.shop.unit.used[f"map {name}"] = found.source
        return found


def _is_fixed(row: Row) -> bool:
    """Whether what a row sets is the same whatever the message says."""
    if not isinstance(row, Assign) or row.when is not None or len(row.values) != 1:
        return False
    value = row.values[0]
    return isinstance(value, Text) or (
        isinstance(value, Call) and all(isinstance(one, Text) for one in value.arguments)
    )


def _as_it_stands(text: str, type: str) -> bool:
    """Whether a literal needs no conversion."""
    plain = text.isprintable() and text == text.strip() != ""
    return plain and (type in WHOLE or (type in ("uri", "url", "canonical") and " " not in text))


def _leaves(one: Raw, whole: bool) -> Note | None:
    """What a value is from, or its first leaf."""
    return one.note if whole or one.note is None else one.note.leaf()


def _shown(value: Value) -> str:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Else):
        return " else ".join(map(_shown, value.options))
    if isinstance(value, This | Name | Text | Template):
        return "this"
    return value.function
