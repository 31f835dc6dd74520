"""What the steps of a v2 mapping do, as functions on a draft."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from engine.hl7.message import NULL
from engine.mapping.library import Unmappable
from engine.mapping.v2 import path
from engine.mapping.v2.conditions import Test, Value
from engine.mapping.v2.draft import Draft, Line, canonical, leaf, localised, written
from engine.mapping.v2.path import ALL, Around, Here, Path
from engine.mapping.v2.tables import Later, Table

Step = Callable[[Draft, Here | None], None]


def conditional(step: Step, when: Test) -> Step:
    """A step that is done only where a condition holds."""

    def conditional(draft: Draft, here: Here | None) -> None:
        if when(draft, here):
            step(draft, here)

    return conditional


def put(to: Path, around: Around, value: Value) -> Step:
    """Set a value, where there is one."""
    write, where = path.writer(to, around), to.text

    def put(draft: Draft, here: Here | None) -> None:
        text = value(draft, here)
        if text:
            write(draft, here, written(text, draft, where))

    return put


def transfer(start: Path, end: Path, around: Around, moves: bool) -> Step:
    """Copy or move a raw value."""
    read, write = path.reader(start, around, whole=True), path.writer(end, around)
    find, gone = path.lines(end, around), clear(start, around)

    def transfer(draft: Draft, here: Here | None) -> None:
        raw = read(draft, here)
        if not raw or not find(draft, here):  # nothing is taken away that has nowhere to go
            return
        _check_room(raw, start, end, draft)
        write(draft, here, raw)
        if moves:
            gone(draft, here)

    return transfer


def add(name: str, after: Path, around: Around) -> Step:
    """Put a new segment behind each that a path means."""
    find = path.lines(after, around)

    def add(draft: Draft, here: Here | None) -> None:
        for line in find(draft, here):
            draft.add(name, line)

    return add


def lookup(to: Path, key: Path, around: Around, kept: tuple[str, str], missing: str) -> Step:
    """Put what an earlier message brought. kept: the store, and the value's name."""
    read, write, gone = path.reader(key, around), path.writer(to, around), clear(to, around)
    store, name = kept

    def lookup(draft: Draft, here: Here | None) -> None:
        raw, recall = read(draft, here), draft.context.recall
        known = None
        if raw and raw != NULL and recall:
            wanted = canonical(raw, draft)
            known = recall(store, wanted, False) or (recall(store, wanted, True) if missing == "later" else None)
        found = known.get(name, "") if known else ""
        if found:
            raw = localised(found, draft)
            _check_room(raw, key, to, draft)
            write(draft, here, raw)
        elif missing == "clear":
            gone(draft, here)
        elif missing == "refuse":
            raise Unmappable("not-remembered", key.text, f"a key that {store} knows")
        elif missing == "later":
            raise Later("not-remembered", key.text, f"a key that {store} knows")

    return lookup


def _check_room(raw: str, start: Path, end: Path, draft: Draft) -> None:
    if not path.fits(raw, end, draft):
        raise Unmappable("too-many-parts", start.text, f"a value that {end.text} has room for")


def clear(found: Path, around: Around) -> Step:
    """Empty a field or a component, or take out a repetition."""
    repetition = path.repetition_of(found, around)
    if found.component:
        rewrite = _rewriter(found, around)
        return lambda draft, here: rewrite(draft, here, lambda raw: "")
    return _drop(found, around, ALL if found.whole and repetition is not None else repetition)


def remove(found: Path, around: Around, group: bool) -> Step:
    """Take segments out, alone or with what belongs to them."""
    one = bool(found.nth) or around.segment == found.segment
    find = path.lines(found if one else replace(found, nth=ALL), around)

    def remove(draft: Draft, here: Here | None) -> None:
        gone = find(draft, here)
        if group:
            gone = [line for each in gone for line in draft.groups.belonging(each)]
        if gone:
            draft.remove(gone)

    return remove


def _drop(found: Path, around: Around, repetition: int | None) -> Step:
    """Take repetitions out of a field."""
    find = path.lines(found, around)

    def drop(draft: Draft, here: Here | None) -> None:
        for line in find(draft, here):
            values = line.cut(draft.mark)
            old = values[found.field] if found.field < len(values) else ""
            parts = path.repetitions(old, draft)
            at = here.repetition if repetition is None and here else (repetition or 1) - 1
            if repetition == ALL or not parts:
                parts = []
            elif at < len(parts):
                del parts[at]
            if old:
                line.put(found.field, draft.marks.repetition.join(parts), draft.mark)

    return drop


def translation(
    to: Path, around: Around, keys: list[Value | None] | None, table: Table, column: int, default: Value | None,
    unmapped: str,
) -> Step:  # fmt: skip
    """Each place by itself: what stands there through the table, or what `keys` say."""
    rewrite = _rewriter(to, around)

    def translate(draft: Draft, here: Here | None) -> None:
        texts = tuple(key(draft, here) for key in keys if key) if keys else None

        def one(raw: str) -> str:
            key = texts or (leaf(raw, draft),)
            if not all(key):  # empty, or null
                return raw
            found = table.get(key, column, draft.context.received)
            if found is None and default is not None:
                found = default(draft, here)
            if found:
                return written(found, draft, to.text)
            if unmapped == "refuse":
                raise Unmappable("unknown-code", to.text, f"a code that the table {table.name} has")
            return "" if unmapped == "clear" else raw

        rewrite(draft, here, one)

    return translate


def _rewriter(to: Path, around: Around) -> Callable[[Draft, Here | None, Callable[[str], str]], None]:
    """Changes each raw value that a path means; what stays as it was is not touched."""
    find, repetition = path.lines(to, around), path.repetition_of(to, around)

    def rewrite(draft: Draft, here: Here | None, change: Callable[[str], str]) -> None:
        for line in find(draft, here):
            fields = line.cut(draft.mark)
            old = fields[to.field] if to.field < len(fields) else ""
            for at in path.places(old, repetition, draft, here):
                raw = path.part(old, draft, at, to.component, to.sub)
                new = change(raw)
                if new != raw:
                    old = path.within(old, to, [at], new, draft)
                    line.put(to.field, old, draft.mark)

    return rewrite


def walk(over: Path, around: Around, when: Test | None, steps: Iterable[Step]) -> Step:
    """Go over the segments of a name, or the repetitions of a field, as they were at the beginning."""
    find = path.lines(
        over if over.field else replace(over, nth=ALL) if around.segment != over.segment else over, around
    )
    inner = list(steps)

    def one(draft: Draft, here: Here) -> None:
        if when is None or when(draft, here):
            for step in inner:
                if here.line.gone:
                    return
                step(draft, here)

    def segments(draft: Draft, here: Here | None) -> None:
        draft.groups  # noqa: B018  before the first change, so that all keys are there
        for line in find(draft, here):
            if not line.gone:
                one(draft, Here(line))

    def repetitions(draft: Draft, here: Here | None) -> None:
        for line in find(draft, here):
            at = 0
            for _ in range(_count(line, over.field, draft)):
                before = _count(line, over.field, draft)
                one(draft, Here(line, at))
                at += 1 if _count(line, over.field, draft) >= before else 0

    return repetitions if over.field else segments


def _count(line: Line, number: int, draft: Draft) -> int:
    values = line.cut(draft.mark)
    return len(path.repetitions(values[number], draft)) if number < len(values) else 0
