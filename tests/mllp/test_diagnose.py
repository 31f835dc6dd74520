"""Rules of the connectivity test: each kind of trouble is told apart from the others, in words."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from engine.config.address import Address
from engine.config.edge import Framing, Tls
from engine.mllp import diagnose as module
from engine.mllp.diagnose import diagnose
from engine.mllp.finding import CODES, GOOD, sentence_of
from engine.mllp.framing import encode
from engine.mllp.tls import ClientTls
from tests.support.certificates import Authority

MESSAGE = b"MSH|^~\\&|INTERLOCK|TEST|||20260101||ADT^A01|1|T|2.3\r"
ANSWER = b"MSH|^~\\&|||INTERLOCK|TEST|20260101||ACK|1|T|2.3\rMSA|AA|1\r"

Serve = Callable[[socket.socket], None]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE", 0.1)
    monkeypatch.setattr(module, "ASK_TLS", 0.2)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@asynccontextmanager
async def peer(serve: Serve) -> AsyncIterator[Address]:
    """A blocking server on a thread of its own: nothing here that Interlock is made of."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            with suppress(OSError):
                while True:
                    conn, _ = listening.accept()
                    conn.settimeout(5)
                    with conn, suppress(OSError):
                        serve(conn)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield Address("127.0.0.1", listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            await asyncio.to_thread(thread.join, 5)


def says(data: bytes) -> Serve:
    def serve(conn: socket.socket) -> None:
        conn.recv(65536)
        conn.sendall(data)
        conn.recv(1)

    return serve


def quiet(conn: socket.socket) -> None:
    while conn.recv(65536):
        pass


def leaves(conn: socket.socket) -> None:
    conn.recv(65536)


def resets(conn: socket.socket) -> None:
    conn.recv(65536)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def over_tls(authority: Authority, serve: Serve, *, mutual: bool = False, **issued: object) -> Serve:
    pair = authority.issue("peer", **issued)  # type: ignore[arg-type]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca)

    def secured(conn: socket.socket) -> None:
        with context.wrap_socket(conn, server_side=True) as inner:
            serve(inner)

    return secured


class TestConnecting:
    async def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            address = Address("127.0.0.1", gone.getsockname()[1])
        finding = await diagnose(address)
        assert (finding.code, finding.good) == ("refused", False)
        assert (
            finding.sentence == f"{address} refuses connections: the machine is there, and nothing listens at that port"
        )

    async def test_an_unknown_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def unknown(*_: object, **__: object) -> socket.socket:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        monkeypatch.setattr(module, "dial", unknown)
        assert (await diagnose(Address("emr.invalid", 1))).code == "name_not_resolved"

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (OSError(113, "no route to host"), "unreachable"),
            (OSError(101, "network is unreachable"), "unreachable"),
            (ConnectionResetError(104, "reset"), "reset"),
            (OSError(13, "permission denied"), "connect_failed"),
        ],
    )
    async def test_what_the_kernel_says(self, monkeypatch: pytest.MonkeyPatch, error: OSError, code: str) -> None:
        async def fails(*_: object, **__: object) -> socket.socket:
            raise error

        monkeypatch.setattr(module, "dial", fails)
        assert (await diagnose(Address("10.0.0.1", 1))).code == code

    async def test_no_answer_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def never(*_: object, **__: object) -> socket.socket:
            return await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(module, "dial", never)
        assert (await diagnose(Address("10.0.0.1", 1), timeout=0.02)).code == "connect_timed_out"

    async def test_a_source_address_of_another_family(self) -> None:
        async with peer(quiet) as address:
            assert (await diagnose(address, source="::1")).code == "source_family"

    async def test_a_source_address_that_is_not_ours(self) -> None:
        async with peer(quiet) as address:
            assert (await diagnose(address, source="192.0.2.1")).code == "source_address"

    async def test_an_open_port(self) -> None:
        async with peer(quiet) as address:
            finding = await diagnose(address)
        assert (finding.code, finding.good) == ("connected", True)
        assert finding.connect_ms is not None

    async def test_an_open_port_that_expects_tls(self, ours: Authority) -> None:
        async with peer(over_tls(ours, quiet)) as address:
            assert (await diagnose(address)).code == "peer_speaks_tls"

    async def test_a_peer_that_closes_at_once(self) -> None:
        async with peer(lambda conn: None) as address:
            assert (await diagnose(address)).code == "closed_at_once"


