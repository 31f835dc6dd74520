"""Messages that went wrong: what is sent in a lab, of several people, cut, doubled, displaced and garbled.

The n-th mutant is a pure function of the sources, the seed and n. All free text and all numbers of a person's messages
carry that person's mark, so that what got from one person's message into another's output can be seen. Some values
have no mark, the same ones in everybody's messages: what a mapping keeps for the next message is kept by such values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any
from zlib import crc32

from engine.hl7.group import Node
from engine.mapping import examples
from engine.mapping.library import Library
from engine.simulate.messages import Messages

PATIENTS = 5
MARKS = tuple(f"Q{letter * 3}Q" for letter in "VWXYZ")  # no three changed characters make one of another
SHIPPED = Path(__file__).parents[2]
Lines = list[str]
Change = Callable[[Random, Lines], None]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A message, whose it is, and what was done to it. mapping: what its source was for."""

    number: int
    patient: int
    raw: bytes = field(repr=False)
    done: tuple[str, ...]

    @property
    def mark(self) -> str:
        """What the values of its patient have in them."""
        return MARKS[self.patient]


class Mutants:
    """All mutants of some sources: (what it is called, the message)."""

    def __init__(self, sources: Sequence[tuple[str, bytes]], seed: int = 1) -> None:
        self._sources = [(name, lines) for name, raw in sources if (lines := _lines(raw))]
        self._seed = seed

    def __call__(self, number: int) -> Mutant:
        """The n-th, after one to four changes; one in twenty is as it was sent."""
        random = Random(f"{self._seed}/{number}")
        name, source = random.choice(self._sources)
        patient = random.randrange(PATIENTS)
        lines = _marked(source, MARKS[patient])
        done = [name]
        for change in random.choices(CHANGES, k=random.randint(1, 4)) if random.random() < 0.95 else ():
            change(random, lines)
            done.append(change.__name__)
        raw, how = _written(random, lines)
        for spoil in random.choices((*SPOILS, _glued), k=random.random() < 0.2):
            other = b"" if spoil is not _glued else "\r".join(_marked(source, MARKS[patient])).encode()
            raw = spoil(random, raw, other)
            how += f", {spoil.__name__}"
        return Mutant(number, patient, raw, (*done, how))


# -- what is changed


def sources(library: Library, *folders: Path) -> list[tuple[str, bytes]]:
    """What the simulated vendors send, the samples and examples, those of other folders, and crowded messages."""
    sent = [
        (kind, Messages(kind, prefix="SIM").message(number)) for kind in ("oru", "orm", "oml") for number in range(9)
    ]
    paths = [path for folder in (SHIPPED / "samples", *folders) for path in sorted(folder.glob("*.hl7"))]
    read = [(path.stem, path.read_bytes()) for path in paths]
    shown = [(one.name, one.message) for one in examples.load(SHIPPED / "mappings" / "examples")]
    full = [
        (f"crowded {name} {number}", crowded(library, name, number)) for name in library.names for number in range(9)
    ]
    return sent * 2 + read * 4 + shown + full * 2


def crowded(library: Library, name: str, number: int) -> bytes:
    """A message of a mapping with much in it: all kinds of segments, half of their fields, of HL7's data types."""
    random = Random(f"{name}/{number}")
    mapping = library.mapping(name)
    version = random.choice(("2.3", "2.5.1", "2.8.2"))
    lines = _crowd(mapping._compiled.root, import_module(f"hl7apy.v{version.replace('.', '_')}"), random)
    head = f"MSH|^~\\&|LAB|ACME|EMR|CLINIC|20260507080910-0500||{random.choice(mapping.accepts)}|C{number}|P|{version}"
    return "\r".join([head, *lines]).encode()


def _crowd(node: Node, dictionary: ModuleType, random: Random) -> Lines:
    lines: Lines = []
    for slot in node.slots:
        for _ in range(random.choice((0, 1, 1, 2)) if slot.many else random.choice((0, 1, 1))):
            if slot.node is not None:
                lines += _crowd(slot.node, dictionary, random)
            elif slot.name != "MSH":
                lines.append(_segment(slot.name, dictionary, random))
    return lines


