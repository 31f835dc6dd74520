"""The tables, the pragmas, and every statement that writes. SQL for reading stands in `reader`.

Shape and pitfalls, as measured: an index that leads with the channel dirties a page per message, so
(channel, seq) is indexed within blocks of 4,096 messages; claim, frontier and settled totals share one row; nothing
is written for `waiting`; pages of 8 KB; checkpoints every 1,000 pages, rarer ones only make longer stalls.
"""

from __future__ import annotations

import sqlite3

from engine.ledger.sqlite import gaps, incarnations, later, mappings, parked, remembered, replays, retention, search
from engine.ledger.sqlite.upgrading import STEPS, statements

VERSION = max(STEPS) + 1
BLOCK = 12  # bits of message.id within a block; stands in SQL exactly so: id >> 12

PRAGMAS = (
    "pragma journal_mode = wal",
    "pragma synchronous = full",
    "pragma wal_autocheckpoint = 1000",
    "pragma cache_size = -16384",
    "pragma foreign_keys = off",
    "pragma busy_timeout = 0",
)

_CORE = """
create table ledger (                  -- one row
  only integer primary key check (only = 1),
  version integer not null, incarnation text not null, term integer not null,
  touched integer not null,            -- counts the trials whether the file can be written
  audit_count integer not null, audit_hash text not null);     -- the head of the audit chain

create table message (
  id       integer primary key,        -- given by the writer, one rising sequence over all channels
  channel  integer not null,  seq integer not null,
  socket   integer not null,           -- number of the inbound connection; never used twice, restarts included
  received integer not null,           -- microseconds since 1970
  control_id text,
  large    integer,                    -- where the rest of a large message stands; null: `raw` is all of it
  crc      integer,                    -- CRC-32 of all its bytes; null: they are pruned, or an older release stored it
  raw      blob not null);             -- last, so that heads are read without it
create unique index message_block on message(id >> 12, channel, seq);
create index message_large on message(large) where large is not null;

create table large (                   -- bytes too large for one transaction: their size, and what is not in the row
  id integer primary key, size integer not null);
create table piece (
  large integer, n integer, data blob not null, primary key (large, n)) without rowid;

create table channel (                 -- intake's counter
  id integer primary key, name text not null unique, seq integer not null);

create table destination (id integer primary key, name text not null unique);

create table epoch (
  channel integer, first integer not null, number integer, phase text not null,
  routing text not null, term integer not null,
  who text not null, why text not null, at integer not null, evidence text,
  primary key (channel, number)) without rowid;

create table progress (                -- claim, frontier, settled totals
  channel integer, destination integer, epoch integer,
  claim integer not null, term integer not null,
  frontier integer not null, frontier_id integer not null,     -- message.id of the frontier: where reading starts
  delivered integer not null, captured integer not null, filtered integer not null, refused integer not null,
  duplicate integer not null, superseded integer not null, discarded integer not null,
  primary key (channel, destination, epoch), check (frontier <= claim)) without rowid;

create table open_work (               -- only what is at or below the frontier and not settled
  channel integer, destination integer, seq integer, part integer, delivery integer,
  message integer not null, epoch integer not null, state integer not null,
  due integer not null, tries integer not null, term integer not null, why text not null, blocks integer not null,
  parts integer not null default 1, so_far integer not null default 0, revision integer not null default 1,
  bound integer,                       -- the epoch by whose mapping it must be made; null: the present one's
  primary key (channel, destination, seq, part, delivery)) without rowid;

create table again (                   -- of people's replays: how many were begun, and their settled totals
  channel integer, destination integer, begun integer not null,
  delivered integer not null, captured integer not null, filtered integer not null, refused integer not null,
  duplicate integer not null, superseded integer not null, discarded integer not null,
  primary key (channel, destination)) without rowid;

create table revision (                -- what a person made of a message's bytes; revision 1 is the message as it came
  message integer, revision integer, at integer not null, who text not null, why text not null, raw blob not null,
  primary key (message, revision)) without rowid;

create table repeat (                  -- a message that repeats an earlier one of its channel; append only
  message integer primary key, channel integer not null, seq integer not null,
  first integer not null, first_message integer not null);
create index repeat_channel on repeat(channel, seq);

create table receipt (                 -- append only
  id integer primary key, message integer not null, channel integer not null, seq integer not null,
  destination integer not null, part integer not null, delivery integer not null, revision integer not null,
  epoch integer not null, state integer not null, at integer not null, term integer not null,
  made_by integer,                     -- the epoch by whose mapping it was made; null: nothing was, or not known
  why text, answer blob);
create index receipt_message on receipt(message);              -- nearly in rising order

create table file (                    -- a file whose messages are stored, by the name under which it was taken
  channel integer, name text, size integer not null, digest blob not null, at integer not null,
  primary key (channel, name, digest)) without rowid;
create index file_at on file(channel, at);

create table captured (                -- outputs made and kept, not sent; empty: the message as it came
  message integer, destination integer, part integer, output blob not null,
  primary key (message, destination, part)) without rowid;

create table intake_event (            -- input without a number, or with a flaw: evidence; append only
  id integer primary key, at integer not null, channel integer not null, kind text not null, reason text not null,
  peer text not null, socket integer not null, size integer not null, message integer, answer blob, raw blob not null);

create table hold (                    -- a freeze: no new claims until it is released
  channel integer primary key, until integer not null, who text not null, why text not null, at integer not null);

create table barrier (                 -- claims above at_seq wait until the run has ended
  channel integer primary key, run integer not null, at_seq integer not null, at_id integer not null,
  shut text not null);                 -- destinations where nothing is claimed at all

create table run (                     -- a drain, cutover or rollback, from its beginning to its end
  id integer primary key, verb text not null, connection text not null, channels text not null, state text not null,
  step text not null, said text not null, options text not null, who text not null, why text not null,
  origin text not null, started integer not null, deadline integer not null, ended integer);

create table replay_grant (            -- what a rollback made of a stretch of numbers at a destination; append only
  id integer primary key, channel integer not null, destination text not null, first integer not null,
  last integer not null, mode text not null, guarded integer not null, run integer not null, at integer not null,
  who text not null, why text not null);

create table tap_output (              -- what the old engine sent; raw is compressed; append only
  id integer primary key, channel integer not null, tap text not null, at integer not null, socket integer not null,
  control_id text, decision text not null, seq integer, answer blob, large integer, raw blob not null);
create index tap_output_large on tap_output(large) where large is not null;

create index tap_output_input on tap_output(channel, seq);

create table pair (                    -- one verdict for an input and a tap; tap '' is the answer to the sender
  channel integer, tap text, seq integer, output integer, verdict text not null, at integer not null,
  primary key (channel, tap, seq)) without rowid;

create table discrepancy (             -- all differences of one signature
  id integer primary key, channel integer not null, tap text not null, path text not null, kind text not null,
  severity text not null, state text not null, owner text not null, first_at integer not null,
  last_at integer not null, count integer not null, due integer not null, why text not null, who text not null,
  settled_at integer, unique (channel, tap, path, kind));

create table difference (              -- which messages show a discrepancy; output 0: none
  discrepancy integer, channel integer not null, seq integer, output integer, at integer not null,
  primary key (discrepancy, seq, output)) without rowid;
create index difference_message on difference(channel, seq);

create table compared (                -- running totals of a tap's comparison
  channel integer, tap text, matched integer not null, explained integer not null, unexplained integer not null,
  not_comparable integer not null, watermark integer not null, watermark_id integer not null,
  primary key (channel, tap)) without rowid;

create table fact (                    -- what a gate check looks at: the newest of its name
  channel integer, name text, value text not null, at integer not null, who text not null, until integer not null,
  version text not null, primary key (channel, name)) without rowid;

create table waiver (                  -- a check that need not pass; append only
  id integer primary key, channel integer not null, name text not null, who text not null, why text not null,
  at integer not null, until integer not null);

create table audit (                   -- who did what; append only, each row's hash covers the one before
  id integer primary key, at integer not null, who text not null, origin text not null, verb text not null,
  subject text not null, why text not null, before text not null, after text not null, hash text not null);
"""

