"""The bearer token of the running service: a file beside the ledger that only its user can read.

A new one is written at each start, so a token that leaked ends with the process.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def token_file(ledger: Path) -> Path:
    """var/interlock.db → var/interlock.token"""
    return ledger.with_suffix(".token")


def new_token() -> str:
    return secrets.token_urlsafe(32)


def write_token(ledger: Path, token: str) -> None:
    """Write the token file, readable by this user alone. Raises OSError."""
    path = token_file(ledger)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    fresh.replace(path)  # never a moment with half a token, or with one that others may read


def read_token(ledger: Path) -> str:
    """The token of the service that runs on this ledger. Raises OSError."""
    return token_file(ledger).read_text().strip()