def _segment(name: str, dictionary: ModuleType, random: Random) -> str:
    last = max((int(one[4:]) for one in dictionary.FIELDS if one[:4] == f"{name}_"), default=2)
    fields = []
    for number in range(1, last + 1):
        found = dictionary.FIELDS.get(f"{name}_{number}")
        again = random.choice((1, 1, 1, 2))
        fields.append("" if random.random() < 0.5 else "~".join(_value(found, random, "^&") for _ in range(again)))
    if name == "OBX" and len(fields) > 4:
        fields[1] = random.choice(list(OBX_5))
        fields[4] = OBX_5[fields[1]]
    return "|".join([name, *fields])


OBX_5 = {
    "NM": "5.50", "ST": "Positive", "TX": "A text~of two lines", "FT": "A text\\.br\\of lines", "SN": ">^5^-^10",
    "CE": "L123^Growth^L", "CWE": "260385009^Negative^SCT^NEG^Negative^L", "DT": "20260507", "TS": "20260507080910",
    "TM": "0809", "ED": "LAB^AP^PDF^Base64^JVBERi0x", "RP": "https://lab.example/1^LAB^AP^PDF",
    "CX": "7001234^^^ACME^MR", "XCN": "1990001^Marlow^Vera", "NA": "1^2^3", "DR": "20260507^20260508", "CQ": "5^mL",
    "MO": "5^USD", "ID": "Y", "XPN": "Able^Ada", "XAD": "1 Mill Road^^Eastbrook", "XTN": "(555)555-1234",
    "XON": "Acme Labs", "NR": "3^5", "CF": "L1^Growth\\.br\\slow^L", "EI": "E70001^LAB", "HD": "LAB^1.2.3^ISO",
    "": "Untyped", "QQ": "Unheard of",
}  # fmt: skip
WORDS = ("Marlow", "Okonjo", "Harbor Street", "Acme Labs", "slightly hemolyzed", "7001234", "8004321", "90017")
LEAVES: dict[str, tuple[str, ...]] = {
    "DT": ("20260507", "1980", "198002"),
    "DTM": ("20260507080910", "20260507", "202605070809-0600", "20260507080910.1234+0100"),
    "TS": ("20260507080910", "20260507"),
    "TM": ("0809", "080910"),
    "NM": ("1", "5.5", "-3", "250"),
    "SI": ("1", "2"),
    "ID": ("Y", "N", "A", "F", "P", "C", "MR", "L", "ISO", "PRN", "PH", "H", "I", "O", "U", "R", "S"),
    "IS": ("F", "M", "A", "I", "O", "E", "R", "S", "ACME", "1", "2", "U", "CAR"),
    "GTS": ("20260507",),
}


def _value(found: Any, random: Random, marks: str) -> str:
    """A value of a field, component or subcomponent, as hl7apy describes it."""
    if found is None:
        return random.choice(WORDS)
    if found[0] == "leaf":
        return random.choice(LEAVES.get(found[2], WORDS))
    if not marks:
        return _value(found[1][0][1], random, "")
    coded = found[2] in ("CE", "CWE", "CNE")
    if coded:
        return random.choice(("F^Female^HL70001", "L77^Something^L", "R", "24323-8^Panel^LN", "^only a text", "A", "Y"))
    parts = [_value(one[1], random, marks[1:]) if random.random() < 0.7 else "" for one in found[1]]
    return marks[0].join(parts).rstrip(marks[0])


# -- whose it is


def _lines(raw: bytes) -> Lines:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


_SAYS = re.compile(r"(?=.*[A-Za-z]{3})(?!HL7)[A-Za-z][A-Za-z0-9' ,-]{3,}|[A-Z]{0,6}(?!(?:19|20)\d\d[01])\d{5,}")


def marked(raw: bytes, mark: str) -> bytes:
    """A message as a person's own."""
    return "".join(f"{line}\r" for line in _marked(_lines(raw), mark)).encode()


def _marked(lines: Lines, mark: str) -> Lines:
    """The lines of a person: a mark on most of what is text or number, by where it stands."""
    return [line if line[:3] == "MSH" else _marked_line(line, mark) for line in lines]


