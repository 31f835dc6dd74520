"""Files that a service keeps for itself: for its user's eyes only, whole or not there at all."""

from __future__ import annotations

import os
from pathlib import Path


def put(path: Path, data: bytes, changed: int | None = None) -> None:
    """Write a file in the place of what is there. changed: when it is to have been changed, in ns since 1970, if not
    now. Raises OSError, and leaves nothing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # at the first start there is no ledger yet
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)  # of one that was killed, and had the same number
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        if changed is not None:
            os.utime(part, ns=(changed, changed))
        part.replace(path)  # never a moment with half of it, or with one that others may read
    except OSError:
        part.unlink(missing_ok=True)
        raise
