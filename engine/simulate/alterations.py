"""What an old engine does to the content of a message: faults that can hurt somebody, and habits that cannot.

Each is a pure function of the message's bytes; one that finds nothing to alter gives back what it was given. They
read UTF-8 or ASCII in the delimiters that nearly everybody sends (`|^~\\&`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, TypeAlias
from zlib import crc32

Alteration: TypeAlias = Callable[[bytes], bytes]
Change: TypeAlias = Callable[[str], str]

UNITS: Final = {"mmol/L": "mg/dL", "mg/dL": "mmol/L", "g/dL": "g/L", "10*3/uL": "10*6/uL", "10*6/uL": "10*3/uL"}
KEPT_OF_A_NOTE: Final = 24  # characters
SHIFT: Final = timedelta(hours=1)
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")
_TIME: Final = re.compile(r"(\d{14})(.*)", re.DOTALL)


def _lines(message: bytes) -> list[str]:
    return message.decode("utf-8", "surrogateescape").split("\r")


def _joined(lines: list[str]) -> bytes:
    return "\r".join(lines).encode("utf-8", "surrogateescape")


def _field(line: str, number: int) -> str:
    fields = line.split("|")
    at = number - 1 if fields[0] == "MSH" else number
    return fields[at] if at < len(fields) else ""


def _with_field(line: str, number: int, value: str) -> str:
    fields = line.split("|")
    fields[number - 1 if fields[0] == "MSH" else number] = value
    return "|".join(fields)


def _change(message: bytes, change: Change, *places: tuple[str, int], every: bool = False) -> bytes:
    """`change` the first (or every) field among `places` that it makes something else of."""
    lines = _lines(message)
    for at, line in enumerate(lines):
        for segment, number in places:
            old = _field(line, number)
            if not line.startswith(segment + "|") or not old or (new := change(old)) == old:
                continue
            line = lines[at] = _with_field(line, number, new)
            if not every:
                return _joined(lines)
    return _joined(lines)


def _first_component(change: Change) -> Change:
    def changed(field: str) -> str:
        first, mark, rest = field.partition("^")
        return change(first) + mark + rest

    return changed


def _another(value: str) -> str:
    """The same with its last digit (or letter) another one."""
    for at in range(len(value) - 1, -1, -1):
        one = value[at]
        if one.isascii() and one.isalnum():
            other = str((int(one) + 1) % 10) if one.isdigit() else ("B" if one != "B" else "C")
            return value[:at] + other + value[at + 1 :]
    return value


# -- faults


def wrong_unit(message: bytes) -> bytes:
    """OBX-6 of the first measured value."""
    return _change(message, _first_component(lambda unit: UNITS.get(unit, unit and unit + "/h")), ("OBX", 6))


def wrong_flag(message: bytes) -> bytes:
    """OBX-8: what is high becomes normal, and the reverse."""
    return _change(message, lambda flag: "H" if flag == "N" else "N", ("OBX", 8))


def wrong_value(message: bytes) -> bytes:
    """OBX-5: the decimal point of the first number moves."""
    return _change(
        message, lambda value: f"{float(value) * 10 + 1:g}" if _NUMBER.fullmatch(value) else value, ("OBX", 5)
    )


def lost_comparator(message: bytes) -> bytes:
    """OBX-5: `<0.5` becomes `0.5`."""
    return _change(message, lambda value: value[1:] if value[:1] in "<>" else value, ("OBX", 5))


def wrong_code(message: bytes) -> bytes:
    """OBX-3.1, or OBR-4.1 where there are no results."""
    change = _first_component(_another)
    results = _change(message, change, ("OBX", 3))
    return results if results != message else _change(message, change, ("OBR", 4))


def wrong_range(message: bytes) -> bytes:
    """OBX-7: the upper limit of the first range."""
    return _change(message, _another, ("OBX", 7))


def wrong_status(message: bytes) -> bytes:
    """OBX-11: a preliminary result comes as a final one, anything else as preliminary."""
    return _change(message, lambda status: "F" if status == "P" else "P", ("OBX", 11))


def wrong_patient(message: bytes) -> bytes:
    """PID-3.1."""
    return _change(message, _first_component(_another), ("PID", 3))


def wrong_birth_date(message: bytes) -> bytes:
    """PID-7."""
    return _change(message, _another, ("PID", 7))


def wrong_number(message: bytes) -> bytes:
    """OBR-2.1: the placer's order number."""
    return _change(message, _first_component(_another), ("OBR", 2))


def shifted_time(message: bytes) -> bytes:
    """OBR-7, OBX-14 and TQ1-7, the times of collection, observation and start, an hour later."""
    return _change(message, _shift, ("OBR", 7), ("OBX", 14), ("TQ1", 7), every=True)


def _shift(value: str) -> str:
    match = _TIME.fullmatch(value)
    if match is None:
        return value
    return f"{datetime.strptime(match[1], '%Y%m%d%H%M%S') + SHIFT:%Y%m%d%H%M%S}{match[2]}"


def truncated_note(message: bytes) -> bytes:
    """NTE-3, or OBX-5 of text: what goes beyond a small buffer is lost."""
    notes = _change(message, lambda text: text[:KEPT_OF_A_NOTE], ("NTE", 3))
    return notes if notes != message else _change(message, lambda text: text[:KEPT_OF_A_NOTE], ("OBX", 5))


def damaged_charset(message: bytes) -> bytes:
    """Every character outside ASCII becomes a question mark."""
    return _content(message, lambda line: "".join(one if one < "\x80" else "?" for one in line))


