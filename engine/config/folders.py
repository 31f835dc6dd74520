"""Folders that messages are read from: of this machine, or of an SFTP server that an endpoint names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.config.edge import Directory, Files, Place, Sftp
from engine.config.endpoints import Endpoints
from engine.config.nodes import Findings
from engine.config.paths import path_in
from engine.config.tables import Section


def read_files(section: Section, root: Path, endpoints: Endpoints, findings: Findings) -> Files | None:
    """A folder to read; None where it is wrong. It need not be there yet: a share may come and go."""
    before = findings.count
    place = _place(section, root, endpoints, findings)
    values = section.given("pattern", "poll", "stable", "after", "archive", "failed")
    if values.get("archive", "archive") == values.get("failed", "failed"):
        wanted = "two folders: what is stored is to be told from what is not"
        findings.problem(section.place("failed"), "one folder for archive: and failed:", wanted)
    return Files(place, **values) if place and findings.count == before else None


def _place(section: Section, root: Path, endpoints: Endpoints, findings: Findings) -> Place | None:
    if "sftp" in section.places:
        name = section.get("sftp")
        server = endpoints.server(section.place("sftp"), name, findings) if name else None
        if not isinstance(server, Sftp):
            return None
        return replace(server, **section.given("directory"))
    if "directory" not in section.places:
        findings.problem(section.node, "files without directory: or sftp:", "one of them")
    path = path_in(section, "directory", root)
    return Directory(path) if path else None
