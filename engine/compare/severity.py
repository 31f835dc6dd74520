"""How bad a difference is, by where it stands. The table is the whole of it.

`clinical`: a field that can hurt somebody: identity, code, value, unit, range, flag, status, order number, the times
and texts by which a result is read. `business`: who is told, who pays, where it is filed. `cosmetic`: how it is
written. What the table does not name is `business`: unknown is not harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

Severity: TypeAlias = Literal["clinical", "business", "cosmetic"]

SEVERITIES: Final[tuple[Severity, ...]] = ("clinical", "business", "cosmetic")
"""Worst first."""

MESSAGE: Final = "message"
"""The path of a message that one side alone has."""

TWICE: Final = "message-twice"
"""The path of a message that the old engine sent once more than we."""

MORE: Final = "message-more"
"""The path of a further output of an input: the old engine makes it and we do not, or we would send it and it does not
(`missing_in_legacy`)."""

ORDER: Final = "message-order"
"""The path of a message that the old engine sent after a later one of the same patient."""

WHOLE: Final = (MESSAGE, TWICE, MORE, ORDER)

# By segment: fields and components; `*` is the segment as a whole, where one side alone has it.
_CLINICAL: Final = {
    "MSH": "9.1 9.2",
    "EVN": "1",
    "MSA": "* 1 2",  # a "no" that becomes a "yes", or a "yes" to another message
    "ERR": "3.1 4",
    "PID": "* 2 3.1 3.4 4 5.1 5.2 5.3 5.4 7 8 24 25 29 30",
    "MRG": "* 1 4",
    "PV1": "19.1",
    "AL1": "* 2 3 4 5",
    "DG1": "* 3.1 3.3 4 6",
    "ORC": "* 1 2.1 2.2 3.1 3.2 4.1 5 8 12.1",
    "OBR": "* 2.1 2.2 3.1 3.2 4.1 4.3 5 7 8 11 12 13 15 16.1 25 26 27.4 27.6 29 31 44",
    "TQ1": "* 2 3 7 8 9",
    "SPM": "* 2 3 4.1 4.3 8 17 21 24",
    "OBX": "* 2 3.1 3.3 4 5 6.1 6.3 7 8 11 14",
    "NTE": "* 3",
    "TXA": "* 2 4 12 13 17 19",
    "RXO": "* 1 2 3 4 5 18 19",
    "RXE": "* 2 3 4 5 6 25 26",
    "RXD": "* 2 4 5 9",
    "RXA": "* 5 6 7 15 20 21",
    "RXR": "* 1 2",
    "RXC": "* 2 3 4",
    "QPD": "* 3 4 5",
}
_COSMETIC: Final = {
    "MSH": "1 2 7 8 10 13 14 18 20",
    "EVN": "2",
    "MSA": "3 4 5",
    "ERR": "7 8",
    "DSC": "*",
    "NTE": "2 4",
    "OBR": "4.2 4.5",
    "OBX": "3.2 3.5 6.2 6.5",
}

_NUMBERED: Final = ("PID", "NK1", "PV1", "AL1", "DG1", "PR1", "GT1", "IN1", "OBR", "OBX", "NTE", "SPM", "TQ1", "FT1")
SET_IDS: Final = frozenset(f"{name}-1" for name in _NUMBERED)
"""Fields that only number the segments of a message (SI, 2.A.69)."""


def _paths(table: Mapping[str, str]) -> Iterator[str]:
    for segment, places in table.items():
        for place in places.split():
            yield segment if place == "*" else f"{segment}-{place}"


TABLE: Final[Mapping[str, Severity]] = MappingProxyType(
    {
        **dict.fromkeys(SET_IDS, "cosmetic"),
        **dict.fromkeys(_paths(_COSMETIC), "cosmetic"),
        **dict.fromkeys(_paths(_CLINICAL), "clinical"),
        **dict.fromkeys(WHOLE, "clinical"),
    }
)
"""Severity by path: a message, a segment, a field, a component."""


@lru_cache(maxsize=4096)
def severity(path: str) -> Severity:
    """Of a difference at `OBX-5`, `PID-3.1`, `NTE` (the segment as a whole) or `message`.

    A component without an entry has its field's; a field that the table knows by its components, and that was sent
    without any, is as bad as its first.
    """
    field = path.partition(".")[0]
    for place in (path, field, f"{path}.1"):
        if place in TABLE:
            return TABLE[place]
    return "business"


def worst(severities: Iterable[Severity]) -> Severity:
    """The worst of some; `cosmetic` where there are none."""
    return min(severities, key=SEVERITIES.index, default="cosmetic")