def _marked_line(line: str, mark: str) -> str:
    fields = line.split("|")
    for number, text in enumerate(fields[1:], 1):
        if (line[:3], number) == ("OBX", 2) or (line[:3] != "PID" and crc32(f"{line[:3]}{number}".encode()) % 10 < 3):
            continue
        parts = re.split(r"([~^&])", text)
        for index in range(0, len(parts), 2):
            if _SAYS.fullmatch(parts[index]) and crc32(f"{line[:3]}{number}.{index}".encode()) % 10 < 7:
                parts[index] += mark
        fields[number] = "".join(parts)
    return "|".join(fields)


# -- changes of segments


def cut(random: Random, lines: Lines) -> None:
    place = _any(random, lines)
    del lines[place : place + random.choice((1, 1, 1, 4))]


def doubled(random: Random, lines: Lines) -> None:
    place = _any(random, lines)
    lines.insert(place, lines[place])


def doubled_stretch(random: Random, lines: Lines) -> None:
    first, last = sorted((_any(random, lines), _any(random, lines)))
    lines[last + 1 : last + 1] = lines[first : last + 1][:20]


def swapped(random: Random, lines: Lines) -> None:
    one, other = _any(random, lines), _any(random, lines)
    lines[one], lines[other] = lines[other], lines[one]


def displaced(random: Random, lines: Lines) -> None:
    line = lines.pop(_any(random, lines))
    lines.insert(random.randint(min(1, len(lines)), len(lines)), line)


def shuffled(random: Random, lines: Lines) -> None:
    rest = lines[1:]
    random.shuffle(rest)
    lines[1:] = rest


def without_fields(random: Random, lines: Lines) -> None:
    place = _any(random, lines)
    lines[place] = lines[place][: random.choice((3, 4))]


def renamed(random: Random, lines: Lines) -> None:
    place = _any(random, lines)
    name = random.choice(
        ("ZPI", "pid", "PI", "PIDX", "OBX", "NTE", "MSH", "BTS", "DSC", "PID", "OBR", "ORC", "  OBX", "")
    )
    lines[place] = name + lines[place][3:]


def strange(random: Random, lines: Lines) -> None:
    names = ("ZPI", "ZXX", "DSC", "ADD", "ERR", "MSA", "QRD", "RXA", "SCH", "NTE", "PRT", "ROL", "CTI", "PV2", "PDA")
    lines.insert(
        random.randint(min(1, len(lines)), len(lines)),
        f"{random.choice(names)}|1|{random.choice(HOSTILE)}|{random.choice(WORDS)}",
    )


def joined(random: Random, lines: Lines) -> None:
    place = _any(random, lines)
    lines[place : place + 2] = ["".join(lines[place : place + 2])]


def broken(random: Random, lines: Lines) -> None:
    place = _any(random, lines)
    line = lines[place]
    at = random.randrange(len(line) + 1)
    lines[place : place + 1] = [line[:at], line[at:]]


# -- changes of fields

