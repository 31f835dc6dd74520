"""FHIR paths: looked up in the schema, and set at run time without overwriting what is there."""

from __future__ import annotations

from engine.mapping.expression import Value
from engine.mapping.files import Files
from engine.mapping.lineage import Every, Rule
from engine.mapping.model import Row, Step, Target
from engine.mapping.problems import Problems
from engine.mapping.schema import Element, Schema
from engine.mapping.scope import Note, Scope
from engine.mapping.values import Values
from engine.mapping.writer import Workshop, Writer

Found = list[tuple[str, Element, str]]
"""The steps of a path: the JSON key, the element, and for extensions the url."""


class Targets:
    """Resolves paths and writes the lines that set them. row: the one that is being written, for traces."""

    def __init__(self, files: Files, schema: Schema, shop: Workshop, problems: Problems, values: Values) -> None:
        self.files, self.schema, self.shop, self.problems, self.values = files, schema, shop, problems, values
        self.row: Row | None = None

    def resolve(self, target: Target, scope: Scope) -> Found:
        """The elements along a path, each with the JSON key and, for extensions, the url; empty after a problem."""
        owner, out = scope.type, []
        for index, step in enumerate(target.steps):
            element = self.schema.element(owner, step.name)
            if element is None:
                known = self.schema.types.get(owner, {})
                self.problems.unknown(step.place, f"element of {owner}", step.name, known)
                return []
            last = index == len(target.steps) - 1
            key = f"_{step.name}" if element.primitive and not last else step.name
            url = self._url(step)
            if url and ":" not in url and owner != "Extension":
                wanted = "a whole URL, or a name of extensions: without quotes; only in an extension it is short"
                self.problems.add(step.place, f"{step.name}({step.url})", wanted)
            owner = "Element" if element.primitive else element.type
            out.append((key, element, url))
        return out

    def _url(self, step: Step) -> str:
        if step.name not in ("extension", "modifierExtension"):
            return ""
        if step.url[:1] in "'\"" and step.url:
            return step.url[1:-1]
        url = self.files.extensions.get(step.url, "")
        if not url:
            self.problems.unknown(step.place, "extension", step.url, self.files.extensions)
        self.shop.unit.used[f"extension {step.url}"] = url
        return url

    def store(
        self,
        found: Found,
        scope: Scope,
        value: str,
        out: Writer,
        once: bool = False,
        extend: bool = False,
        note: Note | None = None,
    ) -> None:
        """Set an element, wrapping it as its path says; a repeating one gets one more. `once`: in no loop."""
        split = len(found) - 1
        for index, (_, element, url) in enumerate(found):
            if element.many and (url or index < len(found) - 1):
                split = index
                break
        for key, element, url in reversed(found[split + 1 :]):
            value = self._wrapped(key, element, url, value, extend)
            extend = False
        key, element, url = found[split]
        if url:
            value = self._extended(url, value, out)
        holder = self._inner([name for name, _, _ in found[:split]], scope, out, once or not element.many)
        path = ".".join(name for name, _, _ in found[: split + 1])
        if element.many:
            if once and holder == scope.target and path not in scope.written:
                out(f"{holder}[{key!r}] = {value if extend else f'[{value}]'}")
                scope.written.add(path)
                self._trace(holder, key, note, scope, out)
                self.yielded(scope, out)
                return
            self._append(holder, key, path, element, value, scope, out, extend)
            self._trace(holder, key, note, scope, out)
            self.yielded(scope, out)
        else:
            self._set(holder, key, path, element, value, scope, out, note)
        if len(found) > 1 and found[-2][1].type == "Period" and found[-1][0] == "end" and split == len(found) - 1:
            out(f"in_order(X, {holder})")

    def _extended(self, url: str, value: str, out: Writer) -> str:
        """An extension of what an object says."""
        made = _extension(url, value)
        if not self.shop.traced or value.startswith("{"):
            return made
        name = self.shop.temporary()
        out(f"{name} = {made}")
        out(f"X.moved({value}, {name})")
        return name

    def _inner(self, names: list[str], scope: Scope, out: Writer, once: bool) -> str:
        """The variable of an element inside the object, made where it is not there. What is there may be shared with
        other messages, as a map made it of a value that they have too; so it is copied before it is changed."""
        holder = scope.target
        fresh = bool(names) and once and not scope.merged and not any(_same(names[0], one) for one in scope.written)
        for name in names:
            old, new = self.shop.temporary(), self.shop.temporary()
            if fresh:
                out(f"{holder}[{name!r}] = {new} = {{}}")
                holder = new
                continue
            out(f"{old} = {holder}.get({name!r})")
            out(f"{holder}[{name!r}] = {new} = {{**{old}}} if {old} else {{}}")
            if self.shop.traced:
                with out.block(f"if {old}:"):
                    out(f"X.moved({old}, {new})")
            holder = new
        return holder

    def _trace(self, holder: str, key: str, note: Note | None, scope: Scope, out: Writer) -> None:
        """Note what an element that has just been set was made of."""
        if note is not None:
            self._noted(f"{holder}, {key!r}", note, scope, out)
        elif self.shop.traced and self.row is not None:  # from nothing, for who asks which rows were used
            values = [value for guard in self.shop.unit.guards for value in guard]
            decided = self.values.note(values, scope)
            if decided is None:
                self._noted("None, None", Note(Every(()), whole=False), scope, out)
            else:  # what decided that the constant stands there is no less carried over than a value
                self._noted(f"{holder}, {key!r}", decided, scope, out)

    def traced(self, holder: str, key: str, value: Value, scope: Scope, out: Writer) -> None:
        """As `_trace`, of an element that no row set."""
        self._trace(holder, key, self.values.note((value,), scope, True), scope, out)

    def passed(self, note: Note | None, scope: Scope, out: Writer, into: str = "") -> None:
        """Take over what a function that was called has noted of the value that it was given. into: what it made, and
        the object that this became part of."""
        if note is not None:
            self._noted(f"Into(X.l, {into}), None" if into else "X.l, None", note, scope, out)

    def _noted(self, what: str, note: Note, scope: Scope, out: Writer) -> None:
        assert self.row is not None
        rule = Rule(self.row, note.tree, note.whole)
        name = f"R_{self.row.place.line}_{self.row.place.column}_{id(self.row)}_{abs(hash((note.tree, note.whole)))}"
        self.shop.unit.namespace[name] = rule
        owners = "None" if scope.notes == "l" else f"({', '.join(note.owners)},)" if note.owners else "()"
        out(f"{scope.notes}.append(({what}, {name}, {owners}, {note.turn}))")

    def _wrapped(self, key: str, element: Element, url: str, value: str, extend: bool) -> str:
        if url:
            value = _extension(url, value)
        if element.many and not extend:
            value = f"[{value}]"
        return f"{{{key!r}: {value}}}"

    def _append(
        self,
        holder: str,
        key: str,
        path: str,
        element: Element,
        value: str,
        scope: Scope,
        out: Writer,
        extend: bool,
    ) -> None:
        if holder != scope.target:
            more = f"*{value}" if extend else value
            out(f"{holder}[{key!r}] = [*{holder}.get({key!r}, ()), {more}]")
        else:
            with out.block(f"if {key!r} in {holder}:"):
                if extend:
                    out(f"{holder}[{key!r}].extend({value})")
                else:
                    name = self.shop.temporary()
                    out(f"{name} = {value}")
                    with out.block(f"if {name} not in {holder}[{key!r}]:"):
                        out(f"{holder}[{key!r}].append({name})")
                    if self.shop.traced and not element.primitive:
                        with out.block("else:"):
                            out(f"X.moved({name}, {holder}[{key!r}][{holder}[{key!r}].index({name})])")
            with out.block("else:"):
                out(f"{holder}[{key!r}] = {value if extend else f'[{value}]'}")
        scope.written.add(path)

    def yielded(self, scope: Scope, out: Writer) -> None:
        """Tell a `first` around it that one of its options has yielded."""
        for target, flag in self.shop.unit.flags:
            if target == scope.target:
                out(f"{flag} = True")

    def rivals(self, type: str, writes: frozenset[str], before: frozenset[str]) -> frozenset[str]:
        """Those of the elements `before` that would be in the way of `writes`: the same, another part of the same, or
        another of a choice."""
        parents = {one.partition(".")[0] for one in writes if "." in one}
        found = {path for path in before if any(_same(path, one) for one in writes)}
        found |= {path for path in before if path.partition(".")[0] in parents}
        for path in before - found:
            element = self.schema.element(type, path)
            if element is not None and element.choice and any(_choice(one, element.choice) for one in writes):
                found.add(path)
        return frozenset(found)

    def _set(
        self,
        holder: str,
        key: str,
        path: str,
        element: Element,
        value: str,
        scope: Scope,
        out: Writer,
        note: Note | None = None,
    ) -> None:
        before = {one for one in scope.written if _same(one, path)}
        rivals = {one for one in scope.written if _choice(one, element.choice)} if element.choice else set()
        names = sorted({one.rpartition(".")[2] for one in rivals} | ({key} if before else set()))
        scope.written.add(path)
        if not names:
            out(f"{holder}[{key!r}] = {value}")
            self._trace(holder, key, note, scope, out)
            self.yielded(scope, out)
        else:
            tests = " and ".join(f"{one!r} not in {holder}" for one in names)
            with out.block(f"if {tests}:"):
                out(f"{holder}[{key!r}] = {value}")
                self._trace(holder, key, note, scope, out)
                self.yielded(scope, out)


def _same(one: str, other: str) -> bool:
    """Whether two paths are of one element, or one of a part of the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _choice(path: str, choice: str) -> bool:
    name = path.rpartition(".")[2]
    return name.startswith(choice) and name[len(choice) : len(choice) + 1].isupper()


def _extension(url: str, value: str) -> str:
    return f'{{"url": {url!r}, {value[1:]}' if value.startswith("{") else f'{{"url": {url!r}, **{value}}}'
