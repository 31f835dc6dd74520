"""send: one message after the other, and every answer told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from engine.cli.sending import as_sent
from engine.mllp.framing import Decoder, Frame, encode
from tests.cli.conftest import Interlock

MESSAGE = "MSH|^~\\&|A|B|C|D|20261102||ORU^R01|{id}|P|2.5\nPID|1\n"


class Peer:
    """Accepts one connection and gives the prepared answers, None for closing instead."""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        self.received: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return
        decoder = Decoder()
        with connection:
            while data := connection.recv(65536):
                for event in decoder.feed(data):
                    if isinstance(event, Frame):
                        self.received.append(event.payload)
                        answer = self.answers.pop(0)
                        if answer is None:
                            return
                        connection.sendall(encode(answer))

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


def ack(code: str, control_id: str, more: str = "") -> bytes:
    return f"MSH|^~\\&|C|D|A|B|20261102||ACK^R01|X1|P|2.5\rMSA|{code}|{control_id}\r{more}".encode()


def write(folder: Path, *ids: str) -> str:
    (folder / "m.hl7").write_text("".join(MESSAGE.format(id=one) for one in ids))
    return "m.hl7"


def test_each_message_is_sent_with_carriage_returns_and_its_answer_shown(
    interlock: Interlock, peer: Peer, tmp_path: Path
) -> None:
    peer.answers = [ack("AA", "M1"), ack("AA", "M2")]
    result = interlock("send", write(tmp_path, "M1", "M2"), "--to", f"127.0.0.1:{peer.port}")
    assert result.status == 0
    lines = [line.rsplit("  ", 1)[0] for line in result.out.splitlines()]
    assert lines == ["1  ORU^R01  M1  AA accepted", "2  ORU^R01  M2  AA accepted"]
    assert [payload.count(b"\n") for payload in peer.received] == [0, 0]
    assert peer.received[0].split(b"\r")[1] == b"PID|1"


def test_a_no_is_shown_whole_and_1(interlock: Interlock, peer: Peer, tmp_path: Path) -> None:
    peer.answers = [ack("AR", "M1", "ERR||MSH^1^9|200|E\r")]
    result = interlock("send", write(tmp_path, "M1"), "--to", f"127.0.0.1:{peer.port}")
    assert result.status == 1
    assert "AR rejected" in result.out.splitlines()[0]
    assert "    ERR||MSH^1^9|200|E" in result.out.splitlines()


def test_an_answer_to_another_message_is_no_answer(interlock: Interlock, peer: Peer, tmp_path: Path) -> None:
    peer.answers = [ack("AA", "OTHER")]
    result = interlock("send", write(tmp_path, "M1"), "--to", f"127.0.0.1:{peer.port}", "--json")
    assert result.status == 1
    assert orjson.loads(result.out)["problem"] == "an answer to another message (OTHER)"


def test_a_closed_connection_ends_the_conversation(interlock: Interlock, peer: Peer, tmp_path: Path) -> None:
    peer.answers = [None]
    result = interlock("send", write(tmp_path, "M1", "M2"), "--to", f"127.0.0.1:{peer.port}")
    assert result.status == 1
    assert result.out.count("ORU^R01") == 1
    assert "the other side closed the connection without an answer" in result.out


def test_a_time_out_is_told(interlock: Interlock, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = f"127.0.0.1:{silent.getsockname()[1]}"
        result = interlock("send", write(tmp_path, "M1"), "--to", to, "--timeout", "0.1")
    assert result.status == 1
    assert result.out == "1  ORU^R01  M1  no answer within 0.1 s\n"


def test_nobody_there_is_told(interlock: Interlock, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = interlock("send", write(tmp_path, "M1"), "--to", f"127.0.0.1:{port}")
    assert result.status == 1
    assert result.err == (
        f"interlock: nothing listens at 127.0.0.1:{port}: is the service running, and is it that channel's port?\n"
    )


@pytest.mark.parametrize("to", ["nowhere", "host:", "host:70000", "http://host:1"])
def test_an_address_that_is_none_is_wrong_usage(to: str, interlock: Interlock, tmp_path: Path) -> None:
    result = interlock("send", write(tmp_path, "M1"), "--to", to)
    assert (result.status, result.err) == (2, f"interlock: --to {to}: wanted is host:port, such as 127.0.0.1:6101\n")


def test_a_file_that_is_not_there_is_wrong_usage(interlock: Interlock, peer: Peer) -> None:
    result = interlock("send", "none.hl7", "--to", f"127.0.0.1:{peer.port}")
    assert (result.status, result.err) == (2, "interlock: none.hl7 cannot be read: No such file or directory\n")


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_line_ends_of_an_editor_become_those_of_hl7(end: bytes) -> None:
    assert as_sent(b"MSH|1" + end + b"PID|1" + end) == b"MSH|1\rPID|1\r"


def test_a_line_feed_inside_a_segment_stays() -> None:
    assert as_sent(b"MSH|1\rNTE|two\nlines") == b"MSH|1\rNTE|two\nlines\r"


def test_utf_16_is_sent_as_it_is() -> None:
    assert as_sent("MSH|1\n".encode("utf-16")) == "MSH|1\n".encode("utf-16")
