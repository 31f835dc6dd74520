"""All v2 → v2 mappings: read from the shipped folder and the site's, checked together, compiled once.

    title: Results for the Acme EMR            # mappings/v2/acme_emr_oru.yaml
    accepts: [ORU^R01]                         # left out: any
    filter:
      - drop: PID-5.1 matches 'ZZ.*'
        reason: test patients
    steps:
      - set: MSH-5
        to: ACMEEMR

A mapping is a pure function: no clock, no file. The same bytes, version, context and memories give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import orjson

from engine.hl7 import charset
from engine.hl7.batch import read_batch
from engine.hl7.peek import Peek
from engine.mapping import files
from engine.mapping.library import Context, Unmappable
from engine.mapping.problems import Problems, guess
from engine.mapping.source import Source, fields, read, texts
from engine.mapping.v2 import tables as csv_tables
from engine.mapping.v2.acts import Step
from engine.mapping.v2.draft import Draft
from engine.mapping.v2.filters import Filter, Filtered, read_filter
from engine.mapping.v2.steps import Reading, Split
from engine.mapping.v2.tables import Later, Table

__all__ = ["Filtered", "Later", "TableNews", "V2Library", "V2Mapping", "messages_of"]

LANGUAGE = 1
"""Part of each version: a change of what steps mean is a change of every mapping."""
_KNOWN = ("title", "accepts", "filter", "steps")
_TYPE = re.compile(r"[A-Z][A-Z0-9]{2}(\^[A-Z][A-Z0-9]{2})?")


@dataclass(frozen=True)
class V2Mapping:
    """One mapping with the tables it uses, ready to run; never changed.

    recalls: the stores it looks up in, and the names of the values. tables: by name, those it uses.
    """

    name: str
    accepts: tuple[str, ...]
    filter: Filter
    steps: tuple[Step | Split, ...]
    recalls: Mapping[str, frozenset[str]]
    tables: Mapping[str, Table]
    source: Source
    declares_charset: bool

    @cached_property
    def version(self) -> str:
        """The hash of all that an output is made by: the file, its tables' content, and the language."""
        used = sorted((name, table.version) for name, table in self.tables.items())
        whole = orjson.dumps([LANGUAGE, self.name, self.source.content(), used])
        return sha256(whole).hexdigest()

    def run(self, raw: bytes, context: Context) -> list[bytes] | Filtered:
        """The messages that one becomes: one, or several after a split. Of a batch, each message by itself, in order,
        without the envelope; it is filtered if all of them are.

        Raises `Unmappable` where it is refused as a whole, and `Later` where it may be tried again.
        """
        made = [self._one(message, context) for message in messages_of(raw)]
        out = [each for one in made if not isinstance(one, Filtered) for each in one]
        return out or next(one for one in made if isinstance(one, Filtered))

    def _one(self, raw: bytes, context: Context) -> list[bytes] | Filtered:
        draft = Draft(raw, context)
        self._check_type(draft.head)
        reason = self.filter.reason(draft)
        if reason is not None:
            return Filtered(reason)
        drafts = [draft]
        for step in self.steps:
            if isinstance(step, Split):
                drafts = [part for each in drafts for part in step.parts(each)]
                for number, each in enumerate(drafts, 1):
                    each.part, each.parts = number, len(drafts)
            else:
                for each in drafts:
                    step(each, None)
        out = [each.encoded() for each in drafts]
        if self.declares_charset:
            for each, made in zip(drafts, out, strict=True):
                _check_charset(each, made)
        return out

    def _check_type(self, head: Peek) -> None:
        if self.accepts and not {head.type, f"{head.type}^{head.trigger}"} & set(self.accepts):
            raise Unmappable("not-accepted", "MSH-9", ", ".join(self.accepts))


def messages_of(raw: bytes) -> list[bytes]:
    """The messages of a batch, without the envelope; else what came. Raises `Unmappable` where that is not clear."""
    batch = read_batch(raw)
    if batch is None:
        return [raw]
    if not batch.messages:
        raise Unmappable("empty-batch", "the batch", "at least one message")
    if batch.problems:
        raise Unmappable("broken-batch", "the batch", "an envelope whose counts and order are right")
    return batch.messages


def _check_charset(draft: Draft, made: bytes) -> None:
    """What a step says in MSH-18 must be true."""
    try:
        true = charset.decode(made) == draft.text
    except charset.Undecodable:
        true = False
    if not true:
        raise Unmappable("charset", "MSH-18", "the charset that the message is written in")


@dataclass(frozen=True, slots=True)
class TableNews:
    """What became of a table. kind: `read` anew, `broken` (the old content stays), `stale`. Never a row's content."""

    table: str
    kind: str
    text: str = ""


