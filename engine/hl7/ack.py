"""Acknowledgements: made from a message's header, and read from a peer's answer (HL7 v2 chapter 2, 2.9 and 2.13).

What the sender sees is in its own delimiters, version and character set; MSA-2 is its MSH-10, byte for byte. Texts
are this product's own sentences, in ASCII; nothing of a message's content ever stands in one. What differs from partner
to partner is an `AckForm`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from engine.config.edge import NOTHING, AckForm, AckType
from engine.hl7.peek import DELIMITERS, Peek, after_junk
from engine.hl7.wide import narrow, wide_form, widen

AckCode: TypeAlias = Literal["AA", "AE", "AR", "CA", "CE", "CR"]
"""Table 0008. AE and CE say: may be repeated. AR and CR: not as it is."""

CONDITIONS: Final = {
    0: "Message accepted",
    100: "Segment sequence error",
    101: "Required field missing",
    102: "Data type error",
    103: "Table value not found",
    104: "Value too long",
    200: "Unsupported message type",
    201: "Unsupported event code",
    202: "Unsupported processing id",
    203: "Unsupported version id",
    204: "Unknown key identifier",
    205: "Duplicate key identifier",
    206: "Application record locked",
    207: "Application error",
}
"""Table 0357, message error condition codes."""

_BARE: Final = ((2, 1), (2, 2))
_HEADER_LIMIT: Final = 64 * 1024  # bytes among which MSA is looked for, if it is to follow the header
_AFTER_HEADER: Final = re.compile(rb"[^\r\n]*[\r\n]+(?:(?:SFT|UAC)[^\r\n]*[\r\n]+)*(MSA[^\r\n]*)")
_IN_OURS: Final = frozenset(map(bytes, zip(b"+.-_:/")))
"""Separators of a very odd sender that may stand in our own time stamp and control id."""
_CODES: Final = {code.encode(): code for code in ("AA", "AE", "AR", "CA", "CE", "CR")}
PLAIN: Final = AckForm()
"""The form of partners that ask for nothing special."""

_NO_HEADER: Final = [b"MSH|", DELIMITERS, *[b""] * 8, b"P", b"2.3"]


@dataclass(frozen=True, slots=True)
class AckError:
    """What is wrong with a message, for its sender. `code` is of table 0357; `text` a sentence without any content
    of the message; `segment`, `occurrence` (from 1), `field` say where, if anywhere."""

    code: int
    text: str = ""
    segment: str = ""
    occurrence: int = 1
    field: int | None = None

    @property
    def condition(self) -> str:
        """The table's words for the code."""
        return CONDITIONS.get(self.code, "Application error")


class Answer(NamedTuple):
    """A peer's acknowledgement: MSA-1, MSA-2 (Latin-1, whole), and the table 0357 code of a "no", if it gave one.
    Its texts are left where they are: they may speak of patients.

    code: of table 0008, or whatever else the peer says there: up to eight letters and digits, in capitals.
    """

    code: str
    control_id: str
    error: str | None

    def is_for(self, control_id: str) -> bool:
        """Whether MSA-2 is this MSH-10. Blanks around either do not count: some peers pad, others trim."""
        return self.control_id == control_id or self.control_id.strip() == control_id.strip()


