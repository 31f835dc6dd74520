"""What no step names stays as it came, byte by byte; what was set is read back."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.hl7.message import Message
from engine.mapping.library import Unmappable
from engine.mapping.problems import Place, Problems
from engine.mapping.v2 import path
from engine.mapping.v2.draft import Draft, canonical, leaf, localised, written
from engine.mapping.v2.expression import template
from engine.mapping.v2.library import Filtered
from tests.mapping.v2.mapping import CONTEXT, ORU, mapping, run, steps

TOUCHED = steps("- set: PID-5.2\n  to: x")
READ = replace(CONTEXT, undeclared="utf-8")  # also where a stray LF keeps MSH-18 from being read
NAMES = st.sampled_from(["PID", "NTE", "OBX", "OBR", "ORC", "ZZZ", "DSC", "P", "", "  "])
TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r\n\x00"), max_size=12)
ENDS = st.sampled_from(["\r", "\r", "\r\r", "\n", "\r\n", "\r\n\r"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    marks = draw(st.permutations("|^~\\&#@!$%*;:"))
    field = marks[0]
    head = f"MSH{field}{''.join(marks[1 : draw(st.integers(5, 6))])}{field}{'LAB' + field * 9}"
    body = draw(
        st.lists(st.builds(lambda name, values: field.join([name, *values]), NAMES, st.lists(TEXT, max_size=8)))
    )
    lines = [head + field * 6 + "UNICODE UTF-8", *body]
    end = draw(ENDS)
    front = draw(st.sampled_from(["", "\r\n", "\x0b", " "]))
    tail = draw(st.sampled_from(["", end, "\r", "\r\x1c", "\x00\x00"]))
    return (front + end.join(lines) + tail).encode()


@given(messages())
@settings(max_examples=300)
def test_a_mapping_that_finds_nothing_to_do_gives_the_same_bytes(raw: bytes) -> None:
    assert steps("- set: QQQ-1\n  to: x").run(raw, CONTEXT) == [raw]


@given(messages(), st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=20))
@settings(max_examples=300)
def test_a_step_changes_only_what_it_names_and_what_was_set_is_read_back(raw: bytes, text: str) -> None:
    quoted = text.replace("{", "{{").replace("}", "}}")
    draft = Draft(raw, READ)
    before = [line.written(draft.mark) for line in draft.lines]
    place = Place("", 1, 1)
    value = template(quoted, place, path.NOWHERE, Problems())
    to = path.parse("MSH-9[2].3.2", place, Problems())
    assert value is not None
    assert to is not None
    path.writer(to, path.NOWHERE)(draft, None, written(value(draft, None), draft, "MSH-9"))
    made = Draft(draft.encoded(), READ)
    assert leaf(path.reader(to, path.NOWHERE)(made, None), made) == text
    after = [line.written(made.mark) for line in made.lines]
    assert after[1:] == before[1:]
    assert made.lines[0].cut(made.mark)[:9] == draft.lines[0].cut(draft.mark)[:9]
    front = raw[: raw.index(b"MSH")]
    assert draft.encoded().startswith(front)


@given(messages(), st.integers(0, 5), st.integers(1, 9), st.integers(1, 3), st.integers(0, 3), st.integers(0, 2))
@settings(max_examples=400)
def test_a_place_anywhere_is_set_and_all_others_keep_their_values(
    raw: bytes, nth: int, field: int, repetition: int, component: int, sub: int
) -> None:
    assume(not raw.rstrip(b"\r\n\x1c\x00").endswith(b" "))  # at the very end it belongs to no field yet
    draft = Draft(raw, READ)
    lines = [line for line in draft.lines if len(line.name) == 3 and line.name.isalnum()]
    line = lines[nth % len(lines)]
    number = draft.all(line.name).index(line) + 1
    field += 2 if line.name == "MSH" else 0
    tail = f".{component}" + (f".{sub}" if sub else "") if component else ""
    to = path.parse(f"{line.name}[{number}]-{field}[{repetition}]{tail}", Place("", 1, 1), Problems())
    assert to is not None
    filled = [one for one in draft.lines if one.text]
    assume(len(filled) == len(_split(draft)))  # not where LF and CR are mixed, and one of them stands in a field
    before = _values(draft)
    path.writer(to, path.NOWHERE)(draft, None, written("a|b^c#", draft, ""))
    made = Draft(draft.encoded(), READ)
    assert leaf(path.reader(to, path.NOWHERE)(made, None), made) == "a|b^c#"
    at = filled.index(line)
    named = (at, field, repetition, *((component, *((sub,) if sub else ())) if component else ()))
    assert _others(_values(made), named) == _others(before, named)


def _values(draft: Draft) -> dict[tuple[int, ...], str]:
    """Every value of a message that is not empty, by its line, field, repetition, component and subcomponent."""
    marks, out = draft.marks, {}
    for at, line in enumerate(_split(draft)):
        for field, value in enumerate(line.split(marks.field), 2 if line.startswith("MSH") else 1):
            for repetition, whole in enumerate(value.split(marks.repetition), 1):
                for component, some in enumerate(whole.split(marks.component), 1):
                    for sub, part in enumerate(some.split(marks.subcomponent), 1):
                        if part and part != '""':
                            out[at, field - 1, repetition, component, sub] = part
    return out


def _split(draft: Draft) -> list[str]:
    return [line for line in re.split("[\r\n]+", draft.encoded().decode().strip("\r\n\x0b\x1c\0 ")) if line]


def _others(values: dict[tuple[int, ...], str], named: tuple[int, ...]) -> list[tuple[tuple[int, ...], str]]:
    return [(place, value) for place, value in values.items() if place[: len(named)] != named]


@given(messages())
@settings(max_examples=200)
def test_what_goes_from_one_set_of_delimiters_to_another_and_back_is_the_same(raw: bytes) -> None:
    draft = Draft(raw, CONTEXT)
    for value in ("a", "a^b&c~d^^e", "a\\S\\b", "x\\T\\\\F\\"):
        assert canonical(localised(value, draft), draft) == value


@pytest.mark.parametrize("codec", ["utf-8", "iso-8859-1", "cp1252", "shift_jis", "euc_jp", "gb18030", "big5", "cp949"])
def test_text_is_set_in_the_charset_of_the_message(codec: str) -> None:
    text = {"shift_jis": "表能", "euc_jp": "漢字", "gb18030": "中文", "big5": "許功", "cp949": "한글"}.get(
        codec, "Müller"
    )
    raw = ORU.replace(b"Quillfeather", text.encode(codec))
    made = run(f"- set: PV1-2\n  to: {text}", raw, encoding=codec)
    assert made == raw.replace(b"PV1|1|O|", b"PV1|1|" + text.encode(codec) + b"|")


def test_what_msh_18_names_is_what_is_written() -> None:
    raw = ORU.replace(b"|2.5.1", b"|2.5.1||||||8859/1")
    assert run("- set: PV1-2\n  to: Müller", raw) == raw.replace(b"|O|", "|Müller|".encode("latin-1"))
    wide = raw.replace(b"8859/1", b"UNICODE UTF-16").decode().encode("utf-16")
    assert run("- set: PV1-2\n  to: Müller", wide).decode("utf-16") == wide.decode("utf-16").replace("|O|", "|Müller|")
    for encoding in ("auto", "utf-16"):
        back = b"\xfe\xff" + raw.decode().encode("utf-16-be")
        made = b"\xfe\xff" + raw.decode().replace("|O|", "|ü|").encode("utf-16-be")
        assert run("- set: PV1-2\n  to: ü", back, encoding=encoding) == made
    mark = b"\xef\xbb\xbf" + ORU
    assert run("- set: PV1-2\n  to: ü", mark) == mark.replace(b"|O|", "|ü|".encode())


def test_a_japanese_message_keeps_the_switches_of_its_sender() -> None:
    name = b"\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J"  # back to JIS X 0201, which no codec writes by itself
    raw = ORU.replace(b"|2.5.1", b"|2.5.1||||||~ISO IR87").replace(b"Quillfeather^Alba", name)
    assert run("- set: PV1-2\n  to: x", raw) == raw.replace(b"|O|", b"|x|")


@pytest.mark.parametrize(("text", "charset"), [("Müller", b""), ("Ω", b"8859/1"), ("Ω", b"ASCII")])
def test_what_the_charset_has_no_character_for_is_refused_and_never_a_question_mark(text: str, charset: bytes) -> None:
    raw = ORU.replace(b"|2.5.1", b"|2.5.1||||||" + charset)
    with pytest.raises(Unmappable, match="charset"):
        run(f"- set: PV1-2\n  to: {text}", raw)


def test_msh_18_may_not_be_set_to_what_the_bytes_are_not() -> None:
    raw = ORU.replace(b"Quillfeather", "Müller".encode())
    declared = "- set: MSH-18\n  to: "
    assert Message(run(declared + "UNICODE UTF-8", raw).decode()).get("MSH-18") == "UNICODE UTF-8"
    with pytest.raises(Unmappable, match="charset at MSH-18"):
        run(declared + "8859/1", raw)  # it could be read so, and would be another name
    with pytest.raises(Unmappable, match="charset at MSH-18"):
        run(declared + "ASCII", raw.replace("ü".encode(), b"\xfc"), encoding="latin-1")


def test_a_value_with_delimiters_is_refused_where_the_sender_has_no_escape() -> None:
    raw = ORU.replace(b"|^~\\&|", b"|^~|")
    assert run("- set: PV1-2\n  to: x y", raw) == raw.replace(b"|O|", b"|x y|")
    with pytest.raises(Unmappable, match="no-escape at PV1-2"):
        run("- set: PV1-2\n  to: a^b", raw)


def test_the_senders_delimiters_stay_and_are_those_of_what_is_set() -> None:
    raw = b"MSH#*@!%#LAB#########2.5\rPID#1##A*B%C@D##x|y\r"
    made = run("- set: PID-5.2\n  to: 'a#b|c'\n- copy: PID-3[1].2\n  to: PID-4", raw)
    assert made == b"MSH#*@!%#LAB#########2.5\rPID#1##A*B%C@D#B%C#x|y*a!F!b|c\r"


def test_a_batch_becomes_its_messages_each_mapped_by_itself() -> None:
    other = ORU.replace(b"ID1", b"ID2")
    batch = b"FHS|^~\\&\rBHS|^~\\&\r" + ORU + other + b"BTS|2\rFTS|1\r"
    made = TOUCHED.run(batch, CONTEXT)
    assert made == [raw.replace(b"^Alba", b"^x") for raw in (ORU, other)]
    kept = mapping("filter: [{drop: MSH-10 = 'ID1', reason: no}]")
    assert kept.run(batch, CONTEXT) == [other]
    assert mapping("filter: [{drop: MSH-10 is valued, reason: no}]").run(batch, CONTEXT) == Filtered("no")
    with pytest.raises(Unmappable, match="broken-batch"):
        TOUCHED.run(batch.replace(b"BTS|2", b"BTS|3"), CONTEXT)


def test_what_is_no_message_or_no_text_is_refused() -> None:
    with pytest.raises(Unmappable, match="no-header"):
        TOUCHED.run(b"PID|1\r", CONTEXT)
    for header in (b"MSH\rPID|1\r", b"MSH|^^\\&|A\r", b"MSHx^~\\&xA\r"):
        with pytest.raises(Unmappable, match="no-header"):
            TOUCHED.run(header, CONTEXT)
    with pytest.raises(Unmappable, match="charset at byte"):
        TOUCHED.run(ORU + b"\xff", CONTEXT)


def test_the_same_message_gives_the_same_bytes() -> None:
    text = "- set: MSH-7\n  to: '{received} {channel} {connection} {sequence}'\n- split: OBR"
    first = steps(text)
    second = steps(text)
    assert first.version == second.version != TOUCHED.version
    assert first.run(ORU, CONTEXT) == second.run(ORU, CONTEXT)
    assert first.run(ORU, CONTEXT) != first.run(ORU, replace(CONTEXT, seq=2))
