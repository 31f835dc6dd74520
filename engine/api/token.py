"""The bearer token of the running service: a file beside the ledger that only its user can read.

A new one is written at each start, so a token that leaked ends with the process.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from engine.files import private


def token_file(ledger: Path) -> Path:
    """var/interlock.db → var/interlock.token"""
    return ledger.with_suffix(".token")


def new_token() -> str:
    return secrets.token_urlsafe(32)


def write_token(ledger: Path, token: str) -> None:
    """Write the token file, readable by this user alone. Raises OSError."""
    private.put(token_file(ledger), f"{token}\n".encode())


def read_token(ledger: Path) -> str:
    """The token of the service that runs on this ledger. Raises OSError."""
    return token_file(ledger).read_text().strip()
