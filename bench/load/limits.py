"""How many files and sockets a process of a benchmark may have open."""

from __future__ import annotations

import resource


def open_files(wanted: int) -> None:
    """Raise this process's own limit as far as needed. SystemExit where the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if hard != unlimited and hard < wanted:
        raise SystemExit(
            f"{wanted} open files are needed, and this system allows {hard}: raise its hard limit (ulimit -Hn)"
        )
    if soft != unlimited and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
