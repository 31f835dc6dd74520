"""What stands at the server after each of several messages, in order and out of order: shared resources and facts."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from engine.fhir.deliverer import Deliverer
from engine.fhir.event_time import event_of
from engine.fhir.output import Output
from engine.ledger.outcome import Result
from tests.fhir.conftest import MakeDeliverer
from tests.fhir.outputs import MRN, adt, at, entry, named, oru, patient, provenance
from tests.support.sandbox import Sandbox

PHONE = {"system": "phone", "value": "1", "use": "home"}
WORK = {"system": "phone", "value": "2", "use": "work"}
HOME = {"line": ["Lane 1"], "city": "Ulm"}
RICH = {"telecom": [PHONE, WORK], "address": [HOME], "gender": "female"}


async def delivered(deliverer: Deliverer, output: Output, tag: str) -> int:
    outcome = await deliverer.deliver(output, tag)
    assert outcome.result is Result.DELIVERED, outcome.reason
    return outcome.points


def day(n: int) -> str:
    return f"2026-03-{n:02}T10:00:00+01:00"


def report(status: str, value: float, *, results: int = 1) -> Output:
    made = oru("A1", results=results, issued=None)
    named(made, "DiagnosticReport").resource["status"] = status
    for one in made.entries:
        if one.type == "Observation":
            one.resource["status"] = status
            one.resource["valueQuantity"] = {"value": value, "unit": "g/dL"}
    return made


# --- Results


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_preliminary_final_and_corrected_end_as_corrected_in_whatever_order_they_come(
    sandbox: Sandbox, deliverer: Deliverer, order: tuple[int, ...]
) -> None:
    messages = [report("preliminary", 1), report("final", 2), report("corrected", 3)]
    newest = -1
    for place, n in enumerate(order):
        await delivered(deliverer, at(messages[n], day(n + 1)), f"i1/c{n}/{place + 1}")  # each from another channel
        newest = max(newest, n)
        status = ("preliminary", "final", "corrected")[newest]
        seen, whole = sandbox.one("Observation"), sandbox.one("DiagnosticReport")
        assert (seen["status"], seen["valueQuantity"]["value"], whole["status"]) == (status, newest + 1, status)
        assert event_of(seen) == day(newest + 1)
    sandbox.assert_sound()


async def test_without_times_the_order_of_the_channel_decides(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, report("corrected", 3), "i1/lab/3")
    await delivered(deliverer, report("preliminary", 1), "i1/lab/1")
    assert sandbox.one("Observation")["status"] == "corrected"
    await delivered(deliverer, report("cancelled", 3), "i1/lab/4")
    assert sandbox.one("Observation")["status"] == "cancelled"


async def test_the_time_of_issue_counts_more_than_that_of_the_message(sandbox: Sandbox, deliverer: Deliverer) -> None:
    """A report of yesterday that is sent again today."""

    def issued(n: int, status: str) -> Output:
        made = report(status, n)
        for one in made.entries:
            if one.role == "fact":
                one.resource["issued"] = day(n)
        return made

    await delivered(deliverer, at(issued(2, "final"), day(2)), "i1/lab/1")
    await delivered(deliverer, at(issued(1, "preliminary"), day(3)), "i1/lab/2")
    assert sandbox.one("DiagnosticReport")["status"] == "final"


async def test_the_same_message_again_writes_nothing(sandbox: Sandbox, make_deliverer: MakeDeliverer) -> None:
    for n in (1, 2, 3):
        await delivered(make_deliverer(), at(report("final", 1), day(1)), f"i1/lab/{n}")
        await delivered(make_deliverer(), at(adt(**RICH), day(1)), f"i1/adt/{n}")
        if n == 1:
            before = sandbox.stats()["versions"]
    assert sandbox.stats()["versions"] == before


async def test_results_of_an_older_report_are_in_the_report_all_the_same(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    await delivered(deliverer, at(report("final", 2, results=1), day(2)), "i1/lab/2")
    await delivered(deliverer, at(report("preliminary", 1, results=3), day(1)), "i1/other/1")
    whole = sandbox.one("DiagnosticReport")
    assert len(whole["result"]) == len(sandbox.dump("Observation")) == 3
    assert (whole["status"], event_of(whole)) == ("final", day(2))
    before = sandbox.stats()["versions"]
    await delivered(deliverer, at(report("preliminary", 1, results=3), day(1)), "i1/other/1")
    assert sandbox.stats()["versions"] == before
    sandbox.assert_sound()


async def test_a_status_that_is_not_told_leaves_the_known_one(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, at(report("final", 1), day(1)), "i1/lab/1")
    await delivered(deliverer, at(report("unknown", 2), day(2)), "i1/lab/2")
    seen = sandbox.one("Observation")
    assert (seen["status"], seen["valueQuantity"]["value"]) == ("final", 2)


# --- Patients


async def test_a_thin_a08_after_a_rich_one_blanks_nothing(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, at(adt(**RICH), day(1)), "i1/adt/1")
    before = sandbox.one("Patient")
    await delivered(deliverer, at(adt(name=None, birthDate=None), day(2)), "i1/adt/2")
    assert sandbox.one("Patient") == before
    moved = {**PHONE, "value": "3"}
    await delivered(deliverer, at(adt(telecom=[moved]), day(3)), "i1/adt/3")
    after = sandbox.one("Patient")
    assert after["telecom"] == [moved, WORK]
    assert {name: value for name, value in after.items() if name not in ("telecom", "meta")} == {
        name: value for name, value in before.items() if name not in ("telecom", "meta")
    }


@pytest.mark.parametrize("policy", ["fill", "overwrite"])
async def test_an_element_that_is_declared_empty_is_removed_and_only_that(
    sandbox: Sandbox, deliverer: Deliverer, policy: Any
) -> None:
    await delivered(deliverer, at(adt(**RICH), day(2)), "i1/adt/1")
    before = sandbox.one("Patient")

    def blank(n: int) -> Output:
        made = at(adt(clears=frozenset(("address",))), day(n))
        made.entries[0].policy = policy
        return made

    await delivered(deliverer, blank(1), "i1/adt/2")
    assert sandbox.one("Patient") == before, "an older event"
    await delivered(deliverer, blank(3), "i1/adt/3")
    after = sandbox.one("Patient")
    assert after == {name: value for name, value in before.items() if name != "address"} | {"meta": after["meta"]}
    await delivered(deliverer, at(adt(**RICH), day(2)), "i1/adt/1")
    assert "address" not in sandbox.one("Patient"), "an older event does not bring it back"
    await delivered(deliverer, at(adt(**RICH), day(4)), "i1/adt/4")
    assert sandbox.one("Patient")["address"] == [HOME]


async def test_what_is_required_is_never_blanked(sandbox: Sandbox, deliverer: Deliverer) -> None:
    def visit(n: int, clears: tuple[str, ...] = (), **content: Any) -> Output:
        stay = entry("Encounter", "urn:v", "V1", role="anchor", **content)
        stay.clears = frozenset(clears)
        return at(Output([stay]), day(n))

    stay = {"status": "in-progress", "class": {"code": "IMP"}, "period": {"start": "2026"}}
    await delivered(deliverer, visit(1, **stay), "i1/adt/1")
    nothing = {"status": "unknown", "class": {"system": "urn:n", "code": "UNK", "display": "unknown"}}
    await delivered(deliverer, visit(2, ("status", "class", "period", "identifier"), **nothing), "i1/adt/2")
    after = sandbox.one("Encounter")
    assert (after["status"], after["class"]) == ("in-progress", {"code": "IMP"})
    assert after["identifier"]
    assert "period" not in after


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_older_event_only_fills_what_is_empty(
    sandbox: Sandbox, make_deliverer: MakeDeliverer, restarted: bool
) -> None:
    """From another channel, and after a restart."""
    deliverer = make_deliverer()
    await delivered(deliverer, at(adt(gender="female"), day(3)), "i1/adt/1")
    late = make_deliverer() if restarted else deliverer
    await delivered(late, at(adt(gender="male", address=[HOME]), day(2)), "i1/other/1")
    who = sandbox.one("Patient")
    assert (who["gender"], who["address"], event_of(who)) == ("female", [HOME], day(3))


async def test_a_message_that_changed_nothing_still_counts_as_the_last_word(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    await delivered(deliverer, at(adt(gender="female"), day(1)), "i1/adt/1")
    before = sandbox.stats()["versions"]
    await delivered(deliverer, at(adt(gender="female"), day(3)), "i1/adt/3")
    assert sandbox.stats()["versions"] == before
    await delivered(deliverer, at(adt(gender="male"), day(2)), "i1/other/2")
    assert sandbox.one("Patient")["gender"] == "female"


async def test_what_a_result_says_of_its_patient_never_holds_up_an_adt(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, at(oru(patient_content={"gender": "male"}), day(3)), "i1/lab/1")
    await delivered(deliverer, at(adt(gender="female"), day(2)), "i1/adt/1")
    assert sandbox.one("Patient")["gender"] == "female"


async def test_the_same_words_from_one_who_may_overwrite_count(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, at(adt(gender="female"), day(1)), "i1/adt/1")
    await delivered(deliverer, at(Output([patient(gender="male")]), day(2)), "i1/lab/1")
    assert sandbox.one("Patient")["gender"] == "female"
    await delivered(deliverer, at(Output([patient(gender="male", policy="overwrite")]), day(3)), "i1/adt/2")
    assert sandbox.one("Patient")["gender"] == "male"


async def test_an_order_that_was_cancelled_stays_so_when_its_beginning_comes_late(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    def order(n: int, status: str, **more: Any) -> Output:
        who = patient()
        asked = entry(
            "ServiceRequest", "urn:o", "O1", role="anchor", status=status, intent="order", subject=who.reference, **more
        )  # fmt: skip
        return at(Output([who, asked, provenance([asked], seed="o")]), day(n))

    await delivered(deliverer, order(2, "revoked"), "i1/orders/2")
    await delivered(deliverer, order(1, "active", priority="stat"), "i1/orders/1")
    asked = sandbox.one("ServiceRequest")
    assert (asked["status"], asked["priority"]) == ("revoked", "stat")
    nobody = order(3, "unknown")
    nobody.entries[1].resource["subject"] = {"display": "unknown"}
    await delivered(deliverer, nobody, "i1/orders/3")
    asked = sandbox.one("ServiceRequest")
    assert (asked["status"], asked["subject"]) == ("revoked", {"reference": f"Patient/{sandbox.one('Patient')['id']}"})


async def test_two_practices_with_one_number_have_two_patients(sandbox: Sandbox, deliverer: Deliverer) -> None:
    one, other = oru("A1"), oru("B1")
    who = named(other, "Patient")
    who.resource["identifier"] = [{"system": "https://other.example/mrn", "value": "P1"}]
    who.key = (("https://other.example/mrn", "P1"),)
    await delivered(deliverer, one, "i1/acme/1")
    await delivered(deliverer, other, "i1/other/1")
    systems = [who["identifier"][0]["system"] for who in sandbox.dump("Patient")]
    assert sorted(systems) == [MRN, "https://other.example/mrn"]
    subjects = {one["subject"]["reference"] for one in sandbox.dump("DiagnosticReport")}
    assert subjects == {f"Patient/{who['id']}" for who in sandbox.dump("Patient")}
