"""Rules of TLS at listeners and clients: who is let in, what is told, and what changes without a restart."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.config.address import Address
from engine.config.edge import Tls
from engine.config.pem import TlsError
from engine.mllp import handshake, server
from engine.mllp.client import Answered, Client, Lost, NotSent, Reply, State, Written
from engine.mllp.framing import Decoder
from engine.mllp.link import Link
from engine.mllp.server import Listener
from engine.mllp.tls import ClientTls, ServerTls
from tests.mllp.test_diagnose import over_tls, peer, quiet
from tests.mllp.test_server import LOOPBACK, Recorder, eventually
from tests.support.certificates import Authority, key_pem


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom nobody trusts."""
    return Authority(tmp_path_factory.mktemp("theirs"), "Another Authority")


def serving(authority: Authority, *, mutual: bool = False, names: tuple[str, ...] = (), days: float = 365) -> ServerTls:
    pair = authority.issue("listener", days=days)
    return ServerTls(Tls(pair.certificate, pair.key, authority.ca if mutual else None, names))


def calling(trusted: Authority, name: str | None = None, issuer: Authority | None = None) -> ClientTls:
    """A client that trusts an authority; with a certificate of its own where it has a name."""
    if name is None:
        return ClientTls(Tls(ca=trusted.ca))
    pair = (issuer or trusted).issue(name)
    return ClientTls(Tls(pair.certificate, pair.key, trusted.ca))


@asynccontextmanager
async def listening(handler: Recorder, tls: ServerTls, **options: object) -> AsyncIterator[Listener]:
    listener = Listener(LOOPBACK, lambda: handler, tls=tls, **options)  # type: ignore[arg-type]
    await listener.start()
    try:
        yield listener
    finally:
        await listener.close()


@asynccontextmanager
async def client(listener: Listener, tls: ClientTls | None, **options: object) -> AsyncIterator[Client]:
    it = Client(Address("127.0.0.1", listener.port), tls=tls, **options)  # type: ignore[arg-type]
    try:
        yield it
    finally:
        await it.aclose()


async def ask(it: Client, payload: bytes, *, expects: bool = True) -> Reply:
    heard: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    it.send(payload, 5.0, heard.set_result, expects=expects)
    async with asyncio.timeout(5):
        return await heard


class TestMessages:
    async def test_messages_and_answers_go_both_ways(self, ours: Authority) -> None:
        handler = Recorder()
        async with listening(handler, serving(ours)) as listener, client(listener, calling(ours)) as it:
            for n in range(3):
                assert await ask(it, b"MSH|%d" % n) == Answered(b"ack MSH|%d" % n)
            assert handler.said.count(("connected",)) == 1
        await handler.until("closed")

    async def test_a_message_of_many_records_arrives_whole(self, ours: Authority) -> None:
        handler = Recorder()
        async with listening(handler, serving(ours)) as listener, client(listener, calling(ours)) as it:
            message = b"MSH|" + b"x" * 5_000_000
            assert await ask(it, message) == Answered(b"ack " + message)

    async def test_a_peer_that_closed_meanwhile_gets_nothing_and_the_message_goes_on_a_new_connection(
        self, ours: Authority
    ) -> None:
        handler = Recorder()
        async with listening(handler, serving(ours)) as listener, client(listener, calling(ours)) as it:
            await ask(it, b"one")
            handler.conns[0].close()
            await handler.until("closed")
            assert await ask(it, b"two") == Answered(b"ack two")
            assert len(handler.conns) == 2

    async def test_what_nobody_answers_is_written_when_the_kernel_has_it(self, ours: Authority) -> None:
        handler = Recorder(answer=False)
        async with listening(handler, serving(ours)) as listener, client(listener, calling(ours)) as it:
            assert await ask(it, b"one", expects=False) == Written()
            await handler.until("frame", b"one")

    async def test_an_answer_that_nobody_asked_for_is_found_before_the_next_send(self, ours: Authority) -> None:
        strays: list[bytes] = []
        handler = Recorder()
        async with (
            listening(handler, serving(ours)) as listener,
            client(listener, calling(ours), stray=strays.append) as it,
        ):
            await ask(it, b"one")
            handler.conns[0].transmit(b"late")
            assert await ask(it, b"two") == Answered(b"ack two")
            assert strays == [b"late"]

    async def test_a_listener_closes_with_every_connection(self, ours: Authority) -> None:
        handler = Recorder()
        async with listening(handler, serving(ours)) as listener, client(listener, calling(ours)) as it:
            await ask(it, b"one")
            await listener.close(grace=1)
            assert handler.said[-1] == ("closed",)
            await eventually(lambda: it.state is State.CLOSED)

    async def test_an_answer_after_too_large_arrives(self, ours: Authority) -> None:
        handler = Recorder()
        async with (
            listening(handler, serving(ours), max_bytes=1000) as listener,
            client(listener, calling(ours)) as it,
        ):
            problems: list[object] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
            assert await ask(it, b"x" * 200_000) == Answered(b"no")
            await it.aclose()
            await handler.until("closed")
            assert problems == []


