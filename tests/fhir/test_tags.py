"""Each message marks what it wrote; facts keep their history, anchors only the last mark."""

from __future__ import annotations

from typing import Any

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


def test_only_a_later_message_of_the_same_channel_and_ledger_overtakes() -> None:
    existing = resource("i1/acme/7")
    assert overtaken(existing, "i1/acme/6")
    assert not overtaken(existing, "i1/acme/7")
    assert not overtaken(existing, "i1/acme/8")
    assert not overtaken(existing, "i1/other/6")
    assert not overtaken(existing, "i2/acme/6")