HOSTILE = (
    "", '""', "~", "^", "&", "~~~", "^^^^", "&&&", "^^^&&", "|", "||||", " ", "   ", "a", "0", "-1", "+5", "5.", ".5",
    "1e5", "NaN", "1,5", "1/2", "99999999999999999999", "-0", "0.1234567890123456789", "00000000", "20260230",
    "20261301", "2026", "202605", "99999999", "20260507246060", "2026050708-0500", "20260507080910-9999",
    "20260507080910+0530", "19000101", "20260507T080910Z", "05/07/2026", "2026-05-07", "00010101", "20260507080960",
    "20260507080910.123456789+1400", "0000", "\\T\\", "\\S\\a\\R\\b\\E\\", "\\.br\\", "\\X0D\\", "\\X0A0D\\", "\\X\\",
    "\\XZZ\\", "\\X00\\", "\\F\\", "\\", "\\\\", "a\\", "\\H\\loud\\N\\", "\\C2842\\", "\\M2842\\", "\\Zx\\",
    "\\.sp 3\\", "\\X1B\\", "\x00", "\x07", "a\x0bb", "\x1c", "\t", "\x7f", "\x85", "\u2028", "é", "日本語",
    "\U0001f600", "\ufeff", "\ufffd", "<script>", "' OR 1=1", "%00", "{{x}}", "${x}", "http://x.example/a b",
    "urn:oid:1.2", "2.16.840.1.113883.4.1", "1.02.3", "javascript:x", "#patient", "Patient/1", "urn:", "F", "M", "Y",
    "N", "X", "D", "W", "A", "U", "NM", "CE", "Z", "f", "y", "QST", "SCI", "AC^Act^HL70472", "LN", "SCT", "UCUM",
    "1^2^3^4^5^6^7^8^9^10^11^12^13^14^15^16^17^18^19^20^21^22^23^24", "a&b&c^d&e&f~g&h^i", "^^^^^^^^^^^^x", "~x",
    "x~", "x~x", "24323-8^Panel^LN^24323-8^Panel^LN", "M1^^^ACME&1.2.3&ISO^MR", "1^Doe^Jane^^^^^^ACME", "^Doe",
    "^^^ACME", "Doe^Jane~Doe^Jane", "20260101^20250101", "5^min&minute", "60^s", "3^d", "Q6H^^^^6^h",
    "1^BID^D3^20260507^20250101^S", "100&USD^DC", "-5^mL", "^mL", ">^5", "<^-5", "1^:^0", "^:^", "5^-^3", "<5", ">=3",
    "3.5-5.3", "9-3", "<=", "neg", "^AP^PDF^Base64^!", "^AP^PDF^Base64^JVBERi0x", "^TEXT^^A^plain", "^IM^JPEG^Hex^ZZ",
    "x^^AP^PDF",
)  # fmt: skip


def odd(random: Random, lines: Lines) -> None:
    _change(random, lines, lambda field: random.choice(HOSTILE))


def odd_everywhere(random: Random, lines: Lines) -> None:
    place = _any(random, lines, 1)
    fields = lines[place].split("|")
    fields[1:] = [random.choice(HOSTILE) if random.random() < 0.3 else field for field in fields[1:]]
    lines[place] = "|".join(fields)


def odd_inside(random: Random, lines: Lines) -> None:
    def change(field: str) -> str:
        parts = re.split(r"([~^&])", field)
        parts[random.randrange(0, len(parts), 2)] = random.choice(HOSTILE)
        return "".join(parts)

    _change(random, lines, change)


def inserted(random: Random, lines: Lines) -> None:
    def change(field: str) -> str:
        at = random.randrange(len(field) + 1)
        return field[:at] + random.choice(HOSTILE) + field[at:]

    _change(random, lines, change)


def emptied(random: Random, lines: Lines) -> None:
    _change(random, lines, lambda field: "")


def nulled(random: Random, lines: Lines) -> None:
    _change(random, lines, lambda field: '""')


def repeated(random: Random, lines: Lines) -> None:
    _change(random, lines, lambda field: "~".join([field] * random.choice((2, 2, 3, 70))))


def long(random: Random, lines: Lines) -> None:
    _change(
        random,
        lines,
        lambda field: field + random.choice(("x", "9", "é", " x", "^", "x~")) * random.choice((201, 5000)),
    )


def blank_edges(random: Random, lines: Lines) -> None:
    _change(random, lines, lambda field: f" {field.replace('^', ' ^ ')}  ")


def quoted(random: Random, lines: Lines) -> None:
    _change(random, lines, lambda field: f'"{field}"')


def capitals(random: Random, lines: Lines) -> None:
    _change(random, lines, random.choice((str.upper, str.lower)))


def moved(random: Random, lines: Lines) -> None:
    place = _any(random, lines, 1)
    fields = lines[place].split("|")
    if len(fields) > 2:
        field = fields.pop(random.randrange(1, len(fields)))
        fields.insert(random.randrange(1, len(fields) + 1), field)
        lines[place] = "|".join(fields)


def shifted(random: Random, lines: Lines) -> None:
    _change(random, lines, lambda field: f"|{field}")


def elsewhere(random: Random, lines: Lines) -> None:
    fields = lines[_any(random, lines, 1)].split("|")
    _change(random, lines, lambda field: random.choice(fields))


def cut_short(random: Random, lines: Lines) -> None:
    place = _any(random, lines, 1)
    fields = lines[place].split("|")
    lines[place] = "|".join(fields[: random.randint(1, len(fields))]) + random.choice(("", "", "|||||"))


