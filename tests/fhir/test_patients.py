"""Patients who are merged, linked and unlinked: what each number leads to at the server after each message."""

from __future__ import annotations

import asyncio
from itertools import permutations
from typing import Any

import pytest

from engine.fhir.deliverer import Deliverer
from engine.fhir.output import Output
from engine.fhir.survivors import holders, record, successor
from engine.fhir.transaction import Limits
from engine.ledger.outcome import Result
from tests.fhir.conftest import MakeDeliverer
from tests.fhir.outputs import MRN, adt, at, bare, entry, linking, merging, named, oru, patient, unlinking
from tests.support.sandbox import Sandbox

pytestmark = pytest.mark.parametrize("transactions", ["on", "off"])


@pytest.fixture(autouse=True)
def atomic(sandbox: Sandbox, transactions: str) -> None:
    sandbox.config(transactions=transactions)


async def delivered(deliverer: Deliverer, output: Output, tag: str) -> int:
    outcome = await deliverer.deliver(output, tag)
    assert outcome.result is Result.DELIVERED, outcome.reason
    return outcome.points


def day(n: int) -> str:
    return f"2026-03-{n:02}T10:00:00+01:00"


class Ward:
    """Messages to one project, and what it holds of its patients."""

    def __init__(self, sandbox: Sandbox, deliverer: Deliverer) -> None:
        self.sandbox, self.deliverer, self._said = sandbox, deliverer, 0

    async def say(self, output: Output, event: str = "", channel: str = "adt") -> int:
        self._said += 1
        return await delivered(self.deliverer, at(output, event or day(self._said)), f"i1/{channel}/{self._said}")

    def record(self, mrn: str) -> dict[str, Any]:
        """The record that has the number as its own."""
        [found] = [one for one in self.sandbox.dump("Patient") if (mrn, "usual") in self.numbers(one)]
        return found

    @staticmethod
    def numbers(patient: dict[str, Any]) -> list[tuple[str, str]]:
        return [(one["value"], one.get("use", "usual")) for one in patient["identifier"]]

    def links(self, mrn: str) -> list[tuple[str, str]]:
        """The other record's own number, and the type."""
        by_place = {f"Patient/{one['id']}": one for one in self.sandbox.dump("Patient")}
        found = [(by_place[link["other"]["reference"]], link["type"]) for link in self.record(mrn).get("link") or ()]
        return [(next(n for n, use in self.numbers(other) if use == "usual"), kind) for other, kind in found]

    def owner(self, accession: str) -> str:
        """The number of the patient whose report it is."""
        [found] = [one for one in self.sandbox.dump("DiagnosticReport") if one["identifier"][0]["value"] == accession]
        [who] = [one for one in self.sandbox.dump("Patient") if found["subject"]["reference"] == f"Patient/{one['id']}"]
        return next(number for number, use in self.numbers(who) if use == "usual")


@pytest.fixture
def ward(sandbox: Sandbox, deliverer: Deliverer) -> Ward:
    return Ward(sandbox, deliverer)


async def test_after_a_merge_a_result_on_the_old_number_is_the_survivors_and_after_an_unlink_not(ward: Ward) -> None:
    await ward.say(oru("A1", mrn="OLD"))
    await ward.say(oru("A2", mrn="NEW"))
    await ward.say(merging("NEW", "OLD"))
    assert ward.numbers(ward.record("NEW")) == [("NEW", "usual"), ("OLD", "old")]
    assert ward.links("NEW") == [("OLD", "replaces")]
    assert ward.links("OLD") == [("NEW", "replaced-by")]
    assert ward.record("OLD")["active"] is False
    assert ward.owner("A1") == "OLD", "what stands there is not moved"

    during = oru("A3", mrn="OLD")
    await ward.say(during, channel="lab")
    assert ward.owner("A3") == "NEW"
    subjects = [one["subject"] for one in ward.sandbox.dump("Observation")]
    assert [one["identifier"]["value"] for one in subjects if "identifier" in one] == ["OLD"] * 5

    await ward.say(unlinking("NEW", "OLD"))
    assert ward.numbers(ward.record("NEW")) == [("NEW", "usual")]
    assert ward.numbers(ward.record("OLD")) == [("OLD", "usual")]
    assert ward.links("NEW") == ward.links("OLD") == []
    assert ward.record("OLD")["active"] is True
    await ward.say(oru("A4", mrn="OLD"), channel="lab")
    assert ward.owner("A4") == "OLD"
    assert ward.owner("A3") == "NEW", "until it is sent again"
    await ward.say(during, event=day(4), channel="lab")
    assert ward.owner("A3") == "OLD"
    assert not any("identifier" in one["subject"] for one in ward.sandbox.dump("Observation"))
    ward.sandbox.assert_sound()


