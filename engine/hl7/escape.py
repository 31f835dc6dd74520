r"""HL7's escape sequences (HL7 v2 chapter 2, 2.7), both ways.

`unescape` turns \F\ \S\ \T\ \R\ \E\ \P\ into delimiters, \Xdd..\ into the characters of those bytes, and formatting
commands into line breaks; highlighting is left out. What it does not know stays as it is: nothing is swallowed.
"""

from __future__ import annotations

from typing import NamedTuple


class Delimiters(NamedTuple):
    """MSH-1 and MSH-2. An empty string where the sender declares none."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"


STANDARD = Delimiters()
_BREAKS = (".br", ".sp", ".ce")
_SILENT = ("H", "N", ".fi", ".nf")


def unescape(value: str, delimiters: Delimiters = STANDARD) -> str:
    """The text that `value`, a single leaf, stands for."""
    mark = delimiters.escape
    if not mark or mark not in value:
        return value
    parts = value.split(mark)
    out = [parts[0]]
    at = 1
    while at < len(parts) - 1:
        meaning = _meaning(parts[at], delimiters)
        if meaning is None:  # not a sequence: the mark stands for itself, and may open the next one
            out.append(mark + parts[at])
            at += 1
        else:
            out.append(meaning + parts[at + 1])
            at += 2
    if at < len(parts):
        out.append(mark + parts[at])
    return "".join(out)


def escape(value: str, delimiters: Delimiters = STANDARD) -> str:
    r"""`value` as a leaf that a receiver can unescape. Line ends become \.br\ because a CR would end the segment."""
    mark = delimiters.escape
    if not mark:
        return value
    table: dict[str, str | int | None] = {
        mark: f"{mark}E{mark}",
        delimiters.field: f"{mark}F{mark}",
        delimiters.component: f"{mark}S{mark}",
        delimiters.subcomponent: f"{mark}T{mark}",
        delimiters.repetition: f"{mark}R{mark}",
        "\r": f"{mark}X0D{mark}",
        "\n": f"{mark}.br{mark}",
    }
    table.pop("", None)
    return value.translate(str.maketrans(table))


def _meaning(code: str, delimiters: Delimiters) -> str | None:
    if code in ("F", "S", "T", "R", "E"):
        index = {"F": 0, "S": 1, "R": 2, "E": 3, "T": 4}[code]
        return delimiters[index]
    if code == "P":  # 2.9: the truncation character
        return "#"
    if code in _SILENT or code.startswith((".in", ".ti", ".sk")):
        return ""
    if code.startswith(_BREAKS):
        return "\n" * _lines(code)
    if code[:1] == "X" and len(code) > 1:
        return _hexadecimal(code[1:])
    return None


def _lines(code: str) -> int:
    count = code[3:].strip().lstrip("+")
    return min(max(int(count), 1), 99) if code.startswith(".sp") and count.isascii() and count.isdigit() else 1


def _hexadecimal(digits: str) -> str | None:
    try:
        data = bytes.fromhex(digits)
    except ValueError:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
