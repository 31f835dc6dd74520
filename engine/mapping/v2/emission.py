"""The control ids (MSH-10) of the messages that we send."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import AnyStr

from engine.config.filtering import Emit
from engine.hl7.peek import peek
from engine.hl7.wide import wide_form
from engine.mapping.library import Unmappable

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # 32 of them, and none that is taken for another
_FIELD = 9  # MSH-10 among the fields of a header


def control_id(
    incarnation: str, channel: str, seq: int, destination: str, part: int = 1, delivery: int = 1, *,
    prefix: str = "", length: int = 20,
) -> str:  # fmt: skip
    """A control id of ours: the same whenever the same part of the same message is sent to the same destination in the
    same delivery, and otherwise another one: 16 characters and more, behind a prefix of at most 4, are at least 60
    bits of a hash.

    Capital letters and digits, `length` of them with the prefix; 20 is the most that HL7 before 2.7 allows.
    """
    whole = "\0".join((incarnation, channel, str(seq), destination, str(part), str(delivery)))
    number = int.from_bytes(blake2b(whole.encode(), digest_size=64).digest())
    out = []
    for _ in range(length - len(prefix)):
        number, letter = divmod(number, len(_LETTERS))
        out.append(_LETTERS[letter])
    return prefix + "".join(out)


def emitted(
    outputs: Sequence[bytes], emit: Emit, *, incarnation: str, channel: str, seq: int, destination: str,
    delivery: int = 1,
) -> list[bytes]:  # fmt: skip
    """The messages as they are sent: with control ids of ours where the destination wants that, or where one of them
    has none or the same as one before it."""
    seen: set[str] = set()
    out = []
    for part, raw in enumerate(outputs, 1):
        own = peek(raw).control_id
        if emit.ours or own in seen or (part > 1 and own is None):
            own = control_id(
                incarnation, channel, seq, destination, part, delivery, prefix=emit.prefix, length=emit.length
            )
            raw = with_control_id(raw, own)
        if own is not None:
            seen.add(own)
        out.append(raw)
    return out


def with_control_id(raw: bytes, own: str) -> bytes:
    """The message with another MSH-10, and every other byte as it was. Raises `Unmappable` where it has no header.

    own: characters that are no delimiters.
    """
    head = peek(raw)
    if not head.ok:
        raise Unmappable("no-header", "the first segment", "MSH, for a control id of ours")
    form = wide_form(raw)
    if form is None:
        return _replaced(raw, own.encode(), head.separator, head.fields)
    fields = [field.decode() for field in head.fields]
    text = raw.removeprefix(form.mark).decode(form.codec)
    bar = head.separator.decode()
    return form.mark + _replaced(text, own, bar, fields).encode(form.codec)


def _replaced(raw: AnyStr, own: AnyStr, bar: AnyStr, fields: Sequence[AnyStr]) -> AnyStr:
    """The header's fields are found again, one behind the other; it may end before MSH-10."""
    at = raw.index(fields[0]) + len(fields[0])
    for number in range(1, min(len(fields), _FIELD)):
        at += len(fields[number]) + len(bar)
    if len(fields) > _FIELD:
        return raw[:at] + own + raw[at + len(fields[_FIELD]) :]
    at -= len(bar)
    return raw[:at] + bar * (_FIELD - len(fields) + 1) + own + raw[at:]
