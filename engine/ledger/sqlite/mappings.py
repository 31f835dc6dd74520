"""What outputs were made by: each version of an effective mapping, kept so that they can be made again by it.

What a version is made of is for `engine.mapping`; here it is a head, and the parts that it names, which several
versions share: each is kept once, by the hash of its content. A part is a set of files, one mapping or one table.

A version is kept before an epoch names it. It goes when all messages that may have been made by it have lost their
bytes (`engine.ledger.keeping.needed`), and with it the parts that no other version names.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

TABLES = """
create table mapping (                 -- versions of effective mappings; parts: the hashes of those it needs, JSON
  version text primary key, at integer not null, parts text not null, head blob not null) without rowid;

create table mapping_part (            -- files and tables, packed, each once
  hash text primary key, content blob not null);
"""

_VERSION = "insert or ignore into mapping (version, at, parts, head) values (?,?,?,?)"
_PART = "insert or ignore into mapping_part (hash, content) values (?,?)"
_DROP = "delete from mapping where version in (select value from json_each(?))"
_DROP_PARTS = "delete from mapping_part where hash not in (select value from mapping, json_each(mapping.parts))"

Statement = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class KeptMapping:
    """One version. parts: hash → content. Bytes as they are, not packed."""

    version: str
    head: bytes
    parts: Mapping[str, bytes]


def part_hash(content: bytes) -> str:
    """What a part is known by."""
    return sha256(content).hexdigest()[:32]


def packed(kept: Iterable[KeptMapping], at: int) -> list[Statement]:
    """The statements that keep versions. at: microseconds since 1970. Packing takes a while: not for the event loop."""
    parts: dict[str, bytes] = {}
    for each in kept:
        parts |= each.parts
    out: list[Statement] = [(_PART, (hash, zlib.compress(content, 9))) for hash, content in parts.items()]
    for each in kept:
        out.append((_VERSION, (each.version, at, json.dumps(sorted(each.parts)), zlib.compress(each.head, 9))))
    return out


def dropping(versions: Iterable[str]) -> list[Statement]:
    """The statements that remove versions, and the parts that are no one's any more."""
    return [(_DROP, (json.dumps(sorted(versions)),)), (_DROP_PARTS, ())]


# -- what is there. Functions of a reading connection.


def versions(connection: sqlite3.Connection) -> set[str]:
    """All that are kept."""
    return {version for (version,) in connection.execute("select version from mapping")}


def kept(connection: sqlite3.Connection, version: str) -> KeptMapping | None:
    """One version; None where it is not kept, or not whole."""
    row = connection.execute("select parts, head from mapping where version = ?", (version,)).fetchone()
    if row is None:
        return None
    found = dict(
        connection.execute(
            "select hash, content from mapping_part where hash in (select value from json_each(?))", (row[0],)
        )
    )
    if len(found) != len(json.loads(row[0])):
        return None
    return KeptMapping(version, zlib.decompress(row[1]), {hash: zlib.decompress(data) for hash, data in found.items()})


def read_from(ledger: Path, version: str) -> KeptMapping | None:
    """The same on a connection of its own, in any process and on any thread. sqlite3.Error where it cannot be read."""
    with closing(
        sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    ) as connection:
        connection.execute("pragma busy_timeout = 1000")
        return kept(connection, version)


def differences(connection: sqlite3.Connection) -> Iterator[str]:
    """What is not kept whole, a sentence each."""
    for version, parts in connection.execute("select version, parts from mapping order by version").fetchall():
        for hash in json.loads(parts):
            row = connection.execute("select content from mapping_part where hash = ?", (hash,)).fetchone()
            if row is None:
                yield f"mapping {version}: its part {hash} is not there"
            elif not _is_whole(hash, row[0]):
                yield f"mapping {version}: its part {hash} is another one"


def _is_whole(hash: str, content: bytes) -> bool:
    try:
        return part_hash(zlib.decompress(content)) == hash
    except zlib.error:
        return False
