"""Files of TLS: certificates, private keys and authorities in PEM (RFC 7468), and why one cannot be used."""

from __future__ import annotations

import errno
import ssl
from pathlib import Path


class TlsError(OSError):
    """A file cannot be used: it names the file and says what would be right; nothing in it comes from a key.

    what: the verb and what follows it, such as `is encrypted`. wanted: such as `a key without a passphrase`.
    """

    def __init__(self, file: Path, what: str, wanted: str) -> None:
        self.sentence = f"{file}: {what}; wanted is {wanted}"
        super().__init__(errno.EINVAL, self.sentence)
        self.file, self.what, self.wanted = file, what, wanted

    def __str__(self) -> str:
        return self.sentence


def ends(path: Path) -> list[int]:
    """When each certificate of a file ends, in microseconds since 1970. TlsError."""
    from cryptography import x509  # an import of 40 ms, which only those who use TLS pay

    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise TlsError(path, f"cannot be read: {error.strerror}", "a file of PEM certificates") from None
    except ValueError:
        raise TlsError(path, "has no certificate that can be read", "a file of PEM certificates") from None
    return [int(one.not_valid_after_utc.timestamp()) * 1_000_000 for one in found]


def trust(context: ssl.SSLContext, path: Path) -> list[int]:
    """Have the authorities of a file trusted. When each of them ends, as `ends` says. TlsError."""
    found = ends(path)
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError):
        raise TlsError(path, "has no authority that can be read", "a file of PEM certificates") from None
    return found


def identify(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Show a certificate to peers, which its key has to fit. TlsError, of the key."""
    try:
        key.read_bytes()
    except OSError as error:
        raise TlsError(key, f"cannot be read: {error.strerror}", "a PEM key") from None
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Encrypted:
        raise TlsError(key, "is encrypted", "a key without a passphrase") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(key, f"is not the key of {certificate}", "the one that it was made with") from None
        raise TlsError(key, "has no private key that can be read", "a PEM key") from None


class _Encrypted(Exception):
    """The key wants a passphrase."""


def _no_password() -> str:
    raise _Encrypted
