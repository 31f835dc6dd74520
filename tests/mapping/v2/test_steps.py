"""Each step changes what it names, and nothing else."""

from __future__ import annotations

import pytest

from engine.mapping.library import Unmappable
from engine.mapping.v2.library import Later
from tests.mapping.v2.mapping import ORU, changed, outputs, run


def lines(made: bytes) -> list[str]:
    return made.decode().rstrip("\r").split("\r")


def one(text: str, raw: bytes = ORU, **context: object) -> str:
    """The only line that the steps changed, as it stands afterwards."""
    ((_, after),) = changed(run(text, raw, **context), raw)
    return after.decode()


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ("- set: MSH-5\n  to: CLINIC-EMR", r"MSH|^~\&|LAB|ACME|CLINIC-EMR|CLINIC|20260507080910||ORU^R01|ID1|P|2.5.1"),
        ("- set: PV1-3.4.2\n  to: x", "PV1|1|O|WARD^1^^NORTH&x"),
        ("- set: PV1-7\n  to: '{PID-2}-{PID-4?}'", "PV1|1|O|WARD^1^^NORTH||||ALT1-"),
        ("- lookup: PV1-2\n  in: s\n  key: PID-2\n  value: v\n  missing: clear", "PV1|1||WARD^1^^NORTH"),
        ("- set: PV1-7\n  to: '{PID-3.1}/{PV1-3.1}'", "PV1|1|O|WARD^1^^NORTH||||MRN1/WARD"),
        ("- set: PID-3[2].1\n  to: x", "PID|1|ALT1|MRN1^^^ACME^MR~x^^^USA^SS||Quillfeather^Alba||19800228|F"),
        ("- set: PID-3[*].6\n  to: x", "PID|1|ALT1|MRN1^^^ACME^MR^x~900^^^USA^SS^x||Quillfeather^Alba||19800228|F"),
        ("- set: PID-3[+].1\n  to: x", "PID|1|ALT1|MRN1^^^ACME^MR~900^^^USA^SS~x||Quillfeather^Alba||19800228|F"),
        ("- set: PID-8\n  to: '\"\"'", 'PID|1|ALT1|MRN1^^^ACME^MR~900^^^USA^SS||Quillfeather^Alba||19800228|""'),
        ("- set: OBX[2]-11\n  to: C", "OBX|2|NM|2160-0^Creatinine^LN||1.1|mg/dL||Q|||C"),
        ("- set: OBX[3]-5.2\n  to: x", "OBX|1|ST|718-7^Hemoglobin^LN||^x|g/dL||L|||F"),
        ("- set: PV1-2\n  to: '{lower(PID-5.1)}-{left(PV1-3.1, 2)}-{pad(PID-1, 3, \"0\")}'", "PV1|1|quillfeather-WA-001|WARD^1^^NORTH"),  # noqa: E501
        ("- set: PV1-2\n  to: '{received}'", "PV1|1|20251231180000-0600|WARD^1^^NORTH"),
        ("- set: PV1-2\n  to: '{PID-4.1 else PID-2} {{}}'", "PV1|1|ALT1 {}|WARD^1^^NORTH"),
        ("- set: PV1-2\n  to: 'a|b^c&d~e\\f'", r"PV1|1|a\F\b\S\c\T\d\R\e\E\f|WARD^1^^NORTH"),
        ("- copy: PID-3\n  to: PV1-8", "PV1|1|O|WARD^1^^NORTH|||||MRN1^^^ACME^MR~900^^^USA^SS"),
        ("- copy: PID-3[2]\n  to: PV1-8", "PV1|1|O|WARD^1^^NORTH|||||900^^^USA^SS"),
        ("- copy: OBX[3]-5\n  to: PV1-2", 'PV1|1|""|WARD^1^^NORTH'),
        ("- move: PID-2\n  to: PID-3[+]", "PID|1||MRN1^^^ACME^MR~900^^^USA^SS~ALT1||Quillfeather^Alba||19800228|F"),
        ("- move: PID-3[1]\n  to: PID-2", "PID|1|MRN1^^^ACME^MR|900^^^USA^SS||Quillfeather^Alba||19800228|F"),
        ("- delete: PID-3", "PID|1|ALT1|||Quillfeather^Alba||19800228|F"),
        ("- delete: PID-3[1]", "PID|1|ALT1|900^^^USA^SS||Quillfeather^Alba||19800228|F"),
        ("- delete: PID-3[*].4", "PID|1|ALT1|MRN1^^^^MR~900^^^^SS||Quillfeather^Alba||19800228|F"),
        ("- translate: OBX[1]-8\n  table: Flags\n  unmapped: refuse", "OBX|1|NM|2345-7^Glucose^LN||99.5|mg/dL|70-99|HIGH|||F"),  # noqa: E501
        ("- translate: OBX[2]-8\n  table: Flags\n  unmapped: clear", "OBX|2|NM|2160-0^Creatinine^LN||1.1|mg/dL|||||X"),
        ("- translate: OBX[2]-8\n  table: Flags\n  default: '?'", "OBX|2|NM|2160-0^Creatinine^LN||1.1|mg/dL||?|||X"),
        ("- translate: OBX[1]-9\n  from: OBX-8\n  column: display\n  table: Flags\n  unmapped: keep", "OBX|1|NM|2345-7^Glucose^LN||99.5|mg/dL|70-99|H|High||F"),  # noqa: E501
        ("- each: PID-3\n  when: PID-3.5 = 'SS'\n  steps:\n    - delete: PID-3", "PID|1|ALT1|MRN1^^^ACME^MR||Quillfeather^Alba||19800228|F"),  # noqa: E501
        ("- each: PID-3\n  steps:\n    - set: PID-3.6\n      to: '{PID-3.4}!'", "PID|1|ALT1|MRN1^^^ACME^MR^ACME!~900^^^USA^SS^USA!||Quillfeather^Alba||19800228|F"),  # noqa: E501
        ("- each: PID-3\n  steps:\n    - delete: PID-3", "PID|1|ALT1|||Quillfeather^Alba||19800228|F"),
        ("- each: OBX\n  when: NTE-3 is valued\n  steps:\n    - set: OBX-5\n      to: '{NTE-3} {OBR-3}'", "OBX|1|NM|2345-7^Glucose^LN||of glucose F1|mg/dL|70-99|H|||F"),  # noqa: E501
        ("- each: OBR\n  when: OBX-2 = 'ST'\n  steps:\n    - set: ORC-1\n      to: XX", "ORC|XX|P2|F2"),
        ("- each: OBR\n  when: ORC-2 = 'P2'\n  steps:\n    - each: OBX\n      steps:\n        - set: OBX-4\n          to: '{OBR-1}'", 'OBX|1|ST|718-7^Hemoglobin^LN|2|""|g/dL||L|||F'),  # noqa: E501
    ],
)  # fmt: skip
def test_a_step_changes_the_line_that_it_names(steps: str, line: str) -> None:
    assert one(steps) == line


