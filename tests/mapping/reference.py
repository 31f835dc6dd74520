"""Reference messages and measures, where INTERLOCK_REFERENCE names a folder that has them.

samples/*.hl7: messages as they are published. measure/: `recall.py` says what share of a message's values is in a
bundle, `r4check/` what a validating FHIR server has against it. v2-to-fhir/: the HL7 guide's tables, which the first
one reads. All of it is somebody else's and stays as it is: the measures run in a copy, with the sandbox's packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parents[2]
FOLDER = os.environ.get("INTERLOCK_REFERENCE", "")
PACKAGES = ROOT / "deploy" / "sandbox" / "node_modules"
NEEDED = ("samples", "measure", "v2-to-fhir")


def missing() -> str:
    """What the environment lacks; empty where all is there."""
    if not FOLDER:
        return "INTERLOCK_REFERENCE does not name a folder with samples/, measure/ and v2-to-fhir/"
    return next(
        (f"INTERLOCK_REFERENCE: {FOLDER} has no {name}/" for name in NEEDED if not Path(FOLDER, name).is_dir()), ""
    )


def samples() -> list[Path]:
    """The messages."""
    return sorted(Path(FOLDER, "samples").glob("*.hl7")) if not missing() else []


@dataclass(frozen=True, slots=True)
class Share:
    """Of a message type: how many messages and values, what share of the values is found, and outside extensions."""

    messages: int
    values: int
    found: float
    outside: float


class Measures:
    """The measures, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shutil.copytree(Path(FOLDER, "measure"), folder / "measure", ignore=shutil.ignore_patterns("node_modules"))
        (folder / "v2-to-fhir").symlink_to(Path(FOLDER, "v2-to-fhir").resolve())
        (folder / "bundles").mkdir()

    def add(self, sample: Path, bundle: dict[str, Any]) -> None:
        """The bundle that was made of a sample."""
        self._path(sample).write_bytes(orjson.dumps(bundle))

    def _path(self, sample: Path) -> Path:
        return self._folder / "bundles" / f"{sample.stem}.json"

    def shares(self) -> dict[str, Share]:
        """By message type."""
        out = self._folder / "recall.json"
        self._run(
            sys.executable, "recall.py", "--corpus", str(Path(FOLDER, "samples").resolve()),
            "--fhir", str(self._folder / "bundles"), "--out", str(out),
        )  # fmt: skip
        types = orjson.loads(out.read_bytes())["types"]
        return {
            kind: Share(one["messages"], one["values"], one["recall"], one["core_recall"])
            for kind, one in types.items()
        }

    def errors(self, node: str) -> dict[str, list[str]]:
        """By sample, what a server would refuse."""
        packages = self._folder / "measure" / "r4check" / "node_modules"
        if not packages.exists():
            packages.symlink_to(PACKAGES)
        paths = self._folder / "paths.txt"
        paths.write_text("\n".join(map(str, sorted((self._folder / "bundles").glob("*.json")))))
        found = orjson.loads(self._run(node, "r4check/check.mjs", "--list", str(paths)))
        return {
            Path(path).stem: [
                _told(issue) for issue in one.get("issues", ()) if issue["severity"] in ("error", "fatal")
            ]
            for path, one in found.items()
        }

    def _run(self, *command: str) -> bytes:
        return subprocess.run(command, cwd=self._folder / "measure", stdout=subprocess.PIPE, check=True).stdout


def _told(issue: dict[str, Any]) -> str:
    return f"{issue['category']}: {issue['resource']} {issue['path']}: {issue['message']}"
