from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import shipped


def test_a_checkout_uses_its_own_mappings() -> None:
    assert shipped.shipped_mappings() == Path(__file__).resolve().parents[2] / "mappings"


def test_an_installed_package_uses_the_mappings_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "engine"
    monkeypatch.setattr(shipped.engine, "__file__", str(package / "__init__.py"))
    assert shipped.shipped_mappings() == package / "mappings"
