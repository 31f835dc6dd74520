"""The statements of the tables beside the messages, by name: `book.put(name, *values)` runs them in the transaction."""

from __future__ import annotations

from types import MappingProxyType

from engine.ledger.sqlite import comparisons, files, gaps, large, parked, remembered, replays, retention

_JOURNAL = {
    "put_hold": "insert or replace into hold (channel, until, who, why, at) values (?,?,?,?,?)",
    "drop_hold": "delete from hold where channel = ?",
    "put_barrier": "insert into barrier (channel, run, at_seq, at_id, shut) values (?,?,?,?,?)",
    "drop_barrier": "delete from barrier where channel = ?",
    "put_grant": (
        "insert into replay_grant (channel, destination, first, last, mode, guarded, run, at, who, why)"
        " values (?,?,?,?,?,?,?,?,?,?)"
    ),
    "put_again": (
        "insert or replace into again (channel, destination, begun, delivered, captured, filtered, refused, duplicate,"
        " superseded, discarded) values (?,?,?,?,?,?,?,?,?,?)"
    ),
    "add_revision": "insert into revision (message, revision, at, who, why, raw) values (?,?,?,?,?,?)",
    "add_repeat": "insert into repeat (message, channel, seq, first, first_message) values (?,?,?,?,?)",
    "put_run": (
        "insert or replace into run (id, verb, connection, channels, state, step, said, options, who, why, origin,"
        " started, deadline, ended) values (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
    ),
    "put_fact": ("insert or replace into fact (channel, name, value, at, who, until, version) values (?,?,?,?,?,?,?)"),
    "add_waiver": "insert into waiver (channel, name, who, why, at, until) values (?,?,?,?,?,?)",
    "add_audit": (
        "insert into audit (id, at, who, origin, verb, subject, why, before, after, hash) values (?,?,?,?,?,?,?,?,?,?)"
    ),
    "put_audit_head": "update ledger set audit_count = ?, audit_hash = ?",
}

STATEMENTS = MappingProxyType(
    {
        **_JOURNAL,
        **comparisons.STATEMENTS,
        **files.STATEMENTS,
        **gaps.STATEMENTS,
        **large.STATEMENTS,
        **parked.STATEMENTS,
        **remembered.STATEMENTS,
        **replays.STATEMENTS,
        **retention.STATEMENTS,
    }
)
