
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

create table replay (                  -- messages that a person has sent to a destination once more
  id integer primary key, channel integer not null, destination text not null, numbers text not null,
  upto integer not null, total integer not null, begun integer not null, state text not null, who text not null,
  why text not null, origin text not null, at integer not null, ended integer,
  mapping text not null default 'as-is');  -- or 'as-was'

create table pruning (                 -- what was removed: numbers of a class, without a gap; of `audit`: channel 0
  channel integer, class text, first integer, last integer not null,
  last_id integer not null,            -- of the last row that is gone: where looking starts
  at integer not null, rule text not null,
  primary key (channel, class, first)) without rowid;

create table pruned (                  -- receipts that were removed, counted as the totals count them
  channel integer, destination integer, epoch integer, replay integer, state integer, count integer not null,
  primary key (channel, destination, epoch, replay, state)) without rowid;

create table legal_hold (              -- nothing of the channel is removed until it is lifted
  channel integer primary key, who text not null, why text not null, at integer not null);

create table moment (                  -- how far the numbers had come by a time of the wall clock
  at integer primary key, believed integer not null, message integer not null, tap_output integer not null,
  intake_event integer not null, audit integer not null);

create table audit_start (             -- one row: what the audit chain now starts behind
  only integer primary key check (only = 1), id integer not null, hash text not null);

create table incarnation (             -- after a restore: the first message.id of each
  first integer primary key, name text not null, at integer not null);

create table search_block (            -- blocks whose keys are written, with the times of their messages
  block integer primary key, first integer not null, last integer not null);
create table search_bucket (           -- id: block * 256 + bucket, keys: four bytes each
  id integer primary key, keys blob not null);

create table remembered (
  store text, key text, message integer,
  until integer not null,              -- microseconds since 1970: nobody received later sees it
  given text not null,                 -- JSON: name and value
  primary key (store, key, message)) without rowid;
create index remembered_until on remembered(until);
create table remembered_upto (         -- how far a channel's messages have been read
  channel integer primary key, upto integer not null);

create index intake_event_later on intake_event(message) where kind = 'application_answer';

create table mapping (                 -- versions of effective mappings; parts: the hashes of those it needs, JSON
  version text primary key, at integer not null, parts text not null, head blob not null) without rowid;

create table mapping_part (            -- files and tables, packed, each once
  hash text primary key, content blob not null);

create index tap_output_parked on tap_output(channel, tap) where decision = 'parked';

create table tap_decision (            -- what became of a parked output; how it came to that, the audit record says
  output integer primary key, seq integer,     -- the input that a person has given it to
  state text not null, said text not null, who text not null, why text not null, at integer not null,
  ended integer, answer blob);                 -- ended: null as long as it waits
