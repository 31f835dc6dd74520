"""One message on its way through a mapping: what generated code works with."""

from __future__ import annotations

import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping as Dict
from collections.abc import Sequence, Set
from datetime import tzinfo
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import orjson

from engine.fhir.identifiers import pair, type_of
from engine.fhir.merge import rivals
from engine.fhir.output import WHOSE, Diagnostic, Entry, Key, Policy, Role, UnmappedCode, series_key
from engine.hl7 import datetime as times
from engine.hl7.escape import STANDARD, Delimiters, unescape
from engine.mapping import lineage
from engine.mapping.convert import datetime, urn_part
from engine.mapping.convert import text as clean

CACHE_LIMIT = 4096
"""Entries of each cache; a full one is emptied, as the values in use come back at once."""
_NUMBERS = tuple(f"{number:06x}" for number in range(256))
_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"\s*(?:({_NUMBER})\s*-\s*({_NUMBER})|([<>]=?)\s*({_NUMBER}))\s*")
_PAD = ("",) * 64
_READINGS = 64
_LOCAL = re.compile(rb'"reference":"#([^"\\]+)"')  # which can't stand in a text, whose quotes would be escaped
_CACHE_LENGTH = 200  # characters; longer values hardly repeat


class Locals(dict[str, str]):
    """Systems that mean something within a connection, by name: urn:interlock:<connection>:<name>."""

    def __init__(self, connection: str) -> None:
        super().__init__()
        self._prefix = f"urn:interlock:{urn_part(connection)}:"

    def __missing__(self, name: str) -> str:
        if len(self) >= CACHE_LIMIT:
            self.clear()
        found = self[name] = self._prefix + urn_part(name)
        return found


class Connection:
    """What messages of one channel share: systems, zone, and small bounded caches of codes."""

    def __init__(self, name: str, identity: Dict[str, str], timezone: str, coding: Dict[str, str]) -> None:
        self.name, self.identity, self.timezone = name, identity, timezone
        self.zone: tzinfo | None = ZoneInfo(timezone) if timezone else None
        self.coding: dict[str, str] = dict(coding)
        self.authorities: dict[tuple[str, str, str], str] = {}
        self.locals = Locals(name)
        self.systems: dict[tuple[str, str], str] = {}
        self._coded: dict[tuple[str, Delimiters], defaultdict[str, dict[str, Any]]] = {}
        self.times: dict[str, dict[str, str]] = {"": {}}  # by the zone's mark
        self.instants: dict[str, dict[str, str]] = {"": {}}
        self.numbers: dict[str, float | int] = {}
        self.zones: dict[str, tuple[str, tzinfo | None]] = {}  # by the end of MSH-7

    def coded(self, mark: str, delimiters: Delimiters) -> defaultdict[str, dict[str, Any]]:
        """The caches of messages that are read alike: of one zone, and with the same delimiters."""
        found = self._coded.get((mark, delimiters))
        if found is None:
            if len(self._coded) >= _READINGS:
                self._coded.clear()
            found = self._coded[mark, delimiters] = defaultdict(dict)
        return found

    def remember(self, cache: dict[Any, Any], key: Any, value: Any) -> None:
        """Keep a value in a bounded cache."""
        if len(cache) >= CACHE_LIMIT:
            cache.clear()
        cache[key] = value