def doubly_encoded(message: bytes) -> bytes:
    """UTF-8 taken for Latin-1 and written as UTF-8 again: `é` becomes `Ã©`."""
    return _content(message, lambda line: line.encode("utf-8", "replace").decode("latin-1"))


def _content(message: bytes, change: Change) -> bytes:
    return _joined([line if line.startswith("MSH") else change(line) for line in _lines(message)])


def lost_result(message: bytes) -> bytes:
    """The last OBX is gone."""
    return _without_last(message, "OBX|")


def lost_note(message: bytes) -> bytes:
    """The last NTE is gone."""
    return _without_last(message, "NTE|")


def _without_last(message: bytes, start: str) -> bytes:
    lines = _lines(message)
    found = [at for at, line in enumerate(lines) if line.startswith(start)]
    if found:
        del lines[found[-1]]
    return _joined(lines)


# -- habits


def own_stamps(message: bytes) -> bytes:
    """MSH-7 and MSH-10 are the old engine's own."""
    lines = _lines(message)
    number = f"OLD{crc32(message):010d}"
    lines[0] = _with_field(_with_field(lines[0], 7, "20260101000000"), 10, number)
    return _joined(lines)


def padding(message: bytes) -> bytes:
    """Names, codes, order numbers and units have the width of old tables."""
    wide = _first_component(lambda value: f"{value:<12}" if value else value)
    places = (("PID", 5), ("OBR", 2), ("OBR", 4), ("OBX", 3), ("OBX", 6))
    return _change(message, wide, *places, every=True)


def precision(message: bytes) -> bytes:
    """Numbers and ranges have one more decimal: 7.1 becomes 7.10."""

    def longer(value: str) -> str:
        return _NUMBER.sub(lambda number: number[0] + ("0" if "." in number[0] else ".0"), value)

    lines = _lines(message)
    for at, line in enumerate(lines):
        if line.startswith("OBX|") and _field(line, 2) == "NM":
            for number in (5, 7):
                if value := _field(line, number):
                    line = lines[at] = _with_field(line, number, longer(value))
    return _joined(lines)


def segment_order(message: bytes) -> bytes:
    """Results come in another order, numbered anew, with what belongs to them; PV1 comes before PD1."""
    lines = [line for line in _lines(message) if line]
    blocks: list[list[str]] = []
    for line in lines:
        if blocks and line[:3] == "NTE":
            blocks[-1].append(line)
        else:
            blocks.append([line])
    ordered = _reversed_runs(blocks)
    return _joined([line for block in _visit_first(ordered) for line in block] + [""])


def _reversed_runs(blocks: list[list[str]]) -> list[list[str]]:
    done: list[list[str]] = []
    run: list[list[str]] = []
    for block in [*blocks, [""]]:
        if block[0].startswith("OBX|"):
            run.append(block)
            continue
        for number, result in enumerate(_reversed(run), 1):
            done.append([_with_field(result[0], 1, str(number)), *result[1:]])
        run = []
        done.append(block)
    return done[:-1]


def _reversed(run: list[list[str]]) -> list[list[str]]:
    """Backwards; lines of one text, which have one code, stay as they are."""
    codes = {(_field(block[0], 3), _field(block[0], 4)) for block in run}
    return run[::-1] if len(codes) == len(run) else run


def _visit_first(blocks: list[list[str]]) -> list[list[str]]:
    for at, block in enumerate(blocks[1:], 1):
        if block[0].startswith("PV1|") and blocks[at - 1][0].startswith("PD1|"):
            blocks[at - 1], blocks[at] = block, blocks[at - 1]
    return blocks


def escapes(message: bytes) -> bytes:
    r"""A slash in a unit or a text is written as `\X2F\`."""

    def written(value: str) -> str:
        return value.replace("/", "\\X2F\\")

    return _change(message, written, ("OBX", 6), ("NTE", 3), every=True)


def trailing_delimiters(message: bytes) -> bytes:
    """Empty fields and components are written to the end of the table; the last segment has no end."""
    lines = [line + "|||" if line[:3] in ("PID", "OBR", "OBX", "ORC") else line for line in _lines(message)]
    return _change(_joined(lines).rstrip(b"\r"), lambda value: value + "^^^", ("OBX", 6), ("PID", 5), every=True)


def finer_times(message: bytes) -> bytes:
    """Times have thousandths of seconds, which nobody measured."""

    def finer(value: str) -> str:
        match = _TIME.fullmatch(value)
        return f"{match[1]}.000{match[2]}" if match and not match[2].startswith(".") else value

    return _change(message, finer, ("OBR", 7), ("OBR", 22), ("OBX", 14), ("ORC", 9), every=True)


FAULTS: Final[Mapping[str, Alteration]] = MappingProxyType(
    {
        one.__name__: one
        for one in (
            wrong_unit, wrong_flag, wrong_value, lost_comparator, wrong_code, wrong_range, wrong_status, wrong_patient,
            wrong_birth_date, wrong_number, shifted_time, truncated_note, damaged_charset, doubly_encoded, lost_result,
            lost_note,
        )
    }
)  # fmt: skip
"""What can hurt somebody, by name."""

HABITS: Final[Mapping[str, Alteration]] = MappingProxyType(
    {
        one.__name__: one
        for one in (own_stamps, padding, precision, segment_order, escapes, trailing_delimiters, finer_times)
    }
)
"""What cannot, by name."""
