"""Code tables that a site keeps as CSV: its local codes, and what they are in LOINC, SNOMED CT, UCUM …

    csv: AcmeTests                  # used as  OBX-3 -> code as CWE[CodeableConcept] table AcmeTests
    file: acme-tests.csv            # in the mappings folder, as seen from this file
    system: http://loinc.org        # of the targets, where the column target_system is empty or not there
    delimiter: ";"                  # left out: a comma
    encoding: cp1252                # left out: utf-8

The first line has the columns' names: code and target_code, and as needed system (of the code: as in CWE.3, or its
URI; empty: any), target_system and target_display; further columns are for people. A line without a target_code is a
code that is not mapped yet: it goes on as it came and is listed as unmapped.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from typing import Final

from engine.mapping.problems import Place, Problems

COLUMNS: Final = ("code", "target_code")
MARK: Final = "\x1f"  # between a code and its system, in a key
_CODE: Final = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]+( [^\s\x00-\x1f\x7f-\x9f]+)*")  # FHIR's `code`


@dataclass(frozen=True, slots=True)
class Lines:
    """By key (a code, or with its system): the target's system, code and display, and where that stands. columns: the
    names in the first line."""

    targets: dict[str, tuple[str, str, str]]
    places: dict[str, Place]
    content: list[list[str]]
    columns: tuple[str, ...] = ()


NONE: Final = Lines({}, {}, [])


def read(data: bytes, file: str, encoding: str, delimiter: str, system: str, problems: Problems) -> Lines:
    """The lines of a file; what is wrong with it goes to `problems`."""
    targets: dict[str, tuple[str, str, str]] = {}
    places: dict[str, Place] = {}
    content: list[list[str]] = []
    text = _text(data, file, encoding, problems)
    if text is None:
        return NONE
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    columns: list[str] = []
    try:
        columns = [name.strip() for name in next(reader, [])]
        missing = [name for name in COLUMNS if name not in columns]
        if missing:
            wanted = "code and target_code, as system, target_system and target_display"
            problems.add(Place(file, 1, 1), f"no column {' or '.join(missing)}", wanted)
            return NONE
        for row in reader:
            place = Place(file, reader.line_num, 1)
            cells = [cell.strip() for cell in row]
            said = dict(zip(columns, cells, strict=False))
            if any(cells[len(columns) :]):  # a spreadsheet may well write empty ones
                wanted = f"{len(columns)}, with quotes where {delimiter!r} is in one"
                problems.add(place, f"{len(cells)} cells", wanted)
            target = said.get("target_code")
            if not target:
                continue
            if not said["code"]:
                problems.add(place, "a target_code without a code", "the code that it is for")
                continue
            if not _CODE.fullmatch(target):
                wanted = "a code: no blanks but single ones in it"
                problems.add(place, f"the target_code {target!r}", wanted)
            key = said["code"] + (MARK + said["system"] if said.get("system") else "")
            if key in targets:
                problems.add(place, "a code a second time", f"each code once; it stands in line {places[key].line}")
            found = said.get("target_system") or system, target, said.get("target_display", "")
            if not found[0]:
                problems.add(place, "a code without a target_system", "one here, or system: in the table's file")
                continue
            targets[key], places[key] = found, place
            content.append([key, *found])
    except csv.Error as error:
        problems.add(Place(file, reader.line_num, 1), str(error), f"CSV with {delimiter!r} between cells")
    return Lines(targets, places, content, tuple(columns))


def is_delimiter(text: str) -> bool:
    """Whether a text can stand between cells."""
    return len(text) == 1 and text not in '"\r\n'


def is_encoding(name: str) -> bool:
    """Whether Python knows it as one of texts."""
    try:
        "a".encode(name)
    except (LookupError, UnicodeError):
        return False
    return True


def _text(data: bytes, file: str, encoding: str, problems: Problems) -> str | None:
    try:
        return data.decode("utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.add(Place(file, line, 1), f"bytes that are not {encoding}", "encoding: in the table's file")
    return None