def acknowledge(
    peek: Peek,
    code: AckCode,
    *,
    control_id: str,
    at: float | str,
    error: AckError | None = None,
    form: AckForm = PLAIN,
) -> bytes:
    """The answer to a message, without MLLP framing.

    `control_id` is the answer's own (MSH-10), in ASCII; `at` its time, as seconds since 1970 or ready for MSH-7. A
    message whose header cannot be read is answered in the standard's delimiters, with MSA-2 empty. A batch is answered
    by the header that `engine.hl7.batch.peek_batch` makes for it.
    """
    fields = peek.fields if peek.ok else _NO_HEADER
    if len(fields) < 18:
        fields = fields + [b""] * (18 - len(fields))
    bar = fields[0][3:]
    version = fields[11]
    time = at.encode("latin-1") if isinstance(at, str) else _stamp(int(at))
    kind = _kind(peek.trigger, version, fields[1], form.kind) if len(peek.trigger) + len(version) < 64 else b"ACK"
    own = control_id.encode()
    if bar in _IN_OURS:
        time, own = time.split(bar, 1)[0], own.replace(bar, b"")
    said = code if form.codes is NOTHING else form.codes.get(code, code)
    header = bar.join(
        (
            b"MSH",
            fields[1],
            fields[4],
            fields[5],
            fields[2],
            fields[3],
            time,
            b"",
            kind,
            own,
            fields[10],
            version,
        )
    )
    if fields[17]:
        header += bar * 6 + fields[17]
    if error is None:
        answer = b"%b\rMSA%b%b%b%b\r" % (header, bar, said.encode(), bar, fields[9])
    else:
        answer = header + b"\r" + _refusal(bar, said.encode(), fields, error, form)
    return answer if peek.wide is None else widen(answer, peek.wide)


def parse_ack(frame: bytes) -> Answer | None:
    """The acknowledgement in `frame`; None where there is none: no header, no MSA, or nothing like a code in it."""
    start = frame.find(b"MSH", 0, 64)
    if start < 0:
        frame = _narrow(frame)
        start = frame.find(b"MSH", 0, 64)
        if start < 0:
            return None
    bar = frame[start + 3 : start + 4]
    if not bar:
        return None
    msa = _segment(frame, b"MSA", bar)
    if len(msa) < 2:
        return None
    code = _CODES.get(msa[1]) or _code(msa[1], frame[start + 4 : start + 5])
    if code is None:
        return None
    control_id = msa[2].decode("latin-1") if len(msa) > 2 else ""
    if code == "AA" or code == "CA":
        return Answer(code, control_id, None)
    return Answer(code, control_id, _condition(frame, bar, frame[start + 4 : start + 8], msa))


def answers(frame: bytes) -> str | None:
    """MSA-2 of a frame that answers another message, Latin-1; None where no MSA follows the header."""
    msa = _msa_of(frame)
    return None if msa is None else msa[2].decode("latin-1") if len(msa) > 2 else ""


def _msa_of(frame: bytes) -> list[bytes] | None:
    """The fields of an MSA that follows the header."""
    frame = _narrow(frame[:_HEADER_LIMIT])
    begin = after_junk(frame)
    bar = frame[begin + 3 : begin + 4]
    if frame[begin : begin + 3] != b"MSH" or not bar:
        return None
    found = _AFTER_HEADER.match(frame, begin)
    return found[1].split(bar) if found and found[1][3:4] in (bar, b"") else None


def _narrow(frame: bytes) -> bytes:
    form = wide_form(frame)
    return frame if form is None else narrow(frame, form)


def _code(field: bytes, component: bytes) -> str | None:
    """MSA-1 as some write it: padded, in small letters, with further components."""
    value = (field.split(component, 1)[0] if component else field).strip()
    return value.decode("ascii").upper() if 0 < len(value) <= 8 and value.isascii() and value.isalnum() else None


def _segment(frame: bytes, name: bytes, bar: bytes) -> list[bytes]:
    """The fields of the first segment of that name. LF ends a segment only where no CR does."""
    at = frame.find(b"\r" + name + bar)
    if at < 0:
        at = frame.find(b"\n" + name + bar)
        if at < 0:
            return []
    end = frame.find(b"\r", at + 1)
    line = frame[at + 1 : end] if end > 0 else frame[at + 1 :]
    if b"\n" in line:
        line = line[: line.index(b"\n")]
    return line.split(bar)


def _condition(frame: bytes, bar: bytes, marks: bytes, msa: list[bytes]) -> str | None:
    """The table 0357 code: of ERR-3 (from v2.5), ERR-1.4 (before) or MSA-6, whichever is a number."""
    component, subcomponent = marks[:1] or b"^", marks[3:4] or b"&"
    err = _segment(frame, b"ERR", bar)
    places = [err[3]] if len(err) > 3 else []
    places += [part.split(subcomponent)[0] for part in err[1].split(component)[3:4]] if len(err) > 1 else []
    places += [msa[6]] if len(msa) > 6 else []
    for place in places:
        value = place.split(component, 1)[0].strip()
        if value.isdigit() and len(value) <= 4:
            return value.decode("ascii")
    return None


