"""The rules of the house that no single folder can keep: who may import whom, and what stands in no file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGINE = ROOT / "engine"

DOWNWARD = (
    "cli",
    "api",
    "service",
    "people",
    "remedy",
    "migration",
    "compare",
    "delivery",
    "intake",
    "mapping",
    "fhir",
    "ledger",
    "simulate",
    "hl7",
    "files",
    "mllp",
    "observe",
    "config",
)
"""A folder imports only from those after it."""

MADE = {".git", ".hypothesis", ".venv", "node_modules", "build", "dist", "var", "run", "__pycache__"}
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".mjs", ".lock", ".hl7", ".txt", ""}


def folder_of(path: Path) -> str:
    return path.relative_to(ENGINE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The folders of `engine` that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a thing comes from"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "engine" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("path", sorted(ENGINE.rglob("*.py")), ids=lambda path: str(path.relative_to(ENGINE)))
def test_imports_go_downward(path: Path) -> None:
    if path == ENGINE / "__init__.py":
        assert list(imported(path)) == []
        return
    mine = DOWNWARD.index(folder_of(path))
    upward = sorted({name for name in imported(path) if name in DOWNWARD and DOWNWARD.index(name) < mine})
    assert upward == []


def test_every_folder_has_its_place() -> None:
    folders = {path.name for path in ENGINE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert folders - set(DOWNWARD) == set()


@pytest.mark.parametrize("name", ["utils", "util", "helpers", "helper", "common", "misc"])
def test_no_file_is_named_after_nothing(name: str) -> None:
    assert [str(path) for path in (*ENGINE.rglob(f"{name}.py"), *ENGINE.rglob(name))] == []


def files() -> Iterator[Path]:
    for path in ROOT.rglob("*"):
        parts = set(path.relative_to(ROOT).parts)
        made = parts & MADE or any(part.endswith((".egg-info", "_cache")) for part in parts)
        if path.is_file() and not made and path.suffix in TEXT:
            yield path


FORBIDDEN = [
    ("the place of somebody's checkout", re.compile("/wor" + "k/|/tmp/inter" + "lock|CONTRA" + "CT\\.md")),
    (
        "a package registry",
        re.compile("pypi" + r"\.org|pytho" + r"nhosted|registry\.np" + "mjs|/opt/py" + "pi|--find-" + "links"),
    ),
    ("a private key", re.compile("BEGIN [A-Z ]*PRIVATE " + "KEY")),
]


@pytest.mark.parametrize(("what", "words"), FORBIDDEN, ids=[what for what, _ in FORBIDDEN])
def test_no_file_names(what: str, words: re.Pattern[str]) -> None:
    found = [str(path.relative_to(ROOT)) for path in files() if words.search(path.read_text(errors="replace"))]
    assert found == []


def test_locked_dependencies_have_hashes_and_no_address() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        pinned = re.findall(r"^[a-z0-9][a-z0-9._-]*==\S+", text, re.MULTILINE)
        assert pinned
        assert len(re.findall(r"^[a-z0-9][^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)) == len(pinned)


def test_the_runtime_lock_is_part_of_the_development_lock() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9][a-z0-9._-]*==[^ ;]+)", (ROOT / name).read_text(), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")