class TestAsking:
    async def test_an_answer(self) -> None:
        async with peer(says(encode(ANSWER))) as address:
            finding = await diagnose(address, message=MESSAGE)
        assert (finding.code, finding.payload) == ("answered", ANSWER)
        assert finding.answer_ms is not None
        assert "MSA" not in repr(finding)

    async def test_an_answer_in_another_framing(self) -> None:
        framing = Framing(b"\x02", b"\x03")
        async with peer(says(encode(ANSWER, framing))) as address:
            assert (await diagnose(address, message=MESSAGE, framing=framing)).payload == ANSWER

    async def test_no_acknowledgement(self) -> None:
        async with peer(quiet) as address:
            finding = await diagnose(address, message=MESSAGE, timeout=0.2)
        assert finding.code == "no_acknowledgement"
        assert "within 0.2 s" in finding.sentence

    async def test_closed_without_an_answer(self) -> None:
        async with peer(leaves) as address:
            assert (await diagnose(address, message=MESSAGE)).code == "closed_without_answer"

    async def test_a_reset(self) -> None:
        async with peer(resets) as address:
            assert (await diagnose(address, message=MESSAGE)).code == "reset"

    @pytest.mark.parametrize(
        ("data", "kind", "first"),
        [
            (ANSWER, "HL7 without the start byte", "0x4D"),
            (b"\x0bMSH|^~\\&|SECRET", "a frame that does not end", "0x0B"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server's answer", "0x48"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH server's greeting", "0x53"),
            (b"\x02SECRET\x03", "bytes that are no frame", "0x02"),
        ],
    )
    async def test_bytes_that_are_no_frame_are_told_by_kind_size_and_first_byte(
        self, data: bytes, kind: str, first: str
    ) -> None:
        async with peer(says(data)) as address:
            finding = await diagnose(address, message=MESSAGE, timeout=0.2)
        assert finding.code == "bad_frame"
        assert (
            f"{kind} ({len(data)} bytes, the first is {first}); expected is 0x0B at the beginning" in finding.sentence
        )
        assert "SECRET" not in finding.sentence


class TestRelease2:
    async def test_an_answer_behind_the_commit_acknowledgement(self) -> None:
        two, heard = Framing(release=2), []

        def answers(conn: socket.socket) -> None:
            conn.recv(65536)
            conn.sendall(encode(b"\x06", two) + encode(ANSWER, two))
            heard.append(conn.recv(65536))

        async with peer(answers) as address:
            assert (await diagnose(address, message=MESSAGE, framing=two)).payload == ANSWER
        assert heard == [encode(b"\x06", two)]

    @pytest.mark.parametrize(
        ("said", "release", "code"),
        [
            (b"\x06", 2, "stored_unanswered"),
            (b"\x15", 2, "not_stored"),
            (b"\x06", 1, "peer_speaks_release_2"),
            (b"\x15", 1, "peer_speaks_release_2"),
        ],
    )
    async def test_what_is_said_on_the_transport_level_is_no_answer(self, said: bytes, release: int, code: str) -> None:
        timeout = 0.2 if code == "stored_unanswered" else 60.0  # nothing else is waited for
        async with peer(says(encode(said))) as address, asyncio.timeout(5):
            finding = await diagnose(address, message=MESSAGE, framing=Framing(release=release), timeout=timeout)
        assert (finding.code, finding.good, finding.payload) == (code, False, None)


class TestTls:
    async def test_connected(self, ours: Authority) -> None:
        async with peer(over_tls(ours, quiet)) as address:
            assert (await diagnose(address, tls=ClientTls(Tls(ca=ours.ca)))).code == "connected"

    async def test_an_answer(self, ours: Authority) -> None:
        async with peer(over_tls(ours, says(encode(ANSWER)))) as address:
            assert (await diagnose(address, tls=ClientTls(Tls(ca=ours.ca)), message=MESSAGE)).payload == ANSWER

    async def test_a_peer_that_answers_in_plain(self, ours: Authority) -> None:
        async with peer(says(b"what?\r\n")) as address:
            assert (await diagnose(address, tls=ClientTls(Tls(ca=ours.ca)))).code == "peer_speaks_plain"

    async def test_a_peer_that_does_not_answer_the_handshake(self, ours: Authority) -> None:
        async with peer(quiet) as address:
            assert (await diagnose(address, tls=ClientTls(Tls(ca=ours.ca)), timeout=0.2)).code == "tls_no_answer"

    async def test_a_peer_that_closes_in_the_handshake(self, ours: Authority) -> None:
        async with peer(leaves) as address:
            assert (await diagnose(address, tls=ClientTls(Tls(ca=ours.ca)))).code == "tls_closed"

    async def test_a_peer_that_wants_tls(self, ours: Authority) -> None:
        async with peer(over_tls(ours, quiet)) as address:
            assert (await diagnose(address, message=MESSAGE)).code == "peer_speaks_tls"

    @pytest.mark.parametrize(
        ("issued", "code"),
        [
            ({"days": -1}, "certificate_expired"),
            ({"hosts": ("emr.example",)}, "certificate_other_name"),
        ],
    )
    async def test_a_certificate_that_is_not_right(self, ours: Authority, issued: dict[str, object], code: str) -> None:
        async with peer(over_tls(ours, quiet, **issued)) as address:
            assert (await diagnose(address, tls=ClientTls(Tls(ca=ours.ca)))).code == code

    async def test_a_certificate_of_somebody_elses(
        self, ours: Authority, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = Authority(tmp_path_factory.mktemp("other"), "Another Authority")
        async with peer(over_tls(other, quiet)) as address:
            assert (await diagnose(address, tls=ClientTls(Tls(ca=ours.ca)))).code == "certificate_not_trusted"

    @pytest.mark.parametrize("message", [None, MESSAGE])
    async def test_a_peer_that_wants_our_certificate(self, ours: Authority, message: bytes | None) -> None:
        async with peer(over_tls(ours, quiet, mutual=True)) as address:
            finding = await diagnose(address, tls=ClientTls(Tls(ca=ours.ca)), message=message)
        assert finding.code == "client_certificate_wanted"

    async def test_a_peer_that_does_not_take_our_certificate(
        self, ours: Authority, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = Authority(tmp_path_factory.mktemp("other"), "Another Authority").issue("us")
        shown = ClientTls(Tls(other.certificate, other.key, ours.ca))
        async with peer(over_tls(ours, quiet, mutual=True)) as address:
            assert (await diagnose(address, tls=shown)).code == "client_certificate_refused"


def test_every_code_has_a_sentence_that_names_the_peer_or_us() -> None:
    for code in CODES:
        sentence = sentence_of(code, Address("10.0.0.1", 6661), 10, "detail")
        assert "10.0.0.1:6661" in sentence or code in ("source_address", "own_files")
        assert "{" not in sentence
    assert set(GOOD) < set(CODES)
