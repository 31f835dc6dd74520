"""Asks the running service, which is found through the same configuration that it runs on."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import Any, NamedTuple

from engine.cli.console import USAGE, Stop
from engine.cli.options import settings_of
from engine.cli.version import installed_version

TIMEOUT_S = 15.0


class Found(NamedTuple):
    """Where the service answers, and the ledger beside which its token lies."""

    host: str
    port: int
    ledger: Path


def find(config: Path) -> Found:
    """Only http and ledger count here: an operator's shell need not hold the service's secrets."""
    from engine.config.nodes import Findings
    from engine.config.settings import load_settings

    findings = Findings(os.environ)
    settings = load_settings(settings_of(config), findings)
    if settings is None:
        raise Stop("\n".join(map(str, sorted(findings.problems))), USAGE)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.http.host, settings.http.host)
    return Found(host, settings.http.port, settings.ledger)


def ask(config: Path, path: str, body: Any = None, timeout: float = TIMEOUT_S) -> Any:
    """The service's answer as values; GET, or POST where there is a body. Stops with a sentence where there is none.

    timeout: seconds without a byte from the service.
    """
    import orjson

    found = find(config)
    sent = None if body is None else orjson.dumps(body)
    status, content = _exchange(found, _token(found, config), path, sent, timeout)
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise Stop(f"what answers at {found.host}:{found.port} is not Interlock (HTTP {status})") from None
    if status == 401:
        raise Unreachable(
            f"the service at {found.host}:{found.port} does not know the token beside {found.ledger}: "
            f"is it running on another configuration than {config}?"
        )
    if status >= 400:
        raise _failure(status, str(answer.get("detail", "")))
    return answer


class Missing(Stop):
    """There is no such thing (HTTP 404)."""


class Refusal(Stop):
    """What was asked may not be done (HTTP 409). sentences: why, each."""

    def __init__(self, detail: str) -> None:
        self.sentences = detail.splitlines() or ["refused"]
        super().__init__("\ninterlock: ".join(self.sentences))


class Unreachable(Stop):
    """The service does not run, or does not answer."""


def _failure(status: int, detail: str) -> Stop:
    if status == 404:
        return Missing(detail)
    return Refusal(detail) if status == 409 else Stop(f"{detail} (HTTP {status})")


def _token(found: Found, config: Path) -> str:
    from engine.api.token import read_token, token_file

    try:
        return read_token(found.ledger)
    except FileNotFoundError:
        raise Unreachable(
            f"the service of {config} is not running (no {token_file(found.ledger)}): start it with `interlock run`"
        ) from None
    except OSError as error:
        raise Stop(
            f"the token {token_file(found.ledger)} cannot be read ({error.strerror}): "
            "only the user that runs the service may, try as that user"
        ) from None


def _exchange(found: Found, token: str, path: str, body: bytes | None, timeout: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(found.host, found.port, timeout=timeout)
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "User-Agent": f"interlock/{installed_version()}",
    }
    where = f"{found.host}:{found.port}"
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except ConnectionRefusedError:
        raise Unreachable(f"nothing answers at {where}: start the service with `interlock run`") from None
    except TimeoutError:
        raise Unreachable(f"the service at {where} did not answer within {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the service at {where} did not answer: {type(error).__name__}") from None
    finally:
        connection.close()
