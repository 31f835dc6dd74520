r"""A quirk's file as values. README.md says what may stand in it.

Text stands for bytes: every character is the byte of its number (Latin-1), and YAML's own escapes are for what cannot
be read. `[[M1]]` is a small ORU^R01 whose MSH-10 is M1, `[[X*500]]` that character 500 times; `[[AA]]`, said by a
peer, its acknowledgement.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

KEYS = {
    "quirk", "evidence", "phase", "channel", "endpoint", "old", "sends", "answers", "closes", "stored", "kept",
    "metrics", "old_engine", "clinic",
}  # fmt: skip


def plain(control_id: str) -> str:
    """A message with nothing odd about it."""
    header = f"MSH|^~\\&|LAB|F|EMR|C|20260101120000||ORU^R01|{control_id}|P|2.3"
    return f"{header}\rPID|1||7^^^LAB||ROE^ANN\rOBR|1|A1|F1|GLU\rOBX|1|NM|GLU||5.1|mmol/l|||||F\r"


def octets(text: str | dict[str, str]) -> bytes:
    """The bytes that a text stands for, or `{hex: …}`."""
    if isinstance(text, dict):
        return bytes.fromhex(text["hex"])
    text = re.sub(r"\[\[(.)\*(\d+)\]\]", lambda found: found[1] * int(found[2]), text)
    return re.sub(r"\[\[(M\d+)\]\]", lambda found: plain(found[1]), text).encode("latin-1")


@dataclass
class Quirk:
    """One file."""

    file: str
    quirk: str
    evidence: str
    phase: str = "live"
    channel: dict[str, Any] = field(default_factory=dict)
    endpoint: dict[str, Any] = field(default_factory=dict)
    old: dict[str, Any] = field(default_factory=dict)
    sends: list[Any] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    closes: bool = False
    stored: list[Any] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    old_engine: dict[str, Any] = field(default_factory=dict)
    clinic: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its set of options, as text: quirks with the same one share a channel."""
        options = {"phase": self.phase, "channel": self.channel, "endpoint": self.endpoint, "old": self.old}
        return json.dumps({name: value for name, value in options.items() if value}, sort_keys=True)


def read_all(folder: Path) -> list[Quirk]:
    """All quirks of a folder, in the order of their names."""
    return [_read(path) for path in sorted(folder.glob("*.yaml"))]


def _read(path: Path) -> Quirk:
    data = yaml.safe_load(path.read_text())
    if unknown := set(data) - KEYS:
        raise ValueError(f"{path.name}: found {', '.join(sorted(unknown))}; there are only {', '.join(sorted(KEYS))}")
    if missing := {"quirk", "evidence", "sends"} - set(data):
        raise ValueError(f"{path.name}: without {', '.join(sorted(missing))}")
    return Quirk(path.stem, **data)
