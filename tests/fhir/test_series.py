"""Which of several results under one key each of a message's is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.fhir.condition import MESSAGE_TAG
from engine.fhir.output import Entry, Resource, series_key
from engine.fhir.series import as_stored, asked_by, places

BASE = ("urn:r", "R")


def stored(ordinal: int, time: str) -> Resource:
    value = BASE[1] if ordinal == 1 else f"{BASE[1]}#{ordinal}"
    return {"id": str(ordinal), "identifier": [{"system": BASE[0], "value": value}]} | ({"time": time} if time else {})


def told(*times: str) -> list[Entry]:
    found = []
    for ordinal, time in enumerate(times, 1):
        resource = stored(ordinal, time)
        key = (resource["identifier"][0]["system"], resource["identifier"][0]["value"])
        found.append(Entry("result", resource, {}, "fact", (key,), "overwrite", series="time"))
        found[-1].formerly = (BASE,) if ordinal > 1 else ()
    return found


def where(entries: list[Entry], known: list[Resource], code: str = "") -> list[str]:
    """The ids of what each is, its new key in brackets where it is new."""
    found = places(entries, known, code=code)
    ids = [found.found[id(one)]["id"] if id(one) in found.found else "" for one in entries]
    return [number or f"[{found.keys[id(one)][1]}]" for number, one in zip(ids, entries, strict=True)]


def test_the_time_says_which_it_is_and_else_the_place() -> None:
    known = [stored(1, "7"), stored(2, "8"), stored(3, "9")]
    assert where(told("9", "8", "7"), known) == ["3", "2", "1"]
    assert where(told("8"), known) == ["2"]
    assert where(told("5"), known) == ["[R#4]"]  # one more
    assert where(told(""), known) == ["1"]
    assert where(told("7", "5", "9"), known) == ["1", "2", "3"]  # a time that was corrected
    assert where(told("", "", ""), known) == ["1", "2", "3"]
    assert where(told("8", "9", "10"), known) == ["2", "3", "[R#4]"]
    assert where(told("6", "7"), [stored(1, "7")]) == ["[R#2]", "1"]
    assert where(told("7"), [stored(1, "6")]) == ["1"]


def test_where_others_have_moved_a_place_tells_nothing_of_a_time() -> None:
    known = [stored(1, "7"), stored(2, "8")]
    assert where(told("6", "7"), known) == ["[R#3]", "1"]
    assert where(told("6", "7", "8"), known) == ["[R#3]", "1", "2"]
    assert where(told("9", "8", "7"), [stored(1, "6"), stored(2, "7"), stored(3, "8")]) == ["[R#4]", "3", "2"]
    assert where(told("8", ""), known) == ["2", "[R#3]"]
    assert where(told("", "8"), [stored(1, "6"), stored(2, "7"), stored(3, "8")]) == ["1", "3"]
    assert where(told("7", ""), [stored(1, ""), stored(2, "7")]) == ["2", "1"]


def test_a_final_result_with_a_time_and_a_value_of_its_own_goes_over_no_other_one() -> None:
    """But for the only one; and what was preliminary, or is corrected, may have had another time."""

    def known(status: str) -> list[Resource]:
        return [stored(n, time) | {"status": status, "valueString": time} for n, time in enumerate("78", 1)]

    def said(status: str, *times: str) -> list[Entry]:
        entries = told(*times)
        for entry in entries:
            entry.resource |= {"status": status, "valueString": entry.resource["time"]}
        return entries

    assert where(said("final", "9", "10"), known("final")) == ["[R#3]", "[R#4]"]
    assert where(said("final", "7", "9"), known("final")) == ["1", "[R#3]"]
    assert where(said("final", "9"), known("final")[:1]) == ["1"]
    assert where(said("final", "7", "9"), known("preliminary")) == ["1", "2"]
    assert where(said("corrected", "7", "9"), known("final")) == ["1", "2"]


def test_what_a_message_has_written_is_its_own_though_its_time_was_corrected_since() -> None:
    written = stored(1, "8") | {"meta": {"tag": [{"system": MESSAGE_TAG, "code": "i/a/1"}]}}
    known = [stored(3, "10"), written, stored(2, "9")]
    assert where(told("7"), known) == ["[R#4]"]
    assert where(told("7"), known, "i/a/1") == ["1"]
    assert where(told("9", "7"), known, "i/a/1") == ["2", "1"]
    assert where(told("9"), known, "i/a/1") == ["2"]


def test_a_time_is_an_instant_however_it_is_written() -> None:
    """And else what the clock showed: one of the messages may have named no zone, and was given the channel's."""
    known = [stored(1, "2026-03-01T07:00:00+01:00"), stored(2, "2026-03-01T08:00:00+01:00")]
    assert where(told("2026-03-01T08:00:00.000+01:00"), known) == ["2"]
    assert where(told("2026-03-01T06:00:00Z"), known) == ["1"]
    assert where(told("2026-03-01T07:00:00.000Z", "2026-03-01T06:00:00Z"), known) == ["2", "1"]
    assert where(told("2026-03-01T08:00:00-05:00"), known) == ["2"]
    assert where(told("2026-03-01T08:00:00+02:00", "2026-03-01T07:00:00+02:00"), known) == ["2", "1"]
    assert where(told("2026-03-01T08:00:00+02:00"), known) == ["2"]  # which both may be: no sender changes its zone
    assert where(told("2026-03-01T07:30:00Z"), known) == ["[R#3]"]
    assert where(told("2026-03-01"), known) == ["[R#3]"]
    assert where(told("2026-03-01"), [stored(1, "2026-03-01"), stored(2, "2026-02-01")]) == ["1"]
    twice = [stored(1, "2026-10-25T02:30:00+02:00"), stored(2, "2026-10-25T02:30:00+01:00")]
    assert where(told("2026-10-25T02:30:00+01:00", "2026-10-25T02:30:00+02:00"), twice) == ["2", "1"]


def test_it_is_asked_for_by_what_all_have_in_common() -> None:
    first, second = told("7", "8")
    assert asked_by(first) == (BASE, series_key(BASE))
    assert asked_by(second) == (("urn:r", "R#2"), BASE, series_key(BASE))


def test_what_is_stored_keeps_its_own_key() -> None:
    one = stored(3, "9")
    one["identifier"].append(dict(zip(("system", "value"), series_key(BASE), strict=True)))
    assert as_stored(told("9")[0], one)["identifier"] == one["identifier"]


@given(st.lists(st.sampled_from(["", "7", "8", "9"])), st.lists(st.sampled_from(["", "7", "8", "9"]), min_size=1))
def test_no_two_are_one_and_no_key_is_given_twice(before: list[str], now: list[str]) -> None:
    known = [stored(ordinal, time) for ordinal, time in enumerate(before, 1)]
    entries = told(*now)
    found = places(entries, known)
    ids = [one["id"] for one in found.found.values()]
    assert len(ids) == len(set(ids))
    taken = [(one["identifier"][0]["system"], one["identifier"][0]["value"]) for one in known]
    new = [found.keys[id(one)] for one in entries if id(one) not in found.found]
    assert len({*taken, *new}) == len(taken) + len(new)
    for entry in entries:  # nothing has the time of another, unless that has been taken
        one = found.found.get(id(entry))
        mine = entry.resource.get("time")
        if one is not None and mine and one.get("time") != mine:
            assert all(other["id"] in ids for other in known if other.get("time") == mine)
