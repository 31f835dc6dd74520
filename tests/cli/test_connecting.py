"""`interlock test-connection`: what can go wrong between two machines, each in words of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.conftest import Interlock
from tests.support.ports import free_port

MESSAGE = b"MSH|^~\\&|A|B|C|D|20260101||ORU^R01|X1|P|2.5\rPID|1\r"


@contextmanager
def peer(answer: Callable[[bytes], bytes | None], *, closes: bool = False) -> Iterator[int]:
    """A peer that answers one connection's first bytes with others, or None to close at once. `closes`: it does so
    after its answer too."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                conn, _ = server.accept()
                with conn:
                    data = conn.recv(65536)
                    said = answer(data)
                    if said is not None:
                        conn.sendall(said)
                        if not closes:
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
        (lambda _: b"\x06", "peer_answers_bare", "answers: bare"),
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


def configured(folder: Path) -> None:
    """A channel that sends to Medplum only."""
    (folder / "channels").mkdir(exist_ok=True)
    medplum = "{base_url: 'http://127.0.0.1:1', client_id: a, client_secret: b}"
    (folder / "interlock.yaml").write_text(f"medplum: {medplum}\n")
    (folder / "channels" / "acme.yaml").write_text(
        "{id: acme, connection: acme, direction: results, timezone: UTC, listen: {port: 6101},"
        " target: {mapping: oru_r01, destinations: [{medplum: {}}]}}"
    )


def asked(
    interlock: Interlock, folder: Path, options: str, answer: Callable[[bytes], bytes | None], **more: bool
) -> Any:
    """What the test says of an endpoint with these options that is sent the message."""
    with peer(answer, **more) as port:
        configured(folder)
        (folder / "channels" / "endpoints.yaml").write_text(f"emr: {{mllp: '127.0.0.1:{port}'{options}}}\n")
        done = interlock("test-connection", "emr", "--message", "message.hl7", "--timeout", "0.5", "--json")
    (row,) = orjson.loads(done.out)
    assert done.status == (0 if row["good"] is True else 1)
    return row


def both(first: str, second: str) -> Callable[[bytes], bytes]:
    return lambda data: acknowledged(first)(data) + acknowledged(second)(data)


ENDPOINTS = {
    "it waits beyond CA": (", accept: [AA]", both("CA", "AA"), "answered", True, "answered AA"),
    "and says so where nothing comes": (", accept: [AA]", acknowledged("CA"), "only_committed", False, "not what"),
    "a second answer that says no": ("", both("CA", "AE"), "said_no", False, "and then AE"),
    "a second answer": ("", both("CA", "AA"), "answered", True, "accept: [AA]"),
    "a peer that never answers": (", answers: false", lambda _: b"", "written", True, "no answer is expected"),
    "one that follows enhanced mode": (", ack_mode: enhanced", lambda _: b"", "no_acknowledgement", False, "nothing"),
    "a byte that says yes": (", answers: bare", lambda _: b"\x06", "answered", True, "the bare byte 0x06"),
    "a byte that says no": (", answers: bare", lambda _: b"\x15", "said_no", False, "the bare byte 0x15"),
    "answers at a port of ours": (", answers_on: 7300", lambda _: b"", "answers_elsewhere", None, "port 7300"),
}


@pytest.mark.parametrize("case", ENDPOINTS)
def test_an_endpoints_answer_is_judged_as_its_file_says(
    interlock: Interlock, message: Path, tmp_path: Path, case: str
) -> None:
    options, answer, code, good, words = ENDPOINTS[case]
    row = asked(interlock, tmp_path, options, answer)
    assert (row["code"], row["good"]) == (code, good)
    assert words in row["said"]


def test_where_the_message_asks_for_no_answer_an_endpoint_in_enhanced_mode_is_not_waited_for(
    interlock: Interlock, message: Path, tmp_path: Path
) -> None:
    message.write_bytes(MESSAGE.replace(b"|2.5\r", b"|2.5|||NE|NE\r"))
    assert asked(interlock, tmp_path, ", ack_mode: enhanced", lambda _: b"")["code"] == "written"
    assert asked(interlock, tmp_path, "", lambda _: b"")["code"] == "no_acknowledgement"