@pytest.mark.parametrize(
    "steps",
    [
        "- set: PV1-2\n  to: '{PID-4.1}'",  # not valued
        "- set: PV1-2\n  to: '{OBX[3]-5}'",  # null
        "- set: PV1-2\n  to: '{PID-2}-{PID-4}'",  # only half of it
        "- set: ZZZ-1\n  to: x",  # no such segment
        "- lookup: PV1-20.2\n  in: s\n  key: PID-2\n  value: v\n  missing: clear",
        "- lookup: PV1-20\n  in: s\n  key: PID-2\n  value: v\n  missing: clear",
        "- copy: PID-4\n  to: PV1-2",
        "- move: PID-2\n  to: ZZZ-1",  # it would be lost
        "- delete: ZZZ",
        "- delete: SFT\n  with: group",
        "- delete: PID-30",
        "- delete: PID-3[5]",
        "- delete: PID-30.2",
        "- translate: OBX[2]-8\n  table: Flags\n  unmapped: keep",
        "- translate: OBX[3]-5\n  table: Flags\n  unmapped: refuse",  # null is no code
        "- translate: OBX[1]-30\n  table: Flags\n  unmapped: refuse",
        "- set: PV1-2\n  to: x\n  when: PID-8 = 'M'",
        "- each: OBX\n  when: OBX-2 = 'ED'\n  steps:\n    - delete: OBX\n      with: group",
        "- split: OBR\n  when: PID-8 = 'M'",
        "- lookup: PV1-2\n  in: s\n  key: PID-2\n  value: v\n  missing: keep",
    ],
)
def test_where_there_is_nothing_to_do_not_a_byte_changes(steps: str) -> None:
    assert run(steps) == ORU


