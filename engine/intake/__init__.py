"""From the vendor's socket to the ledger, and the answer back: listen, judge, store, acknowledge."""
