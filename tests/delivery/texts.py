"""Messages of the random lives: what each of them is, in a test's words and in bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

PLAIN, FILTERED, UNMAPPABLE, LATE = "plain", "filtered", "unmappable", "late"
SPLITS = {"split2": (2, 3), "split3": (3, 2)}
"""In how many parts these go out, by a mapping and by the one that a restart may bring in its place."""
KINDS = (PLAIN, PLAIN, PLAIN, LATE, FILTERED, UNMAPPABLE, *SPLITS)

NOBODY = ""
"""The lane that messages without a patient share."""


@dataclass(frozen=True, slots=True)
class Text:
    """One revision of a message. patients: nobody, one, or the two of a merge. late: its output is not made at once."""

    number: int
    patients: tuple[str, ...]
    kind: str = PLAIN
    words: str = "as it came"

    @property
    def raw(self) -> bytes:
        lines = [f"MSH|^~\\&|LAB|L|EMR|E|20260101||ADT^A40|{self.control_id}|P|2.5"]
        lines += [f"PID|1||{patient}^^^H" for patient in self.patients[:1]]
        lines += [f"MRG|{patient}^^^H" for patient in self.patients[1:]]
        lines.append(f"NTE|1||{self.kind}|{self.words}")
        return "".join(line + "\r" for line in lines).encode()

    @property
    def control_id(self) -> str:
        return f"C{self.number}"

    @property
    def lanes(self) -> frozenset[str]:
        """Towards a destination with `order_by: patient`: a merge stands in both patients' lanes."""
        return frozenset(self.patients or (NOBODY,))

    def parts(self, mapping: int) -> int:
        return SPLITS[self.kind][mapping] if self.kind in SPLITS else 1

    def edited(self, words: str, **changed: Any) -> Text:
        return replace(self, words=words, **changed)


def read(raw: bytes) -> Text:
    """What a message says of itself."""
    lines = [line.split("|") for line in raw.decode().split("\r") if line]
    patients = tuple(line[{"PID": 3, "MRG": 1}[line[0]]].split("^")[0] for line in lines if line[0] in ("PID", "MRG"))
    note = lines[-1]
    return Text(int(lines[0][9][1:]), patients, note[3], note[4])