async def test_a_merge_costs_two_searches_and_three_writes_and_the_same_again_writes_nothing(ward: Ward) -> None:
    await ward.say(adt("NEW"))
    await ward.say(adt("OLD"))
    assert await ward.say(merging("NEW", "OLD")) <= 380
    before = ward.sandbox.stats()["versions"]
    await ward.say(merging("NEW", "OLD"), event=day(3))
    assert ward.sandbox.stats()["versions"] == before


async def test_a_result_on_the_old_number_costs_one_point_more_than_any_other(ward: Ward) -> None:
    await ward.say(oru("A1", mrn="NEW"))
    usual = await ward.say(oru("A2", mrn="NEW"))
    await ward.say(merging("NEW", "OLD"))
    await ward.say(oru("A3", mrn="OLD"))
    assert await ward.say(oru("A4", mrn="OLD")) == usual + 1


async def test_patients_that_nobody_knew_are_merged_all_the_same(ward: Ward) -> None:
    await ward.say(merging("NEW", "OLD"))
    assert ward.links("OLD") == [("NEW", "replaced-by")]
    assert ward.numbers(ward.record("NEW")) == [("NEW", "usual"), ("OLD", "old")]
    await ward.say(oru("A1", mrn="OLD"))
    assert ward.owner("A1") == "NEW"


async def test_an_adt_on_the_old_number_only_fills_the_survivor(ward: Ward) -> None:
    await ward.say(adt("NEW", gender="female"))
    await ward.say(adt("OLD", name=[{"family": "Mustermann"}], birthDate="1980-02-04", gender="male"))
    await ward.say(merging("NEW", "OLD"))
    old = ward.record("OLD")
    late = adt(
        "OLD", name=[{"family": "Mustermann"}], birthDate="1980-02-04", gender="male", deceasedBoolean=True,
        clears=frozenset(("telecom",)),
    )  # fmt: skip
    late.entries[0].resource["identifier"].append({"system": "urn:second", "value": "7"})
    await ward.say(late)
    new = ward.record("NEW")
    assert (new["gender"], new["birthDate"], new["name"][0]["family"]) == ("female", "1980-02-03", "Muster")
    assert new["deceasedBoolean"] is True
    assert ward.numbers(new) == [("NEW", "usual"), ("OLD", "old"), ("7", "usual")]
    assert ward.record("OLD") == old


async def test_somebody_else_on_the_old_number_is_for_a_person_to_decide(ward: Ward) -> None:
    await ward.say(adt("NEW"))
    await ward.say(merging("NEW", "OLD", telecom=[]))
    wrong = at(oru("A1", mrn="OLD", patient_content={"name": [{"family": "Other"}], "birthDate": "1950-01-01"}), day(3))
    outcome = await ward.deliverer.deliver(wrong, "i1/lab/9")
    assert (outcome.result, "contradict" in outcome.reason) == (Result.NEVER, True)
    assert ward.sandbox.dump("DiagnosticReport") == []


