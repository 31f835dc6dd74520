"""Each message marks what it wrote; facts keep their history, anchors only the last mark."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.fhir.tags import MARKS_KEPT, marks, merged, overtaken, place, stamped

OTHER = {"system": "urn:other", "code": "x"}


def resource(*codes: str) -> dict[str, Any]:
    tags: list[dict[str, str]] = [OTHER, *({"system": "urn:interlock:message", "code": code} for code in codes)]
    return {"resourceType": "Observation", "meta": {"versionId": "v", "lastUpdated": "t", "tag": tags}}


def test_a_stamp_leaves_the_resource_alone_and_keeps_foreign_tags() -> None:
    before = resource("i/c/1")
    after = stamped(before, "i/c/2")
    assert marks(after) == ["i/c/2"]
    assert OTHER in after["meta"]["tag"]
    assert marks(before) == ["i/c/1"]


def test_a_fact_keeps_its_history_within_a_bound_and_an_anchor_the_last_only() -> None:
    existing = resource(*(f"i/c/{n}" for n in range(20)))
    fact = merged(existing, {}, "i/c/99", history=True)
    assert [tag["code"] for tag in fact["tag"][1:]] == [f"i/c/{n}" for n in range(13, 20)] + ["i/c/99"]
    assert len(fact["tag"]) == 1 + MARKS_KEPT
    assert [tag["code"] for tag in merged(existing, {}, "i/c/99", history=False)["tag"]] == ["x", "i/c/99"]
    assert "versionId" not in fact


def test_a_mark_has_its_place_in_a_channel() -> None:
    assert place("i1/acme/17") == ("i1", "acme", 17)
    assert place("i1/acme/17/2.3") == ("i1", "acme", 17)
    assert place("i1/acme") is None


def test_what_a_restored_ledger_numbered_is_later_than_all_that_the_lost_one_did() -> None:
    lives = ("i1", "i2", "i3")
    assert overtaken(resource("i2/acme/6"), "i1/acme/9", lives)
    assert overtaken(resource("i3/acme/1"), "i1/acme/9", lives)
    assert not overtaken(resource("i1/acme/9"), "i2/acme/6", lives)
    assert not overtaken(resource("i2/other/6"), "i1/acme/1", lives)
    assert not overtaken(resource("elsewhere/acme/6"), "i1/acme/1", lives), "of another ledger nothing is known"
    assert overtaken(resource("elsewhere/acme/6"), "elsewhere/acme/1", lives)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(1, 4)), min_size=2, max_size=2))
def test_of_two_messages_of_a_channel_exactly_one_is_later(two: list[tuple[str, str, int]]) -> None:
    one, other = (f"{life}/{channel}/{seq}" for life, channel, seq in two)
    told = [overtaken(resource(one), other, "abc"), overtaken(resource(other), one, "abc")]
    assert sum(told) == (two[0][1] == two[1][1] and two[0] != two[1])


def test_only_a_later_message_of_the_same_channel_and_ledger_overtakes() -> None:
    existing = resource("i1/acme/7")
    assert overtaken(existing, "i1/acme/6")
    assert not overtaken(existing, "i1/acme/7")
    assert not overtaken(existing, "i1/acme/8")
    assert not overtaken(existing, "i1/other/6")
    assert not overtaken(existing, "i2/acme/6")
