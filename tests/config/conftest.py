"""A small configuration that is right, for tests that spoil one thing in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.config import loading
from engine.config.model import Configuration
from engine.config.problem import ConfigError
from tests.support.certificates import Authority

SETTINGS = "medplum: {base_url: http://127.0.0.1:8104, client_id: app, client_secret: pass}\n"

ENDPOINTS = """\
old-engine: {mllp: "10.0.0.5:6661"}
acme-emr: {mllp: "10.0.0.6:6662", on_unknown: resend}
"""

HEAD = "id: acme\nconnection: acme\ndirection: results\ntimezone: UTC\n"

CHANNEL = """\
id: acme
connection: acme
direction: results
timezone: America/Chicago
listen: {port: 6101}
legacy: {mllp: old-engine}
"""
BETA = CHANNEL.replace("id: acme", "id: beta").replace("6101", "6102")

LEGACY = "legacy: {mllp: old-engine}\n"
TARGET = "target: {destinations: [{medplum: {}}]}\n"


@cache
def us() -> str:
    """A certificate with its key in one file, which may stand wherever a file of TLS is wanted."""
    with TemporaryDirectory() as folder:
        pair = Authority(Path(folder)).issue("us")
        return pair.certificate.read_text() + pair.key.read_text()


Write = Callable[[str, str], Path]
Load = Callable[..., Configuration]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file of the configuration; the rest of it is right already."""
    monkeypatch.chdir(tmp_path)
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(loading, "shipped_mappings", lambda: shipped)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    write("shipped/messages/oru_r01.yaml", "message: ORU_R01\n---\nmessage: OUL_R21\n")
    write("shipped/messages/orm_o01.yaml", "title: orders\nmessage: ORM_O01\n")
    write("shipped/v2/acme_emr.yaml", "")
    write("interlock.yaml", SETTINGS)
    write("us.pem", us())
    write("channels/endpoints.yaml", ENDPOINTS)
    write("channels/acme.yaml", CHANNEL)
    return write


def problems(**environment: str) -> list[str]:
    """Every problem of a configuration that has some, as the user sees them, but for the folder that it lies in: that
    is `<root>`. With this environment and no other."""
    with pytest.raises(ConfigError) as caught:
        loading.load(Path("interlock.yaml"), environment)
    return [str(problem).replace(str(Path.cwd()), "<root>") for problem in caught.value.problems]


def notes() -> list[str]:
    return [str(note) for note in loading.load_with_notes(Path("interlock.yaml"), {})[1]]


@pytest.fixture
def load(write: Write) -> Load:
    """Loads the configuration, with the environment given and no other."""

    def load(**environment: str) -> Configuration:
        return loading.load(Path("interlock.yaml"), environment)

    return load
