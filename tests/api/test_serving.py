"""The port and its token file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.api.application import serve
from engine.api.token import new_token, read_token, token_file, write_token
from engine.config.address import Address
from engine.config.model import Service
from tests.support.ports import free_port
from tests.support.told import Told


def service(folder: Path, port: int) -> Service:
    return Service(folder, None, folder / "var/interlock.db", Address("127.0.0.1", port), 0, None, folder)


def test_the_token_is_for_its_user_alone(tmp_path: Path) -> None:
    ledger = tmp_path / "var/interlock.db"
    write_token(ledger, "first")
    write_token(ledger, "second")
    assert token_file(ledger) == tmp_path / "var/interlock.token"
    assert token_file(ledger).stat().st_mode & 0o777 == 0o600
    assert read_token(ledger) == "second"
    assert list(token_file(ledger).parent.iterdir()) == [token_file(ledger)]


def test_tokens_differ() -> None:
    assert new_token() != new_token()


async def test_the_port_answers_with_the_token_of_the_file_and_closes(tmp_path: Path) -> None:
    configured = service(tmp_path, free_port())
    server = await serve(Told().asked_of, configured, "0.1.0")
    try:
        status = await _status(configured.http, read_token(configured.ledger))
    finally:
        await server.close()
    assert status == b"HTTP/1.0 200 OK"
    assert not token_file(configured.ledger).exists()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(configured.http.host, configured.http.port)


async def _status(address: Address, token: str) -> bytes:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(f"GET /api/v1/status HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    await writer.wait_closed()
    return line.strip()


async def test_a_second_service_that_cannot_start_leaves_the_first_ones_token(tmp_path: Path) -> None:
    configured = service(tmp_path, free_port())
    server = await serve(Told().asked_of, configured, "0.1.0")
    token = read_token(configured.ledger)
    try:
        with pytest.raises(OSError, match="address"):
            await serve(Told().asked_of, configured, "0.1.0")
        assert read_token(configured.ledger) == token
    finally:
        await server.close()
