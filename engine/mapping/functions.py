"""Data type maps as Python functions: one for each map, written when it is first used.

A map of a resource makes a party: an entry of its own, once for each message, or where nothing identifies it a display.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from engine.mapping.expression import Path
from engine.mapping.model import Map
from engine.mapping.scope import REPETITION, TEXT, Raw, Scope
from engine.mapping.writer import Writer

if TYPE_CHECKING:
    from engine.mapping.emit import Emitter


_CALL = re.compile(r"(\w+)\(")


class Functions:
    """Writes the functions of an emitter's module."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self.reads: dict[str, set[int]] = {}

    def function(self, found: Map) -> str:
        """The name of the Python function that a map becomes, written on first use."""
        name = found.name.replace("[", "_").replace("]", "").replace("-", "_").replace(".", "_")
        if found.name not in self.emitter.module.names:
            self.emitter.module.names[found.name] = name
            out = Writer()
            if found.of_segment:
                self._of_segment(found, name, out)
            elif self.emitter.schema.is_resource(found.target):
                self._party(found, name, out)
            else:
                self._plain(found, name, out)
            self.emitter.module.functions.append("\n".join(out.lines))
        return name

    def _scope(self, found: Map) -> Scope:
        names = {name: Raw(f"p_{name}", TEXT) for name in found.takes}
        return Scope(
            "r",
            found.target,
            lambda path: None,
            list,
            lambda name, how: None,
            list,
            owner=found.owner + ".",
            cached=found.cached,
            own=True,
            names=names,
            this=Raw("v", REPETITION),
        )

    def _signature(self, found: Map, name: str) -> str:
        return f"def {name}({', '.join(['v', 'X', 'S', 'T', *(f'p_{n}' for n in found.takes)])}):"

    def _plain(self, found: Map, name: str, out: Writer) -> None:
        self.emitter.needed(found.needs, found.target, found.rows)
        with out.block(self._signature(found, name)):
            if found.cached:
                out(f"cache = X.coded[{found.name!r}]")
                out("key = v if S == '^' and T == '&' else v + S + T")
                with out.block("if key in cache:"):
                    out("return cache[key]")
                out("noted = len(X.diagnostics)")
            out("c = v.split(S)")
            out("n = len(c)")
            out("r = {}")
            self.emitter.rows(found.rows, self._scope(found), out)
            whole = self.emitter.whole("r", found.needs)
            out(f"r = r if {whole} else None" if found.needs else "r = r or None")
            if found.cached:
                with out.block("if len(X.diagnostics) == noted:"):
                    out("X.keep(cache, key, r)")
            out("return r")

    def _of_segment(self, found: Map, name: str, out: Writer) -> None:
        """A map of several fields of a segment. `w` is their text."""
        reads = self.reads[found.name] = set()

        def fields(path: Path) -> str | None:
            if path.owner == found.owner:
                reads.add(path.field)
            return "f" if path.owner == found.owner else None

        resource = self.emitter.schema.is_resource(found.target)
        scope = Scope(
            "r",
            found.target,
            fields,
            lambda: [found.owner],
            lambda name, how: None,
            list,
            root="r" if resource else "",
            cached=found.cached,
            own=True,
        )
        with out.block(f"def {name}(w, X, f):"):
            if resource:
                if found.cached:
                    out("w += X.mark")
                self._found_again(found, name, out)
                self._resource(found, name, scope, out)
            else:
                self.emitter.needed(found.needs, found.target, found.rows)
                out("r = {}")
                self.emitter.rows(found.rows, scope, out)
                out(f"return r if {self.emitter.whole('r', found.needs)} else None")

    def _party(self, found: Map, name: str, out: Writer) -> None:
        """A map of a resource: makes it once for each message, and gives the reference to it."""
        scope = self._scope(found)
        scope.root = "r"
        with out.block(self._signature(found, name)):
            out("w = v if S == '^' and T == '&' else v + S + T")
            self._found_again(found, name, out)
            out("c = v.split(S)")
            out("n = len(c)")
            self._resource(found, name, scope, out)

    def _found_again(self, found: Map, name: str, out: Writer) -> None:
        """What this message, or an earlier one, made of the same value."""
        out(f"known = X.parties.get(({name!r}, w))")
        with out.block("if known is not None:"):
            out("return known")
        if found.cached:
            out(f"made = X.coded[{found.name!r}].get(w)")
            with out.block("if made is not None:"):
                out(f"known = X.again({found.entry!r}, {found.update!r}, made).reference")
                out(f"X.parties[{name!r}, w] = known")
                out("return known")
            out("noted = len(X.diagnostics)")

    def _resource(self, found: Map, name: str, scope: Scope, out: Writer) -> None:
        """The resource, its key, and the reference to it."""
        out(f'r = {{"resourceType": {found.target!r}}}')
        contains = not found.cached
        if contains:
            out("loose = len(X.loose)")
        self.emitter.rows(found.rows, scope, out)
        self.keys(found.keys, scope, out, first=False)
        with out.block("if key:"):
            if contains:
                with out.block("if len(X.loose) > loose:"):
                    out("X.hold(r, loose)")
            if found.cached:
                with out.block("if len(X.diagnostics) == noted:"):
                    out(f"X.keep(X.coded[{found.name!r}], w, (dict(r), key))")
            out(f"known = X.anchor({found.entry!r}, r, {found.update!r}, key).reference")
        with out.block("else:"):
            self._keyless(found, name, scope, out)
        out(f"X.parties[{name!r}, w] = known")
        out("return known")

    def _keyless(self, found: Map, name: str, scope: Scope, out: Writer) -> None:
        """What nothing identifies: contained where it is referred to, a display, or nothing."""
        if found.keyless == "contain":
            out(f"return X.alone({name!r}, w, {found.entry!r}, r) if len(r) > 1 else None")
        elif found.keyless == "drop":
            out("return None")
        else:
            display = self.emitter.values.text(found.display, scope, True) if found.display else '""'
            out(f"known = {display}")
            with out.block("if not known:"):
                out("return None")
            out('known = {"display": known}')

    def made_of_parties(self, lines: list[str]) -> bool:
        """Whether some lines call, directly or not, for a party: what they make holds references of one message."""
        texts = {one.partition("(")[0].removeprefix("def "): one for one in self.emitter.module.functions}
        seen: set[str] = set()
        waiting = ["\n".join(lines)]
        while waiting:
            text = waiting.pop()
            if "X.parties" in text:
                return True
            called = {name for name in _CALL.findall(text) if name in texts} - seen
            seen |= called
            waiting.extend(texts[name] for name in called)
        return False

    def keys(self, keys: tuple[Any, ...], scope: Scope, out: Writer, first: bool) -> None:
        """`key` becomes the resource's identifiers to be found by; the first way that yields one is taken."""
        out("key = ()")
        for index, key in enumerate(keys):
            with out.block("if not key:" if index else "if True:"):
                if key.value is None:
                    out(f"key = identifiers({scope.target}, {key.type!r})")
                    continue
                out(f"k = {self.emitter.values.text(key.value, scope)}")
                with out.block("if k:"):
                    local = f"X.local({key.system!r})" if scope.own else self.emitter.module.local(key.system)
                    out(f"key = (({local}, k),)")
                    if not first:
                        element = self.emitter.schema.element(scope.type, "identifier")
                        if element is not None:
                            one = '{"system": key[0][0], "value": k}'
                            if element.many:
                                out(f'{scope.target}.setdefault("identifier", []).append({one})')
                            else:
                                out(f'{scope.target}.setdefault("identifier", {one})')
