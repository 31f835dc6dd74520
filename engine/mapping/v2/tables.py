"""Tables for v2 mappings: those of the FHIR mappings (mappings/tables/), and CSV files that a site keeps up to date.

    csv: doctors                      # mappings/v2/tables/doctors.yaml
    file: ../../../data/doctors.csv   # as seen from here; its first line has the names of the columns
    key: id                           # or [site, id]
    values: [npi, name]               # left out: all other columns
    delimiter: ";"                    # left out: a comma
    encoding: cp1252                  # left out: utf-8
    max_age: 7d                       # left out: however old
    stale: later                      # what is too old: later (tried again) | refuse

A table is a value: what was read, when its file was last changed, and the hash of its content. `reread` gives a new
one where the file has changed; where that has a mistake, the old one stays. So that it stays over a restart as well,
the service keeps what it uses in a folder of its own (`keep`, `kept`).
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import orjson

from engine.config import units
from engine.files import private
from engine.mapping import model
from engine.mapping.library import Unmappable
from engine.mapping.problems import Place, Problems
from engine.mapping.source import Source, fields, read, texts

_KNOWN = ("csv", "title", "file", "key", "values", "delimiter", "encoding", "max_age", "stale")
Rows = Mapping[tuple[str, ...], tuple[str, ...]]


class Later(Unmappable):
    """A message that cannot be mapped yet: what it needs is not there, or too old. Nothing was sent; try again."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A CSV file as a site declares it. max_age: seconds, None = however old."""

    name: str
    file: Path
    keys: tuple[str, ...]
    values: tuple[str, ...]
    delimiter: str
    encoding: str
    max_age: float | None
    later: bool
    place: Place


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was read. keys, values: the names of the columns. changed: µs since 1970 when its file last was,
    None of one that is no file. version: the hash of its content."""

    name: str
    keys: tuple[str, ...]
    values: tuple[str, ...]
    rows: Rows = field(repr=False)
    version: str
    otherwise: tuple[str, ...] | None = None
    declared: Declared | None = None
    changed: int | None = None

    def get(self, key: tuple[str, ...], column: int, at: int) -> str | None:
        """What stands in a column for a key; None where there is nothing. `at`: µs since 1970, when the message came.

        Raises `Unmappable`, or `Later`, where the file is too old for that message.
        """
        if self.is_stale(at):
            assert self.declared is not None
            error = Later if self.declared.later else Unmappable
            raise error("stale-table", f"the table {self.name}", "a file that is younger than its max_age")
        found = self.rows.get(key) or self.otherwise
        return found[column] or None if found else None

    def is_stale(self, at: int) -> bool:
        """Whether its file is older than max_age at a time, in µs since 1970."""
        if self.declared is None or self.declared.max_age is None or self.changed is None:
            return False
        return at - self.changed > self.declared.max_age * 1_000_000


def of_codes(table: model.Table) -> Table:
    """A table of the FHIR mappings: code → code and display."""
    rows: Rows = {(code,): found for code, found in table.codes.items()}
    whole = orjson.dumps(table.source.content(), option=orjson.OPT_SORT_KEYS)
    return Table(table.name, ("code",), ("code", "display"), rows, sha256(whole).hexdigest(), table.otherwise)


def declared(folders: Iterable[Path], problems: Problems) -> dict[str, Declared]:
    """The CSV files that the folders' v2/tables/ declare, a later folder's by name."""
    out: dict[str, Declared] = {}
    for folder in folders:
        for file in sorted((folder / "v2" / "tables").glob("*.yaml")):
            for source in read(file, str(file), problems):
                found = _declared(source, file.parent, problems)
                if found:
                    out[found.name] = found
    return out


def _declared(source: Source, folder: Path, problems: Problems) -> Declared | None:
    got = fields(source, "a CSV table", _KNOWN, ("csv", "file", "key"), problems)
    if not {"csv", "file", "key"} <= got.keys():
        return None
    before = len(problems.found)
    delimiter = got["delimiter"].text.replace("\\t", "\t") if "delimiter" in got else ","
    if len(delimiter) != 1 or delimiter in '"\r\n':
        problems.add(got["delimiter"].place, got["delimiter"].text, 'one character, such as ";" or "\\t"')
    encoding = got["encoding"].text if "encoding" in got else "utf-8"
    if not _is_codec(encoding):
        problems.add(got["encoding"].place, encoding, "a character set such as utf-8 or cp1252")
    max_age = units.duration(got["max_age"].text) if "max_age" in got else None
    if "max_age" in got and not max_age:
        wanted = "a duration such as 24h or 7d" if max_age is None else "more than 0s; left out: however old"
        problems.add(got["max_age"].place, got["max_age"].text, wanted)
    stale = got["stale"].text if "stale" in got else "later"
    if stale not in ("later", "refuse"):
        problems.unknown(got["stale"].place, "stale", stale, ("later", "refuse"))
    keys = tuple(item.text for item in texts(got["key"]))
    values = tuple(item.text for item in texts(got.get("values")))
    if len(problems.found) > before:
        return None
    path = folder / got["file"].text
    place = got["file"].place
    return Declared(got["csv"].text, path, keys, values, delimiter, encoding, max_age, stale == "later", place)


def _is_codec(name: str) -> bool:
    try:
        "".encode(name)
    except (LookupError, UnicodeError):
        return False
    return bool(codecs.lookup(name))


def load(found: Declared, problems: Problems) -> Table | None:
    """The file's rows; None, and a problem, where it cannot be read as declared. No row's content is ever told."""
    try:
        changed = _changed(found.file)  # before reading: what changes meanwhile is read again
        data = found.file.read_bytes()
        text = data.decode("utf-8-sig" if found.encoding.lower() in ("utf-8", "utf8") else found.encoding)
    except OSError as error:
        problems.add(found.place, f"{found.file.name}, which cannot be read ({error.strerror})", "a readable CSV file")
        return None
    except UnicodeDecodeError as error:
        problems.add(found.place, f"byte {error.start} of {found.file.name}", f"a file in {found.encoding}")
        return None
    return _table(found, text, changed, sha256(data).hexdigest(), problems)


def _table(found: Declared, text: str, changed: int, version: str, problems: Problems) -> Table | None:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=found.delimiter, strict=True)
    rows: dict[tuple[str, ...], tuple[str, ...]] = {}
    try:
        names = [name.strip() for name in next(lines, [])]
        values = found.values or tuple(name for name in names if name not in found.keys)
        missing = [name for name in (*found.keys, *values) if name not in names]
        if missing or not values:
            wanted = f"a first line with {', '.join((*found.keys, *values))}"
            problems.add(found.place, f"{found.file.name} without the column {(missing or ['of a value'])[0]}", wanted)
            return None
        keys_at, values_at = [names.index(name) for name in found.keys], [names.index(name) for name in values]
        for row in lines:
            if not any(row):
                continue
            if len(row) != len(names):
                raise csv.Error(f"{len(row)} values in a line, and {len(names)} columns")
            key, value = tuple(row[at].strip() for at in keys_at), tuple(row[at].strip() for at in values_at)
            if rows.setdefault(key, value) != value:
                raise csv.Error("a key for the second time, with other values")
    except csv.Error as error:
        problems.add(found.place, f"{found.file.name}, line {lines.line_num}: {error}", "a CSV file as it is declared")
        return None
    whole = sha256(orjson.dumps([version, found.keys, values, found.delimiter, found.encoding])).hexdigest()
    return Table(found.name, found.keys, values, rows, whole, None, found, changed)


def packed(table: Table) -> bytes:
    """A table as bytes, without its file."""
    rows = [[*key, *values] for key, values in table.rows.items()]
    return orjson.dumps([table.version, table.keys, table.values, table.otherwise, rows])


def unpacked(name: str, content: bytes) -> Table:
    """What was packed. It is never too old."""
    version, keys, values, otherwise, rows = orjson.loads(content)
    found = {tuple(row[: len(keys)]): tuple(row[len(keys) :]) for row in rows}
    return Table(name, tuple(keys), tuple(values), found, version, tuple(otherwise) if otherwise else None)


def keep(folder: Path, table: Table) -> None:
    """Put a table that was read from its file into the service's folder, with the file's time, for this user's eyes
    only. Nothing raises: without it, a start needs the file."""
    if table.declared is None or table.changed is None:
        return
    path, content = _place(folder, table.name), packed(table)
    with contextlib.suppress(OSError):
        if not (path.exists() and _changed(path) == table.changed and path.read_bytes() == content):
            private.put(path, content, table.changed * 1000)


def kept(folder: Path, found: Declared) -> Table | None:
    """What was last kept of a table, with its file's time of then; None where that is nothing, or not what is declared
    now."""
    path = _place(folder, found.name)
    try:
        changed = _changed(path)
        table = unpacked(found.name, path.read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    if table.keys != found.keys or (found.values and table.values != found.values):
        return None
    return replace(table, declared=found, changed=changed)


def _place(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.json"


def _changed(path: Path) -> int:
    """µs since 1970."""
    return path.stat().st_mtime_ns // 1000


def reread(table: Table, problems: Problems) -> Table:
    """The table of a file that has changed since; the same one where it has not, or is broken now."""
    if table.declared is None:
        return table
    try:
        changed = _changed(table.declared.file)
    except OSError:
        changed = None
    if changed == table.changed:
        return table
    return load(table.declared, problems) or table