TABLES = (
    _CORE + replays.TABLES + retention.TABLES + incarnations.TABLES + search.TABLES + remembered.TABLES + later.TABLES
    + mappings.TABLES + parked.TABLES + gaps.TABLES
)  # fmt: skip

INSERT_MESSAGE = (
    "insert into message (id, channel, seq, socket, received, control_id, large, crc, raw) values (?,?,?,?,?,?,?,?,?)"
)
UPDATE_CHANNEL = "update channel set seq = ? where id = ?"
INSERT_CHANNEL = "insert or ignore into channel (id, name, seq) values (?,?,0)"
INSERT_DESTINATION = "insert or ignore into destination (id, name) values (?,?)"
INSERT_EPOCH = (
    "insert into epoch (channel, first, number, phase, routing, term, who, why, at, evidence)"
    " values (?,?,?,?,?,?,?,?,?,?)"
)
INSERT_RECEIPT = (
    "insert into receipt"
    " (message, channel, seq, destination, part, delivery, revision, epoch, state, at, term, made_by, why, answer)"
    " values (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
INSERT_CAPTURED = "insert into captured (message, destination, part, output) values (?,?,?,?)"
INSERT_EVENT = (
    "insert into intake_event (at, channel, kind, reason, peer, socket, size, message, answer, raw)"
    " values (?,?,?,?,?,?,?,?,?,?)"
)
# The present term is asked for on the row that is written anyway: a claim of an older term changes nothing, and the
# writer, which counts the rows, stops.
PUT_PROGRESS = (
    "insert into progress (channel, destination, epoch, claim, term, frontier, frontier_id,"
    " delivered, captured, filtered, refused, duplicate, superseded, discarded) values (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
    " on conflict do update set claim = excluded.claim, term = excluded.term, frontier = excluded.frontier,"
    " frontier_id = excluded.frontier_id, delivered = excluded.delivered, captured = excluded.captured,"
    " filtered = excluded.filtered, refused = excluded.refused, duplicate = excluded.duplicate,"
    " superseded = excluded.superseded, discarded = excluded.discarded"
    " where term <= excluded.term and claim <= excluded.claim"
)
PUT_OPEN = (
    "insert or replace into open_work"
    " (channel, destination, seq, part, delivery, message, epoch, state, due, tries, term, why, blocks, parts, so_far,"
    " revision, bound) values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
INSERT_OUTPUT = (
    "insert into tap_output (id, channel, tap, at, socket, control_id, decision, seq, answer, large, raw)"
    " values (?,?,?,?,?,?,?,?,?,?,?)"
)
DELETE_OPEN = "delete from open_work where channel = ? and destination = ? and seq = ? and part = ? and delivery = ?"

TOUCH = "update ledger set touched = touched + 1"  # the smallest transaction that really writes


def connect(path: str) -> sqlite3.Connection:
    """A writing connection with the ledger's pragmas. Transactions are begun and ended by hand."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    connection.execute("pragma page_size = 8192")
    connection.execute("pragma auto_vacuum = incremental")  # of a new file; another keeps what it has
    for pragma in PRAGMAS:
        connection.execute(pragma)
    return connection


def create(connection: sqlite3.Connection, incarnation: str) -> None:
    """Make the tables in an empty file, in one transaction. `incarnation`: letters, digits and dashes."""
    row = f"insert into ledger values (1, {VERSION}, '{incarnation}', 0, 0, 0, '')"
    connection.execute("begin immediate")
    for statement in (*statements(TABLES), row):
        connection.execute(statement)
    connection.execute("commit")
    connection.execute("pragma wal_checkpoint(truncate)").fetchall()  # the file alone says whose it is
