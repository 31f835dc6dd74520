"""`interlock test-connection`: what can go wrong between two machines, each in words of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Interlock
from tests.support.ports import free_port

MESSAGE = b"MSH|^~\\&|A|B|C|D|20260101||ORU^R01|X1|P|2.5\rPID|1\r"


@contextmanager
def peer(answer: Callable[[bytes], bytes | None]) -> Iterator[int]:
    """A peer that answers one connection's first bytes with others, or None to close at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                conn, _ = server.accept()
                with conn:
                    data = conn.recv(65536)
                    said = answer(data)
                    if said is not None:
                        conn.sendall(said)
                        conn.recv(1)
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
    thread.join(5)


def acknowledged(code: str = "AA", control_id: str = "X1") -> Callable[[bytes], bytes]:
    return lambda _: f"\x0bMSH|^~\\&|C|D|A|B|1||ACK|9|P|2.5\rMSA|{code}|{control_id}\r\x1c\r".encode()


@pytest.fixture
def message(tmp_path: Path) -> Path:
    path = tmp_path / "message.hl7"
    path.write_bytes(MESSAGE)
    return path


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (acknowledged(), "answered", "answered AA"),
        (acknowledged("AR"), "said_no", "answered AR"),
        (acknowledged(control_id="X2"), "other_message", "another message"),
        (lambda _: b"\x0bhello\x1c\r", "no_hl7_answer", "no acknowledgement"),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", "bad_frame", "web server"),
        (lambda _: None, "closed_without_answer", "closed the connection"),
        (lambda _: b"", "no_acknowledgement", "sent nothing back"),
    ],
)
def test_what_a_peer_answers_is_told_apart(
    interlock: Interlock, message: Path, answer: Callable[[bytes], bytes | None], code: str, words: str
) -> None:
    with peer(answer) as port:
        done = interlock(
            "test-connection", f"127.0.0.1:{port}", "--message", str(message), "--timeout", "0.5", "--json"
        )
    (row,) = orjson.loads(done.out)
    assert row["code"] == code
    assert words in row["said"]
    assert row["good"] is (code == "answered")
    assert done.status == (0 if code == "answered" else 1)


def test_nobody_listens(interlock: Interlock) -> None:
    done = interlock("test-connection", f"127.0.0.1:{free_port()}")
    assert done.status == 1
    assert "nothing listens at that port" in " ".join(done.out.split())


def test_without_a_message_it_only_connects(interlock: Interlock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = interlock("test-connection", f"127.0.0.1:{server.getsockname()[1]}", "--json")
    (row,) = orjson.loads(done.out)
    assert (row["code"], row["good"], done.status) == ("connected", True, 0)


def test_what_is_no_address_is_looked_for_in_the_configuration(interlock: Interlock) -> None:
    done = interlock("test-connection", "nobody")
    assert done.status == 1
    assert "interlock.yaml" in done.err