async def test_a_survivor_that_is_merged_again_passes_its_numbers_on(ward: Ward) -> None:
    await ward.say(merging("B", "A"))
    await ward.say(oru("R0", mrn="A"))
    await ward.say(merging("C", "B"))
    for n, mrn in enumerate("ABC", 1):
        await ward.say(oru(f"R{n}", mrn=mrn))
        assert ward.owner(f"R{n}") == "C"
    await ward.say(unlinking("C", "B"))
    await ward.say(oru("R4", mrn="A"))
    assert (ward.owner("R4"), ward.record("B")["active"], ward.record("A")["active"]) == ("B", True, False)


async def test_a_merge_the_other_way_round_takes_the_first_one_back(ward: Ward) -> None:
    await ward.say(merging("NEW", "OLD"))
    await ward.say(merging("OLD", "NEW"))
    assert ward.links("OLD") == [("NEW", "replaces")]
    assert ward.links("NEW") == [("OLD", "replaced-by")]
    assert ward.numbers(ward.record("OLD")) == [("OLD", "usual"), ("NEW", "old")]
    assert ward.numbers(ward.record("NEW")) == [("NEW", "usual")]
    assert (ward.record("OLD")["active"], ward.record("NEW")["active"]) == (True, False)
    for n, mrn in enumerate(("NEW", "OLD")):
        await ward.say(oru(f"R{n}", mrn=mrn))
        assert ward.owner(f"R{n}") == "OLD"


async def test_a_circle_of_merges_is_never_made(ward: Ward) -> None:
    await ward.say(merging("B", "A"))
    await ward.say(merging("C", "B"))
    await ward.say(merging("A", "C"))
    for n, mrn in enumerate("ABC"):
        await ward.say(oru(f"R{n}", mrn=mrn))
        assert ward.owner(f"R{n}") == "A"


async def test_a_record_is_merged_into_one_other_at_most(ward: Ward) -> None:
    await ward.say(merging("B", "A"))
    await ward.say(merging("C", "A"))
    assert ward.links("A") == [("C", "replaced-by")]
    await ward.say(oru("R1", mrn="A"))
    assert ward.owner("R1") == "C"


async def test_an_unlink_leaves_the_merges_with_others(ward: Ward) -> None:
    await ward.say(merging("S", "A"))
    await ward.say(merging("S", "B"))
    await ward.say(unlinking("S", "A"))
    assert ward.links("S") == [("B", "replaces")]
    assert ward.numbers(ward.record("S")) == [("S", "usual"), ("B", "old")]
    await ward.say(oru("R1", mrn="B"))
    await ward.say(oru("R2", mrn="A"))
    assert (ward.owner("R1"), ward.owner("R2")) == ("S", "A")


async def test_several_merges_in_one_message(ward: Ward) -> None:
    message = merging("S", "A")
    gone = bare("B")
    gone.resource["link"] = [{"other": message.entries[0].reference, "type": "replaced-by"}]
    message.entries.insert(2, gone)
    await ward.say(message)
    assert ward.links("S") == [("A", "replaces"), ("B", "replaces")]
    assert ward.numbers(ward.record("S")) == [("S", "usual"), ("A", "old"), ("B", "old")]
    assert ward.record("B")["active"] is False


@pytest.mark.parametrize("newer", ["merge", "unlink"])
async def test_the_later_of_a_merge_and_an_unlink_counts_whichever_comes_first(ward: Ward, newer: str) -> None:
    await ward.say(adt("NEW"))
    await ward.say(adt("OLD"))
    times = {"merge": day(8), "unlink": day(7)} if newer == "merge" else {"merge": day(7), "unlink": day(8)}
    messages = {"merge": merging("NEW", "OLD"), "unlink": unlinking("NEW", "OLD")}
    for kind in (newer, "unlink" if newer == "merge" else "merge"):
        await ward.say(messages[kind], event=times[kind], channel=kind)
    assert ward.links("OLD") == ([("NEW", "replaced-by")] if newer == "merge" else [])


