"""By what a message is found: the fields that people look in, however they and the sender write it."""

from __future__ import annotations

import time

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7.escape import escape, unescape
from engine.hl7.search_keys import KINDS, LARGE, keys, normal, wanted
from engine.simulate.messages import Messages

HEADER = b"MSH|^~\\&|LAB|L|EMR|E|20260101||ORU^R01^ORU_R01|C-17|P|2.5.1\r"


def of(kind: str, *segments: bytes, header: bytes = HEADER) -> set[str]:
    """The values of a kind in a message of these segments."""
    return {value for found, value in keys(header + b"\r".join(segments) + b"\r") if found == kind}


@pytest.mark.parametrize(
    ("kind", "segment", "values"),
    [
        ("order", b"ORC|RE|P1^EMR|F1^LAB", {"p1", "f1"}),
        ("order", b"OBR|1|P2^EMR|F2^LAB|GLU", {"p2", "f2"}),
        ("accession", b"OBR|1|P2|F2|GLU", {"f2"}),
        ("accession", b"OBR|1|||GLU||||||||||||||A18^x|x|A20", {"a18", "a20"}),
        ("accession", b"SPM|1|S1&EMR^S2&LAB|", {"s1", "s2"}),
        ("accession", b"SAC|EXT|ACC-9^LAB", {"acc-9"}),
        ("accession", b"IPC|ACC-8^RIS|", {"acc-8"}),
        ("patient", b"PID|1|OLD^^^X|4711^^^ACME&1.2.3&ISO^MR~815|ALT", {
            "old", "old^^^x", "4711", "4711^^^acme", "4711^^^1.2.3", "815", "alt",
        }),
        ("patient", b"PID|1||4711|||||||||||||||ACC1^^^BILL", {"4711", "acc1", "acc1^^^bill"}),
        ("patient", b"MRG|700^^^ACME", {"700", "700^^^acme"}),
        ("patient", b'PID|1||""|""', set()),
        ("order", b"OBR|1|A\\T\\B", {"a&b"}),
        ("order", b"OBR|1| sim 00 17 ", {"sim0017"}),
        ("order", b"OBX|1|NM|GLU||5", set()),
        ("order", b"OBR", set()),
    ],
)  # fmt: skip
def test_each_kind_stands_in_its_fields(kind: str, segment: bytes, values: set[str]) -> None:
    assert of(kind, segment) == values


def test_every_occurrence_counts() -> None:
    assert of("order", b"ORC|RE|P1", b"OBR|1|P1|F1", b"NTE|1", b"ORC|RE|P2", b"OBR|2|P3~P4|F2") == {
        "p1", "f1", "p2", "p3", "p4", "f2",
    }  # fmt: skip


def test_what_is_a_number_in_one_segment_and_with_its_authority_in_another_is_read_for_each() -> None:
    same = b"4711^^^ACME"
    found = keys(HEADER + b"PID|1||" + same + b"\rORC|RE|" + same + b"\rMRG|" + same + b"\rOBR|1|" + same + b"\r")
    assert {pair for pair in found if pair[0] not in ("control_id", "type")} == {
        ("patient", "4711"), ("patient", "4711^^^acme"), ("order", "4711"),
    }  # fmt: skip


def test_a_batch_of_messages_with_other_delimiters_is_read_with_those_of_each() -> None:
    second = b"MSH!*~\\&!!!!!!!ORM*O01!C-18\rORC!NW!P1^X\r"
    found = keys(HEADER + b"ORC|RE|P1^X\r" + second)
    assert {value for kind, value in found if kind == "order"} == {"p1", "p1^x"}


def test_the_header_gives_control_id_and_type() -> None:
    assert of("control_id") == {"c-17"}
    assert of("type") == {"oru", "oru^r01"}
    assert of("type", header=b"MSH|^~\\&|||||||ACK|1\r") == {"ack"}


def test_a_batch_is_found_by_each_of_its_messages_and_by_its_own_control_ids() -> None:
    second = b"MSH!*~\\&!!!!!!!ORM*O01!C-18\rORC!NW!P9*X\r"
    batch = b"FHS|^~\\&|||||||||F-1\rBHS|^~\\&|||||||||B-1\r" + HEADER + b"OBR|1|P1\r" + second + b"BTS|2\rFTS|1\r"
    assert {value for kind, value in keys(batch) if kind == "control_id"} == {"f-1", "b-1", "c-17", "c-18"}
    assert {value for kind, value in keys(batch) if kind == "order"} == {"p1", "p9"}
    assert {value for kind, value in keys(batch) if kind == "type"} == {"oru", "oru^r01", "orm", "orm^o01"}


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_line_ends_of_every_kind_are_understood(end: bytes) -> None:
    message = (HEADER + b"PID|1||4711\rOBR|1|P1\r").replace(b"\r", end)
    assert {("order", "p1"), ("patient", "4711"), ("control_id", "c-17")} <= keys(message)
    assert ("order", "p1") in keys(b"\x0b\xef\xbb\xbf" + message)


@pytest.mark.parametrize("codec", ["utf-8", "latin-1", "utf-16", "utf-16-le", "utf-32"])
def test_the_charset_does_not_hide_a_key(codec: str) -> None:
    text = HEADER.decode() + "PID|1||4711^^^ACME||MÜLLER\rOBR|1|ÄB-7\r"
    found = keys(text.encode(codec))
    assert {("patient", "4711"), ("order", "äb-7")} <= found