def wrong_type(random: Random, lines: Lines) -> None:
    for place, line in enumerate(lines):
        fields = line.split("|")
        if fields[0] == "OBX" and len(fields) > 2 and random.random() < 0.5:
            fields[2] = random.choice([*OBX_5, "nm", "ZZ", '""'])
            lines[place] = "|".join(fields)


def other_status(random: Random, lines: Lines) -> None:
    for place, line in enumerate(lines):
        fields = line.split("|")
        number = {"OBX": 11, "OBR": 25, "ORC": 1, "TXA": 17, "PV1": 2, "DG1": 6}.get(fields[0])
        if number is not None and len(fields) > number and random.random() < 0.5:
            fields[number] = random.choice("ABCDEFINOPRSUVWXYZ")
            lines[place] = "|".join(fields)


# -- changes of the header


def other_version(random: Random, lines: Lines) -> None:
    _set(
        lines, 12, random.choice(("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.7", "2.8", "2.9", "3", "", "2.5.1^USA", "x"))
    )


def other_kind(random: Random, lines: Lines) -> None:
    kinds = (
        "ORU^R01",
        "ORM^O01",
        "OML^O21",
        "OMG^O19",
        "OUL^R22",
        "ADT^A01",
        "ADT^A08",
        "ADT^A03",
        "ADT^A11",
        "ADT^A40",
    )
    rare = (
        "ADT^A24",
        "ADT^A37",
        "ADT^A45",
        "ADT^A60",
        "ADT^A47",
        "MDM^T02",
        "MDM^T11",
        "OUL^R21",
        "OML^O33",
        "ADT^A17",
    )
    wrong = ("ORU", "ORU^", "^R01", "oru^r01", "ORU^R01^ADT_A01", "SIU^S12", "ACK", "", "ORU_R01", "ORU^R01~ADT^A01")
    _set(lines, 9, random.choice(random.choice((kinds, rare, wrong))))


def other_charset(random: Random, lines: Lines) -> None:
    names = (
        "ASCII",
        "8859/1",
        "8859/15",
        "UNICODE UTF-8",
        "UNICODE",
        "~ISO IR87",
        "GB 18030-2000",
        "BIG-5",
        "none",
        "\\",
        "8859/99",
    )
    _set(lines, 18, random.choice(names))


def other_time(random: Random, lines: Lines) -> None:
    times = (
        "20260507080910+0100",
        "20260507080910-1200",
        "20260507",
        "",
        "now",
        "20260507080910+9999",
        "20260507080910.5Z",
        "2026",
    )
    _set(lines, 7, random.choice(times))


def odd_header(random: Random, lines: Lines) -> None:
    _set(lines, random.randint(1, 21), random.choice(HOSTILE))


def other_delimiters(random: Random, lines: Lines) -> None:
    new = random.choice(
        ("#@!$%", "|^~\\#", "|@~\\&", "*^~\\&", "|~^\\&", "|^~!&", "\t^~\\&", "|:;\\,", "|^~", "|^", "|^~\\&#", "|||||")
    )
    table = str.maketrans(dict(zip("|^~\\&", new, strict=False)))
    if random.random() < 0.7:
        lines[:] = [line.translate(table) for line in lines]
    elif lines and lines[0][:3] == "MSH":  # says one thing and does another
        lines[0] = f"MSH{new}{lines[0][8:]}"


CHANGES: tuple[Change, ...] = (
    cut, doubled, doubled_stretch, swapped, displaced, displaced, shuffled, without_fields, renamed, strange, joined,
    broken, odd, odd, odd, odd, odd_everywhere, odd_everywhere, odd_everywhere, odd_inside, odd_inside, odd_inside,
    inserted, inserted, emptied, emptied, nulled, repeated, repeated, long, blank_edges, quoted, capitals, moved,
    moved, shifted, elsewhere, elsewhere, cut_short, wrong_type, other_status, other_version, other_kind, other_kind,
    other_charset, other_time, odd_header, other_delimiters,
)  # fmt: skip


