"""Expressions of the language as Python expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from engine.mapping.expression import Call, Condition, Else, Logic, Name, Path, Template, Test, Text, This, Value
from engine.mapping.lineage import Every, First, Place, Tree, moved
from engine.mapping.model import Option
from engine.mapping.problems import Problems, guess
from engine.mapping.scope import COMPONENT, FIELD, REPETITION, TEXT, Note, Raw, Scope
from engine.mapping.writer import Workshop

FUNCTIONS = {
    "authority": 3,
    "coding_system": 2,
    "number": 3,
    "lines": 1,
    "trimmed": 1,
    "local": 1,
    "lower": 1,
    "upper": 1,
    "whole": 1,
    "first": 1,
    "time": 1,
    "media_type": 1,
    "digits": 1,
    "encoded": 1,
    "clock": 1,
    "from_hex": 1,
    "high": 1,
    "low": 1,
    "option": 1,
    "all": 1,
}
GIVEN = {
    "channel": "X.channel",
    "connection": "X.connection.name",
    "received": "received(X)",
    "sequence": "X.sequence",
    "incarnation": "X.incarnation",
    "version": "X.version",
}
_FIELD = re.compile(r"([A-Za-z_0-9]+)\[(\d+)\]")
_NAMED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
NONE = Raw('""', TEXT)


def _slot(owners: list[str], owner: str) -> int:
    if owner not in owners:
        owners.append(owner)
    return owners.index(owner)


class Values:
    """Compiles values and conditions; what is unknown goes to `problems`."""

    def __init__(self, shop: Workshop, problems: Problems, options: dict[str, Option]) -> None:
        self.shop, self.problems, self.options = shop, problems, options

    def raw(self, value: Value, scope: Scope) -> Raw:
        """The value with its parts; its Python truth says whether it is valued."""
        match value:
            case Path():
                return self._path(value, scope)
            case This():
                if scope.this is None:
                    self.problems.add(
                        value.place, "this", "a path; `this` stands only under a row that walks over repetitions"
                    )
                    return NONE
                return scope.this
            case Text():
                return Raw(repr(value.text), TEXT)
            case Name():
                return self._name(value, scope)
            case Template():
                return Raw(self._template(value, scope), TEXT)
            case Call(function="first", arguments=[argument]):
                return self.repetition(self.raw(argument, scope))
            case Call():
                return Raw(self._call(value, scope), TEXT)
            case Else():
                options = [self.raw(option, scope) for option in value.options]
                level = options[0].level
                if any(option.level != level for option in options):
                    return Raw(f"({' or '.join(self.text(o, scope) for o in value.options)})", TEXT)
                return Raw(f"({' or '.join(option.code for option in options)})", level)

    def text(self, value: Value, scope: Scope, whole: bool = False) -> str:
        """The value's text: of a value with parts its first leaf, or (`whole`) the first repetition as it stands."""
        if isinstance(value, Else):
            return f"({' or '.join(self._options(value.options, scope, whole))})"
        return self.leaf(self.raw(value, scope), whole, scope)

    def _options(self, options: Sequence[Value], scope: Scope, whole: bool) -> list[str]:
        """What is asked in turn. Several at the end that are all of one field are asked only where it is valued."""
        made = [self.text(option, scope, whole) for option in options]
        for start in range(1, len(options) - 1) if not self.shop.full else ():
            shared = set.intersection(*map(_of_fields, options[start:]))
            if shared:
                field = self.raw(Path(*min(shared), 0, 0, options[start].place), scope)
                return [*made[:start], f"({field.code} and ({' or '.join(made[start:])}))"]
        return made

    def leaf(self, raw: Raw, whole: bool, scope: Scope) -> str:
        """As `text`, of what is already compiled."""
        if not whole and not self.shop.full:
            if raw.leaf:
                return raw.leaf
            field = None if scope.owner else _FIELD.fullmatch(raw.code)
            if field:
                return self.shop.head(field[1], field[2])
        if raw.level == TEXT:
            return raw.code
        if self.shop.full:
            cut = "X.first" if whole else "X.head"
            if _FIELD.fullmatch(raw.code):  # most fields are empty
                return f"({raw.code} and X.text({cut}({raw.code})))"
            if whole and raw.level != FIELD:
                return f"X.text({raw.code})"
            if scope.owner and not whole:
                return f"X.text(X.head({raw.code}))"
            return f"X.text({cut}({raw.code}))"
        if whole:
            return f"first({raw.code})" if raw.level == FIELD else raw.code
        return f"head({raw.code})"

    def code(self, raw: Raw, scope: Scope) -> str:
        """The code that a coded value begins with: its first component, as it stands."""
        if raw.level != REPETITION or scope.owner:
            return self.leaf(raw, False, scope)
        if self.shop.full:
            return f"X.text({self._cut(raw, 1, 0).code})"
        return f"front({raw.code})"

    def repetition(self, raw: Raw) -> Raw:
        """The first repetition of a field."""
        if raw.level != FIELD:
            return raw
        return Raw(f"{'X.' if self.shop.full else ''}first({raw.code})", REPETITION)

    def condition(self, condition: Condition, scope: Scope) -> str:
        """A Python condition."""
        if isinstance(condition, Logic):
            if condition.kind == "not":
                return f"not ({self.condition(condition.parts[0], scope)})"
            return "(" + f" {condition.kind} ".join(self.condition(part, scope) for part in condition.parts) + ")"
        return self._test(condition, scope)

    def _test(self, test: Test, scope: Scope) -> str:
        there = scope.there(test.value.name) if isinstance(test.value, Name) and not test.value.how else None
        if test.kind == "valued" and there:
            return f"not {there}" if test.negated else there
        if test.kind == "valued":
            raw = self.raw(test.value, scope)
            found = (
                f"X.text({raw.code})" if self.shop.full and raw.level not in (TEXT, FIELD) else raw.there or raw.code
            )
            return f"not {found}" if test.negated else found
        if test.kind == "repeats":
            raw = self.raw(test.value, scope)
            if self.shop.full:
                return f"len(X.repetitions({raw.code})) > 1"
            return f'("~" in {raw.code} and repeats({raw.code}))' if raw.level == FIELD else "False"
        value = self.text(test.value, scope)
        options = [self.text(option, scope) for option in test.options]
        if len(options) == 1:
            return f"{value} {'!=' if test.negated else '=='} {options[0]}"
        return f"{value} {'not in' if test.negated else 'in'} ({', '.join(options)})"

    def _path(self, path: Path, scope: Scope) -> Raw:
        return self._component(path, scope) if path.dotted else self._field(path, scope)

    def note(self, values: Iterable[Value], scope: Scope, whole: bool = False) -> Note | None:
        """What some values are from; `whole`: all of their repetitions and parts, else their first leaves."""
        if not self.shop.traced:
            return None
        owners: list[str] = []
        turns: list[str] = []
        found = [tree for value in values if (tree := self._tree(value, scope, owners, turns)) is not None]
        if not found:
            return None
        tree = found[0] if len(found) == 1 else Every(tuple(found))
        return Note(tree, tuple(owners), turns[-1] if turns else "0", whole)

    def _tree(self, value: Value, scope: Scope, owners: list[str], turns: list[str]) -> Tree | None:
        match value:
            case Path():
                return self._place(value, scope, owners, turns)
            case This():
                return self._again(scope.this, owners, turns)
            case Else():
                options = [self._tree(option, scope, owners, turns) for option in value.options]
                return First(tuple(one for one in options if one is not None))
            case Template():
                parts = [part[0] for part in value.parts if not isinstance(part, str)]
            case Call():
                parts = list(value.arguments)
            case _:
                return None
        found = [self._tree(part, scope, owners, turns) for part in parts]
        return Every(tuple(one for one in found if one is not None))

    def _again(self, raw: Raw | None, owners: list[str], turns: list[str]) -> Tree | None:
        """The tree of a value that an outer row walks over."""
        if raw is None or raw.note is None:
            return None
        if raw.note.turn != "0":
            turns.append(raw.note.turn)
        slots = [_slot(owners, owner) for owner in raw.note.owners]
        return moved(raw.note.tree, slots)

    def _place(self, path: Path, scope: Scope, owners: list[str], turns: list[str]) -> Tree | None:
        parts = tuple(part for part in (path.field, path.component, path.sub) if part)
        if path.dotted:
            return Place(-1, parts, False)
        walked = scope.walked.get((path.owner, path.field))
        if walked is not None:
            tree = self._again(walked, owners, turns)
            return tree._replace(parts=parts) if isinstance(tree, Place) else tree
        variable = scope.fields(path)
        return Place(_slot(owners, variable), parts, False) if variable is not None else None

    def _component(self, path: Path, scope: Scope) -> Raw:
        if path.owner != scope.owner:
            wanted = f"a path of {scope.owner}" if scope.owner else "a segment's path such as PID-3.1"
            self.problems.add(path.place, str(path), wanted)
            return NONE
        index = path.field - 1
        there = path.field <= scope.length
        code = f"c[{index}]" if there else f'(c[{index}] if n > {index} else "")'
        if path.component:
            whole = f"T in c[{index}]" if there else f"n > {index} and T in c[{index}]"
            part = f"component(c[{index}], {path.component}, T)"
            other = code if path.component == 1 else '""'
            found = f"({part} if {whole} else {other})"
            return Raw(found, COMPONENT, leaf=found)
        leaf = f"(head(c[{index}]) if T in c[{index}] else c[{index}])"
        return Raw(code, COMPONENT, leaf=leaf if there else f'({leaf} if n > {index} else "")')

    def _field(self, path: Path, scope: Scope) -> Raw:
        walked = scope.walked.get((path.owner, path.field))
        if walked is not None:
            base = walked
        else:
            variable = None if scope.owner else scope.fields(path)
            if variable is None:
                self.problems.add(path.place, str(path), guess(path.owner, scope.segments(), "segment"))
                return NONE
            base = Raw(f"{variable}[{path.field}]", FIELD)
        if not path.component:
            return base
        return self._cut(base, path.component, path.sub) if self.shop.full else self._part(base, path)

    def _cut(self, base: Raw, component: int, sub: int) -> Raw:
        """A part of a value, with the message's own delimiters."""
        code = f"component({self.repetition(base).code}, {component}, X.delimiters.component)"
        return Raw(f"component({code}, {sub}, X.delimiters.subcomponent or NUL)" if sub else code, COMPONENT)

    def _part(self, base: Raw, path: Path) -> Raw:
        """A part of a value with the standard delimiters. Most fields have none, and a look for a mark costs less than
        the call of a function."""
        value, number = base.code, path.component
        field = _FIELD.fullmatch(value) if base.level == FIELD else None
        if path.sub:
            code = f"subcomponent({value}, {number}, {path.sub})"
            found = f"({value} and {code})" if path.sub == 1 else f'({code} if "&" in {value} else "")'
            return Raw(found, COMPONENT, leaf=found)
        if number > 1:
            there = f'if "^" in {value} else ""'
            return Raw(f"(part({value}, {number}) {there})", COMPONENT, leaf=f"(leaf({value}, {number}) {there})")
        leaf = self.shop.head(field[1], field[2]) if field else f"head({value})"
        there = f'({value} and {value}[0] not in "^~")'
        return Raw(f"({value} and front({value}))", COMPONENT, leaf=leaf, there=there)

    def _name(self, name: Name, scope: Scope) -> Raw:
        if name.name in scope.names and not name.how:
            return scope.names[name.name]
        if name.name in GIVEN:
            return Raw(GIVEN[name.name], TEXT)
        known = [*scope.names, *scope.entries(), *GIVEN]
        self.problems.unknown(name.place, "name", name.name, known)
        return NONE

    def _template(self, template: Template, scope: Scope) -> str:
        pieces, needed = [], []
        for part in template.parts:
            if isinstance(part, str):
                pieces.append(
                    part.replace("{", "{{")
                    .replace("}", "}}")
                    .replace("\\", "\\\\")
                    .replace('"', '\\"')
                    .replace("\n", "\\n")
                )
                continue
            value, optional = part
            text = self.text(value, scope)
            if _NAMED.fullmatch(text):
                needed += [] if optional else [(text, False)]
                pieces.append("{" + text + "}")
                continue
            name = self.shop.temporary()
            needed.append((f"({name} := {text})", optional))
            pieces.append("{" + name + "}")
        body = 'f"' + "".join(pieces) + '"'
        tests = [f"({code} or True)" if optional else code for code, optional in needed]
        return f'({body} if {" and ".join(tests)} else "")' if tests else body

    def _option(self, named: Value) -> str:
        """What is chosen, known when the mapping is made."""
        found = self.options.get(named.name) if isinstance(named, Name) else None
        if found is None:
            name = named.name if isinstance(named, Name) else "this"
            self.problems.unknown(named.place, "option", name, self.options)
            return '""'
        self.shop.unit.used[f"option {found.name}"] = found.chosen
        return repr(found.chosen)

    def _all(self, call: Call, scope: Scope) -> str:
        """The text of a field in all segments of a name, or in those that fit, a line each."""
        value = call.arguments[0]
        items = scope.everywhere(value.owner) if isinstance(value, Path) and not value.component else None
        if items is None or not isinstance(value, Path):
            self.problems.add(value.place, "all(…) here", "a field of a segment in the resource's group: all(OBX-5)")
            return '""'
        test = "None"
        if call.where is not None:
            owner = value.owner

            def fields(path: Path) -> str | None:
                return "f" if path.owner == owner else None

            one = Scope("r", scope.type, fields, lambda: [owner], lambda name, how: None, list)
            test = f"lambda f: {self.condition(call.where, one)}"
        noted = ", noted" if scope.noting else ""
        return f"gathered(X, lines, {items}, {value.field}, {test}{noted})"

    def _number(self, number: str, namespace: str, universal: str) -> str:
        """A number with its authority, where it has one: two of them may give the same number."""
        name, where = self.shop.temporary(), self.shop.temporary()
        whole = f'f"{{{name}}}@{{{where}}}" if ({where} := {universal} or {namespace}) else {name}'
        return f'(({whole}) if ({name} := {number}) else "")'

    def _call(self, call: Call, scope: Scope) -> str:
        count = FUNCTIONS.get(call.function)
        if count is None:
            self.problems.unknown(call.place, "function", call.function, FUNCTIONS)
            return '""'
        if count != len(call.arguments):
            self.problems.add(call.place, f"{call.function} with {len(call.arguments)} values", f"{count} values")
            return '""'
        if call.function == "whole":
            return self.text(call.arguments[0], scope, whole=True)
        if call.function == "option":
            return self._option(call.arguments[0])
        if call.function == "all":
            return self._all(call, scope)
        if call.function == "lines":
            raw = self.raw(call.arguments[0], scope).code
            return f"joined(X, {raw})" if self.shop.full else f'{raw}.replace("~", "\\n")'
        arguments = [self.text(argument, scope) for argument in call.arguments]
        if call.function == "local":
            return f"X.locals[{arguments[0]}]"
        if call.function == "number":
            return self._number(*arguments)
        if call.function == "trimmed":  # what is read quickly has no stray blanks
            return f"{arguments[0]}.lstrip()" if self.shop.full else arguments[0]
        if call.function in ("lower", "upper"):
            return f"{arguments[0]}.{call.function}()"
        return f"{call.function}(X, {', '.join(arguments)})"


def _of_fields(value: Value) -> set[tuple[str, int]]:
    """Fields of segments (`OBX`, 4) without which a value is empty."""
    match value:
        case Path() if not value.dotted:
            return {(value.owner, value.field)}
        case Template():
            return {
                one for part in value.parts if not isinstance(part, str) and not part[1] for one in _of_fields(part[0])
            }
        case Call() if value.function in ("lines", "first", "trimmed", "whole"):
            return _of_fields(value.arguments[0])
        case _:
            return set()
