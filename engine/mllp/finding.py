"""What a connectivity test finds: a stable code, and a sentence that the peer's people understand.

No sentence carries anything of what the peer sent, only its kind, its size and its first byte.
"""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass, field

from engine.config.address import Address
from engine.config.edge import Framing
from engine.config.pem import TlsError
from engine.mllp.dial import NoSource, OtherFamily
from engine.mllp.framing import FILLER, NOT_STORED, STORED
from engine.mllp.handshake import refused_us

GOOD = ("connected", "answered", "written")

_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_CERTIFICATE_WANTED = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE")
_OLD_TLS = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "VERSION_TOO_LOW")
_TLS_ALERT = b"\x15\x03"  # content type and major version of an alert (RFC 8446, 5.1)


@dataclass(frozen=True, slots=True)
class Finding:
    """connect_ms: from the first step to the open connection, TLS included. answer_ms: from writing the message to the
    end of its answer. payload: that answer, of which the caller knows whether it is this message's (MSA-2). more: what
    came right behind it. closes: the peer closed the connection after its answer."""

    code: str
    sentence: str
    connect_ms: float | None = None
    answer_ms: float | None = None
    payload: bytes | None = field(default=None, repr=False)
    more: bytes | None = field(default=None, repr=False)
    closes: bool = False

    @property
    def good(self) -> bool:
        return self.code in GOOD


_SENTENCES = {
    "name_not_resolved": "the host name of {to} is not known to this machine's name service",
    "source_address": "the address to connect from is not one of this machine's",
    "source_family": "the address to connect from is of another family (IPv4, IPv6) than {to}",
    "refused": "{to} refuses connections: the machine is there, and nothing listens at that port",
    "connect_timed_out": "{to} did not answer within {timeout:g} s: wrong address, machine down, or a firewall between",
    "unreachable": "there is no way to {to} from here: a route, a VPN or a firewall is missing",
    "reset": "{to} reset the connection: often an idle limit, a TLS mismatch, or a firewall between",
    "connect_failed": "{to} cannot be connected to ({detail})",
    "own_files": "our own side of TLS cannot be used: {detail}",
    "closed_at_once": "{to} took the connection and closed it at once: often our address is not in its list, or it has "
    "its one connection already",
    "peer_speaks_plain": "{to} does not speak TLS: its answer to the handshake is none; it expects plain MLLP",
    "peer_speaks_tls": "{to} expects TLS: it does not understand plain MLLP",
    "tls_no_answer": "{to} took the connection and did not answer the TLS handshake within {timeout:g} s: most likely "
    "it expects plain MLLP",
    "tls_closed": "{to} closed the connection in the TLS handshake without saying why: it may expect plain MLLP, or "
    "not trust our certificate",
    "tls_version": "{to} has no TLS version in common with us: wanted is 1.2 or newer",
    "tls_failed": "the TLS handshake with {to} failed ({detail})",
    "certificate_not_trusted": "the certificate of {to} is not signed by an authority that we trust",
    "certificate_expired": "the certificate of {to} has expired",
    "certificate_not_yet_valid": "the certificate of {to} is not valid yet; if it is new, a clock is wrong",
    "certificate_other_name": "the certificate of {to} is for another name than the one that we ask for",
    "client_certificate_wanted": "{to} wants a certificate of ours (mutual TLS), and we show none that it takes",
    "client_certificate_refused": "{to} does not accept our certificate: it is expired, or not of an authority that it "
    "trusts",
    "connected": "{to} accepts connections",
    "no_acknowledgement": "{to} took the message and sent nothing back within {timeout:g} s: often it waits for the "
    "end of the frame, so start and end bytes are to be compared",
    "closed_without_answer": "{to} took the message and closed the connection without an answer",
    "not_stored": "{to} took the message and says that it could not store it (a negative commit acknowledgement)",
    "stored_unanswered": "{to} says that it has stored the message (a commit acknowledgement), and sent no answer "
    "within {timeout:g} s",
    "peer_speaks_release_2": "{to} speaks release 2 of MLLP, with commit acknowledgements: its framing here is to have "
    "release: 2",
    "peer_answers_bare": "{to} answered by a byte outside of any frame (0x06 or 0x15): its endpoint here is to have "
    "answers: bare",
    "bad_frame": "{to} sent back {detail}",
    "answered": "{to} answered",
    "written": "the message was written to {to}, from where no answer is expected",
}

CODES = tuple(_SENTENCES)


def sentence_of(code: str, to: Address, timeout: float, detail: str = "") -> str:
    """The sentence of a code. `timeout`: seconds that each step had."""
    return _SENTENCES[code].format(to=to, timeout=timeout, detail=detail)


def of_connecting(error: OSError) -> tuple[str, str]:
    """Code and detail for a TCP connection that was not made."""
    if isinstance(error, socket.gaierror):
        return "name_not_resolved", ""
    if isinstance(error, OtherFamily):
        return "source_family", ""
    if isinstance(error, NoSource):
        return "source_address", ""
    if isinstance(error, ConnectionRefusedError):
        return "refused", ""
    if isinstance(error, ConnectionResetError):
        return "reset", ""
    if isinstance(error, TimeoutError):
        return "connect_timed_out", ""
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "unreachable", ""
    return "connect_failed", errno.errorcode.get(error.errno or 0, "unknown")


def of_handshake(error: Exception | None, *, certificate: bool) -> tuple[str, str]:
    """Code and detail for a handshake that failed. `certificate`: whether we have one to show."""
    if isinstance(error, TlsError):
        return "own_files", str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        codes = {9: "certificate_not_yet_valid", 10: "certificate_expired", 62: "certificate_other_name",
                 64: "certificate_other_name"}  # fmt: skip
        return codes.get(error.verify_code, "certificate_not_trusted"), ""
    if isinstance(error, ssl.SSLError) and error.reason:
        if error.reason in _NOT_TLS:
            return "peer_speaks_plain", ""
        if error.reason in _OLD_TLS:
            return "tls_version", ""
        if error.reason in _CERTIFICATE_WANTED and not certificate:
            return "client_certificate_wanted", ""
        if refused_us(error):
            return "client_certificate_refused", ""
        return "tls_failed", error.reason
    if isinstance(error, TimeoutError) or "taking longer" in str(error):
        return "tls_no_answer", ""
    return "tls_closed", ""


def of_bytes(data: bytes, framing: Framing) -> tuple[str, str]:
    """Code and detail for what came instead of a frame."""
    if data.startswith(_TLS_ALERT):
        return "peer_speaks_tls", ""
    if data.strip(FILLER) in (STORED, NOT_STORED):
        return "peer_answers_bare", ""
    wanted = " ".join(f"0x{byte:02X}" for byte in framing.end)
    if framing.start:
        wanted = f"0x{framing.start[0]:02X} at the beginning and {wanted} at the end"
    else:
        wanted = f"{wanted} at the end"
    return (
        "bad_frame",
        f"{_kind(data, framing)} ({len(data)} bytes, the first is 0x{data[0]:02X}); expected is {wanted}",
    )


def _kind(data: bytes, framing: Framing) -> str:
    if data.startswith((b"MSH", b"BHS", b"FHS")) and framing.start:
        return "HL7 without the start byte"
    if data.startswith((b"HTTP/", b"<")):
        return "a web server's answer"
    if data.startswith(b"SSH-"):
        return "an SSH server's greeting"
    if framing.start and data.startswith(framing.start):
        return "a frame that does not end"
    return "bytes that are no frame"