async def test_what_the_event_loop_may_still_hold_is_not_written() -> None:
    class Empty:
        """A TLS transport that says nothing of what lies below it."""

        def get_write_buffer_size(self) -> int:
            return 0

    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        link = Link(None, near, Decoder(), secured=True)  # type: ignore[arg-type]
        link.transport = Empty()  # type: ignore[assignment]
        assert link.unsent is False
        with suppress(BlockingIOError):
            while True:
                near.send(b"x" * 65536)
        assert link.unsent is True


class TestWhoIsLetIn:
    @pytest.mark.parametrize("names", [(), ("acme.example",), ("ACME.example", "other.example")])
    async def test_a_certificate_that_our_authority_signed(self, ours: Authority, names: tuple[str, ...]) -> None:
        handler = Recorder()
        async with (
            listening(handler, serving(ours, mutual=True, names=names)) as listener,
            client(listener, calling(ours, "acme.example")) as it,
        ):
            assert await ask(it, b"one") == Answered(b"ack one")

    async def test_no_certificate(self, ours: Authority) -> None:
        handler = Recorder()
        async with (
            listening(handler, serving(ours, mutual=True)) as listener,
            client(listener, calling(ours)) as it,
        ):
            reply = await ask(it, b"one")
            assert isinstance(reply, NotSent | Lost)
            await eventually(lambda: handler.refusals == ["tls: no certificate"])
            assert handler.said == []

    async def test_a_certificate_of_somebody_elses_authority(self, ours: Authority, theirs: Authority) -> None:
        handler = Recorder()
        async with (
            listening(handler, serving(ours, mutual=True)) as listener,
            client(listener, calling(ours, "acme.example", theirs)) as it,
        ):
            await ask(it, b"one")
            await eventually(lambda: handler.refusals == ["tls: certificate not trusted"])

    async def test_a_certificate_without_one_of_the_names(self, ours: Authority) -> None:
        handler = Recorder()
        async with (
            listening(handler, serving(ours, mutual=True, names=("acme.example",))) as listener,
            client(listener, calling(ours, "evil.example")) as it,
        ):
            assert isinstance(await ask(it, b"one"), NotSent | Lost)
            assert handler.refusals == ["tls: its certificate has none of the names"]
            assert handler.said == []

    async def test_plain_bytes(self, ours: Authority) -> None:
        handler = Recorder()
        async with listening(handler, serving(ours)) as listener, client(listener, None) as it:
            assert isinstance(await ask(it, b"one"), Lost)
            assert handler.refusals == ["tls: not TLS"]

    async def test_a_handshake_that_takes_too_long(self, ours: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handshake, "HANDSHAKE", 0.05)
        monkeypatch.setattr(server, "HANDSHAKE", 0.05)
        handler = Recorder()
        async with listening(handler, serving(ours)) as listener:
            with socket.create_connection(("127.0.0.1", listener.port)):
                await eventually(lambda: handler.refusals == ["tls: no handshake in time"])
            handler.refusals.clear()
            with socket.create_connection(("127.0.0.1", listener.port)) as begun:
                begun.sendall(b"\x16\x03\x01\x02\x00\x01")
                await eventually(lambda: handler.refusals == ["tls: no handshake in time"])

    async def test_a_probe_is_no_failed_handshake(self, ours: Authority) -> None:
        handler = Recorder()
        async with listening(handler, serving(ours)) as listener:
            socket.create_connection(("127.0.0.1", listener.port)).close()
            await eventually(lambda: len(handler.probes) == 1)
            assert handler.refusals == []

    async def test_addresses_are_judged_before_any_handshake(self, ours: Authority) -> None:
        handler = Recorder()
        async with (
            listening(handler, serving(ours), allow=["10.0.0.0/8"]) as listener,
            client(listener, calling(ours)) as it,
        ):
            assert await ask(it, b"one") in (NotSent("connection reset"), NotSent("tls: closed in the handshake"))
            assert handler.refusals == ["not in allow"]

    async def test_a_listener_that_closes_in_mid_handshake_leaves_nothing(self, ours: Authority) -> None:
        handler = Recorder()
        async with listening(handler, serving(ours)) as listener:
            with socket.create_connection(("127.0.0.1", listener.port)) as begun:
                begun.sendall(b"\x16\x03\x01\x02\x00\x01")
                await eventually(lambda: len(listener._arriving) == 1)
                async with asyncio.timeout(2):
                    await listener.close()
            assert not listener._arriving
            assert handler.refusals == []


