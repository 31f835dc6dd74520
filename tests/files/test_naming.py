"""How the files that we write are called: a message has one name, and no two have the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.files.folder import LONGEST_NAME, plain
from engine.files.naming import Naming

CONTROL_IDS = st.one_of(st.none(), st.text(max_size=300))


def test_the_name_follows_from_the_message() -> None:
    naming = Naming("{channel}-{sequence}.hl7", "acme-results")
    assert naming.of(812, 1, 1, "X") == naming.of(812, 1, 1, "Y") == "acme-results-0000000812.hl7"


def test_names_in_their_order_are_messages_in_their_order() -> None:
    naming = Naming("{sequence}.hl7", "a")
    names = [naming.of(seq, 1, 1, None) for seq in (1, 9, 10, 99, 100, 12345)]
    assert names == sorted(names)


def test_a_part_and_a_delivery_that_a_person_asked_for_have_names_of_their_own() -> None:
    naming = Naming("{sequence}.hl7", "a")
    assert len({naming.of(7, 1, 1, None), naming.of(7, 2, 1, None), naming.of(7, 1, 2, None)}) == 3


@pytest.mark.parametrize(
    ("id", "kept"), [("MSG00001", "MSG00001"), ("../../etc/x", "______etc_x"), ("a b^c", "a_b_c"), (None, "none")]
)
def test_of_a_control_id_only_what_is_safe_is_kept(id: str | None, kept: str) -> None:
    assert Naming("{sequence}_{control_id}.hl7", "a").of(1, 1, 1, id) == f"0000000001_{kept}.hl7"


@given(CONTROL_IDS, CONTROL_IDS, st.integers(1, 10**9), st.integers(1, 10**9))
def test_two_messages_of_a_channel_never_get_one_name(a: str | None, b: str | None, first: int, second: int) -> None:
    naming = Naming("{control_id}{sequence}", "acme")
    assert (naming.of(first, 1, 1, a) == naming.of(second, 1, 1, b)) <= (first == second)
    assert plain(naming.of(first, 1, 1, a))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{channel}.hl7", "expected {sequence} in it"),
        ("result.hl7", "expected {sequence} in it"),
        ("{sequence}-{patient}.hl7", "expected one of {channel}, {sequence}, {control_id}"),
        ("{sequence:04}.hl7", "expected one of"),
        ("{sequence!r}.hl7", "expected one of"),
        ("{sequence.real}.hl7", "expected one of"),
        ("{sequence", "braces do not match"),
        ("out/{sequence}.hl7", "expected no slash"),
        (".{sequence}.hl7", "no dot at its beginning"),
        ("{sequence}\n", "expected no slash"),
        ("{sequence}" + "x" * LONGEST_NAME, "at most 200 bytes"),
    ],
)
def test_a_name_that_will_not_do_is_refused_with_a_sentence(template: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"found") as refused:
        Naming(template, "acme")
    assert said in str(refused.value)


def test_after_a_restore_the_same_number_is_another_file_and_comes_after_the_others() -> None:
    naming = Naming("{channel}-{sequence}.hl7", "a")
    names = [naming.of(seq, 1, 1, None, restores) for restores in (0, 1, 2) for seq in (7, 8, 123456)]
    assert names[0] == "a-0000000007.hl7"
    assert names[3] == "a-1r0000000007.hl7"
    assert len(set(names)) == 9
    assert sorted(names) == names
