"""Opening a ledger: the lock, the next term, the numbers in memory, and what a crash left behind.

Work that was claimed and has no receipt may have been sent: it becomes `unknown` before anything else happens. What
lies above the claims provably was not sent.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from engine.ledger.audit import Head
from engine.ledger.course import SETTLED_STATES, Barrier, ChannelBook, Course, Hold, Span
from engine.ledger.keeping import OUTPUTS, RECEIPTS
from engine.ledger.model import OpenWork, State
from engine.ledger.routing import Epoch, Grant, Mode, Routing
from engine.ledger.sqlite import mappings, repeats, schema
from engine.ledger.sqlite.large import tidy
from engine.ledger.sqlite.upgrading import upgrade

MOST_LOOKS, LOOK = 20, 0.1  # seconds
TAKE_IT_AS_A_BACKUP = (
    "Else restore a backup, or go on with what the file has, as a new incarnation that is held:"
    " interlock restore {path} --replace"
)


class LedgerError(Exception):
    """The ledger cannot be opened. The sentence says why and what would be right."""


@dataclass(slots=True)
class Opened:
    """An open ledger: its writing connection, the lock that it holds, and its numbers."""

    connection: sqlite3.Connection
    lock: IO[str]
    path: Path
    incarnation: str
    term: int
    last_message: int
    last_output: int
    last_large: int
    audited: Head
    channels: dict[str, ChannelBook]
    destinations: dict[str, int]


def open_ledger(path: Path) -> Opened:
    """Open or make the ledger at `path`, under the lock beside it and the next term. Raises LedgerError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Messages are readable by the service's user alone; SQLite gives its other files the rights of this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        lock = open(path.with_name(path.name + ".lock"), "a+")  # noqa: SIM115 - held as long as the ledger is open
    except OSError as error:
        raise LedgerError(f"the folder of the ledger {path} cannot be written: {error.strerror}") from error
    if (left := path.with_name(path.name + ".restoring")).exists():
        lock.close()
        raise LedgerError(
            f"a restore of {path} did not come to its end: run it again, or remove {left} to go on with what is there"
        )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise LedgerError(f"the ledger {path} is in use by another running service; stop that one first") from error
    try:
        return _open(path, lock)
    except sqlite3.Error as error:
        lock.close()
        raise LedgerError(f"the ledger {path} cannot be opened: {error}") from error
    except BaseException:
        lock.close()
        raise


