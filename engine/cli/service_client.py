"""Asks the running service, which is found through the same configuration that it runs on."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import Any, NamedTuple

from engine.cli.console import USAGE, Stop

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
    settings = load_settings(config, findings)
    if settings is None:
        raise Stop("\n".join(map(str, sorted(findings.problems))), USAGE)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.http.host, settings.http.host)
    return Found(host, settings.http.port, settings.ledger)


def ask(config: Path, path: str, body: Any = None) -> Any:
    """The service's answer as values; GET, or POST where there is a body. Stops with a sentence where there is none."""
    import orjson

    found = find(config)
    status, content = _exchange(found, _token(found, config), path, None if body is None else orjson.dumps(body))
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise Stop(f"what answers at {found.host}:{found.port} is not Interlock (HTTP {status})") from None
    if status == 401:
        raise Stop(
            f"the service at {found.host}:{found.port} does not know the token beside {found.ledger}: "
            f"is it running on another configuration than {config}?"
        )
    if status >= 400:
        raise Missing(answer.get("detail", "")) if status == 404 else Stop(f"{answer.get('detail')} (HTTP {status})")
    return answer


class Missing(Stop):
    """There is no such thing (HTTP 404)."""


def _token(found: Found, config: Path) -> str:
    from engine.api.token import read_token, token_file

    try:
        return read_token(found.ledger)
    except FileNotFoundError:
        raise Stop(
            f"the service of {config} is not running (no {token_file(found.ledger)}): start it with `interlock run`"
        ) from None
    except OSError as error:
        raise Stop(
            f"the token {token_file(found.ledger)} cannot be read ({error.strerror}): "
            "only the user that runs the service may, try as that user"
        ) from None


def _exchange(found: Found, token: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(found.host, found.port, timeout=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except ConnectionRefusedError:
        raise Stop(f"nothing answers at {found.host}:{found.port}: start the service with `interlock run`") from None
    except (OSError, http.client.HTTPException) as error:
        raise Stop(f"the service at {found.host}:{found.port} did not answer: {type(error).__name__}") from None
    finally:
        connection.close()
