"""Files that the configuration names: they must be there before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

from engine.config.nodes import Findings
from engine.config.tables import Section


def path_in(section: Section | None, key: str, root: Path) -> Path | None:
    """The path under a key, made absolute; None where there is none."""
    text = section.get(key) if section else None
    return (root / text).resolve() if text else None


def file_in(section: Section, key: str, root: Path, findings: Findings) -> Path | None:
    """As `path_in`, with a problem where it is no file that this user may read. What is in it is not looked at."""
    path = path_in(section, key, root)
    if path is None or (path.is_file() and os.access(path, os.R_OK)):
        return path
    what = "which this user may not read" if path.is_file() else "which is no file"
    findings.problem(section.place(key), f"{path}, {what}", "a file that can be read")
    return None