@pytest.mark.parametrize("order", list(permutations(range(4))))
async def test_whatever_the_order_of_their_coming_the_last_word_counts(ward: Ward, order: tuple[int, ...]) -> None:
    said = [
        merging("NEW", "OLD"),
        adt("NEW", gender="female"),
        unlinking("NEW", "OLD"),
        merging("OLD", "NEW", gender="male"),
    ]
    for n in order:
        await ward.say(said[n], event=day(n + 1), channel=f"c{n}")
    assert ward.links("NEW") == [("OLD", "replaced-by")]
    assert ward.links("OLD") == [("NEW", "replaces")]
    assert (ward.record("NEW")["active"], ward.record("OLD").get("active", True)) == (False, True)
    assert ward.numbers(ward.record("OLD")) == [("OLD", "usual"), ("NEW", "old")]
    assert ward.numbers(ward.record("NEW")) == [("NEW", "usual")]
    assert ward.record("OLD")["gender"] == "male"


async def test_a_later_change_of_a_patient_does_not_hold_up_a_merge(ward: Ward) -> None:
    await ward.say(adt("NEW", gender="female"), event=day(9))
    await ward.say(adt("OLD"), event=day(9))
    await ward.say(merging("NEW", "OLD", gender="male"), event=day(8), channel="other")
    assert ward.links("OLD") == [("NEW", "replaced-by")]
    assert ward.record("NEW")["gender"] == "female"


async def test_linked_patients_keep_their_own_results_until_they_are_unlinked_and_then_too(ward: Ward) -> None:
    await ward.say(linking("P", "Q"))
    assert (ward.links("P"), ward.links("Q")) == ([("Q", "seealso")], [("P", "seealso")])
    await ward.say(oru("R1", mrn="Q"))
    await ward.say(unlinking("P", "Q"))
    assert ward.links("P") == ward.links("Q") == []
    assert ward.owner("R1") == "Q"
    await ward.say(merging("P", "Q"))
    await ward.say(linking("P", "Q"))
    assert ward.links("Q") == [("P", "replaced-by")], "a link says less than a merge"


async def test_two_numbers_of_one_record_are_merged_within_it(ward: Ward) -> None:
    who = patient("NEW")
    who.resource["identifier"].append({"system": MRN, "value": "OLD"})
    await ward.say(Output([who]))
    await ward.say(merging("NEW", "OLD"))
    [stored] = ward.sandbox.dump("Patient")
    assert ward.numbers(stored) == [("NEW", "usual"), ("OLD", "old")]
    assert "link" not in stored
    assert stored.get("active") is not False
    refused = await ward.deliverer.deliver(unlinking("NEW", "OLD"), "i1/adt/9")
    assert (refused.result, refused.reason) == (Result.NEVER, "patient: what is to be unlinked is one record")


async def test_a_merge_in_another_process_is_noticed_by_what_is_written_on_the_old_number(
    sandbox: Sandbox, make_deliverer: MakeDeliverer
) -> None:
    mine, other = make_deliverer(), make_deliverer()
    ward = Ward(sandbox, mine)
    await ward.say(oru("R1", mrn="OLD"))
    await delivered(other, at(merging("NEW", "OLD"), day(2)), "i1/adt/1")
    await ward.say(oru("R2", mrn="OLD"))
    assert ward.owner("R2") == "NEW"
    await delivered(other, at(unlinking("NEW", "OLD"), day(4)), "i1/adt/2")
    await ward.say(oru("R3", mrn="OLD"), event=day(5))
    assert ward.owner("R3") == "OLD"
    assert len(sandbox.dump("DiagnosticReport")) == 3
    sandbox.assert_sound()


async def test_a_large_message_notices_it_too(sandbox: Sandbox, make_deliverer: MakeDeliverer) -> None:
    mine = make_deliverer(limits=Limits(entries=4))
    ward = Ward(sandbox, mine)
    await ward.say(oru("R1", mrn="OLD"))
    await delivered(make_deliverer(), at(merging("NEW", "OLD"), day(2)), "i1/adt/1")
    await ward.say(oru("R2", mrn="OLD", results=9))
    assert ward.owner("R2") == "NEW"
    assert len({one["subject"]["reference"] for one in sandbox.dump("Observation")}) == 2


