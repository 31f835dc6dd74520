"""What a replay would send and by which mapping, from what the ledger says of each message."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ledger.course import ChannelBook, Course, Span
from engine.ledger.keeping import RAW, Kept
from engine.ledger.model import OpenWork, State
from engine.ledger.routing import Epoch, Mode, Route, Routing
from engine.ledger.sqlite.replays import AS_IS, AS_WAS, Before
from engine.remedy.planning import Found, look_up, plan, ranges, sort_out

VERSIONS = ("one", None, "two", "one")  # of the epochs
KEPT = {"two"}
NOTHING = Before({State.SUPERSEDED}, False, None)


def by(epoch: int | None) -> Before:
    return Before({State.DELIVERED}, True, epoch)


def course() -> Course:
    book = ChannelBook(1, "acme", 40)
    book.epochs = [
        Epoch(number, 10 * number - 9, "live", Routing((Route("emr", "mllp", Mode.SEND, "channel", version),)))
        for number, version in enumerate(VERSIONS, 1)
    ]
    made = Course(book, 1, "emr", 1, False)
    made.claim = made.frontier = 38
    made.spans = [Span(31, None, 4, book.epoch.routing.routes[0])]
    made.runner = SimpleNamespace()
    book.courses = [made]
    return made


def planned(before: dict[int, Before], mapping: str, kept: set[str] = KEPT) -> tuple[Found, list[str], list[str]]:
    at, found = course(), Found(mapping, sorted(before))
    look_up(at, found, before, kept)
    said = plan(at.channel, at, found)
    return found, said.lines, said.refused


def test_only_what_is_settled_and_has_its_bytes_can_be_sent_again() -> None:
    at = course()
    at.open = {(36, 1, 1): OpenWork(36, 1, 1, 36, 4, State.DEAD, 0, 1, "", True)}
    stored = {seq: seq for seq in range(1, 41) if seq != 20}
    found = sort_out(at, range(15, 42), stored, Kept({RAW: 16}), AS_IS)
    assert found.numbers == [17, 18, 19, *range(21, 36), 37, 38]
    assert (found.open, found.gone) == (3, 4)  # 36, 39, 40; 15, 16, 20, 41


@given(st.dictionaries(st.integers(1, 38), st.sampled_from([None, 1, 2, 3, 4, "nothing"]), min_size=1))
def test_as_was_each_message_has_a_mapping_is_refused_or_is_left_out(made_by: dict[int, int | str | None]) -> None:
    before = {seq: NOTHING if epoch == "nothing" else by(epoch) for seq, epoch in made_by.items()}
    found, _, refused = planned(before, AS_WAS)
    can = [seq for seq, epoch in made_by.items() if epoch in (2, 3)]
    cannot = sorted(seq for seq, epoch in made_by.items() if epoch in (None, 1, 4))
    assert found.numbers == sorted([*can, *cannot])
    assert found.not_kept == cannot
    assert found.by.total() == len(can)
    assert bool(refused) == bool(cannot or not can)


@given(st.dictionaries(st.integers(1, 38), st.sampled_from([None, 1, 2, 3, 4, "nothing"]), min_size=1))
def test_as_is_nothing_is_left_out_or_refused_for_what_made_it_before(made_by: dict[int, int | str | None]) -> None:
    before = {seq: NOTHING if epoch == "nothing" else by(epoch) for seq, epoch in made_by.items()}
    found, lines, refused = planned(before, AS_IS)
    assert (found.numbers, refused) == (sorted(before), [])
    assert lines[0].endswith("by the mapping as it is now")


def test_the_plan_names_the_mappings_and_how_many_each_has_made() -> None:
    _, lines, refused = planned({1: by(1), 5: by(1), 12: by(2), 21: by(3)}, AS_WAS, {"one", "two"})
    assert refused == []
    assert lines[1:4] == [
        "2 of them by the one that is the present one",
        "1 of them by none, as they came, of epoch 2 from 1970-01-01 00:00:00Z",
        "1 of them by mapping two, of epoch 3 from 1970-01-01 00:00:00Z",
    ]


def test_as_is_the_plan_says_how_many_were_made_by_another() -> None:
    _, lines, _ = planned({1: by(1), 12: by(2), 21: by(3), 22: by(None)}, AS_IS, {"one", "two"})
    assert lines[1:3] == [
        "2 of them were made by another mapping: --mapping as-was sends them as they were",
        "1 of them were made by a mapping that is not kept",
    ]


def test_the_refusal_names_the_numbers_and_what_would_be_right() -> None:
    _, _, (refused,) = planned({1: by(1), 2: by(1), 4: by(None), 21: by(3)}, AS_WAS)
    assert refused.startswith("3 of them were made by a mapping that is not kept (")
    assert refused.endswith("): 1-2, 4. Leave those out, or replay them with --mapping as-is")


def test_a_refusal_of_very_many_numbers_is_still_a_sentence() -> None:
    _, _, (refused,) = planned({seq: by(None) for seq in range(1, 39, 2)}, AS_WAS)
    assert "17, 19 and 9 more stretches. Leave" in refused


def test_what_was_never_made_there_is_left_out_of_as_was_and_said() -> None:
    found, lines, _ = planned({1: NOTHING, 21: by(3)}, AS_WAS)
    assert found.numbers == [21]
    assert lines[-1] == "left out (1 that no mapping has made anything of there: those go with --mapping as-is)"


@pytest.mark.parametrize("state", [State.DISCARDED, State.DUPLICATE, State.REFUSED])
@pytest.mark.parametrize("mapping", [AS_IS, AS_WAS])
def test_what_somebody_has_decided_not_to_send_is_left_out_of_a_range_and_goes_alone(
    state: State, mapping: str
) -> None:
    away = Before({state}, True, 3)
    found, lines, _ = planned({1: away, 21: by(3)}, mapping)
    assert found.numbers == [21]
    assert lines[-1] == f"left out (1 {state.label} there: name one alone to send it all the same)"
    found, _, _ = planned({1: away}, mapping)
    assert found.numbers == [1]


@pytest.mark.parametrize(
    ("numbers", "found"), [([], ()), ([1], ((1, 1),)), ([1, 2, 4, 5, 9], ((1, 2), (4, 5), (9, 9)))]
)
def test_stretches(numbers: list[int], found: tuple[tuple[int, int], ...]) -> None:
    assert ranges(numbers) == found
