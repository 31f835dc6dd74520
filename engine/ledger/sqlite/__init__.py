"""The ledger on SQLite: WAL, `synchronous=FULL`, one writer."""
