"""What holds for the groups of any message, however wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.hl7.group import Group, Grouper, Node
from tests.hl7.test_group import ADT, CONTAINERS, EVENTS, OML, ORU, OUL, brief, placed
from tests.hl7.test_order_pairs import MDM, ORM

GRAMMARS = (ORU, OML, OUL, CONTAINERS, ADT, EVENTS, MDM, ORM)
NUMBERS = ("", "P1", "P2", "P1^A", "P1^B", "P3^A^1.2^ISO")
CODES = {
    "displaced-segment",
    "missing-parent",
    "extra-segment",
    "unknown-segment",
    "segment-name",
    "continued-message",
    "paired-by-number",
    "paired-by-order",
    "shared-order",
    "unpaired-order",
}


def slots(group: Group) -> Iterator[tuple[bool, list[int]]]:
    """Each slot that is one for segments: whether it takes many, and what it has."""
    for place, items in zip(group.node.slots, group.items, strict=True):
        if place.node is None:
            yield place.many, list(items)
        else:
            for item in items:
                yield from slots(item)


@st.composite
def lines(draw: st.DrawFn, root: Node, longest: int = 25) -> list[str]:
    """Any sequence of segments, with order numbers that agree or do not."""
    out = ["MSH|^~\\&|A"]
    for name in draw(st.lists(st.sampled_from([*sorted(root.names()), "ORC", "OBR", "ZZZ"]), max_size=longest)):
        numbers = draw(st.tuples(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))) if name in ("ORC", "OBR") else ()
        out.append("|".join([name, "1", *numbers]))
    return out


@pytest.mark.parametrize("root", GRAMMARS, ids=lambda root: root.name)
@given(st.data())
def test_no_segment_vanishes_in_silence(root: Node, data: st.DataObject) -> None:
    message = data.draw(lines(root))
    group, repairs = Grouper(root).group(list(message))
    assert {repair.code for repair in repairs} <= CODES
    count = Counter(placed(group))
    unknown = {repair.segment for repair in repairs if repair.code == "unknown-segment"}
    assert unknown == {n for n, line in enumerate(message) if line[:3] not in root.names()}
    assert count.keys() == set(range(len(message))) - unknown
    shared = {n for n, times in count.items() if times > 1}
    assert all(message[n].startswith("ORC") for n in shared)
    assert sum(count.values()) - len(count) == sum(repair.code == "shared-order" for repair in repairs)


@pytest.mark.parametrize("root", GRAMMARS, ids=lambda root: root.name)
@given(st.data())
def test_segments_keep_their_order_and_their_names(root: Node, data: st.DataObject) -> None:
    message = data.draw(lines(root))
    group, repairs = Grouper(root).group(list(message))
    assert all(held == sorted(set(held)) for _, held in slots(group))
    extra = sum(len(held) - 1 for many, held in slots(group) if held and not many)
    assert extra == sum(repair.code == "extra-segment" for repair in repairs)
    assert [repair.segment for repair in repairs] == sorted(repair.segment for repair in repairs)
    assert_names(group, message)


def assert_names(group: Group, message: list[str]) -> None:
    for place, items in zip(group.node.slots, group.items, strict=True):
        for item in items:
            if isinstance(item, Group):
                assert item.node is place.node
                assert_names(item, message)
            else:
                assert message[item].startswith(place.name)
        assert place.node is None or place.many or len(items) <= 1


@pytest.mark.parametrize("root", GRAMMARS, ids=lambda root: root.name)
@given(st.data())
def test_a_grouper_remembers_nothing_of_the_message_before(root: Node, data: st.DataObject) -> None:
    first, second = data.draw(lines(root, 12)), data.draw(lines(root, 12))
    used = Grouper(root)
    used.group(list(first))
    found, fresh = used.group(list(second)), Grouper(root).group(list(second))
    assert brief(found[0], second) == brief(fresh[0], second)
    assert found[1] == fresh[1]


@pytest.mark.parametrize("root", GRAMMARS, ids=lambda root: root.name)
@given(st.data())
def test_a_segment_that_nobody_knows_changes_nothing(root: Node, data: st.DataObject) -> None:
    names = sorted({"ORC", "OBR", "OBX", "NTE", "TQ1", "SPM"} & root.names() or root.names())
    close = st.lists(st.sampled_from(names), max_size=6).map(lambda drawn: ["MSH|^~\\&|A", *drawn])
    message = data.draw(st.one_of(lines(root), close))
    place = data.draw(st.integers(1, len(message)))
    found, repairs = Grouper(root).group(list(message))
    with_stranger = [*message[:place], "ZQQ|1", *message[place:]]
    more, others = Grouper(root).group(list(with_stranger))
    left = [(one.code, one.segment - (one.segment > place), one.wanted) for one in others if one.segment != place]
    assert left == [(one.code, one.segment, one.wanted) for one in repairs]
    assert at(more, place) == at(found, len(message))


def at(group: Group, stranger: int) -> list[object]:
    """Where each segment stands, by its number when one of them is left out."""
    return [
        [at(item, stranger) if isinstance(item, Group) else item - (item > stranger) for item in items]
        for items in group.items
    ]


def groups(group: Group, name: str) -> Iterator[Group]:
    """All groups of a name, none of which is in another one."""
    for items in group.items:
        for item in items:
            if isinstance(item, Group):
                if item.node.name == name:
                    yield item
                else:
                    yield from groups(item, name)


@pytest.mark.parametrize(
    ("root", "name"),
    [(ORU, "PATIENT_RESULT"), (OML, "PATIENT_ORDER"), (ORM, "PATIENT_ORDER"), (CONTAINERS, "PATIENT_RESULT")],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
@given(st.data())
def test_what_is_the_one_patients_is_not_the_others(root: Node, name: str, data: st.DataObject) -> None:
    """Whatever is repaired, no segment goes from one patient to another."""
    message = data.draw(lines(root))
    group, _ = Grouper(root).group(list(message))
    patient = [sum(line.startswith("PID") for line in message[: n + 1]) for n in range(len(message))]
    for one in groups(group, name):
        owners = {patient[n] for n in placed(one)}
        assert len(owners) <= 1 or (0 in owners and len(owners) == 2)  # the first PID may come late


@pytest.mark.parametrize(
    ("root", "name"),
    [(ORU, "ORDER_OBSERVATION"), (OML, "ORDER"), (OUL, "ORDER"), (CONTAINERS, "ORDER")],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
@given(st.data())
def test_a_result_is_its_own_orders(root: Node, name: str, data: st.DataObject) -> None:
    """Whatever is repaired, a result goes to no other order than the last one before it: unless something comes in
    between that begins another."""
    message = [line for line in data.draw(lines(root)) if line[:3] not in ("ORC", "SPM", "SAC")]
    group, _ = Grouper(root).group(list(message))
    order: list[int] = []
    for line in message:
        last = order[-1] if order else 0
        order.append(0 if line[:3] == "PID" else last + (line[:3] == "OBR"))
    for one in groups(group, name):
        owners = {order[n] for n in placed(one) if message[n][:3] in ("OBR", "OBX")}
        assert len(owners) <= 1 or (0 in owners and len(owners) == 2)  # a patient's first OBR may come late


@st.composite
def right(draw: st.DrawFn, node: Node, orcs: bool) -> list[str]:
    """The segments of a message as its grammar has them, all its orders with or all without ORC."""
    out: list[str] = []
    filled: set[str] = set()
    for number, place in enumerate(node.slots):
        if place.after and place.after not in filled and place.after != "OBSERVATION":
            continue
        fewest = 0 if place.optional else 1
        if place.name == "ORC":
            fewest, most = (1, 1) if orcs else (0, 0)
        else:
            most = 3 if place.many else 1
        if place.name in ("PATIENT", "OBSERVATION") or (number == 0 and place.name != "ORC"):
            fewest = 1
        for _ in range(draw(st.integers(fewest, most))):
            out += draw(right(place.node, orcs)) if place.node else [place.name]
            filled.add(place.name)
    return out


@pytest.mark.parametrize("root", [ORU, OML, OUL, CONTAINERS, ADT, EVENTS, MDM], ids=lambda root: root.name)
@given(st.data())
def test_a_right_message_needs_no_repair(root: Node, data: st.DataObject) -> None:
    names = data.draw(right(root, root in (OML, MDM) or data.draw(st.booleans())))  # those two must have the ORC
    group, repairs = Grouper(root).group(["MSH|^~\\&", *names[1:]])
    assert repairs == []
    assert placed(group) == list(range(len(names)))


# -- orders in disorder


@st.composite
def orders(draw: st.DrawFn) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """Orders with numbers of their own, each an ORC and an OBR with its results, and the ORCs in another order."""
    count = draw(st.integers(1, 6))
    found = []
    for n in range(count):
        placer, filler = draw(st.sampled_from([("P{}", ""), ("", "F{}"), ("P{}^A", "F{}"), ("P{}", "F{}^L")]))
        numbers = f"{placer.format(n)}|{filler.format(n)}"
        results = [f"OBX|{k}|{n}" for k in range(draw(st.integers(0, 3)))]
        found.append((f"ORC|RE|{numbers}", [f"OBR|1|{numbers}", *results]))
    return found, draw(st.permutations([orc for orc, _ in found]))


@st.composite
def disordered(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """A message in order, and with its ORCs in a block before or behind, each behind its OBR, or anywhere: so that the
    order alone does not pair them, which it else does whatever the numbers are."""
    found, shuffled = draw(orders())
    head = ["MSH|^~\\&|A", "PID|1", "PV1|1"]
    whole = [line for orc, rest in found for line in (orc, *rest)]
    details = [line for _, rest in found for line in rest]
    how = draw(st.sampled_from(["before", "behind", "after", "anywhere"]))
    if how == "before":
        return head + whole, [*head, *shuffled, *details]
    if how == "behind":
        return head + whole, [*head, *details, *shuffled]
    if how == "after":
        return head + whole, [*head, *(line for orc, rest in found for line in (rest[0], orc, *rest[1:]))]
    mixed: list[str] = []
    left = list(shuffled)
    for _, rest in found:
        for _ in range(draw(st.integers(0, len(left)))):
            mixed.append(left.pop())
        mixed += rest
    mixed += left
    kinds = "".join(line[2] for line in mixed if line[0] == "O" and line[:3] != "OBX")
    assume(kinds != "CR" * len(found) or mixed == whole)
    return head + whole, head + mixed


def pairs(root: Node, message: list[str]) -> list[str]:
    group, _ = Grouper(root).group(list(message))
    name = {"ORU_R01": "ORDER_OBSERVATION", "OML_O21": "ORDER", "MDM_T02": "COMMON_ORDER"}[root.name]
    return sorted(brief(order, message) for order in groups(group, name))


@pytest.mark.parametrize("root", [ORU, OML, MDM], ids=lambda root: root.name)
@given(disordered())
def test_numbers_give_the_pairs_of_the_right_order(root: Node, messages: tuple[list[str], list[str]]) -> None:
    right_order, wrong_order = messages
    assert pairs(root, wrong_order) == pairs(root, right_order)
