"""Maps as Python functions: one for each map, written when it is first used, and shared by all messages that use it.

A segment's map fills the resource that its caller began. A data type's map makes an element. A map of a resource, of
either, makes a party: an entry of its own, once for each message, or where nothing identifies it what `keyless` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.mapping.expression import Path
from engine.mapping.model import Map
from engine.mapping.scope import REPETITION, TEXT, Raw, Scope, every
from engine.mapping.writer import Unit, Writer

if TYPE_CHECKING:
    from engine.mapping.emit import Emitter


class Functions:
    """Writes the functions of an emitter's workshop."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter

    def function(self, found: Map) -> Unit:
        """The function of a data type's map, or of several fields of a segment."""
        name = _name(found)
        known = self.emitter.shop.units.get(name)
        if known is None:
            known = self.emitter.shop.write(name, lambda out: self._function(found, name, out), frozenset("f"))
        return known

    def _function(self, found: Map, name: str, out: Writer) -> None:
        self.emitter.shop.unit.used[f"map {found.name}"] = found.source
        if found.of_segment:
            self._of_fields(found, name, out)
        elif self.emitter.schema.is_resource(found.target):
            self._party(found, name, out)
        else:
            self._plain(found, name, out)

    def filler(self, found: Map, before: frozenset[str]) -> Unit:
        """The function of a segment's map, for a resource of which `before` may be set already."""
        name = f"fill_{_name(found)}"
        known = self.emitter.shop.units.get(name)
        if known is None:
            known = self._filler(found, name, frozenset())
        rivals = self.emitter.targets.rivals(found.target, known.writes, before)
        if not rivals:
            return known
        name += "_after_" + "_".join(sorted(one.replace(".", "_") for one in rivals))
        return self.emitter.shop.units.get(name) or self._filler(found, name, rivals)

    def _filler(self, found: Map, name: str, before: frozenset[str]) -> Unit:
        params = (found.owner, *found.beside)

        def write(out: Writer) -> None:
            unit = self.emitter.shop.unit
            unit.used[f"map {found.name}"] = found.source

            def fields(path: Path) -> str | None:
                if path.owner not in params:
                    return None
                unit.reads.setdefault(path.owner, set()).add(path.field)
                return path.owner

            scope = Scope(
                "r",
                found.target,
                fields,
                lambda: list(params),
                every,
                list,
                root="r",
                nulls=self.emitter.shop.full,
                written=set(before),
            )
            with out.block(f"def {name}(X, r, {', '.join(params)}):"):
                self.emitter.rows(found.rows, scope, out)
            unit.writes = frozenset(scope.written)

        return self.emitter.shop.write(name, write, frozenset(params))

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
            names=names,
            this=Raw("v", REPETITION, "W" if self.emitter.shop.traced else ""),
        )

    def _signature(self, found: Map, name: str) -> str:
        where = ["W"] * self.emitter.shop.traced
        return f"def {name}({', '.join(['v', 'X', 'S', 'T', *where, *(f'p_{n}' for n in found.takes)])}):"

    def _is_cached(self, found: Map) -> bool:
        """Nothing is remembered where every value's way is to be told."""
        return found.cached and not self.emitter.shop.traced

    def _plain(self, found: Map, name: str, out: Writer) -> None:
        self.emitter.needed(found.needs, found.target, found.rows)
        cached = self._is_cached(found)
        with out.block(self._signature(found, name)):
            if cached:
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
            if cached:
                with out.block("if len(X.diagnostics) == noted:"):
                    out("X.keep(cache, key, r)")
            out("return r")

    def _of_fields(self, found: Map, name: str, out: Writer) -> None:
        """A map of several fields of a segment. `w` is their text."""
        unit = self.emitter.shop.unit

        def fields(path: Path) -> str | None:
            if path.owner == found.owner:
                unit.reads.setdefault(path.owner, set()).add(path.field)
            return "f" if path.owner == found.owner else None

        resource = self.emitter.schema.is_resource(found.target)
        root = "r" if resource else ""
        scope = Scope(
            "r",
            found.target,
            fields,
            lambda: [found.owner],
            lambda name, how: None,
            list,
            root=root,
            cached=found.cached,
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
        self.emitter.shop.unit.party = True
        if self.emitter.shop.traced:
            return
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
        cached = self._is_cached(found)
        out(f'r = {{"resourceType": {found.target!r}}}')
        if not cached:
            out("loose = len(X.loose)")
        self.emitter.rows(found.rows, scope, out)
        self.keys(found.keys, scope, out, first=False)
        with out.block("if key:"):
            if cached:
                with out.block("if len(X.diagnostics) == noted:"):
                    out(f"X.keep(X.coded[{found.name!r}], w, (dict(r), key))")
            else:
                with out.block("if len(X.loose) > loose:"):
                    out("X.hold(r, loose)")
            out(f"known = X.anchor({found.entry!r}, r, {found.update!r}, key).reference")
        with out.block("else:"):
            self._keyless(found, name, scope, out)
        if not self.emitter.shop.traced:
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
            if found.display and self.emitter.shop.traced:
                self.emitter.targets.traced("known", "display", found.display, scope, out)

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
                    out(f"key = ((X.local({key.system!r}), k),)")
                    if not first:
                        element = self.emitter.schema.element(scope.type, "identifier")
                        if element is not None:
                            one = '{"system": key[0][0], "value": k}'
                            if element.many:
                                out(f'{scope.target}.setdefault("identifier", []).append({one})')
                            else:
                                out(f'{scope.target}.setdefault("identifier", {one})')


def _name(found: Map) -> str:
    return found.name.replace("[", "_").replace("]", "").replace("-", "_").replace(".", "_")