def test_a_message_whose_answer_would_come_to_the_service_is_not_sent(
    interlock: Interlock, message: Path, tmp_path: Path
) -> None:
    came: list[bytes] = []
    asked(interlock, tmp_path, ", answers_on: 7300", lambda data: came.append(data) or b"")
    assert came == [b""]


@pytest.mark.parametrize(("options", "told"), [("", True), (", persistent: false", False)])
def test_a_peer_that_closes_after_each_answer_is_told(
    interlock: Interlock, message: Path, tmp_path: Path, options: str, told: bool
) -> None:
    row = asked(interlock, tmp_path, options, acknowledged(), closes=True)
    assert row["good"] is True
    assert ("persistent: false" in row["said"]) is told


def test_a_target_that_is_none_does_not_keep_the_others_from_being_tried(interlock: Interlock, tmp_path: Path) -> None:
    configured(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "channels" / "endpoints.yaml").write_text(f"emr: {{mllp: '{there}'}}")
        done = interlock("test-connection", "acme", "nobody", "emr", "--json")
    acme, nobody, emr = orjson.loads(done.out)
    assert "sends to no HL7 peer (only to medplum)" in acme["said"]
    assert nobody["said"].endswith("one of emr"), "the channel would be of no use either"
    assert (acme["good"], nobody["good"], emr["code"]) == (False, False, "connected")
    assert done.status == 2


def places(interlock: Interlock, folder: Path, endpoint: str, *options: str, channel: str = "") -> Any:
    """What the test says of an endpoint that is a folder."""
    configured(folder)
    if channel:
        (folder / "channels" / "beta.yaml").write_text(channel)
    (folder / "channels" / "endpoints.yaml").write_text(f"drop: {endpoint}\n")
    done = interlock("test-connection", "drop", *options, "--json")
    (row,) = orjson.loads(done.out)
    return row


READS = (
    "{{id: beta, connection: b, direction: results, timezone: UTC, files: {{{}}},"
    " target: {{mapping: oru_r01, destinations: [{{medplum: {{}}}}]}}}}"
)


def test_a_folder_is_written_to_and_left_as_it_was(interlock: Interlock, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    row = places(interlock, tmp_path, "{directory: out}", channel=READS.format("directory: in"))
    assert (row["good"], row["said"]) == (True, "a hidden file was written there, and removed again")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_gets_no_message(interlock: Interlock, message: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    row = places(interlock, tmp_path, "{directory: out}", "--message", "message.hl7")
    assert row["said"].endswith("removed again; the message was not sent: whoever reads there would take it")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_used_is_named(interlock: Interlock, tmp_path: Path) -> None:
    row = places(interlock, tmp_path, "{directory: out}")
    assert (row["good"], row["said"]) == (False, f"{tmp_path}/out: the folder is not there")


def test_a_server_that_files_are_only_read_from_is_not_written_to(
    interlock: Interlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.files.sftp import SftpFolder

    async def fine(_: SftpFolder) -> None:
        return None

    async def never(_: SftpFolder) -> str:
        raise AssertionError

    monkeypatch.setattr(SftpFolder, "check", fine)
    monkeypatch.setattr(SftpFolder, "try_writing", never, raising=False)
    server = "{sftp: 'h:22', user: u, password: p, known_hosts: interlock.yaml}"
    row = places(interlock, tmp_path, server, channel=READS.format("sftp: drop, directory: in"))
    assert (row["good"], row["said"]) == (True, "the folder can be looked into")


def test_the_time_for_a_step_counts_for_a_server_of_files_too(interlock: Interlock, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at = f"127.0.0.1:{silent.getsockname()[1]}"
        server = f"{{sftp: '{at}', user: u, password: p, known_hosts: known, connect_timeout: 60s}}"
        (tmp_path / "known").write_text("")
        row = places(interlock, tmp_path, server, "--timeout", "0.2")
    assert (row["good"], row["said"]) == (False, f"sftp://u@{at}/.: no connection in time")