def test_segments_are_deleted_alone_or_with_what_belongs_to_them() -> None:
    assert [line[:5] for line in lines(run("- delete: NTE"))] == [
        "MSH|^", "PID|1", "PV1|1", "ORC|R", "OBR|1", "OBX|1", "OBX|2", "ORC|R", "OBR|2", "OBX|1", "ZAC|1"
    ]  # fmt: skip
    assert run("- delete: NTE[2]") == ORU.replace(b"NTE|1||of the order\r", b"")
    software = ORU.replace(b"PID|1", b"SFT|x\rPID|1")
    assert run("- delete: SFT\n  with: group", software) == ORU
    first = ORU[ORU.index(b"ORC|RE|P1") : ORU.index(b"ORC|RE|P2")]
    group = "- each: OBR\n  when: OBR-3 = 'F1'\n  steps:\n    - delete: OBR\n      with: group"
    assert run(group) == ORU.replace(first, b"")
    glucose = "- each: OBX\n  when: OBX-3.1 = '2345-7'\n  steps:\n    - delete: OBX\n      with: group"
    assert run(glucose) == ORU[: ORU.index(b"OBX|1")] + ORU[ORU.index(b"OBX|2") :]
    alone = glucose.replace("with: group", "with: nothing")
    assert run(alone) == ORU[: ORU.index(b"OBX|1")] + ORU[ORU.index(b"NTE|1||of glucose") :]
    notes = "- each: OBX\n  steps:\n    - delete: NTE"
    assert run(notes) == ORU.replace(b"NTE|1||of glucose\r", b"")
    read_again = f"{notes}\n    - set: OBX-5\n      to: x\n      when: NTE-3 is valued"
    assert run(read_again) == run(notes)


def test_an_added_segment_stands_behind_the_one_it_is_added_after() -> None:
    steps = "    - add: NTE\n      after: OBX\n    - set: NTE-3\n      to: '{OBX-1}!'"
    added = f"- each: OBX\n  when: OBX-11 = 'X'\n  steps:\n{steps}"
    assert run(added) == ORU.replace(b"Q|||X\r", b"Q|||X\rNTE|||2!\r")
    gone = "- each: OBX\n  steps:\n    - delete: OBX\n      with: group\n    - add: NTE\n      after: OBX\n"
    assert b"OBX" not in run(gone)
    assert run(gone).count(b"NTE") == 2
    twice = "- each: OBX\n  steps:\n    - add: NTE\n      after: OBX\n    - add: NTE\n      after: NTE\n    - set: NTE[*]-3\n      to: x"  # noqa: E501
    assert run(twice).count(b"||x\r") == 7  # two new ones each, and the one of glucose
    cancelled, first = ("- each: OBX\n  when: OBX-11 = 'X'\n", "- each: OBX\n  when: OBX-3.1 = '2345-7'\n")
    group = "  steps:\n    - delete: OBX\n      with: group\n"
    noted = f"{cancelled}{group}{first}  steps:\n    - add: NTE\n      after: OBX\n{first}{group}"
    assert run(noted) == ORU[: ORU.index(b"OBX|1")] + ORU[ORU.index(b"ORC|RE|P2") :]  # a new one belongs to it as well
    before = f"{first.replace('when:', 'when: NTE-3 is valued and')}  steps:\n    - add: NTE\n      after: OBX\n    - set: NTE-3\n      to: new"  # noqa: E501
    assert run(before) == ORU.replace(b"NTE|1||of glucose", b"NTE|||new\rNTE|1||of glucose")
    last = "- add: ZZA\n  after: ZAC"
    assert run(last) == ORU + b"ZZA\r"
    assert run(last, ORU[:-1]) == ORU + b"ZZA"