def _open(path: Path, lock: IO[str]) -> Opened:
    log = path.with_name(path.name + "-wal")
    connection = schema.connect(os.fspath(path))
    _check_log(connection, log)
    if not connection.execute("select 1 from sqlite_master where name = 'ledger'").fetchone():
        schema.create(connection, uuid4().hex[:12])
    version, incarnation, term = connection.execute("select version, incarnation, term from ledger").fetchone()
    lock.seek(0)
    known = lock.read().strip()
    if known.isdigit() and int(known) > term:
        raise LedgerError(
            f"the ledger {path} is older than its last process, whose log {log.name} is gone, with what was stored"
            f" last: put it back. {TAKE_IT_AS_A_BACKUP.format(path=path)}"
        )
    if version > schema.VERSION:
        raise LedgerError(
            f"the ledger {path} has schema version {version}, and this release reads versions up to {schema.VERSION};"
            " run the release that wrote it, or restore a backup from before the upgrade"
        )
    if version < schema.VERSION:
        upgrade(connection, version, schema.TABLES, time.time_ns() // 1000)
    books = _books(connection)
    connection.execute("begin immediate")
    connection.execute("update ledger set term = ?", (term + 1,))
    _mark_unknown(connection, term + 1, books)
    last_large = tidy(connection)
    connection.execute("commit")
    _remember(lock, term + 1)
    last_message, last_output = _last(connection, "message", RECEIPTS), _last(connection, "tap_output", OUTPUTS)
    destinations = dict(connection.execute("select name, id from destination"))
    for book in books.values():
        _courses(connection, book, {id: name for name, id in destinations.items()})
    return Opened(
        connection=connection,
        lock=lock,
        path=path,
        incarnation=incarnation,
        term=term + 1,
        last_message=last_message,
        last_output=last_output,
        last_large=last_large,
        audited=Head(*connection.execute("select audit_count, audit_hash from ledger").fetchone()),
        channels={book.name: book for book in books.values()},
        destinations=destinations,
    )


def _remember(lock: IO[str], term: int) -> None:
    """Which process the ledger has seen, beside it: a file that knows less has lost the log with the rest."""
    lock.truncate(0)
    lock.write(f"{term}\n")
    lock.flush()
    os.fsync(lock.fileno())


def _check_log(connection: sqlite3.Connection, log: Path) -> None:
    """Each transaction is on the disk before the next one begins. So the last one may be incomplete after a crash, and
    no other: where whole ones stand behind what SQLite takes for the end, the disk has lost some."""
    if not log.exists():
        return
    connection.execute("select 1 from sqlite_master").fetchone()
    for _ in range(MOST_LOOKS):
        _, read, _ = connection.execute("pragma wal_checkpoint(passive)").fetchone()
        if read >= 0:
            break
        time.sleep(LOOK)  # somebody else, a backup tool perhaps, has the log for a moment
    else:
        return  # then SQLite does not say how far it has read
    with log.open("rb") as file:
        head = file.read(32)
        page = int.from_bytes(head[8:12], "big")
        ends = 0
        at = 32 + read * (24 + page)
        while file.seek(at) == at and len(frame := file.read(24)) == 24:
            ends += frame[8:16] == head[16:24] and any(frame[4:8])
            at += 24 + page
    if ends > 1:
        raise LedgerError(
            f"the log {log} is damaged, and {ends} transactions in it cannot be read: keep both files."
            f" {TAKE_IT_AS_A_BACKUP.format(path=log.with_name(log.name.removesuffix('-wal')))}"
        )


def _last(connection: sqlite3.Connection, table: str, kind: str) -> int:
    """The highest id that was given, also where its row was removed by age: ids are never given twice."""
    (last,) = connection.execute(f"select coalesce(max(id), 0) from {table}").fetchone()
    (gone,) = connection.execute("select coalesce(max(last_id), 0) from pruning where class = ?", (kind,)).fetchone()
    return max(int(last), int(gone))


def _mark_unknown(connection: sqlite3.Connection, term: int, books: dict[int, ChannelBook]) -> None:
    """What was claimed and not settled may have been sent. Numbers between frontier and claim have no rows yet.

    Not so where nothing is sent (an output that is captured, a number that a rollback has superseded): that is only
    begun again. What may have been sent goes again as it was, by the mapping of the newest epoch that there was.
    """
    unknown, again = State.UNKNOWN.value, State.RETRYING.value
    why, kept = "the service ended while this was on its way", "the service ended before this was kept"
    names = {id: name for name, id in connection.execute("select name, id from destination")}

    there = mappings.versions(connection)

    def left(channel: int, destination: int, seq: int, delivery: int = 1) -> tuple[int, str, int | None]:
        course, epoch = Course(books[channel], destination, names[destination], 1, False), books[channel].epoch
        if course.mode(seq, delivery) is not Mode.SEND:
            return again, kept, None
        route = epoch.routing.route(course.name)
        known = route is not None and (route.mapping is None or route.mapping in there)
        return unknown, why, epoch.number if known else None

    sending = connection.execute(
        "select channel, destination, seq, part, delivery from open_work where state = ?", (State.SENDING.value,)
    ).fetchall()
    connection.executemany(
        "update open_work set state = ?, why = ?, bound = coalesce(bound, ?), due = 0, blocks = 1"
        " where channel = ? and destination = ? and seq = ? and part = ? and delivery = ?",
        [(*left(row[0], row[1], row[2], row[4]), *row) for row in sending],
    )
    between = connection.execute(
        "select channel, destination, epoch, claim, frontier, frontier_id from progress where frontier < claim"
    ).fetchall()
    for channel, destination, epoch, claim, frontier, frontier_id in between:
        rows = list(_numbers(connection, channel, frontier, claim, frontier_id))
        if len(rows) != claim - frontier:
            raise LedgerError(
                f"the ledger is damaged: channel {channel} claims {frontier + 1}…{claim} at destination {destination},"
                f" and {len(rows)} of these messages are stored"
            )
        opened = []
        for seq, id in rows:
            state, reason, bound = left(channel, destination, seq)
            opened.append((channel, destination, seq, 1, 1, id, epoch, state, 0, 0, term, reason, 1, 1, 0, 1, bound))
        connection.executemany(schema.PUT_OPEN, opened)
        connection.execute(
            "update progress set frontier = claim, frontier_id = ?, term = ?"
            " where channel = ? and destination = ? and epoch = ?",
            (rows[-1][1], term, channel, destination, epoch),
        )


def _numbers(connection: sqlite3.Connection, channel: int, after: int, upto: int, from_id: int) -> Any:
    """(seq, id) of a channel's messages in (after, upto], block by block from the block of `from_id`."""
    (last,) = connection.execute("select coalesce(max(id), 0) from message").fetchone()
    for block in range(from_id >> schema.BLOCK, (last >> schema.BLOCK) + 1):
        yield from connection.execute(
            "select seq, id from message indexed by message_block"
            " where id >> 12 = ? and channel = ? and seq > ? and seq <= ? order by seq",
            (block, channel, after, upto),
        )


def _books(connection: sqlite3.Connection) -> dict[int, ChannelBook]:
    """The channels with their epochs, grants, holds and barriers; by id."""
    books = {
        id: ChannelBook(id, name, seq) for id, name, seq in connection.execute("select id, name, seq from channel")
    }
    rows = connection.execute(
        "select channel, number, first, phase, routing, term, who, why, at, evidence from epoch order by 1, 2"
    )
    for channel, number, first, phase, routing, *rest in rows:
        books[channel].epochs.append(Epoch(number, first, phase, Routing.from_json(routing), *rest))
    for channel, destination, first, last, mode, run, guarded in connection.execute(
        "select channel, destination, first, last, mode, run, guarded from replay_grant order by id"
    ):
        books[channel].grants += (Grant(destination, first, last, Mode(mode), run, bool(guarded)),)
    for channel, *hold in connection.execute("select channel, until, who, why, at from hold"):
        books[channel].hold = Hold(*hold)
    for channel, run, at, id, shut in connection.execute("select channel, run, at_seq, at_id, shut from barrier"):
        books[channel].barrier = Barrier(run, at, id, frozenset(json.loads(shut)))
    return books


def _courses(connection: sqlite3.Connection, book: ChannelBook, names: dict[int, str]) -> None:
    """The courses that have rows. Window and gating are settled when the routing of the present epoch is known."""
    epochs = {epoch.number: epoch for epoch in book.epochs}
    courses: dict[int, Course] = {}
    rows = connection.execute(
        "select destination, epoch, claim, frontier, frontier_id, delivered, captured, filtered, refused, duplicate,"
        " superseded, discarded from progress where channel = ? order by destination, epoch",
        (book.id,),
    )
    for destination, number, claim, frontier, frontier_id, *totals in rows:
        course = courses.get(destination)
        if course is None:
            course = courses[destination] = Course(book, destination, names[destination], 1, False)
        course.totals[number] = totals if len(totals) == SETTLED_STATES else [0] * SETTLED_STATES
        later = epochs.get(number + 1)
        last = later.first - 1 if later else None
        route = epochs[number].routing.route(course.name)
        if not course.spans:  # all before is finished
            course.claim, course.frontier, course.frontier_id = claim, frontier, frontier_id
        if route and (last is None or frontier < last):
            course.spans.append(Span(epochs[number].first, last, number, route))
    for row in connection.execute(
        "select destination, seq, part, delivery, message, epoch, state, due, tries, why, blocks, parts, so_far,"
        " revision, bound from open_work where channel = ?",
        (book.id,),
    ):
        destination, seq, part, delivery, message, number, state, due, tries, why, blocks, *parts = row
        work = OpenWork(seq, part, delivery, message, number, State(state), due, tries, why, bool(blocks), *parts)
        course = courses[destination]
        course.open[work.key] = work
        course.blocked += work.blocks
    for destination, *again in connection.execute(
        "select destination, begun, delivered, captured, filtered, refused, duplicate, superseded, discarded"
        " from again where channel = ?",
        (book.id,),
    ):
        courses[destination].again = again
    book.courses = list(courses.values())
    repeats.still_to_come(connection, book)
    _refused(connection, book)


def _refused(connection: sqlite3.Connection, book: ChannelBook) -> None:
    """What an authority said no to, and other courses have not heeded yet: neither what they have still to come to,
    nor what they had claimed in the transaction that recorded the no, and cannot have sent."""
    authorities = {epoch.routing.answer_from for epoch in book.epochs} - {None}
    relays = [course for course in book.courses if course.name in authorities]
    others = [course for course in book.courses if course.name not in authorities]
    if not relays or not others:
        return
    ids = [*(work.message for course in others for work in course.open.values())]
    from_id = min(course.frontier_id for course in others)
    marks = ",".join("?" * len(relays))
    no = (*(course.id for course in relays), State.REFUSED.value)
    rows = connection.execute(
        "select seq from receipt indexed by receipt_message"
        f" where message > ? and channel = ? and destination in ({marks}) and state = ?",
        (from_id, book.id, *no),
    ).fetchall()
    for id in ids:
        rows += connection.execute(
            "select seq from receipt indexed by receipt_message"
            f" where message = ? and destination in ({marks}) and state = ?",
            (id, *no),
        ).fetchall()
    for (seq,) in rows:
        if left := sum(
            course.frontier < seq or (seq, 1, 1) in course.open for course in others if course.spans or course.open
        ):
            book.refused[seq] = left