async def test_a_merge_that_broke_off_anywhere_is_completed_by_the_next_attempt(
    sandbox: Sandbox, make_deliverer: MakeDeliverer
) -> None:
    for skip in range(6):
        sandbox.reset()
        first = make_deliverer()
        await first.probe()
        sandbox.faults({"dropConnection": True, "afterCommit": True, "skip": skip, "count": 1, "method": "(POST|PUT)"})
        message = at(merging("NEW", "OLD"), day(1))
        outcome = await first.deliver(message, "i1/adt/1")
        sandbox.faults()
        unknown = outcome.result is Result.UNKNOWN
        await delivered(make_deliverer(), oru("R1", mrn="NEW"), "i1/lab/1")
        again = await first.deliver(message, "i1/adt/1", unknown=unknown, since=asyncio.get_running_loop().time())
        assert again.result is Result.DELIVERED, again.reason
        ward = Ward(sandbox, make_deliverer())
        await ward.say(oru("R2", mrn="OLD"))
        assert (ward.owner("R2"), ward.links("NEW")) == ("NEW", [("OLD", "replaces")])


async def test_a_survivor_that_was_deleted_and_a_circle_by_other_hands_are_for_a_person(
    sandbox: Sandbox, ward: Ward
) -> None:
    await ward.say(merging("NEW", "OLD"))
    old, new = ward.record("OLD"), ward.record("NEW")
    old_place = {"reference": f"Patient/{old['id']}"}
    sandbox.put({**new, "link": [{"other": old_place, "type": "replaced-by"}]})
    outcome = await ward.deliverer.deliver(oru("R1", mrn="OLD"), "i1/lab/1")
    assert (outcome.result, "circle" in outcome.reason) == (Result.NEVER, True)
    sandbox.delete("Patient", new["id"])
    outcome = await ward.deliverer.deliver(oru("R1", mrn="OLD"), "i1/lab/1")
    assert (outcome.result, "not there" in outcome.reason) == (Result.NEVER, True)


async def test_a_visit_of_the_old_number_is_the_survivors(ward: Ward) -> None:
    await ward.say(merging("NEW", "OLD"))
    who = patient("OLD")
    stay = entry("Encounter", "urn:v", "V1", role="anchor", status="finished", subject=who.reference)
    stay.resource["class"] = {"code": "IMP"}
    await ward.say(Output([who, stay]))
    subject = ward.sandbox.one("Encounter")["subject"]
    assert subject["reference"] == f"Patient/{ward.record('NEW')['id']}"
    assert subject["identifier"]["value"] == "OLD"


def test_the_record_that_has_a_number_as_its_own_counts(transactions: str) -> None:
    def who(id: str, *identifiers: tuple[str, str], into: str = "") -> dict[str, Any]:
        link = [{"other": {"reference": f"Patient/{into}"}, "type": "replaced-by"}] if into else []
        return {
            "id": id, "link": link,
            "identifier": [{"system": "s", "value": value, "use": use} for value, use in identifiers],
        }  # fmt: skip

    old, new = who("1", ("A", "usual"), into="2"), who("2", ("B", "usual"), ("A", "old"))
    assert holders([new, old], ("s", "A")) == [old]
    assert holders([new], ("s", "A")) == [new]
    assert successor(old) == "Patient/2"
    stubborn = who("2", ("B", "usual"), ("A", "usual"))
    assert record([stubborn, old], ("s", "A")) == old
    assert record([stubborn, who("3", ("A", "usual"))], ("s", "A")) is None


async def test_the_output_of_a_merge_is_left_as_it_was(ward: Ward) -> None:
    import orjson

    await ward.say(merging("NEW", "OLD"))
    for output in (merging("NEW", "OLD"), oru(mrn="OLD"), unlinking("NEW", "OLD")):
        at(output, day(5))
        before = orjson.dumps([(one.resource, one.reference) for one in output.entries])
        await ward.say(output, event=day(5))
        assert orjson.dumps([(one.resource, one.reference) for one in output.entries]) == before
    assert named(output, "Patient")
