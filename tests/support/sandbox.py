"""The sandbox as a real process for tests: started once a session on a free port, emptied before each test.

    from tests.support.sandbox import Sandbox, sandbox, sandbox_process  # noqa: F401

Without its packages (`npm ci` in deploy/sandbox) the tests are skipped with the reason; with CI=true they fail.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "sandbox"


def _load_start() -> ModuleType:
    """deploy/sandbox/start.py, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("sandbox_start", FOLDER / "start.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


start = _load_start()

CLIENT_ID, CLIENT_SECRET = "sandbox-client", "sandbox-secret"
BASIC = "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()


class Sandbox:
    """The control side of a running sandbox, and of another client's writes."""

    def __init__(self, base: str) -> None:
        self.base = base

    def _call(self, method: str, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": BASIC, "Content-Type": "application/fhir+json"}
        request = urllib.request.Request(self.base + path, data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            content: bytes = answer.read()
        return content

    def reset(self) -> None:
        self._call("POST", "/_reset")

    def stats(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._call("GET", "/_stats?deep"))
        return answer

    def faults(self, *faults: dict[str, Any]) -> None:
        """Switch these faults on, instead of those before."""
        self._call("POST", "/_faults", list(faults))

    def config(self, **changes: Any) -> None:
        """Change options, `transactions="off"`; underscores stand for hyphens."""
        self._call("POST", "/_config", {name.replace("_", "-"): value for name, value in changes.items()})

    def revoke_tokens(self) -> None:
        self._call("POST", "/_tokens/revoke")

    def dump(self, kind: str) -> list[dict[str, Any]]:
        """Every current resource of a type."""
        return [json.loads(line) for line in self._call("GET", f"/_dump?type={kind}").splitlines()]

    def one(self, kind: str) -> dict[str, Any]:
        """The only resource of a type."""
        found = self.dump(kind)
        assert len(found) == 1, f"{len(found)} {kind}"
        return found[0]

    def put(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Store a resource as another client would: PUT with an id, else POST."""
        known = "id" in resource
        place = f"{resource['resourceType']}/{resource['id']}" if known else resource["resourceType"]
        stored: dict[str, Any] = json.loads(self._call("PUT" if known else "POST", f"/fhir/R4/{place}", resource))
        return stored

    def delete(self, kind: str, id: str) -> None:
        self._call("DELETE", f"/fhir/R4/{kind}/{id}")

    def assert_sound(self) -> None:
        """Nothing twice, and nothing that points at nothing."""
        stats = self.stats()
        shared = [one["identifier"] for kind in stats["duplicates"].values() for one in kind]
        assert [one for one in shared if ":series|" not in one] == []  # that is there to be shared
        assert stats["danglingReferences"] == [], stats["danglingReferences"]


def require_sandbox() -> None:
    why_not = start.problem()
    if why_not is not None and os.environ.get("CI") == "true":
        pytest.fail(why_not)
    if why_not is not None:
        pytest.skip(why_not)


def launch(*flags: str) -> tuple[subprocess.Popen[str], Sandbox]:
    """Start a sandbox on a free port; the caller ends the process with `stop`."""
    process = subprocess.Popen(start.command("--port", "0", *flags), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the sandbox ended with {process.wait()}")
    return process, Sandbox(json.loads(line)["base"])


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(timeout=10)
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[Sandbox]:
    require_sandbox()
    process, box = launch("--latency-ms", "2")
    yield box
    stop(process)


@pytest.fixture
def sandbox(sandbox_process: Sandbox) -> Sandbox:
    sandbox_process.reset()
    return sandbox_process
