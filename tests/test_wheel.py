"""The wheel carries what a service needs that has only interlock.yaml and channels/."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files in the wheel, built from a copy so that nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, copy)
    for name in ("engine", "mappings"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check", "-o", "out", "."]
    subprocess.run(command, cwd=copy, check=True, capture_output=True, timeout=120)
    (wheel,) = (copy / "out").glob("interlock-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_module_and_every_mapping_is_in_it(names: set[str]) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "engine").rglob("*.py")}
    mappings = {f"engine/{path.relative_to(ROOT)}" for path in (ROOT / "mappings").rglob("*.yaml")}
    assert mappings
    assert (modules | mappings) - names == set()


def test_data_beside_the_code_is_in_it(names: set[str]) -> None:
    data = {str(path.relative_to(ROOT)) for path in (ROOT / "engine").rglob("*") if path.suffix in (".json", ".yaml")}
    assert data - names == set()


def test_nothing_else_is_in_it(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"engine"}