def _any(random: Random, lines: Lines, first: int = 0) -> int:
    """A line's number; of a message without lines, one that is made for it."""
    if not lines:
        lines.append("MSH|^~\\&|")
    return random.randrange(min(first, len(lines) - 1), len(lines))


def _change(random: Random, lines: Lines, change: Callable[[str], str]) -> None:
    """Another text for some field behind the header; for the header's too where there is nothing else."""
    place = _any(random, lines, 1)
    fields = lines[place].split("|")
    number = random.randrange(min(1, len(fields) - 1), len(fields))
    fields[number] = change(fields[number])
    lines[place] = "|".join(fields)


def _set(lines: Lines, number: int, text: str) -> None:
    """A field of the header."""
    if lines and lines[0][:3] == "MSH":
        fields = [*lines[0].split("|"), *[""] * 21]
        fields[number - 1] = text
        lines[0] = "|".join(fields).rstrip("|")


# -- changes of bytes


def _written(random: Random, lines: Lines) -> tuple[bytes, str]:
    end = random.choice(("\r", "\r", "\r", "\r", "\r", "\r", "\n", "\r\n", "\r\r"))
    text = end.join(lines) + random.choice((end, ""))
    codec = random.choice(["utf-8"] * 12 + ["latin-1", "utf-16", "utf-16-le", "cp1252", "shift_jis", "utf-8-sig"])
    return text.encode(codec, "replace"), f"{end!r} {codec}"


def _truncated(random: Random, raw: bytes, other: bytes) -> bytes:
    return raw[: random.randrange(len(raw) + 1)]


def _without_start(random: Random, raw: bytes, other: bytes) -> bytes:
    return raw[random.randrange(len(raw) + 1) :]


def _random_bytes(random: Random, raw: bytes, other: bytes) -> bytes:
    found = bytearray(raw)
    for _ in range(random.randint(1, 10) if raw else 0):
        found[random.randrange(len(found))] = random.randrange(256)
    return bytes(found)


def _bytes_away(random: Random, raw: bytes, other: bytes) -> bytes:
    at = random.randrange(len(raw) + 1)
    return raw[:at] + raw[at + random.randint(1, 200) :]


def _glued(random: Random, raw: bytes, other: bytes) -> bytes:
    return raw + random.choice((b"", b"\r", b"\r\n", b"\x1c\r\x0b")) + other


def _in_a_batch(random: Random, raw: bytes, other: bytes) -> bytes:
    return b"FHS|^~\\&|A\rBHS|^~\\&|A\r" + raw + b"\rBTS|1\rFTS|1"


SPOILS = (_truncated, _truncated, _without_start, _random_bytes, _random_bytes, _bytes_away, _in_a_batch)


# -- what is left of a failure

TRIES = 400  # to make a message smaller
WIDE = {"utf-16": b"\xff\xfe", "utf-16-le": b"M\x00", "utf-16-be": b"\x00M"}


def shrunk(raw: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """A smaller message that still fails: without segments, then without fields, as far as that goes."""
    codec = next((name for name, sign in WIDE.items() if raw.startswith(sign)), "latin-1")
    tries = iter(range(TRIES))

    def still(lines: Sequence[str]) -> bool:
        return next(tries, None) is not None and fails("\r".join(lines).encode(codec))

    lines = fewest(re.split(r"[\r\n]+", raw.decode(codec, "replace")), still)
    for number, line in enumerate(lines):
        fields = line.split("|")
        for place in range(9 if line[:3] == "MSH" else 1, len(fields)):
            emptied = "|".join([*fields[:place], "", *fields[place + 1 :]]).rstrip("|")
            if fields[place] and still([*lines[:number], emptied, *lines[number + 1 :]]):
                fields[place] = ""
                lines[number] = emptied
    small = "\r".join(lines).encode(codec)
    return small if fails(small) else raw


def fewest(items: list[Any], fails: Callable[[list[Any]], bool]) -> list[Any]:
    """As few as fail, found by leaving out ever shorter stretches."""
    if not fails(items):
        return items
    size = len(items)
    while size := size // 2:
        place = 0
        while place < len(items):
            fewer = items[:place] + items[place + size :]
            if fewer and fails(fewer):
                items = fewer
            else:
                place += size
    return items
