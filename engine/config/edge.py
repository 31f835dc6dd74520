"""What sockets, folders and answers are set to: the parts of a channel, a feed or an endpoint that face a peer.

Every value here has been checked. Times are seconds, sizes are bytes, paths are absolute. All classes are frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

from engine.config.address import Address

if TYPE_CHECKING:
    from engine.config.endpoint import Endpoint

RelayTimeout = Literal["silent", "close", "ae"]
AckMode = Literal["auto", "original", "enhanced"]
AnswerMode = Literal["original", "enhanced"]
AckType = Literal["auto", "ACK", "ACK^trigger", "ACK^trigger^ACK"]
AckError = Literal["auto", "none", "2.3", "2.5"]
Batch = Literal["refuse", "one", "each", "errors", "none"]
AfterFile = Literal["archive", "delete"]

MIB = 1024 * 1024

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Framing:
    """The bytes around a message: control characters (0x00 to 0x1F), since any other may stand in one.

    `start` is one byte, or empty for a peer that sends none. `end` is one or two bytes, of which a peer may leave out
    the second, unless the first is CR or LF: 0x0D 0x0D is a blank line. MLLP is 0x0B … 0x1C 0x0D (HL7 v2.3.1
    appendix C).
    release: of MLLP. In release 2 each side also says on the transport level whether it has stored what came (HL7
    "Transport Specification: MLLP, Release 2"). Its bytes are part of the specification, so it has no others.
    bare: of a peer that answers by a byte outside of any block: ACK (0x06) for yes, NAK (0x15) for no.
    """

    start: bytes = b"\x0b"
    end: bytes = b"\x1c\r"
    release: int = 1
    bare: bool = False

    @property
    def flaw(self) -> tuple[str, str, str] | None:
        """Why messages could not be told apart: the key that is wrong, what is found there, and what would be right."""
        start, end = self.start, self.end
        if len(start) > 1 or len(end) not in (1, 2):
            return "end", "another number of bytes", "one byte or none at the start, one or two at the end"
        if end in (b"\r", b"\r\n"):
            wanted = "0x0D 0x0D for a blank line, or 0x0A 0x0D where lines end in 0x0D 0x0A"
            return "end", "an end: that segments end in", wanted
        if start in (b"\r", b"\n"):
            return "start", "a start: of 0x0D or 0x0A, which stand inside every message", "another byte, or none"
        if start and start in end:
            found = f"an end: that {'begins' if start == end[:1] else 'ends'} with the byte of start:"
            return "end", found, "a byte of its own, or nobody could tell the two"
        if self.release == 2 and (start, end) != (b"\x0b", b"\x1c\r"):
            return "release", "release 2 with other bytes than MLLP's", "no start: and no end: beside it"
        if self.bare and (not start or self.release == 2 or set(start + end) & set(BARE)):
            found = "bare answers, 0x06 and 0x15, that this framing would not let be told from blocks"
            return "start", found, "a start byte, neither of the two in start: and end:, and release 1"
        return None


BARE = b"\x06\x15"
"""ACK and NAK: the answers of a peer that answers by a byte."""

MLLP = Framing()


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS of a listener or of a connection that we make.

    certificate, key: PEM files of our own side; a listener must have them, a connection needs them for mutual TLS.
    ca: PEM file of who is trusted. At a listener it makes the peer's certificate mandatory (mutual TLS); for a
    connection None means the system's authorities.
    names: at a listener with `ca`, the names (subject CN or alternative names) that are let in; empty = any that `ca`
    has signed. server_name: for a connection, the name to be found in the peer's certificate; None = the host.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    names: tuple[str, ...] = ()
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Sockets:
    """How the connections of a listener are kept.

    most: at the same time; per_address: of one address, 0 = as many as `most`.
    newest_wins: a new connection of an address ends its older ones, once what they began is answered.
    idle: seconds without a byte after which a connection is closed; None = never.
    keepalive: seconds of silence after which the kernel begins to ask whether the peer is still there.
    one_message: the connection is closed once a message is answered: after the application's answer, where that comes
    after an accept acknowledgement.
    """

    most: int = 256
    per_address: int = 0
    newest_wins: bool = False
    idle: float | None = None
    keepalive: float = 60.0
    one_message: bool = False


@dataclass(frozen=True, slots=True)
class Takes:
    """What a channel or feed takes, wherever it comes from.

    accepts: message types such as ORU^R01; empty = whatever the mapping knows.
    encoding: `auto` (MSH-18 decides) or the name of a Python codec, which goes before MSH-18.
    undeclared: the codec of messages that name none in MSH-18; None = ASCII or UTF-8, nothing is guessed.
    max_bytes: largest message.
    batch: FHS/BHS envelopes: `refuse` them, or how they are acknowledged (HL7 v2 chapter 2, 2.10.3): `one` for all,
    `each` message in one batch of acknowledgements, `errors` only, `none` at all.
    """

    accepts: tuple[str, ...] = ()
    encoding: str = "auto"
    undeclared: str | None = None
    max_bytes: int = 32 * MIB
    batch: Batch = "one"


@dataclass(frozen=True, slots=True)
class Listen:
    """A port of our own.

    allow: networks (CIDR) that may connect; empty = everybody.
    probes: networks of load balancers that only look whether the port is open; they are never counted as peers.
    frame_timeout: seconds for which a begun frame may be silent; in all it may take twenty times as long.
    """

    port: int
    host: str = "0.0.0.0"
    allow: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    frame_timeout: float = 60.0
    framing: Framing = MLLP
    sockets: Sockets = Sockets()
    tls: Tls | None = None

    @property
    def address(self) -> Address:
        return Address(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Connect:
    """A peer that we connect to in order to receive: it listens, and sends on the connection that we make.

    reconnect: seconds between attempts. sockets: only `idle` and `keepalive` of it count.
    """

    address: Address
    reconnect: float = 5.0
    connect_timeout: float = 10.0
    frame_timeout: float = 60.0
    framing: Framing = MLLP
    sockets: Sockets = Sockets()
    source_address: str | None = None
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class FromFeed:
    """A channel's messages come on a feed's socket."""

    name: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A folder of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Sftp:
    """A folder of an SFTP server (RFC 4253 and the SFTP drafts). Exactly one of `key` and `password` is set.

    known_hosts: file with the server's public key, in OpenSSH's form; a server that is not in it is refused.
    directory: as the server names it, relative to the user's home unless it begins with a slash.
    """

    address: Address
    user: str
    known_hosts: Path
    key: Path | None = None
    password: str | None = field(default=None, repr=False)
    directory: str = "."
    connect_timeout: float = 10.0
    timeout: float = 60.0

    def __str__(self) -> str:
        return f"{self.address} {self.directory}"


Place: TypeAlias = Directory | Sftp


@dataclass(frozen=True, slots=True)
class Files:
    """A folder that messages are read from, each file once.

    pattern: shell pattern of the names that are read. poll: seconds between looks.
    stable: seconds that a file must not have changed before it is read.
    after: what becomes of a file that is stored; archive, failed: folders beneath the place.
    """

    place: Place
    pattern: str = "*.hl7"
    poll: float = 5.0
    stable: float = 2.0
    after: AfterFile = "archive"
    archive: str = "archive"
    failed: str = "failed"


Source: TypeAlias = Listen | Connect | FromFeed | Files


@dataclass(frozen=True, slots=True)
class AckForm:
    """How our own answers look to this partner.

    codes: table 0008, what stands for what (`{AA: CA}`). kind: the form of MSH-9. err: the form of ERR, by version
    of the message unless named. text: whether MSA-3 and ERR-8 carry a sentence.
    bare: an answer is a byte outside of any block and nothing else: 0x06 for yes, 0x15 for no.
    """

    codes: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    kind: AckType = "auto"
    err: AckError = "auto"
    text: bool = True
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """Whose answer the sender gets, in which mode and form, and what happens when that answer is late.

    source: `authoritative`, `stored`, or the name of a destination of the channel.
    mode: `original` or `enhanced` (HL7 v2 chapter 2, 2.9.2 and 2.9.3), by MSH-15 and MSH-16 where `auto`.
    to: the endpoint that our answers are sent to. listen: our port at which the sender hears them, on a connection that
    it makes, in the frames of its messages. None and None = on the sender's own connection.
    """

    source: str
    on_relay_timeout: RelayTimeout = "silent"
    mode: AckMode = "auto"
    form: AckForm = AckForm()
    to: Endpoint | None = None
    listen: Listen | None = None

    @property
    def apart(self) -> str | None:
        """Where our answers go, for people, if not on the sender's own connection."""
        if self.listen is not None:
            return str(self.listen.address)
        return str(self.to) if self.to is not None else None


@dataclass(frozen=True, slots=True)
class Hours:
    """When an endpoint may be sent to. days: empty = every day; start, end: `HH:MM`; zone: IANA name."""

    days: tuple[str, ...]
    start: str
    end: str
    zone: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What an endpoint's answers mean (table 0008), and where they come.

    accepted: taken. rejected: never to be sent again as it is. Every other code may be tried again.
    check: whether MSA-2 must be the MSH-10 that was sent.
    expected: False for a peer that never answers: what was written counts as taken.
    listen: the port at which the peer's answers come, on a connection that it makes, in the frames of its endpoint;
    None = on ours.
    mode: `original`: it answers each message, whatever that says; `enhanced`: as MSH-15 and MSH-16 ask, so that it is
    not waited for where they ask for nothing (HL7 v2 chapter 2, 2.9.2 and 2.9.3). None = `original`, but for the old
    engine as the channel's `ack.mode` says.
    """

    accepted: tuple[str, ...] = ("AA", "CA")
    rejected: tuple[str, ...] = ("AR", "CR")
    check: bool = True
    expected: bool = True
    listen: Listen | None = None
    mode: AnswerMode | None = None


ACKNOWLEDGES = Answers()
