"""TLS of listeners and of the connections that we make: contexts from PEM files, read again when they change.

A connection uses the context that there is when it is made, so a new certificate or authority counts from the next
handshake on, and the connections that run are left alone.
"""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import Any

from engine.config.edge import Tls
from engine.config.pem import TlsError, ends, identify, trust
from engine.mllp.handshake import LAST_WORDS

DAY = 86_400 * 1_000_000  # microseconds


class _Files:
    """The context of one side, and the files that it was made from."""

    expires: int | None = None
    """The earliest end of all certificates in our own files, in microseconds since 1970; None without such files."""

    def __init__(self, tls: Tls) -> None:
        """Reads the files. One that cannot be used shows when the context is wanted."""
        self.tls = tls
        self._made: ssl.SSLContext | None = None
        self._seen: tuple[object, ...] = ()
        with contextlib.suppress(TlsError):
            self.refresh()

    @property
    def context(self) -> ssl.SSLContext:
        """What there is now. TlsError as long as a file cannot be used and none could be before."""
        if self._made is None:
            self.refresh()
        assert self._made is not None
        return self._made

    def refresh(self) -> bool:
        """Read files that have changed. Whether there is anything new. TlsError where a file cannot be used: what was
        read before stays in use, and the next call tries again."""
        if self._stamps() == self._seen:
            return False
        self._made, self.expires, self._seen = self._read()
        return True

    def days_left(self, now: int) -> float | None:
        """Days until the first certificate ends, negative after it. `now`: microseconds since 1970."""
        return None if self.expires is None else (self.expires - now) / DAY

    def _read(self) -> tuple[ssl.SSLContext, int | None, tuple[object, ...]]:
        seen = self._stamps()  # before reading: what changes meanwhile is read the next time
        tls = self.tls
        context = self._context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        last: list[int] = []
        if tls.certificate is not None:
            last += ends(tls.certificate)
        if tls.ca is not None:
            last += trust(context, tls.ca)
        if tls.certificate is not None and tls.key is not None:
            identify(context, tls.certificate, tls.key)
        return context, min(last, default=None), seen

    def _context(self) -> ssl.SSLContext:
        raise NotImplementedError

    def _stamps(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in (self.tls.certificate, self.tls.key, self.tls.ca))


class _Telling(ssl.SSLObject):
    """One connection's TLS, whose failing handshake hands over the alert that says why to the peer. The event loops
    would drop it with the connection."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            error.__dict__[LAST_WORDS] = self.outgoing.read()
            raise


class _ServerContext(ssl.SSLContext):
    sslobject_class = _Telling

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, *args, **options)
        assert isinstance(made, _Telling)
        made.outgoing = outgoing
        return made


class ServerTls(_Files):
    """A listener's side. With `ca` a peer without a certificate that one of its authorities signed is refused."""

    def __init__(self, tls: Tls) -> None:
        """ValueError without a certificate or its key."""
        if tls.certificate is None or tls.key is None:
            raise ValueError("tls: a listener needs a certificate and its key")
        super().__init__(tls)
        self._names = frozenset(name.casefold() for name in tls.names)

    def _context(self) -> ssl.SSLContext:
        context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
        if self.tls.ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def lets_in(self, held: ssl.SSLObject) -> bool:
        """Whether the certificate of a peer, whose handshake is over, has one of `names`."""
        return not self._names or not self._names.isdisjoint(_names_in(held.getpeercert() or {}))


class ClientTls(_Files):
    """The side that connects. The peer's certificate must be valid for `server_name`, or for the host."""

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.tls.ca is None:
            context.load_default_certs()
        return context

    def name(self, host: str) -> str:
        """The name that the peer's certificate must have when `host` is connected to."""
        return self.tls.server_name or host


def _stamp(path: Path | None) -> object:
    """What changes whenever a file does; None where there is none."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def _names_in(certificate: dict[str, Any]) -> set[str]:
    """Common name and alternative names of a certificate, as `SSLObject.getpeercert` gives it, in lower case."""
    subject = {value for pairs in certificate.get("subject", ()) for kind, value in pairs if kind == "commonName"}
    others = {value for _, value in certificate.get("subjectAltName", ()) if isinstance(value, str)}
    return {name.casefold() for name in subject | others}