def test_a_split_repeats_what_all_share_and_loses_nothing() -> None:
    made = outputs("- split: OBR\n- set: MSH-11\n  to: '{part}/{parts}'")
    shared = [line for line in lines(ORU) if line[:3] in ("PID", "PV1") or "of the patient" in line]
    header = [lines(ORU)[0].replace("|P|", f"|{part}/2|") for part in (1, 2)]
    first, second = lines(ORU).index("ORC|RE|P1|F1"), lines(ORU).index("ORC|RE|P2|F2")
    assert lines(made[0]) == [header[0], *shared, *lines(ORU)[first:second]]
    assert lines(made[1]) == [header[1], *shared, *lines(ORU)[second:]]


def test_a_split_never_mixes_patients() -> None:
    raw = b"MSH|^~\\&|||||||ORU^R01\rPID|1||A\rOBR|1\rOBX|1\rPID|2||B\rPV1|1\rOBR|2\rPID|3||C\r"
    assert outputs("- split: OBR", raw) == [
        b"MSH|^~\\&|||||||ORU^R01\rPID|1||A\rOBR|1\rOBX|1\r",
        b"MSH|^~\\&|||||||ORU^R01\rPID|2||B\rPV1|1\rOBR|2\r",
        b"MSH|^~\\&|||||||ORU^R01\rPID|3||C\r",  # no order, and not left out
    ]


def test_a_split_where_specimens_lead_their_orders_is_refused() -> None:
    with pytest.raises(Unmappable, match="specimens-first"):
        outputs("- split: OBR", b"MSH|^~\\&|||||||OUL^R22\rPID|1\rSPM|1\rOBR|1\rSPM|2\rOBR|2\r")


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ("- translate: OBX[2]-8\n  table: Flags\n  unmapped: refuse", "unknown-code"),
        ("- translate: OBX[*]-8\n  table: Flags\n  unmapped: refuse", "unknown-code"),
        ("- copy: PID-3[1]\n  to: PV1-3.1", "too-many-parts"),
        ("- copy: PID-3\n  to: PV1-3[2]", "too-many-parts"),
        ("- lookup: PV1-2\n  in: s\n  key: PID-2\n  value: v\n  missing: refuse", "not-remembered"),
    ],
)
def test_what_may_not_be_left_as_it_is_refuses_the_message_without_its_values(steps: str, code: str) -> None:
    with pytest.raises(Unmappable) as caught:
        run(steps)
    assert caught.value.code == code
    assert not any(word in str(caught.value) for word in ("Q", "MRN1", "900", "ALT1"))


def test_a_lookup_puts_what_an_earlier_message_brought() -> None:
    stores = {("orders", "P1"): {"priority": "S^STAT"}, ("orders", "P2"): {"ward": "x"}}
    text = "- each: OBR\n  steps:\n    - lookup: OBR-27\n      in: orders\n      key: OBR-2.1\n      value: priority\n      missing: "  # noqa: E501
    made = run(text + "keep", recall=lambda store, key, later: stores.get((store, key)))
    assert made == ORU.replace(b"LN|||||||||||||||||||||F\r", b"LN|||||||||||||||||||||F||S^STAT\r")
    with pytest.raises(Unmappable, match="too-many-parts"):
        run(text.replace("OBR-27", "OBR-27.6") + "keep", recall=lambda store, key, later: stores.get((store, key)))
    with pytest.raises(Later):
        run(text + "later", recall=lambda store, key, later: stores.get((store, key)))
