"""One MLLP conversation of `interlock send`: a message, its answer, the next message. Blocking, for a terminal."""

from __future__ import annotations

import socket
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from engine.cli.console import Stop
from engine.config.address import Address
from engine.hl7.ack import parse_ack
from engine.hl7.peek import peek
from engine.mllp.framing import Decoder, Frame, encode


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A message and what came back. code: MSA-1; problem: what came instead of an answer.

    text: the segments of a negative answer. open: whether the conversation can go on.
    """

    number: int
    type: str
    control_id: str
    code: str | None
    condition: str | None
    problem: str | None
    text: list[str]
    seconds: float
    open: bool

    @property
    def accepted(self) -> bool:
        return self.code in ("AA", "CA") and self.problem is None

    def values(self) -> dict[str, Any]:
        return asdict(self) | {"seconds": round(self.seconds, 6)}


class Conversation:
    """A connection to `target`. Stops with a sentence where it cannot be had."""

    def __init__(self, target: Address, timeout: float) -> None:
        self._timeout = timeout
        self._decoder = Decoder()
        self._frames: list[bytes] = []
        try:
            self._socket = socket.create_connection((target.host, target.port), timeout)
        except ConnectionRefusedError:
            raise Stop(f"nothing listens at {target}: is the service running, and is it that channel's port?") from None
        except OSError as error:
            raise Stop(f"{target} cannot be reached: {error.strerror or error}") from None

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def exchange(self, number: int, raw: bytes) -> Exchanged:
        header = peek(raw)
        begun = time.perf_counter()
        answer, problem = self._answer(raw)
        seconds = time.perf_counter() - begun
        kind = f"{header.type}^{header.trigger}" if header.ok else "?"
        mine = header.control_id or ""
        parsed = parse_ack(answer) if answer is not None else None
        if answer is not None and parsed is None:
            problem = "an answer that is no acknowledgement"
        elif parsed is not None and parsed.control_id != mine:
            problem = f"an answer to another message ({parsed.control_id})"
        code = parsed.code if parsed else None
        text = [] if answer is None or (code in ("AA", "CA") and not problem) else _lines(answer)
        condition = parsed.error if parsed else None
        return Exchanged(number, kind, mine, code, condition, problem, text, seconds, answer is not None)

    def _answer(self, raw: bytes) -> tuple[bytes | None, str | None]:
        """The frame that came back, or why none did."""
        deadline = time.monotonic() + self._timeout
        try:
            self._socket.sendall(encode(raw))
            while not self._frames:
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self._socket.recv(65536)
                if not data:
                    return None, "the other side closed the connection without an answer"
                self._frames += [event.payload for event in self._decoder.feed(data) if isinstance(event, Frame)]
        except TimeoutError:
            return None, f"no answer within {self._timeout:g} s"
        except OSError as error:
            return None, f"the connection broke: {error.strerror or error}"
        return self._frames.pop(0), None


def carriage_returns(raw: bytes) -> bytes:
    """A message with the line ends of HL7 where an editor has put others."""
    if _is_wide(raw) or (b"\r" in raw and b"\r\n" not in raw):
        return raw
    return raw.replace(b"\r\n", b"\r").replace(b"\n", b"\r")


def as_sent(raw: bytes) -> bytes:
    """The same, and a line end behind the last segment too."""
    raw = carriage_returns(raw)
    return raw if _is_wide(raw) or raw.endswith(b"\r") else raw + b"\r"


def _is_wide(raw: bytes) -> bool:
    return b"\x00" in raw[:8]  # UTF-16: not for us to touch


def _lines(answer: bytes) -> list[str]:
    lines = answer.decode("latin-1").strip("\r\n").replace("\r\n", "\r").split("\r")
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines]


def told(answer: Exchanged) -> str:
    """An answer for people: `1  ORU^R01  MSG00001  AA accepted  2.1 ms`."""
    meaning = {"AA": "accepted", "CA": "accepted", "AE": "error", "CE": "error", "AR": "rejected", "CR": "rejected"}
    head = [str(answer.number), answer.type, answer.control_id or "(no control id)"]
    if answer.code is None:
        return "\n".join(["  ".join([*head, answer.problem or "no answer"]), *(f"    {line}" for line in answer.text)])
    code = f"{answer.code} {meaning.get(answer.code, '')}".rstrip()
    lines = ["  ".join([*head, code, f"{answer.seconds * 1000:.1f} ms"])]
    lines += [f"    {answer.problem}"] if answer.problem else []
    return "\n".join([*lines, *(f"    {line}" for line in answer.text)])
