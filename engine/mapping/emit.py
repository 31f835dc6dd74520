"""Rows as Python: each row becomes a few straight lines that read a value, convert it and set an element.

A later row never overwrites what an earlier one has set; to a repeating element it adds. Constants never stand alone:
inside an element they are written once something else was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from engine.mapping.assigns import Assigns
from engine.mapping.expression import Call, Path, Text, Value, compared
from engine.mapping.far import COMPONENTS, FIELDS, Run, runs
from engine.mapping.files import Files
from engine.mapping.functions import Functions
from engine.mapping.lineage import KEPT
from engine.mapping.model import (
    Assign,
    Build,
    Constant,
    First,
    Include,
    Kept,
    Map,
    Nothing,
    Row,
    Switch,
    When,
    under,
)
from engine.mapping.problems import Place, Problems
from engine.mapping.schema import Element, Schema
from engine.mapping.scope import FIELD, Raw, Scope
from engine.mapping.targets import Found, Targets
from engine.mapping.uses import Uses
from engine.mapping.values import Values
from engine.mapping.writer import Workshop, Writer


class Emitter:
    """Compiles rows and maps into the units of a workshop."""

    def __init__(self, files: Files, schema: Schema, shop: Workshop, problems: Problems) -> None:
        self.files, self.schema, self.shop, self.problems = files, schema, shop, problems
        self.values = Values(shop, problems, files.options)
        self.functions = Functions(self)
        self.targets = Targets(files, schema, shop, problems, self.values)
        self.uses = Uses(self)
        self.assigns = Assigns(self, self.uses)

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
        before: Row | None = None
        for row in rows:
            if not isinstance(row, tuple):
                self.row(row, scope, out, before)
                before = row
                continue
            before = None
            owner, least, inner = row
            length = "n"
            if not scope.owner:
                place = Place("", 1, 1)
                length = f"{scope.fields(Path(owner, least, 0, 0, place))}[0]"
            if scope.walked or "None" in length:
                self._runs(inner, scope, out)
                continue
            with out.block(f"if {length} > {least if not scope.owner else least - 1}:"):
                around, scope.length = scope.length, least if scope.owner else scope.length
                self._runs(inner, scope, out)
                scope.length = around

    def row(self, row: Row, scope: Scope, out: Writer, before: Row | None = None) -> None:
        """One row. Its variables are free again behind it: a function with thousands of them is slow to enter. before:
        the row that is always written in front of it."""
        mark, around = self.shop.mark(), self.targets.row
        self.targets.row = row
        self._row(row, scope, out, before)
        self.targets.row = around
        self.shop.release(mark)

    def _row(self, row: Row, scope: Scope, out: Writer, before: Row | None) -> None:
        match row:
            case Assign():
                self._guarded(row, scope, out, lambda inner: self.assigns.assign(row, scope, inner, before))
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
        out(f"# {row.place.line}: {' '.join(row.text.split())}")
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
        with ExitStack() as inside:  # one in another: once one has set something, no more is asked
            for index, option in enumerate(row.options):
                if index:
                    inside.enter_context(out.block(f"if not {name}:"))
                self._alone((option,), before, after, scope, out)
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
            with out.block(f"if ({name} := {raw.code}) and kept({scope.target}, X, {place!r}, {name}, {marks}):"):
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
        return ("NUL", *self.uses.marks(raw, scope))

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
        with self.whole_object(name, found[-1][1].type, needs, out):
            self.targets.store(found, scope, name, out, once=True)

    def _needed_first(self, rows: tuple[Row, ...], needs: tuple[str, ...], scope: Scope, out: Writer) -> None:
        """Rows of an object that is nothing without one element: last those that say the same of every message, where
        it is there by then."""
        fixed = [row for row in rows if _is_fixed(row)]
        rest = [row for row in rows if row not in fixed and not isinstance(row, Constant)]
        alone = len(needs) == 1 and " or " not in needs[0]
        decides = alone and not any(self.sets([row]) & set(needs) for row in rows if row not in rest)
        if not fixed or not rest or not decides or rows.index(fixed[0]) < rows.index(rest[-1]):
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

    def whole_object(self, name: str, type: str, needs: tuple[str, ...], out: Writer) -> Writer:
        """The block for what is done with an object that is worth keeping; a Period or Range is put right before."""
        if type == "Range":
            out(f"in_size(X, {name})")
        if type == "Period":
            out(f"in_order(X, {name})")
        return out.block(f"if {self.whole(name, needs)}:")

    def whole(self, name: str, needs: tuple[str, ...]) -> str:
        """The condition that an object is worth keeping."""
        tests = [[f'"{one}" in {name}' for one in need.split(" or ")] for need in needs]
        return " and ".join(f"({' or '.join(test)})" if len(test) > 1 else test[0] for test in tests) or name

    def sets(self, rows: Sequence[Row]) -> set[str]:
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
                case When() | First() | Switch():
                    found |= self.sets(list(under(row)))
                case Include():
                    found |= self._sets_of(row.name)
                case Nothing():
                    pass
        return found

    def _sets_of(self, name: str) -> set[str]:
        found = self.files.maps.get(name)
        return self.sets(found.rows) if found else set()

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
