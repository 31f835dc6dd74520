create table ledger (                  -- one row
  only integer primary key check (only = 1),
  version integer not null, incarnation text not null, term integer not null,
  touched integer not null);           -- counts the trials whether the file can be written

create table message (
  id       integer primary key,        -- given by the writer, one rising sequence over all channels
  channel  integer not null,  seq integer not null,
  socket   integer not null,           -- number of the inbound connection; never used twice, restarts included
  received integer not null,           -- microseconds since 1970
  control_id text,
  raw      blob not null);             -- last, so that heads are read without it
create unique index message_block on message(id >> 12, channel, seq);

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
  primary key (channel, destination, seq, part, delivery)) without rowid;

create table receipt (                 -- append only
  id integer primary key, message integer not null, channel integer not null, seq integer not null,
  destination integer not null, part integer not null, delivery integer not null, revision integer not null,
  epoch integer not null, state integer not null, at integer not null, term integer not null,
  why text, answer blob);
create index receipt_message on receipt(message);              -- nearly in rising order

create table captured (                -- outputs made and kept, not sent; compressed
  message integer, destination integer, part integer, output blob not null,
  primary key (message, destination, part)) without rowid;

create table intake_event (            -- input without a number, or with a flaw: evidence; append only
  id integer primary key, at integer not null, channel integer not null, kind text not null, reason text not null,
  peer text not null, socket integer not null, size integer not null, message integer, answer blob, raw blob not null);