class Run:
    """State of one message: its entries so far, its parties, its zone, what could not be carried over."""

    __slots__ = (
        "alones",
        "channel",
        "cleared",
        "coded",
        "connection",
        "counts",
        "delimiters",
        "diagnostics",
        "entries",
        "event",
        "former",
        "incarnation",
        "instants",
        "keys",
        "l",
        "locals",
        "loose",
        "mark",
        "missed",
        "moves",
        "numbers",
        "parties",
        "places",
        "prefix",
        "received",
        "sequence",
        "times",
        "trace",
        "unmapped",
        "version",
        "zone",
    )

    def __init__(self, raw: bytes, connection: Connection, channel: str, received: int) -> None:
        self.connection = connection
        self.locals, self.numbers = connection.locals, connection.numbers
        self.coded: Dict[str, dict[str, Any]] = {}
        self.channel = channel
        self.received = received
        self.entries: list[Entry] = []
        self.diagnostics: list[Diagnostic] = []
        self.parties: dict[tuple[str, str], Any] = {}
        self.keys: dict[tuple[str, tuple[str, str]], Any] = {}  # of entries, by their types
        self.former: list[Entry] = []  # those that may have been stored by another key
        self.counts: dict[Any, int] = {}  # of facts with one key, and of what is contained
        self.loose: list[dict[str, Any]] = []  # contained resources whose holder is not made yet
        self.alones: dict[tuple[str, str], tuple[dict[str, str], list[dict[str, Any]], list[Any] | None]] = {}
        self.l: list[Any] | None = None  # while traced: what the function that returned last has noted
        self.cleared: set[str] = set()
        self.trace: list[lineage.Taken] = []
        self.moves: list[tuple[Any, Any]] = []  # what became part of what
        self.unmapped: dict[UnmappedCode, None] = {}
        self.missed = 0
        self.places: dict[int, int] = {}  # id of a segment's fields → its number
        self.event = self.sequence = self.incarnation = self.version = ""
        self.delimiters: Delimiters = STANDARD
        self.zone = connection.zone
        digest = blake2b(raw, digest_size=12).hexdigest()
        # version 8 of RFC 9562, made from the message: the same bytes give the same names
        self.prefix = f"urn:uuid:{digest[:8]}-{digest[8:12]}-8{digest[12:15]}-a{digest[15:18]}-{digest[18:24]}"
        self.mark = ""  # of the zone that the message names
        self.times = connection.times[""]
        self.instants = connection.instants[""]

    def begin(self, sent: str, happened: str) -> None:
        """Take the message's zone from MSH-7, if it has one (2.14.9.7), and the time of its event: EVN-2 else MSH-7."""
        self._begin(sent)
        self.coded = self.connection.coded(self.mark, self.delimiters)
        self.event = (happened and self._time(happened)) or self._time(sent)

    def _time(self, told: str) -> str:
        return self.times.get(told) or datetime(told, self) or ""

    def _begin(self, sent: str) -> None:
        sign = sent[-5:-4]
        if (sign and sign in "+-") or sent[-1:] == "Z" or sent[-3:-2] == ":":
            zones, end = self.connection.zones, sent[-6:]
            if end not in zones:
                zone = times.zone_of(sent)
                self.connection.remember(zones, end, (str(zone), zone))
            mark, zone = zones[end]
            if zone is not None:
                self.zone, self.mark = zone, mark
                self.times = self.connection.times.setdefault(mark, {})
                self.instants = self.connection.instants.setdefault(mark, {})
        if len(self.times) >= CACHE_LIMIT:
            self.times.clear()
            self.instants.clear()

    # -- text, for messages with escapes, nulls, stray blanks or other delimiters

    def text(self, value: str) -> str:
        """A leaf as it was meant; one of blanks and empty lines (`.sp`) alone says nothing."""
        return _said(unescape(value, self.delimiters).strip(" "))

    def line(self, value: str) -> str:
        """A line of a text as it was meant: leading blanks put it in its place (2.A.78); blanks alone say nothing."""
        return _said(unescape(value, self.delimiters).rstrip(" "))

    def turns(self, value: str) -> list[str]:
        """The repetitions, an empty text for a null."""
        mark = self.delimiters.repetition
        return ["" if part == '""' else part for part in (value.split(mark) if mark else [value])]

    def moved(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        """What `old` says stands in `new` from now on."""
        self.moves.append((old, new))

    def first(self, value: str) -> str:
        """The first repetition."""
        mark = self.delimiters.repetition
        return value.split(mark, 1)[0] if mark else value

    def head(self, value: str) -> str:
        """The first leaf of a value."""
        value = self.first(value).split(self.delimiters.component, 1)[0]
        sub = self.delimiters.subcomponent
        return value.split(sub, 1)[0] if sub else value

    def repetitions(self, value: str) -> list[str]:
        """The repetitions, nulls left out."""
        mark = self.delimiters.repetition
        return [part for part in (value.split(mark) if mark else [value]) if part and part != '""']

    def fields(self, lines: list[Any], index: int, tail: tuple[Any, ...]) -> list[Any]:
        """A segment's fields, padded; explicit nulls count as not valued."""
        line = lines[index]
        fields = Fields(line.split(self.delimiters.field))
        if fields[0] == "MSH":
            fields.insert(1, self.delimiters.field)
        fields.nulls = frozenset(number for number, field in enumerate(fields) if field == '""')
        for number in fields.nulls:
            fields[number] = ""
        fields[0] = len(fields)
        fields.extend(tail[len(fields) :])
        return fields

    # -- what came of it

    def note(self, code: str, where: str, wanted: str) -> None:
        """Something could not be carried over as it stood."""
        self.diagnostics.append(Diagnostic(code, where, wanted))

    def miss(self, table: str, field: str, code: str, system: str = "") -> None:
        """A table does not know a code, which goes on as it came."""
        self.unmapped[UnmappedCode(table, field, code, system)] = None
        self.missed += 1

    def keep(self, cache: dict[str, Any], key: str, value: Any) -> Any:
        """Put what a map made of a value into its cache, unless it is too long to come again."""
        if len(key) <= _CACHE_LENGTH:
            if len(cache) >= CACHE_LIMIT:
                cache.clear()
            cache[key] = value
        return value

    def anchor(self, name: str, resource: dict[str, Any], update: Policy, key: Key) -> Entry:
        """An anchor, or the one with the same key that is there already, filled with what this one knows more."""
        kind, keys = resource["resourceType"], self.keys
        for one in key:
            known = keys.get((kind, one))
            if known is not None:
                if _of_another(known.resource, resource):
                    self.note("two-patients", name, "a number that is one patient's")
                    return self.contained(name, resource, "anchor")
                _fill(known.resource, resource)
                for other in key:
                    keys.setdefault((kind, other), known)
                if known.role == "fact" and "status" in resource:  # the later word on it
                    known.resource["status"] = resource["status"]
                if self.trace:
                    self.moved(resource, known.resource)
                return known  # type: ignore[no-any-return]
        entry = self._entry(name, resource, "anchor", key, update)
        for one in key:
            keys[kind, one] = entry
        return entry

    def others(self, resource: dict[str, Any], key: Key, element: str) -> set[tuple[str, str]]:
        """What of a key the message's other resources have, whose `element` is another: two services may come under one
        order number."""
        kind, mine = resource["resourceType"], resource.get(element)
        known = ((one, self.keys.get((kind, one))) for one in key)
        return {one for one, entry in known if entry is not None and self._is_another(entry, mine, element)}

    def _is_another(self, known: Any, mine: Any, element: str) -> bool:
        theirs = known.resource.get(element)
        return theirs is not None and mine is not None and theirs != mine

    def again(self, name: str, update: Policy, made: Any) -> Entry:
        """What an earlier message of the connection made of the same value, for a party or a block of fields."""
        resource, key = made
        return self.anchor(name, dict(resource), update, key)

    def fact(self, name: str, resource: dict[str, Any], key: Key, where: Any, series: str = "") -> Entry:
        """A fact under the first of its keys; an ordinal tells apart what the sender calls the same."""
        own = key[0]
        place = resource["resourceType"], own
        entry = self._entry(name, resource, "fact", (own,), "overwrite")
        if series:
            entry.series = series
        known = self.keys.setdefault(place, entry)
        if known is not entry:
            own = self._next(place)
            entry.key = (own,)
        if where is list and "identifier" not in resource:
            resource["identifier"] = [{"system": own[0], "value": own[1]}]
        else:
            known_by(resource, own, where)
        if series and known is not entry:
            entry.formerly = key[:1]
            for one in (known.resource, resource):
                known_by(one, series_key(key[0]), list)
        return entry

    def _next(self, place: tuple[str, tuple[str, str]]) -> tuple[str, str]:
        """The key of a further resource of a type with one key."""
        count = self.counts[place] = self.counts.get(place, 1) + 1
        return place[1][0], f"{place[1][1]}#{count}"

    def another(self, resource: dict[str, Any], key: Key, element: str) -> Key:
        """An anchor's key; the next one, where another one of the message has it whose element differs."""
        if not key or not self.others(resource, key, element):
            return key
        own = self._next((resource["resourceType"], key[0]))
        known_by(resource, own, list, {key[0]})
        return (own,)

    def formerly(self, entry: Entry, keys: Sequence[tuple[str, str]]) -> None:
        """Keys that an anchor may have been stored by, beside its own. What is contained has none."""
        if not entry.key:
            return
        for one in keys:
            if one not in entry.key and one not in entry.formerly:
                entry.formerly += (one,)
        if not (entry.apart or entry.series):  # which tell it apart
            self.former.append(entry)

    def leave_former(self) -> None:
        """What is another one's key in this message is no former key."""
        for entry in self.former:
            kind = entry.resource["resourceType"]
            others = {one for one in entry.formerly if self.keys.get((kind, one), entry) is not entry}
            if others:
                entry.formerly = tuple(one for one in entry.formerly if one not in others)
                known_by(entry.resource, entry.key[0], type(entry.resource.get("identifier")), others)

    def keyless(self, name: str, resource: dict[str, Any], role: Role, keep: bool) -> Entry | None:
        """A resource that nothing identifies: to be contained where it is referred to, or dropped."""
        if role == "provenance":
            return self._entry(name, resource, role, (), "create")
        self.note("no-identity", name, "an identifier to find it by")
        return self.contained(name, resource, role) if keep and len(resource) > 1 else None

    def contained(self, name: str, resource: dict[str, Any], role: Role) -> Entry:
        """A resource that stands inside those that refer to it."""
        count = self.counts[name] = self.counts.get(name, 0) + 1
        reference = {"reference": f"#{name}-{count}" if count > 1 else f"#{name}"}
        return Entry(name, resource, reference, role, (), "create")

    def alone(
        self, function: str, value: str, name: str, resource: dict[str, Any], notes: list[Any] | None = None
    ) -> dict[str, str]:
        """The reference to a party without a key, which is contained in whatever refers to it."""
        known = self.alones.get((function, value))
        if known is None:
            entry = self.contained(name, resource, "anchor")
            inner = resource.pop("contained", [])
            resource["id"] = entry.reference["reference"][1:]
            resource.pop("meta", None)  # dom-5
            known = entry.reference, [*inner, resource], notes
            self.alones[function, value] = known
        self.loose.extend(known[1])
        self.l = known[2]
        return known[0]

    def hold(self, resource: dict[str, Any], since: int) -> None:
        """Contain the loose resources from a number on."""
        resource["contained"] = [*resource.get("contained", ()), *self.loose[since:]]
        del self.loose[since:]
        settle(resource)

    def _entry(self, name: str, resource: dict[str, Any], role: Role, key: Key, update: Policy) -> Entry:
        entries = self.entries
        number = len(entries)
        tail = _NUMBERS[number] if number < 256 else f"{number:06x}"
        entry = Entry(name, resource, {"reference": self.prefix + tail}, role, key, update, self.event)
        entries.append(entry)
        return entry

    def every(self, role: str) -> list[dict[str, str]]:
        """References to all entries of a role."""
        return [entry.reference for entry in self.entries if entry.role == role]


class Fields(list[Any]):
    """A segment's fields. nulls: the numbers of those that are explicitly null."""

    __slots__ = ("nulls",)
    nulls: frozenset[int]


def _said(text: str) -> str:
    return "" if text == '""' or not text.strip(" \n") else text


def nulls(fields: Any) -> frozenset[int]:
    """The numbers of the explicitly null fields of a segment; of one that is not there, none."""
    return fields.nulls if isinstance(fields, Fields) else frozenset()


def _local_references(resource: dict[str, Any]) -> set[str]:
    """The ids of the contained resources that it refers to, but for what it contains."""
    own = orjson.dumps({name: value for name, value in resource.items() if name != "contained"})
    return {found.decode() for found in _LOCAL.findall(own)}


def link(run: Run, resource: dict[str, Any], entry: Entry) -> dict[str, str]:
    """The reference to an entry. One without a key is contained here, and what it contains comes with it."""
    if not entry.key and entry.role != "provenance":
        kept = resource.setdefault("contained", [])
        inner = {name: value for name, value in entry.resource.items() if name != "meta"}  # dom-5
        inner["id"] = entry.reference["reference"][1:]
        if run.trace:
            run.moved(entry.resource, inner)
        for other in (*inner.pop("contained", ()), inner):
            if all(other["id"] != known["id"] for known in kept):
                kept.append(other)
    return entry.reference


def settle(resource: dict[str, Any]) -> None:
    """Leave out what is contained and nothing refers to (dom-3): the element that did was dropped, or the resource
    was joined with one that has this element already."""
    held: dict[str, dict[str, Any]] = {}
    for one in resource["contained"]:
        held.setdefault(one["id"], one)
    waiting, wanted = _local_references(resource), set[str]()
    while waiting:
        name = waiting.pop()
        if name in held and name not in wanted:
            wanted.add(name)
            waiting |= _local_references(held[name])
    if len(wanted) < len(resource["contained"]):
        resource["contained"] = [one for name, one in held.items() if name in wanted]
        if not wanted:
            del resource["contained"]


def identifiers(resource: dict[str, Any], kind: str) -> Key:
    """The complete identifiers of a resource (of a type), in order: its possible keys."""
    found = resource.get("identifier", ())
    key: Key = ()
    for one in (found,) if isinstance(found, dict) else found:
        # a server can be asked for it with a system, and without a bar, at which Medplum splits
        if (not kind or kind == type_of(one)) and "system" in one and "|" not in one.get("value", "|"):
            key += ((one["system"], one["value"]),)
    return key


def known_by(
    resource: dict[str, Any], key: tuple[str, str], where: Any, taken: Set[tuple[str, str]] = frozenset()
) -> None:
    """Its key is among a resource's identifiers, of which it has a `list`, one (`dict`) or None. Those that are taken
    are left off, since they would find another one."""
    found: Any = resource.get("identifier")
    if where is list:
        left = [one for one in found or () if pair(one) not in taken] if taken else found or ()
        for one in left:
            if pair(one) == key:
                resource["identifier"] = left
                return
        resource["identifier"] = [*left, {"system": key[0], "value": key[1]}]
    elif where is dict and (found is None or pair(found) in taken):
        resource["identifier"] = {"system": key[0], "value": key[1]}


def _of_another(known: dict[str, Any], resource: dict[str, Any]) -> bool:
    """Whether two resources of one number are of two patients."""
    for element in WHOSE:
        mine, theirs = resource.get(element), known.get(element)
        if mine and theirs and mine is not theirs and mine != theirs and "reference" in mine and "reference" in theirs:
            return True
    return False


def _fill(known: dict[str, Any], more: dict[str, Any]) -> None:
    """Elements that `known` lacks; lists of both are joined."""
    for name, value in more.items():
        have = known.get(name)
        if have is None:
            if not rivals(known, name):  # of a choice only one may stand
                known[name] = value
        elif isinstance(have, list) and have is not value:
            known[name] = [*have, *(item for item in value if item not in have)]


# -- plain text: standard delimiters, no escapes, no nulls, no blanks at the edges


def first(value: str) -> str:
    """The first repetition."""
    return value[: value.index("~")] if "~" in value else value


def head(value: str) -> str:
    """The first leaf of a value."""
    if "~" in value:
        value = value[: value.index("~")]
    if "^" in value:
        value = value[: value.index("^")]
    return value[: value.index("&")] if "&" in value else value


def component(value: str, number: int, mark: str) -> str:
    """A component of one repetition, `` where there is none."""
    if mark not in value:
        return value if number == 1 else ""
    parts = value.split(mark, number)
    return parts[number - 1] if len(parts) >= number else ""


def front(value: str) -> str:
    """The first component of the first repetition."""
    if "~" in value:
        value = value[: value.index("~")]
    return value[: value.index("^")] if "^" in value else value


def part(value: str, number: int) -> str:
    """A component of the first repetition, `` where there is none."""
    if "~" in value:
        value = value[: value.index("~")]
    if "^" not in value:
        return value if number == 1 else ""
    parts = value.split("^", number)
    return parts[number - 1] if len(parts) >= number else ""


def leaf(value: str, number: int) -> str:
    """The first leaf of a component of the first repetition."""
    if "~" in value:
        value = value[: value.index("~")]
    parts = value.split("^", number)
    if len(parts) < number:
        return ""
    value = parts[number - 1]
    return value[: value.index("&")] if "&" in value else value


def subcomponent(value: str, number: int, sub: int) -> str:
    """A subcomponent of a component of the first repetition, `` where there is none."""
    return component(part(value, number), sub, "&")


def decide(rows: Any, otherwise: str, cells: tuple[str, ...], memo: dict[tuple[str, ...], str]) -> str:
    """The result of the first row that fits, remembered."""
    found = otherwise
    for wanted, result in rows:
        if all(_fits(want, cell) for want, cell in zip(wanted, cells, strict=True)):
            found = result
            break
    if len(memo) < CACHE_LIMIT:
        memo[cells] = found
    return found


def _fits(wanted: tuple[str, ...], cell: str) -> bool:
    return (
        wanted == ("any",)
        or (wanted == ("valued",) and bool(cell))
        or (wanted == ("empty",) and not cell)
        or cell in wanted
    )


def cut(line: Any, tail: tuple[Any, ...]) -> Any:
    """The fields of a segment, which is cut once however many rows read it, padded to the length of `tail`. In the
    place of its name stands how many it came with."""
    if type(line) is str:
        line = line.split("|")
        line[0] = len(line)
    if len(line) < len(tail):
        line.extend(tail[len(line) :])
    return line


def header(lines: list[str], items: Any, tail: tuple[str, ...]) -> Any:
    """MSH, whose first field is the separator itself."""
    found: list[Any] = lines[0].split("|")
    found.insert(1, "|")
    found[0] = len(found)
    found.extend(tail[len(found) :])
    return found


def walk(group: Any, path: tuple[int, ...]) -> Any:
    """What stands at a path of slots; through groups that occur once."""
    for slot in path[:-1]:
        items = group.items[slot]
        if not items:
            return ()
        group = items[0]
    return group.items[path[-1]]


def translated(
    concept: dict[str, Any] | None,
    codes: dict[str, Any],
    code: str,
    run: Run,
    told: tuple[str, str, bool, bool],
    memo: dict[str, Any] | None = None,
    value: str = "",
) -> dict[str, Any] | None:
    """A CodeableConcept with the code's translation in front; as it was where the table has none.

    told: the table's name, the field's, whether the table has codes of one system, whether what it lacks is listed.
    memo: where what was made of the value is kept, if it was translated.
    """
    system = _system(concept, code)
    coding = codes.get(f"{code}\x1f{system}") or codes.get(f"{code}\x1f{_local(system)}") if told[2] else None
    coding = coding or codes.get(code)
    if coding is None:
        if told[3]:
            run.miss(told[0], told[1], code, system)
        return concept
    made = _with(concept, coding, run)
    return made if memo is None else run.keep(memo, value, made)


def _system(concept: dict[str, Any] | None, code: str) -> str:
    """The system of a code in a CodeableConcept."""
    found = (one.get("system", "") for one in (concept or {}).get("coding", ()) if one.get("code") == code)
    return next(found, "")


def _local(system: str) -> str:
    """What the sender calls a system of the connection's own."""
    return unquote(system.rpartition(":")[2]) if system.startswith("urn:interlock:") else system


def _with(concept: dict[str, Any] | None, coding: dict[str, Any], run: Run) -> dict[str, Any]:
    if concept is None:
        return {"coding": [coding]}
    others = [one for one in concept.get("coding", ()) if one.get("system") != coding["system"]]
    made = {**concept, "coding": [coding, *others]}
    run.moved(concept, made)
    return made


def joined(run: Run, value: str) -> str:
    """The repetitions of a text as its lines."""
    return "\n".join(run.line(part) for part in value.split(run.delimiters.repetition or "\0"))


def kept(resource: dict[str, Any], run: Run, url: str, value: str, *marks: str) -> bool:
    """Keep a value whole in extensions, one for each repetition, if there is one. marks: those of its parts, outermost
    first."""
    made = [_kept(run, url, part, marks[1:]) for part in value.split(marks[0])]
    if found := [one for one in made if one is not None]:
        resource["extension"] = [*resource.get("extension", ()), *found]
    return bool(found)


def _kept(run: Run, url: str, value: str, marks: tuple[str, ...]) -> dict[str, Any] | None:
    """A value's extension: a string, or an extension for each of its parts, named by its number."""
    if not any(mark in value for mark in marks):
        text = clean(run.text(value), run)
        return {"url": url, "valueString": text} if text else None
    parts = [_kept(run, str(number), part, marks[1:]) for number, part in enumerate(value.split(marks[0]), 1)]
    found = [one for one in parts if one is not None]
    return {"url": url, "extension": found} if found else None


def gathered(
    run: Run, lines: list[Any], items: list[int], field: int, fits: Any, noted: list[Any] | None = None
) -> str:
    """The text of a field in those of some segments that fit, a line for each of its repetitions. noted: gets the
    field's number and the fields of each."""
    texts = []
    for item in items:
        line = lines[item]
        fields = line.split(run.delimiters.field) if type(line) is str else line
        if fits is not None and not fits([*fields, *_PAD]):
            continue
        texts.append(joined(run, fields[field]) if len(fields) > field else "")
        if noted is not None and texts[-1]:
            fields = list(fields)  # of its own, as nobody else may have cut the line yet
            run.places[id(fields)] = item
            noted.append((field, fields))
    return "\n".join(texts).rstrip("\n")


def event_time(lines: list[str], mark: str) -> str:
    """EVN-2, `` where there is none."""
    for line in lines[1:]:
        if line[:3] == "EVN":
            fields = line.split(mark, 3)
            return head(fields[2]) if len(fields) > 2 else ""
    return ""


def received(run: Run) -> str:
    """When the message came, as an instant."""
    return times.from_epoch(run.received)


def digits(run: Run, value: str) -> str:
    """The digits of a text."""
    return "".join(filter(str.isdigit, value))


def as_key(run: Run, value: str) -> str:
    """A text to be found by: no server can be asked for a bar."""
    return (clean(value, run) or "").replace("|", "%7C")


def encoded(run: Run, value: str) -> str:
    """A text as base64 of its UTF-8."""
    return b64encode(value.encode()).decode() if value else ""


def taken_over(resource: dict[str, Any], made: dict[str, Any]) -> None:
    """What a map made becomes part of an object that may have some of it already. `made` may be shared: it stays."""
    for name, value in made.items():
        if isinstance(value, list):
            resource[name] = [*resource.get(name, ()), *value]
        else:
            resource.setdefault(name, value)


def low(run: Run, value: str) -> str:
    """The lower bound of a plainly numeric range (OBX-7): of `3.5-5.3`, `>=4`, `> 4`."""
    return _bounds(value)[0]


def high(run: Run, value: str) -> str:
    """The upper bound of a plainly numeric range: of `3.5-5.3`, `<10`, `<= 10`."""
    return _bounds(value)[1]


@lru_cache(maxsize=1024)
def _bounds(value: str) -> tuple[str, str]:
    found = _RANGE.fullmatch(value)
    if found is None:
        return "", ""
    left, right, mark, bound = found.groups()
    if mark:
        return (bound, "") if mark[0] == ">" else ("", bound)
    return (left, right) if float(left) <= float(right) else ("", "")


_BEGINNINGS = (
    ("JVBERi0", "application/pdf"),
    ("e1xydGY", "text/rtf"),
    ("/9j/", "image/jpeg"),
    ("iVBORw0KGgo", "image/png"),
    ("R0lGOD", "image/gif"),
    ("SUkqA", "image/tiff"),
    ("TU0AK", "image/tiff"),
)


def media_type(run: Run, value: str) -> str:
    """The kind of a document in base64, by how all of its kind begin; `` where that is of no such kind."""
    return next((kind for beginning, kind in _BEGINNINGS if value.startswith(beginning)), "")


def from_hex(run: Run, value: str) -> str:
    """Bytes in hexadecimal (ED.4 `Hex`) as base64; `` where they are none."""
    try:
        return b64encode(bytes.fromhex(value)).decode()
    except ValueError:
        return ""


def in_order(run: Run, period: dict[str, Any]) -> None:
    """A Period must not end before it starts (per-1): such an end stays beside it, for people."""
    start, end = period.get("start"), period.get("end")
    if not start or not end or not times.is_after(start, end):
        return
    run.note("period-order", "a period", "an end that is not before the start")
    _set_aside(period, "end", "valueDateTime")


def in_size(run: Run, range: dict[str, Any]) -> None:
    """A Range must not begin above its end (rng-2): such an end stays beside it, for people."""
    low, high = range.get("low", {}).get("value"), range.get("high", {}).get("value")
    if low is None or high is None or low <= high:
        return
    run.note("range-order", "a range", "an end that is not below the beginning")
    _set_aside(range, "high", "valueQuantity")


def _set_aside(one: dict[str, Any], name: str, value: str) -> None:
    """Into an extension; the list that is there may be shared with other messages."""
    one["extension"] = [*one.get("extension", ()), {"url": f"{lineage.KEPT}{name}", value: one.pop(name)}]


def repeats(value: str) -> bool:
    """Whether a field has more than one repetition that is valued."""
    return "~" in value and sum(map(bool, value.split("~"))) > 1


def time(run: Run, value: str) -> str:
    """A date or time in FHIR's form; `` where it is none, as `00000000`."""
    return run.times.get(value) or datetime(value, run) or ""


def clock(run: Run, value: str) -> str:
    """The part of a time behind its day."""
    return value[8:]
