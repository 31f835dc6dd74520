"""What rows with `as` write: calls of maps, after a look at what these have made before; and tables by name."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from engine.mapping.expression import Else, Name, Path, Template, Text, This, Value
from engine.mapping.model import Assign, Map, Table, Use
from engine.mapping.problems import Place
from engine.mapping.schema import Element
from engine.mapping.scope import COMPONENT, FIELD, REPETITION, TEXT, Note, Raw, Scope
from engine.mapping.targets import Found
from engine.mapping.writer import Writer

if TYPE_CHECKING:
    from engine.mapping.emit import Emitter


class Uses:
    """Writes for the rows of an emitter."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self.files, self.schema, self.problems = emitter.files, emitter.schema, emitter.problems
        self.shop, self.values, self.targets = emitter.shop, emitter.values, emitter.targets

    def party(self, row: Assign, found: Found, scope: Scope, out: Writer) -> None:
        """A resource, or an element, that is made of several fields of the segment."""
        assert row.use is not None
        one = self.emitter.map(row.use.name, row.use.place)
        assert one is not None
        variables = [scope.fields(path) for path in row.values if isinstance(path, Path) and path.owner == one.owner]
        numbers = [path.field for path in row.values if isinstance(path, Path) and not path.component]
        if len(variables) < len(row.values) or len(numbers) < len(row.values) or None in variables or scope.owner:
            self.problems.add(row.place, row.text, f"fields of {one.owner} alone before -> for {one.name}")
            return
        if not self._fits(one, found[-1][1], row.use.place):
            return
        unit = self.emitter.functions.function(one)
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

    def mapped(self, row: Assign, one: Raw, found: Found, scope: Scope, out: Writer) -> None:
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
            const = self.shop.constant(table.codings(self.files.systems), "C")
            told = (table.name, shown(row.values[0]), table.by_system, table.otherwise is None)
            call = f"{call}, {const}, {self.values.code(one, scope)}, X, {self.shop.constant(told)}"
            memo = self.shop.cache(f"{row.use.name} {const}") if self._shared(row.use, one, scope) else ""
            if memo:
                out(f"{value} = {memo}.get({one.code})")
                with out.block(f"if {value} is None:"):
                    out("noted = len(X.diagnostics) + X.missed")
                    kept = f"{memo} if len(X.diagnostics) + X.missed == noted else None"  # by then the map has run
                    out(f"{value} = translated({call}, {kept}, {one.code})")
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
            self.targets.store(found, scope, value, out, note=leaves(one, False) if row.table else None)

    def _is_party(self, use: Use, one: Raw, scope: Scope) -> bool:
        """Whether a map makes a party, which the message may have already."""
        found = self.files.maps.get(use.name)
        if found is None or found.takes or not self.schema.is_resource(found.target):
            return False
        return self._is_plain(one, scope)

    def _shared(self, use: Use, one: Raw, scope: Scope) -> bool:
        """Whether what the map makes of a value may be looked up in its cache right here."""
        found = self.files.maps.get(use.name)
        if found is None or not found.cached or found.takes or self.schema.is_resource(found.target):
            return False
        return self._is_plain(one, scope)

    def _is_plain(self, one: Raw, scope: Scope) -> bool:
        """Whether a value is one repetition of a field, read fast."""
        return not (self.shop.full or self.shop.traced or scope.owner) and one.level == REPETITION

    def _called(self, use: Use, one: Raw, element: Element | None, scope: Scope) -> str | None:
        found = self.emitter.map(use.name, use.place)
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
        marks = self.marks(one, scope)
        arguments = [self.values.text(argument, scope) for argument in use.arguments]
        name = self.shop.call(self.emitter.functions.function(found))
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

    def of_segment(self, use: Use) -> bool:
        found = self.files.maps.get(use.name)
        return found is not None and found.of_segment

    def marks(self, one: Raw, scope: Scope) -> tuple[str, str]:
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

    def merge(self, row: Assign, scope: Scope, out: Writer) -> None:
        """`-> .`: what a map makes becomes part of the object itself."""
        if row.use is None or len(row.values) != 1:
            self.problems.add(row.place, ".", "a FHIR path, or as and a map whose elements are to be taken over")
            return
        used = row.use
        name, value = self.shop.temporary(), self.shop.temporary()
        raw = self._single(self.values.raw(row.values[0], scope), name, out)
        note = self.source(row, scope)
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
                self.targets.passed(note.first() if note else None, scope, out, f"{value}, {scope.target}")
                lists = sorted(self._lists(found))
                if lists:
                    with out.block(f"if {' or '.join(f'{one!r} in {value}' for one in lists)}:"):
                        out(f"taken_over({scope.target}, {value})")
                with out.block("else:") if lists else nullcontext():
                    self._taken_in(value, scope, out)
                self.targets.yielded(scope, out)

    def source(self, row: Assign, scope: Scope) -> Note | None:
        """The whole that a row's one value is from."""
        return self.values.note(row.values[:1], scope, True)

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
        return {name for name in self.emitter.sets(found.rows) if self.schema.types[found.target][name].many}

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
        self._named_systems(table)
        return table

    def _named_systems(self, table: Table) -> None:
        """Systems of a table's rows that stand there by name."""
        for code, system in table.systems.items():
            if ":" in system:
                continue
            if system not in self.files.systems:
                self.problems.unknown(table.places[code], "system", system, self.files.systems)
            self.shop.unit.used[f"system {system}"] = self.files.systems.get(system, "")


def leaves(one: Raw, whole: bool) -> Note | None:
    """What a value is from, or its first leaf."""
    return one.note if whole or one.note is None else one.note.leaf()


def shown(value: Value) -> str:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Else):
        return " else ".join(map(shown, value.options))
    if isinstance(value, This | Name | Text | Template):
        return "this"
    return value.function