def stamp(at: float | str) -> bytes:
    """MSH-7 of seconds since 1970, in UTC; or what is ready for it."""
    return at.encode("latin-1") if isinstance(at, str) else _stamp(int(at))


@lru_cache(maxsize=8)
def _stamp(at: int) -> bytes:
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%d%H%M%S+0000").encode()


@lru_cache(maxsize=512)
def _release(version: bytes) -> tuple[int, int]:
    """`2.5.1` as (2, 5). What is not a version counts as old: old peers choke on new forms, not the reverse."""
    parts = version.split(b".")
    if len(parts) < 2 or not parts[0].isdigit():
        return (0, 0)
    minor = parts[1][:2] if parts[1][:2].isdigit() else parts[1][:1]
    return (int(parts[0]), int(minor)) if minor.isdigit() else (0, 0)


@lru_cache(maxsize=512)
def _kind(trigger: str, version: bytes, marks: bytes, form: AckType) -> bytes:
    """MSH-9: `ACK^R01^ACK` from v2.4 on, `ACK^R01` in v2.3, `ACK` before (2.9.2.1 of each), unless the form says."""
    release = _release(version)
    if form == "auto":
        form = "ACK" if release in _BARE else "ACK^trigger^ACK" if release >= (2, 4) else "ACK^trigger"
    if form == "ACK" or not trigger:
        return b"ACK"
    parts = (b"ACK", trigger.encode("latin-1"), b"ACK")
    return marks[:1].join(parts if form == "ACK^trigger^ACK" else parts[:2])


def _refusal(bar: bytes, code: bytes, fields: list[bytes], error: AckError, form: AckForm) -> bytes:
    """MSA and ERR. Up to v2.4: the text in MSA-3, place and code in ERR-1. From v2.5: ERR-2, -3, -4 and -8.

    Without an ERR the text, if it is wanted, is in MSA-3, whatever the version.
    """
    marks = fields[1]
    component = marks[:1]
    text = _escape(error.text, bar, marks) if form.text else b""
    condition = (str(error.code).encode(), _escape(error.condition, bar, marks), b"HL70357")
    msa = [b"MSA", code, fields[9]]
    if form.err == "none":
        return bar.join(msa + ([text] if text else [])) + b"\r"
    if form.err == "2.5" or (form.err == "auto" and _release(fields[11]) >= (2, 5)):
        place = component.join(_place(error)).rstrip(component)
        err = [b"ERR", b"", place, component.join(condition), b"E", *([b"", b"", b"", text] if text else [])]
    else:
        msa += [text] if text else []
        reason = marks[3:4].join(condition) if marks[3:4] else condition[0]
        err = [b"ERR", component.join((*_place(error), reason))]
    return bar.join(msa) + b"\r" + bar.join(err) + b"\r"


def _place(error: AckError) -> tuple[bytes, bytes, bytes]:
    """Segment, its occurrence, its field; all empty where the error has no place."""
    if not error.segment:
        return b"", b"", b""
    field = b"" if error.field is None else str(error.field).encode()
    return error.segment.encode("ascii", "replace"), str(error.occurrence).encode(), field


def _escape(text: str, bar: bytes, marks: bytes) -> bytes:
    r"""A text of ours in the sender's delimiters (`\F\`, `\S\` …, 2.7.1); blanks where there is no escape character."""
    names = dict(zip(bar + marks[:4], b"FSRET", strict=False))
    escape = marks[2:3]
    out = bytearray()
    for byte in text.encode("ascii", "replace"):
        if byte < 0x20:
            out += b" "
        elif byte in names:
            out += escape + bytes([names[byte]]) + escape if escape else b" "
        else:
            out.append(byte)
    return bytes(out)
