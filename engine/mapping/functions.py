"""Maps as Python functions: one for each map, written when it is first used, and shared by all messages that use it.

A segment's map fills the resource that its caller began. A data type's map makes an element. A map of a resource, of
either, makes a party: an entry of its own, once for each message, or where nothing identifies it what `keyless` says.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from engine.mapping.expression import Path
from engine.mapping.lineage import Place
from engine.mapping.model import Map
from engine.mapping.scope import REPETITION, TEXT, Note, Raw, Scope, every
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
            this=Raw("v", REPETITION, Note(Place(-1, (), False)) if self.emitter.shop.traced else None),
            notes="l",
        )

    def _signature(self, found: Map, name: str) -> str:
        return f"def {name}({', '.join(['v', 'X', 'S', 'T', *(f'p_{n}' for n in found.takes)])}):"

    def _plain(self, found: Map, name: str, out: Writer) -> None:
        self.emitter.needed(found.needs, found.target, found.rows)
        traced = self.emitter.shop.traced
        with out.block(self._signature(found, name)):
            if found.cached:
                out(f"cache = X.coded[{self._cache(found)!r}]")
                out("key = v if S == '^' and T == '&' else v + S + T")
                with out.block("if key in cache:"):
                    if traced:
                        out("r, X.l = cache[key]")
                    out("return r" if traced else "return cache[key]")
                out("noted = len(X.diagnostics) + X.missed")
            out("c = v.split(S)")
            out("n = len(c)")
            self._noting(out)
            out("r = {}")
            self.emitter.rows(found.rows, self._scope(found), out)
            whole = self.emitter.whole("r", found.needs)
            out(f"r = r if {whole} else None" if found.needs else "r = r or None")
            if found.cached:
                with out.block("if len(X.diagnostics) + X.missed == noted:"):
                    out(f"X.keep(cache, key, {'(r, l)' if traced else 'r'})")
            self._noted(out)
            out("return r")

    def _cache(self, found: Map) -> str:
        """Its name; where values are traced, it holds the notes as well."""
        return f"traced {found.name}" if self.emitter.shop.traced else found.name

    def _noting(self, out: Writer) -> None:
        if self.emitter.shop.traced:
            out("l = []")

    def _noted(self, out: Writer) -> None:
        """Leave the notes where the caller finds them."""
        if self.emitter.shop.traced:
            out("X.l = l")

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
            notes="l",
        )
        with out.block(f"def {name}(w, X, f):"):
            if resource:
                self._found_again(found, name, out)
                self._resource(found, name, scope, out)
            else:
                self._element(found, scope, out)

    def _element(self, found: Map, scope: Scope, out: Writer) -> None:
        """An element of several fields."""
        traced = self.emitter.shop.traced
        self.emitter.needed(found.needs, found.target, found.rows)
        if found.cached:
            out(f"cache = X.coded[{self._cache(found)!r}]")
            with out.block("if w in cache:"):
                if traced:
                    out("r, X.l = cache[w]")
                out("return r" if traced else "return cache[w]")
            out("noted = len(X.diagnostics) + X.missed")
        self._noting(out)
        out("r = {}")
        self.emitter.rows(found.rows, scope, out)
        out(f"r = r if {self.emitter.whole('r', found.needs)} else None")
        if found.cached:
            with out.block("if len(X.diagnostics) + X.missed == noted:"):
                out(f"X.keep(cache, w, {'(r, l)' if traced else 'r'})")
        self._noted(out)
        out("return r")

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
        traced = self.emitter.shop.traced
        out(f"known = X.parties.get(({name!r}, w))")
        with out.block("if known is not None:"):
            if traced:
                out("known, X.l = known")
            out("return known")
        if found.cached:
            out(f"made = X.coded[{self._cache(found)!r}].get(w)")
            with out.block("if made is not None:"):
                if traced:
                    out("*made, X.l = made")
                out(f"one = X.again({found.entry!r}, {found.update!r}, made)")
                if traced:
                    out("X.moved(made[0], one.resource)")
                out("known = one.reference")
                out(f"X.parties[{name!r}, w] = {'known, X.l' if traced else 'known'}")
                out("return known")
            out("noted = len(X.diagnostics) + X.missed")

    def _resource(self, found: Map, name: str, scope: Scope, out: Writer) -> None:
        """The resource, its key, and the reference to it."""
        traced = self.emitter.shop.traced
        out(f'r = {{"resourceType": {found.target!r}}}')
        self._noting(out)
        if not found.cached:
            out("loose = len(X.loose)")
        self.emitter.rows(found.rows, scope, out)
        self.keys(found.keys, scope, out, first=False)
        with out.block("if key:"):
            if found.cached:
                with out.block("if len(X.diagnostics) + X.missed == noted:"):
                    if traced:
                        out(f"X.keep(X.coded[{self._cache(found)!r}], w, (r, key, l))")
                    else:
                        out(f"X.keep(X.coded[{self._cache(found)!r}], w, (dict(r), key))")
                if traced:
                    out("noted_of, r = r, dict(r)")
            else:
                with out.block("if len(X.loose) > loose:"):
                    out("X.hold(r, loose)")
            out(f"one = X.anchor({found.entry!r}, r, {found.update!r}, key)")
            if found.cached and traced:
                out("X.moved(noted_of, one.resource)")
            out("known = one.reference")
        with out.block("else:"):
            self._keyless(found, name, scope, out)
        out(f"X.parties[{name!r}, w] = {'known, l' if traced else 'known'}")
        self._noted(out)
        out("return known")

    def _keyless(self, found: Map, name: str, scope: Scope, out: Writer) -> None:
        """What nothing identifies: contained where it is referred to, a display, or nothing."""
        traced = self.emitter.shop.traced
        if found.keyless == "contain":
            notes = ", l" if traced else ""
            known = '("name" in r or "identifier" in r)' if found.target == "Organization" else "len(r) > 1"  # org-1
            out(f"return X.alone({name!r}, w, {found.entry!r}, r{notes}) if {known} else None")
        elif found.keyless == "drop":
            out("return None")
        else:
            display = self.emitter.values.text(found.display, scope, True) if found.display else '""'
            out(f"known = {display}")
            out("known = known and as_string(known, X)")
            with out.block("if not known:"):
                out("return None")
            out('known = {"display": known}')
            if found.display and traced:
                self.emitter.targets.traced("known", "display", found.display, scope, out)

    def keys(self, keys: tuple[Any, ...], scope: Scope, out: Writer, first: bool) -> None:
        """`key` becomes the resource's identifiers to be found by; the first way that yields one is taken."""
        out("key = ()")
        for index, key in enumerate(keys):
            with out.block("if not key:") if index else nullcontext():
                if key.value is None:
                    out(f"key = identifiers({scope.target}, {key.type!r})")
                    continue
                out(f"k = {self.emitter.values.text(key.value, scope)}")
                with out.block("if k:"), out.block("if '|' in k or not k.isprintable():"):
                    out("k = as_key(X, k)")
                with out.block("if k:"):
                    out(f"key = ((X.locals[{key.system!r}], k),)")
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