@pytest.mark.parametrize(
    ("kind", "typed", "key"),
    [
        ("order", " Sim P00 17 ", "simp0017"),
        ("patient", "4711", "4711"),
        ("patient", "4711^^^Acme", "4711^^^acme"),
        ("patient", "4711^^^ACME&1.2.3&ISO^MR", "4711^^^acme"),
        ("patient", "4711^^^&1.2.3&ISO", "4711^^^1.2.3"),
        ("patient", "4711^", "4711"),
        ("type", "oru", "oru"),
        ("type", "ORU^R01^ORU_R01", "oru^r01"),
        ("type", "ORU_R01", "oru^r01"),
        ("type", "^", ""),
        ("order", "  ", ""),
    ],
)
def test_what_people_type_means_the_key(kind: str, typed: str, key: str) -> None:
    assert wanted(kind, typed) == key  # type: ignore[arg-type]


@given(st.binary() | st.binary().map(lambda tail: HEADER + tail) | st.binary().map(lambda tail: b"MSH|" + tail))
def test_no_bytes_raise(raw: bytes) -> None:
    for kind, value in keys(raw):
        assert kind in KINDS
        assert value
        assert normal(value) == value


def test_a_report_of_many_megabytes_takes_no_time_to_speak_of() -> None:
    report = HEADER + b"OBX|1|ED|PDF||^^^Base64^" + b"QUJD" * 5_000_000 + b"\rOBR|1|LAST\r"
    began = time.perf_counter()
    assert ("order", "last") in keys(report)
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize("codec", ["utf-8", "latin-1", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_large_message_has_the_keys_of_a_small_one(codec: str, end: str) -> None:
    def message(size: int) -> bytes:
        segments = [
            HEADER.decode().rstrip(),
            "PID|1||4711^^^ÄRZTE",
            f"OBX|1|TX|A||{'x' * size}",
            "OBR|1|ÄB-7",
            "SAC|E|S-1",
        ]
        return end.join([*segments, ""]).encode(codec)

    assert keys(message(LARGE)) == keys(message(1)) > {("order", "äb-7"), ("accession", "s-1")}


# -- against another reader of HL7

NUMBER = st.text("abcXYZ019-./ &^~|\\\r", min_size=1, max_size=12)
LEAVES = st.lists(NUMBER.map(lambda value: escape(value)) | st.just(""), min_size=1, max_size=3)


def field(draw: st.DrawFn) -> str:
    """Repetitions of components of subcomponents."""
    return "~".join(
        "^".join("&".join(draw(LEAVES)) for _ in range(draw(st.integers(1, 5)))) for _ in range(draw(st.integers(1, 3)))
    )


@st.composite
def messages(draw: st.DrawFn) -> str:
    lines = [f"MSH|^~\\&|A|B|C|D|2026||ORU^R01|{draw(st.text('ABC12', min_size=1, max_size=6))}|P|2.5"]
    for name in draw(st.lists(st.sampled_from(["PID", "ORC", "OBR", "SPM", "SAC", "OBX", "MRG"]), max_size=6)):
        count = draw(st.integers(0, 21))
        filled = {at: field(draw) for at in draw(st.lists(st.integers(1, 21), max_size=4)) if at <= count}
        lines.append("|".join([name, *(filled.get(at, "") for at in range(1, count + 1))]))
    return "\r".join(lines)


def told(message: hl7.Message, segment: str, number: int, component: int = 1) -> set[str]:
    """The values of a field by python-hl7: every segment, every repetition, the first subcomponent."""
    found = set()
    for line in message:
        if str(line[0]) != segment or number >= len(line):
            continue
        for repetition in line[number]:
            parts = repetition if isinstance(repetition, hl7.Repetition) else [repetition]
            if component <= len(parts):
                part = parts[component - 1]
                leaf = str(part[0]) if isinstance(part, hl7.Component) else str(part)
                found.add(normal(unescape(leaf)))
    return found - {"", '""'}


@given(messages())
def test_another_parser_finds_the_same_numbers(text: str) -> None:
    parsed, found = hl7.parse(text + "\r"), keys((text + "\r").encode())

    def ours(kind: str) -> set[str]:
        return {value for each, value in found if each == kind}

    orders = [("ORC", 2), ("ORC", 3), ("OBR", 2), ("OBR", 3)]
    assert ours("order") == set().union(*(told(parsed, *place) for place in orders))
    accessions = [("OBR", 3), ("OBR", 18), ("OBR", 20), ("SPM", 2), ("SPM", 2, 2), ("SAC", 2)]
    assert ours("accession") == set().union(*(told(parsed, *place) for place in accessions))
    patients = [("PID", 2), ("PID", 3), ("PID", 4), ("PID", 18), ("MRG", 1)]
    alone = set().union(*(told(parsed, *place) for place in patients))
    assert {value for value in ours("patient") if "^^^" not in value} - alone == set()
    assert alone <= ours("patient")


def test_made_up_messages_have_their_numbers() -> None:
    for number in range(1, 50):
        made = Messages("oru", seed=3)
        found = keys(made.message(number))
        assert ("control_id", made.control_id(number).lower()) in found
        assert ("order", f"simp003{number:07}") in found
        assert ("accession", f"simf003{number:07}") in found


def test_a_name_whose_bytes_look_like_separators_shifts_no_field() -> None:
    name = next(c for c in map(chr, range(0x4E00, 0x9FFF)) if b"|" in c.encode("iso2022_jp_ext", "ignore"))
    account = f"PID|1||4711||{name}|||||||||||||A99\r"
    raw = ("MSH|^~\\&|A|B|C|D|1||ORU^R01|7|P|2.5||||||ISO IR87\r" + account).encode("iso2022_jp_ext")
    assert raw.isascii()
    assert ("patient", "a99") in keys(raw)