class V2Library:
    """All mappings by name, with one state of their tables. A new state is a new library (`refreshed`)."""

    def __init__(
        self, mappings: Mapping[str, V2Mapping], tables: Mapping[str, Table], kept: Path | None = None,
        news: Sequence[TableNews] = (),
    ) -> None:  # fmt: skip
        """kept: the folder for tables that are in use. news: of tables that are as they were kept there."""
        self._mappings, self._tables, self._kept = mappings, tables, kept
        self.news = news
        if kept is not None:
            for table in tables.values():
                csv_tables.keep(kept, table)

    @staticmethod
    def load(shipped: Path, site: Path | None = None, kept: Path | None = None) -> V2Library:
        """Read, check and compile; the site's win by name. kept: a folder in which the tables are that were used last:
        where a file of a table is gone or has a mistake, that goes on (`news`).

        Raises `MappingError` with all problems of all files.
        """
        problems = Problems()
        folders = [folder for folder in (shipped, site) if folder is not None]
        found = {path.stem: path for folder in folders for path in sorted((folder / "v2").glob("*.yaml"))}
        known, news = _tables(folders, problems, kept) if found else ({}, [])
        before = len(problems.found)
        mappings = _mappings(found, known, problems)
        if kept is not None and len(problems.found) > before and (older := _as_kept(known, kept)):
            again = Problems()  # a column may be gone that a mapping names
            mappings_then = _mappings(found, known | older, again)
            if not again.found:
                news += [TableNews(name, "broken", str(problems.found[before])) for name in older]
                mappings, known = mappings_then, known | older
                del problems.found[before:]
        problems.check()
        return V2Library(mappings, known, kept, news)

    @property
    def names(self) -> list[str]:
        """The mappings' names."""
        return sorted(self._mappings)

    @property
    def reads_files(self) -> bool:
        """Whether a table stands in a CSV file, which a site may change at any time."""
        return any(table.changed is not None for table in self._tables.values())

    def mapping(self, name: str) -> V2Mapping:
        """A mapping by its name. Raises KeyError with a guess."""
        found = self._mappings.get(name)
        if found is None:
            raise KeyError(f"no v2 mapping {name}; {guess(name, self._mappings, 'v2 mapping')}")
        return found

    def refreshed(self) -> tuple[V2Library, list[TableNews]]:
        """The library with its CSV files as they are now, and what is new of them; itself where nothing is. I/O."""
        known, news = dict(self._tables), []
        for name, table in self._tables.items():
            problems = Problems()
            known[name] = csv_tables.reread(table, problems)
            news += [TableNews(name, "broken", str(problem)) for problem in problems.found]
            if known[name] is not table:
                news.append(TableNews(name, "read"))
        changed = {name for name, table in known.items() if table is not self._tables[name]}
        if not changed:
            return self, news
        fresh = Problems()
        mappings = {
            name: _compiled(name, one.source, known, fresh) or one if changed & one.tables.keys() else one
            for name, one in self._mappings.items()
        }
        if fresh.found:  # a column is gone that a mapping names
            broken = [TableNews(", ".join(sorted(changed)), "broken", str(problem)) for problem in fresh.found]
            return self, [each for each in news if each.kind == "broken"] + broken
        return V2Library(mappings, known, self._kept), news

    def stale(self, at: int) -> list[TableNews]:
        """The tables that mappings use and that are too old at a time, in µs since 1970."""
        used = {name for mapping in self._mappings.values() for name in mapping.tables}
        return [TableNews(name, "stale") for name in sorted(used) if self._tables[name].is_stale(at)]


def _tables(folders: list[Path], problems: Problems, kept: Path | None) -> tuple[dict[str, Table], list[TableNews]]:
    codes = files.Files()
    for folder in folders:
        files.read_tables(folder, codes, problems)
    news: list[TableNews] = []
    out = {name: csv_tables.of_codes(table) for name, table in codes.tables.items()}
    for name, found in csv_tables.declared(folders, problems).items():
        if name in out:
            problems.add(found.place, f"the table {name} a second time", "a name of its own")
        its = Problems()
        table = csv_tables.load(found, its)
        if table is None and kept is not None and (table := csv_tables.kept(kept, found)) is not None:
            news += [TableNews(name, "broken", str(problem)) for problem in its.found]
        else:
            problems.found += its.found
        if table is not None:
            out[name] = table
    return out, news


def _as_kept(known: Mapping[str, Table], folder: Path) -> dict[str, Table]:
    """The tables that were others when they were last used."""
    found = {
        name: csv_tables.kept(folder, table.declared) for name, table in known.items() if table.declared is not None
    }
    return {name: table for name, table in found.items() if table is not None and table.version != known[name].version}


def _mappings(found: Mapping[str, Path], known: dict[str, Table], problems: Problems) -> dict[str, V2Mapping]:
    made = {name: _mapping(name, path, known, problems) for name, path in sorted(found.items())}
    return {name: mapping for name, mapping in made.items() if mapping is not None}


def mapping_of(name: str, source: Source, tables: dict[str, Table]) -> V2Mapping:
    """A mapping from what its file says. Raises `MappingError`."""
    problems = Problems()
    made = _compiled(name, source, tables, problems)
    problems.check()
    assert made is not None
    return made


def _mapping(name: str, path: Path, known: dict[str, Table], problems: Problems) -> V2Mapping | None:
    documents = read(path, str(path), problems)
    if len(documents) != 1:
        if documents:
            problems.add(documents[1].place, "a second document", "one mapping a file")
        return None
    return _compiled(name, documents[0], known, problems)


def _compiled(name: str, source: Source, known: dict[str, Table], problems: Problems) -> V2Mapping | None:
    got = fields(source, "a v2 mapping", _KNOWN, (), problems)
    reading = Reading(known, problems)
    accepts = tuple(item.text for item in texts(got.get("accepts")))
    for item in texts(got.get("accepts")):
        if not _TYPE.fullmatch(item.text):
            problems.add(item.place, item.text, "a message type such as ORU^R01 or ORU")
    filter = read_filter(got["filter"], problems) if "filter" in got else Filter(())
    steps = reading.steps(got["steps"]) if "steps" in got else []
    if source.kind == "mapping" and not {"steps", "filter"} & got.keys():
        problems.add(source.place, "a v2 mapping without steps", "steps: or filter:")
    used = {name: known[name] for name in reading.used}
    recalls = {store: frozenset(names) for store, names in reading.recalls.items()}
    return V2Mapping(name, accepts, filter, tuple(steps), recalls, used, source, reading.declares_charset)