def knock(port: int, tls: ClientTls, version: ssl.TLSVersion, says: bytes = b"") -> str:
    """What a client of this version hears that is turned away: OpenSSL's name of the alert."""
    context = tls.context
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        try:
            with context.wrap_socket(sock, server_hostname="localhost") as secured:
                secured.sendall(says)
                return f"let in, and heard {secured.recv(100)!r}"
        except ssl.SSLError as error:
            return error.reason or str(error)


class TestWhoIsTurnedAwayHearsWhy:
    """The alerts are those that `openssl s_server -Verify 1 -verify_return_error` sends."""

    @pytest.mark.parametrize("says", [b"", b"\x0bMSH|" + b"x" * 100_000])
    @pytest.mark.parametrize(
        ("version", "alert"),
        [
            (ssl.TLSVersion.TLSv1_2, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
            (ssl.TLSVersion.TLSv1_3, "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        ],
    )
    async def test_without_a_certificate(
        self, ours: Authority, version: ssl.TLSVersion, alert: str, says: bytes
    ) -> None:
        handler = Recorder()
        async with listening(handler, serving(ours, mutual=True)) as listener:
            assert await asyncio.to_thread(knock, listener.port, calling(ours), version, says) == alert
            assert handler.refusals == ["tls: no certificate"]
            await eventually(lambda: not listener._arriving)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_with_a_certificate_of_another_authority(
        self, ours: Authority, theirs: Authority, version: ssl.TLSVersion
    ) -> None:
        handler = Recorder()
        stranger = theirs.issue("acme.example")
        tls = ClientTls(Tls(stranger.certificate, stranger.key, ours.ca))
        async with listening(handler, serving(ours, mutual=True)) as listener:
            assert await asyncio.to_thread(knock, listener.port, tls, version) == "TLSV1_ALERT_UNKNOWN_CA"

    async def test_with_an_expired_certificate(self, ours: Authority) -> None:
        handler = Recorder()
        old = ours.issue("acme.example", days=-1)
        tls = ClientTls(Tls(old.certificate, old.key, ours.ca))
        async with listening(handler, serving(ours, mutual=True)) as listener:
            said = await asyncio.to_thread(knock, listener.port, tls, ssl.TLSVersion.TLSv1_3)
            assert said == "SSLV3_ALERT_CERTIFICATE_EXPIRED"

    async def test_our_own_client_names_it(self, ours: Authority) -> None:
        handler = Recorder()
        async with listening(handler, serving(ours, mutual=True)) as listener, client(listener, calling(ours)) as it:
            assert await ask(it, b"one") == NotSent("tls: it wants a certificate")

    async def test_one_that_goes_on_sending_is_not_listened_to_for_long(
        self, ours: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(handshake, "LINGER", 0.05)
        handler = Recorder()
        async with listening(handler, serving(ours, mutual=True)) as listener:
            context = calling(ours).context
            with socket.create_connection(("127.0.0.1", listener.port), 5) as sock:
                secured = await asyncio.to_thread(context.wrap_socket, sock, server_hostname="localhost")
                await eventually(lambda: handler.refusals == ["tls: no certificate"])
                async with asyncio.timeout(1):
                    while listener._arriving:
                        with suppress(OSError):  # once nobody listens
                            secured.send(b"x")
                        await asyncio.sleep(0.01)
                secured.close()


class TestWhomWeTrust:
    async def test_a_listener_of_another_authority_gets_nothing(self, ours: Authority, theirs: Authority) -> None:
        handler = Recorder()
        async with listening(handler, serving(theirs)) as listener, client(listener, calling(ours)) as it:
            assert await ask(it, b"one") == NotSent("tls: certificate not trusted")
            await eventually(lambda: handler.refusals == ["tls: closed in the handshake"])

    async def test_a_peer_that_says_why_it_does_not_trust_us_is_heard(self, ours: Authority, theirs: Authority) -> None:
        def call(port: int) -> None:
            with (
                socket.create_connection(("127.0.0.1", port), 5) as sock,
                pytest.raises(ssl.SSLCertVerificationError),
            ):
                calling(theirs).context.wrap_socket(sock, server_hostname="localhost")

        handler = Recorder()
        async with listening(handler, serving(ours)) as listener:
            await asyncio.to_thread(call, listener.port)
            await eventually(lambda: handler.refusals == ["tls: it does not trust our certificate"])

    async def test_an_expired_one_neither(self, ours: Authority) -> None:
        handler = Recorder()
        async with listening(handler, serving(ours, days=-1)) as listener, client(listener, calling(ours)) as it:
            assert await ask(it, b"one") == NotSent("tls: certificate expired")

    async def test_the_name_must_be_the_configured_one(self, ours: Authority) -> None:
        handler = Recorder()
        wrong = ClientTls(Tls(ca=ours.ca, server_name="emr.example"))
        async with listening(handler, serving(ours)) as listener, client(listener, wrong) as it:
            assert await ask(it, b"one") == NotSent("tls: certificate is for another name")

    async def test_a_peer_that_wants_a_certificate_of_ours_has_read_nothing(self, ours: Authority) -> None:
        async with peer(over_tls(ours, quiet, mutual=True)) as address:
            it = Client(address, tls=calling(ours))
            assert await ask(it, b"one") == NotSent("tls: it wants a certificate")
            await it.aclose()

    async def test_a_peer_that_speaks_plain_gets_nothing(self, ours: Authority) -> None:
        with socket.create_server(("127.0.0.1", 0)) as plain:
            plain.setblocking(False)
            it = Client(Address("127.0.0.1", plain.getsockname()[1]), tls=calling(ours))
            heard: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            it.send(b"one", 5.0, heard.set_result)
            conn, _ = await asyncio.get_running_loop().sock_accept(plain)
            with conn:
                conn.sendall(b"\x0bMSH|^~\\&|\x1c\r")
                async with asyncio.timeout(5):
                    assert await heard == NotSent("tls: not TLS")
            await it.aclose()


class TestNewFiles:
    async def test_new_handshakes_use_a_new_certificate_and_a_new_authority_and_old_connections_stay(
        self, tmp_path: Path, ours: Authority, theirs: Authority
    ) -> None:
        for name in ("ca.pem", "own.pem", "own.key"):
            (tmp_path / name).touch()
        certificate, key, ca = tmp_path / "own.pem", tmp_path / "own.key", tmp_path / "ca.pem"

        def install(authority: Authority) -> None:
            pair = authority.issue("listener")
            shutil.copy(pair.certificate, certificate)
            shutil.copy(pair.key, key)
            shutil.copy(authority.ca, ca)

        install(ours)
        tls = ServerTls(Tls(certificate, key, ca))
        handler = Recorder()
        old, new = calling(ours, "acme.example"), calling(theirs, "acme.example")
        async with listening(handler, tls) as listener, client(listener, old) as before:
            assert await ask(before, b"one") == Answered(b"ack one")
            assert tls.refresh() is False
            install(theirs)
            assert tls.refresh() is True
            async with client(listener, new) as after, client(listener, old) as late:
                assert await ask(after, b"two") == Answered(b"ack two")
                assert await ask(late, b"three") == NotSent("tls: certificate not trusted")
            assert await ask(before, b"four") == Answered(b"ack four")
            assert len([said for said in handler.said if said == ("connected",)]) == 2

    def test_a_broken_file_is_named_and_the_old_one_stays(self, tmp_path: Path, ours: Authority) -> None:
        pair = ours.issue("listener")
        certificate = tmp_path / "own.pem"
        shutil.copy(pair.certificate, certificate)
        tls = ServerTls(Tls(certificate, pair.key))
        context, expires = tls.context, tls.expires
        certificate.write_text("nothing of use\n")
        for _ in range(2):
            with pytest.raises(TlsError, match=r"own\.pem: has no certificate that can be read"):
                tls.refresh()
        assert (tls.context, tls.expires) == (context, expires)
        shutil.copy(pair.certificate, certificate)
        assert tls.refresh() is True

    @pytest.mark.parametrize(
        ("wrong", "sentence"),
        [
            ("missing certificate", r"gone\.pem: cannot be read: No such file"),
            ("missing key", r"gone\.key: cannot be read: No such file"),
            ("another key", r"other\.key: is not the key of .*own\.pem"),
            ("encrypted key", r"locked\.key: is encrypted; wanted is a key without a passphrase"),
            ("no key", r"text\.key: has no private key that can be read"),
            ("no authority", r"text\.pem: has no certificate that can be read"),
        ],
    )
    def test_the_sentence_says_what_would_be_right(
        self, tmp_path: Path, ours: Authority, wrong: str, sentence: str
    ) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        own, other = ours.issue("own"), ours.issue("other")
        text = tmp_path / "text.pem"
        text.write_text("hello\n")
        locked = tmp_path / "locked.key"
        locked.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1()), b"secret words"))
        no_key = tmp_path / "text.key"
        no_key.write_text("hello\n")
        tls = {
            "missing certificate": Tls(tmp_path / "gone.pem", own.key),
            "missing key": Tls(own.certificate, tmp_path / "gone.key"),
            "another key": Tls(own.certificate, other.key),
            "encrypted key": Tls(own.certificate, locked),
            "no key": Tls(own.certificate, no_key),
            "no authority": Tls(own.certificate, own.key, text),
        }[wrong]
        held = ServerTls(tls)
        for _ in range(2):
            with pytest.raises(TlsError, match=sentence) as error:
                _ = held.context
        assert "secret" not in str(error.value)

    async def test_a_client_says_which_file_it_is_and_sends_nothing(self, tmp_path: Path, ours: Authority) -> None:
        pair, key = ours.issue("own"), tmp_path / "text.key"
        key.write_text("hello\n")
        handler = Recorder()
        async with (
            listening(handler, serving(ours)) as listener,
            client(listener, ClientTls(Tls(pair.certificate, key, ours.ca))) as it,
        ):
            reason = f"{key}: has no private key that can be read; wanted is a PEM key"
            assert await ask(it, b"one") == NotSent(reason)

    def test_a_listener_needs_certificate_and_key(self, ours: Authority) -> None:
        with pytest.raises(ValueError, match="needs a certificate and its key"):
            ServerTls(Tls(ca=ours.ca))

    def test_days_left_are_those_of_the_first_to_end(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path, days=20)
        pair = authority.issue("own", days=30)
        now = int(datetime.now(UTC).timestamp() * 1_000_000)
        alone, both = (
            ServerTls(Tls(pair.certificate, pair.key)),
            ServerTls(Tls(pair.certificate, pair.key, authority.ca)),
        )
        assert alone.days_left(now) == pytest.approx(30, abs=0.1)
        assert both.days_left(now) == pytest.approx(20, abs=0.1)
        assert ClientTls(Tls()).days_left(now) is None


class TestManyAtOnce:
    async def test_handshakes_leave_room_for_others(self, ours: Authority) -> None:
        """60 peers want a handshake at once; what else the loop has to do is hardly late."""
        handler = Recorder()
        async with listening(handler, serving(ours)) as listener:
            context = calling(ours).context
            late, stop = [0.0], asyncio.Event()

            async def tick() -> None:
                while not stop.is_set():
                    due = time.perf_counter() + 0.005
                    await asyncio.sleep(0.005)
                    late.append(time.perf_counter() - due)

            ticking = asyncio.create_task(tick())
            opened = await asyncio.gather(
                *(
                    asyncio.open_connection("127.0.0.1", listener.port, ssl=context, server_hostname="localhost")
                    for _ in range(60)
                )
            )
            stop.set()
            await ticking
            for _, writer in opened:
                writer.write(b"\x0bx\x1c\r")
            await eventually(lambda: handler.said.count(("frame", b"x")) == 60)
            for _, writer in opened:
                writer.close()
        assert max(late) < 0.25  # client and server share this loop: some 20 ms; all at once it is more
