"""Delivery to a real server process: nothing is lost, nothing comes twice, whatever goes wrong in between."""

from __future__ import annotations

import asyncio
import socket

import pytest

from engine.fhir.deliverer import Deliverer
from engine.fhir.output import Output
from engine.fhir.tags import marks
from engine.ledger.outcome import Result
from tests.fhir.conftest import MakeDeliverer
from tests.fhir.outputs import MRN, named, oru, patient, provenance
from tests.support.sandbox import Sandbox

TRANSACTIONS = {"method": "POST", "path": "/fhir/R4/?$"}


async def delivered(deliverer: Deliverer, output: Output, tag: str) -> int:
    outcome = await deliverer.deliver(output, tag)
    assert outcome.result is Result.DELIVERED, outcome.reason
    return outcome.points


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def written(sandbox: Sandbox) -> dict[str, int]:
    versions: dict[str, int] = sandbox.stats()["versions"]
    return versions


async def test_a_report_arrives_whole_with_concrete_references_and_marks(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    await delivered(deliverer, oru(order=True, specimen=True), "i1/acme/1")
    report, who = sandbox.one("DiagnosticReport"), sandbox.one("Patient")
    assert report["subject"] == {"reference": f"Patient/{who['id']}"}
    assert len(report["result"]) == 5
    assert {marks(one)[-1] for one in sandbox.dump("Observation")} == {"i1/acme/1"}
    assert marks(sandbox.one("Provenance")) == ["i1/acme/1"]
    sandbox.assert_sound()


async def test_a_report_with_five_results_costs_at_most_950_points_once_its_parties_are_known(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    await delivered(deliverer, oru("A1"), "i1/acme/1")
    before = sandbox.stats()["points"]
    points = await delivered(deliverer, oru("A2", order=True), "i1/acme/2")
    assert points == sandbox.stats()["points"] - before
    assert points <= 950


async def test_the_same_message_again_writes_nothing(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, oru(order=True, specimen=True), "i1/acme/1")
    before = written(sandbox)
    assert await delivered(deliverer, oru(order=True, specimen=True, seed="resent"), "i1/acme/2") <= 100
    assert written(sandbox) == before
    sandbox.assert_sound()


async def test_another_process_with_an_empty_cache_writes_nothing_again(
    sandbox: Sandbox, make_deliverer: MakeDeliverer
) -> None:
    await delivered(make_deliverer(), oru(order=True), "i1/acme/1")
    before = written(sandbox)
    await delivered(make_deliverer(), oru(order=True), "i1/acme/2")
    assert written(sandbox) == before


async def test_the_output_is_left_as_it_was(deliverer: Deliverer) -> None:
    output = oru(order=True)
    import orjson

    before = orjson.dumps([one.resource for one in output.entries])
    await delivered(deliverer, output, "i1/acme/1")
    assert orjson.dumps([one.resource for one in output.entries]) == before


async def test_a_correction_changes_its_result_and_nothing_else(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, oru(), "i1/acme/1")
    correction = oru(issued=None)
    changed = named(correction, "Observation")
    for one in oru().entries:  # the rest as it was sent before
        same = next((c for c in correction.entries if c.key == one.key and c.type == one.type), None)
        if same is not None and same is not changed and "issued" in one.resource:
            same.resource["issued"] = one.resource["issued"]
    changed.resource |= {"status": "corrected", "issued": "2026-03-01T11:00:00Z"}
    changed.resource["valueQuantity"]["value"] = 9.1
    before = written(sandbox)
    await delivered(deliverer, correction, "i1/acme/2")
    after = written(sandbox)
    assert after["Observation"] == before["Observation"] + 1
    assert after["DiagnosticReport"] == before["DiagnosticReport"]
    assert after["Patient"] == before["Patient"]
    corrected = [one for one in sandbox.dump("Observation") if one["status"] == "corrected"]
    assert [marks(one) for one in corrected] == [["i1/acme/1", "i1/acme/2"]]
    sandbox.assert_sound()


async def test_a_corrected_report_with_one_more_result_creates_only_that(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    await delivered(deliverer, oru(results=2), "i1/acme/1")
    await delivered(deliverer, oru(results=3), "i1/acme/2")
    assert len(sandbox.dump("Observation")) == 3
    assert len(sandbox.one("DiagnosticReport")["result"]) == 3
    sandbox.assert_sound()


async def test_a_report_that_repeats_only_the_corrected_result_keeps_the_others(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    await delivered(deliverer, oru(results=3), "i1/acme/1")
    await delivered(deliverer, oru(results=1, issued="2026-03-01T12:00:00Z"), "i1/acme/2")
    assert len(sandbox.one("DiagnosticReport")["result"]) == 3
    sandbox.assert_sound()


async def test_an_older_report_never_goes_over_a_newer(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, oru(issued="2026-03-01T12:00:00Z"), "i1/acme/1")
    before = written(sandbox)
    await delivered(deliverer, oru(issued="2026-03-01T11:00:00+01:00"), "i1/acme/2")
    assert written(sandbox) == before


def of_gender(gender: str) -> Output:
    """A result that does not say when it was issued, and changes its patient as an ADT does."""
    made = oru(issued=None)
    patient = named(made, "Patient")
    patient.resource["gender"], patient.policy = gender, "overwrite"
    return made


@pytest.mark.parametrize(
    ("tag", "late_tag"), [("i1/acme/5", "i1/acme/4"), ("i2/acme/81", "i1/acme/79"), ("i2/acme/81", "i1/acme/95")]
)
async def test_a_message_that_was_overtaken_in_its_channel_changes_nothing(
    sandbox: Sandbox, make_deliverer: MakeDeliverer, tag: str, late_tag: str
) -> None:
    """i2: what the ledger numbers since it was restored."""
    deliverer = make_deliverer(incarnations=("i1", "i2"))
    await delivered(deliverer, of_gender("female"), tag)
    late = of_gender("male")
    named(late, "DiagnosticReport").resource["status"] = "preliminary"
    before, patient = written(sandbox), sandbox.one("Patient")
    await delivered(deliverer, late, late_tag)
    assert written(sandbox) == before
    assert sandbox.one("Patient") == patient


async def test_a_message_of_a_restored_ledger_goes_over_what_the_lost_one_wrote(
    sandbox: Sandbox, make_deliverer: MakeDeliverer
) -> None:
    deliverer = make_deliverer(incarnations=("i1", "i2"))
    await delivered(deliverer, of_gender("female"), "i1/acme/95")
    corrected = of_gender("male")
    named(corrected, "DiagnosticReport").resource["status"] = "corrected"
    await delivered(deliverer, corrected, "i2/acme/81")
    assert sandbox.one("DiagnosticReport")["status"] == "corrected"
    assert sandbox.one("Patient")["gender"] == "male"


async def test_two_messages_of_a_new_patient_at_once_make_one_patient(
    sandbox: Sandbox, make_deliverer: MakeDeliverer
) -> None:
    first, second = make_deliverer(), make_deliverer()  # two processes
    jobs = [(first, "A1"), (first, "A2"), (second, "A3"), (second, "A4")]
    await asyncio.gather(*(delivered(d, oru(a, order=True), f"i1/acme/{n}") for n, (d, a) in enumerate(jobs)))
    assert len(sandbox.dump("Patient")) == 1
    assert len(sandbox.dump("Observation")) == 20
    sandbox.assert_sound()


async def test_the_same_report_at_once_from_one_process_is_stored_once(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await asyncio.gather(*(delivered(deliverer, oru(), f"i1/acme/{n}") for n in range(1, 4)))
    assert len(sandbox.dump("DiagnosticReport")) == 1
    sandbox.assert_sound()


async def test_conflicts_are_tried_again(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await deliverer.probe()
    sandbox.faults({"status": 409, "rate": 0.3, "method": "POST"})
    for n in range(4):
        for attempt in range(6):  # what the delivery loop does with "not taken"
            outcome = await deliverer.deliver(oru(f"A{n}", order=True), f"i1/acme/{n}")
            if outcome.result is Result.DELIVERED:
                break
            assert outcome.result is Result.NOT_TAKEN, (attempt, outcome.reason)
    assert outcome.result is Result.DELIVERED
    sandbox.faults()
    assert len(sandbox.dump("Observation")) == 20
    sandbox.assert_sound()


async def test_a_fact_that_somebody_else_changed_meanwhile_is_read_and_written_again(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    await delivered(deliverer, oru(), "i1/acme/1")
    before = sandbox.one("DiagnosticReport")
    correction = oru(issued="2026-03-01T12:00:00Z")
    sandbox.faults({"delayMs": 150, "skip": 1, "count": 1, "method": "POST"})  # between the search and the transaction
    job = asyncio.create_task(deliverer.deliver(correction, "i1/acme/2"))
    await asyncio.sleep(0.08)
    await asyncio.to_thread(sandbox.put, {**before, "conclusion": "seen by a person"})
    outcome = await job
    assert outcome.result is Result.DELIVERED, outcome.reason
    after = sandbox.one("DiagnosticReport")
    assert after["conclusion"] == "seen by a person"
    assert after["issued"].startswith("2026-03-01T12:00:00")
    sandbox.assert_sound()


async def test_several_patients_with_the_identifier_are_for_a_person_to_decide(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    for _ in range(2):
        sandbox.put({"resourceType": "Patient", "identifier": [{"system": MRN, "value": "P1"}]})
    outcome = await deliverer.deliver(oru(), "i1/acme/1")
    assert outcome.result is Result.NEVER
    assert outcome.reason == "several Patient match one identifier"
    assert sandbox.dump("Observation") == []


async def test_a_patient_of_another_name_and_birth_date_is_for_a_person_to_decide(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    mrn = [{"system": MRN, "value": "P1"}]
    sandbox.put({"resourceType": "Patient", "identifier": mrn, "birthDate": "1950", "name": [{"family": "Other"}]})
    outcome = await deliverer.deliver(oru(), "i1/acme/1")
    assert outcome.result is Result.NEVER
    assert "contradict" in outcome.reason
    assert "Muster" not in outcome.reason


async def test_an_anchor_is_never_blanked_by_what_a_message_does_not_know(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    full = Output([patient(policy="overwrite", gender="female", telecom=[{"system": "phone", "value": "1"}])])
    await delivered(deliverer, full, "i1/adt/1")
    await delivered(deliverer, oru(policy="overwrite", patient_content={"gender": "other"}), "i1/acme/1")
    who = sandbox.one("Patient")
    assert who["gender"] == "other"
    assert who["telecom"]
    assert marks(who) == ["i1/acme/1"]  # an anchor keeps the last mark only


async def test_an_anchor_that_somebody_else_changed_is_read_and_merged_again(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    await delivered(deliverer, Output([patient()]), "i1/adt/1")
    sandbox.put({**sandbox.one("Patient"), "gender": "female"})  # behind the cache's back
    await delivered(deliverer, Output([patient(telecom=[{"system": "phone", "value": "1"}])]), "i1/adt/2")
    who = sandbox.one("Patient")
    assert (who["gender"], len(who["telecom"])) == ("female", 1)


async def test_a_patient_that_was_deleted_behind_the_cache_never_leaves_a_dangling_reference(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    await delivered(deliverer, Output([patient()]), "i1/adt/1")
    sandbox.delete("Patient", sandbox.one("Patient")["id"])
    await delivered(deliverer, oru(), "i1/acme/1")
    sandbox.assert_sound()
    assert len(sandbox.dump("Patient")) == 1


async def test_only_what_changed_gets_a_provenance(sandbox: Sandbox, deliverer: Deliverer) -> None:
    def adt(**content: str) -> Output:
        who = patient(policy="overwrite", **content)
        return Output([who, provenance([who])])

    await delivered(deliverer, adt(), "i1/adt/1")
    await delivered(deliverer, adt(), "i1/adt/2")
    await delivered(deliverer, adt(gender="female"), "i1/adt/3")
    assert sorted(marks(one)[0] for one in sandbox.dump("Provenance")) == ["i1/adt/1", "i1/adt/3"]


async def test_a_provenance_is_not_forgotten_when_only_the_anchors_were_written_before(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    await deliverer.probe()
    who = patient()
    sandbox.faults({"status": 503, "skip": 2, "count": 1, "method": "POST"})  # search and create pass, then no more
    outcome = await deliverer.deliver(Output([who, provenance([who])]), "i1/adt/1")
    assert outcome.result is Result.NOT_TAKEN
    await delivered(deliverer, Output([who, provenance([who])]), "i1/adt/1")
    await delivered(deliverer, Output([who, provenance([who])]), "i1/adt/1")
    assert len(sandbox.dump("Provenance")) == 1


@pytest.mark.parametrize(
    ("fault", "result"),
    [
        ({"status": 503}, Result.NOT_TAKEN),
        ({"status": 503, "html": True}, Result.UNKNOWN),
        ({"status": 500}, Result.UNKNOWN),
        ({"status": 502, "html": True}, Result.UNKNOWN),
        ({"status": 504, "html": True}, Result.UNKNOWN),
        ({"status": 413, "html": True}, Result.NEVER),
        ({"status": 422}, Result.NEVER),
        ({"status": 403}, Result.FAULT),
        ({"dropConnection": True}, Result.UNKNOWN),
        ({"truncate": True}, Result.UNKNOWN),
        ({"delayMs": 3000}, Result.UNKNOWN),
    ],
)
async def test_what_becomes_of_the_transaction_is_classed(
    sandbox: Sandbox, make_deliverer: MakeDeliverer, fault: dict[str, object], result: Result
) -> None:
    deliverer = make_deliverer(timeout=0.6)
    await delivered(deliverer, oru("A0"), "i1/acme/1")
    sandbox.faults({**fault, "skip": 1, "count": 1, "method": "POST"})  # the search passes
    outcome = await deliverer.deliver(oru("A1"), "i1/acme/2")
    assert outcome.result is result, outcome.reason


async def test_a_503_of_the_server_says_when_to_come_again(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, oru("A0"), "i1/acme/1")
    sandbox.faults({"status": 503, "retryAfter": 7, "count": 1})
    outcome = await deliverer.deliver(oru("A1"), "i1/acme/2")
    assert (outcome.result, outcome.after, outcome.trouble) == (Result.NOT_TAKEN, 7.0, True)


@pytest.mark.parametrize("fault", [{"dropConnection": True}, {"status": 504, "html": True}])
async def test_an_answer_lost_after_the_commit_is_found_by_the_mark(
    sandbox: Sandbox, deliverer: Deliverer, fault: dict[str, object]
) -> None:
    await delivered(deliverer, oru("A0"), "i1/acme/1")
    sandbox.faults({**fault, "afterCommit": True, "skip": 1, "count": 1, "method": "POST"})
    assert (await deliverer.deliver(oru("A1"), "i1/acme/2")).result is Result.UNKNOWN
    outcome = await deliverer.deliver(oru("A1"), "i1/acme/2", unknown=True, since=loop_time() - 0.3)
    assert (outcome.result, outcome.points) == (Result.DELIVERED, 20)
    assert len(sandbox.dump("DiagnosticReport")) == 2
    sandbox.assert_sound()


async def test_what_is_committed_after_the_client_gave_up_is_waited_for(
    sandbox: Sandbox, make_deliverer: MakeDeliverer
) -> None:
    deliverer = make_deliverer(server_limit=0.6)
    await delivered(deliverer, oru("A0"), "i1/acme/1")
    sandbox.faults({"dropConnection": True, "commitAfterMs": 300, "skip": 1, "count": 1, "method": "POST"})
    first = await deliverer.deliver(oru("A1"), "i1/acme/2")
    assert (first.result, first.after, first.trouble) == (Result.UNKNOWN, 0.6, False)
    assert len(sandbox.dump("DiagnosticReport")) == 1
    outcome = await deliverer.deliver(oru("A1"), "i1/acme/2", unknown=True, since=loop_time())
    assert (outcome.result, outcome.reason) == (Result.DELIVERED, "found by its mark")
    assert len(sandbox.dump("DiagnosticReport")) == 2
    sandbox.assert_sound()


async def test_what_was_never_taken_is_sent_again(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, oru("A0"), "i1/acme/1")
    sandbox.faults({"dropConnection": True, "skip": 1, "count": 1, "method": "POST"})
    assert (await deliverer.deliver(oru("A1"), "i1/acme/2")).result is Result.UNKNOWN
    outcome = await deliverer.deliver(oru("A1"), "i1/acme/2", unknown=True, since=loop_time() - 1)
    assert (outcome.result, outcome.reason) == (Result.DELIVERED, "")
    assert len(sandbox.dump("DiagnosticReport")) == 2
    sandbox.assert_sound()


@pytest.mark.parametrize("after", [0.005, 0.02, 0.06])
async def test_a_process_killed_in_the_middle_leaves_nothing_twice(
    sandbox: Sandbox, make_deliverer: MakeDeliverer, after: float
) -> None:
    sandbox.config(latency_ms=40)
    output = oru(order=True, specimen=True)
    job = asyncio.create_task(make_deliverer().deliver(output, "i1/acme/1"))
    await asyncio.sleep(after)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    outcome = await make_deliverer().deliver(oru(order=True, specimen=True), "i1/acme/1", unknown=True)
    assert outcome.result is Result.DELIVERED
    assert len(sandbox.dump("Observation")) == 5
    assert len(sandbox.dump("Provenance")) == 1
    sandbox.assert_sound()


async def test_an_expired_token_is_renewed_once_and_nobody_notices(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, oru("A0"), "i1/acme/1")
    sandbox.revoke_tokens()
    await asyncio.gather(*(delivered(deliverer, oru(f"A{n}", mrn=f"P{n}"), f"i1/acme/{n}") for n in range(2, 8)))
    assert sandbox.stats()["tokensIssued"] == 2


async def test_a_wrong_secret_and_a_401_after_a_fresh_token_are_the_endpoints_own_fault(
    sandbox: Sandbox, make_deliverer: MakeDeliverer
) -> None:
    outcome = await make_deliverer(secret="wrong").deliver(oru(), "i1/acme/1")
    assert (outcome.result, outcome.reason) == (
        Result.FAULT,
        "no token: HTTP 400 invalid_request: Invalid secret",
    )
    sandbox.faults({"status": 401})
    assert (await make_deliverer().deliver(oru(), "i1/acme/1")).result is Result.FAULT


async def test_a_base_that_is_no_fhir_server_is_the_endpoints_own_fault(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await deliverer.probe()
    sandbox.faults({"status": 404, "html": True})
    assert (await deliverer.deliver(oru(), "i1/acme/1")).result is Result.FAULT


async def test_a_refused_connection_is_not_taken(make_deliverer: MakeDeliverer) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        deliverer = make_deliverer(f"http://127.0.0.1:{bound.getsockname()[1]}")
        outcome = await deliverer.deliver(oru(), "i1/acme/1")
        assert outcome.result is Result.NOT_TAKEN
        assert (await deliverer.probe()).ok is False


async def test_a_spent_quota_says_how_long_and_is_obeyed_before_being_refused(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    sandbox.config(fhir_quota=2500, quota_window_ms=2000)
    outcomes = [await deliverer.deliver(oru(f"A{n}"), f"i1/acme/{n}") for n in range(5)]
    assert [one.result for one in outcomes][:2] == [Result.DELIVERED] * 2
    assert outcomes[-1].result is Result.NOT_TAKEN
    assert outcomes[-1].after is not None
    assert 0 < outcomes[-1].after <= 2
    assert sandbox.stats()["byStatus"].get("429") is None  # never asked for more than was left
    await asyncio.sleep(outcomes[-1].after + 0.05)
    await delivered(deliverer, oru("A4"), "i1/acme/4")
    sandbox.assert_sound()


async def test_a_429_waits_for_the_seconds_that_the_header_names(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await delivered(deliverer, oru("A0"), "i1/acme/1")
    sandbox.faults({"status": 429, "resetSeconds": 9, "count": 1})
    outcome = await deliverer.deliver(oru("A1"), "i1/acme/2")
    assert (outcome.result, outcome.after) == (Result.NOT_TAKEN, 9.0)
    again = await deliverer.deliver(oru("A1"), "i1/acme/2")
    assert again.result is Result.NOT_TAKEN
    assert again.after is not None
    assert 8 < again.after <= 9


async def test_an_invalid_fact_is_never_taken_and_its_reason_names_the_place_only(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    output = oru()
    named(output, "Observation").resource["effectiveDateTime"] = "not a date of Erika Muster"
    outcome = await deliverer.deliver(output, "i1/acme/1")
    assert outcome.result is Result.NEVER
    assert "Observation.effective" in outcome.reason
    assert "Muster" not in outcome.reason
    assert sandbox.dump("Observation") == []


async def test_what_a_process_before_this_one_left_unknown_is_waited_for_from_the_start_of_this(
    sandbox: Sandbox, make_deliverer: MakeDeliverer
) -> None:
    sandbox.faults({"dropConnection": True, "commitAfterMs": 300, "skip": 4, "count": 1, "method": "POST"})
    first = await make_deliverer().deliver(oru(), "i1/acme/1")  # probe, search, patient, laboratory, transaction
    assert first.result is Result.UNKNOWN
    begun = loop_time()
    outcome = await make_deliverer(server_limit=0.6).deliver(oru(), "i1/acme/1", unknown=True)
    assert outcome.result is Result.DELIVERED
    assert 0.5 < loop_time() - begun < 2
    assert len(sandbox.dump("DiagnosticReport")) == 1
    sandbox.assert_sound()


@pytest.mark.parametrize("transactions", ["on", "off"])
async def test_a_message_may_have_several_provenances(
    sandbox: Sandbox, make_deliverer: MakeDeliverer, transactions: str
) -> None:
    sandbox.config(transactions=transactions)

    def output() -> Output:
        made = oru(results=1)
        made.entries.append(provenance([made.entries[0]], seed="second"))
        return made

    for _ in range(2):
        await delivered(make_deliverer(), output(), "i1/acme/1")
    outcome = await make_deliverer().deliver(output(), "i1/acme/1", unknown=True)
    assert outcome.result is Result.DELIVERED
    assert len(sandbox.dump("Provenance")) == 2
    sandbox.assert_sound()


async def test_two_different_facts_of_one_identifier_are_the_mappings_mistake_and_equal_ones_are_one(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    def doubled(**change: str) -> Output:
        made = oru(results=1)
        [twin] = [one for one in oru(results=1, seed="twin").entries if one.type == "Observation"]
        twin.resource |= {"subject": named(made, "Patient").reference, **change}
        named(made, "DiagnosticReport").resource["result"].append(twin.reference)
        made.entries.append(twin)
        return made

    refused = await deliverer.deliver(doubled(status="corrected"), "i1/acme/1")
    assert (refused.result, sandbox.dump("Observation")) == (Result.NEVER, [])
    await delivered(deliverer, doubled(), "i1/acme/2")
    await delivered(deliverer, doubled(), "i1/acme/3")
    assert len(sandbox.dump("Observation")) == 1
    sandbox.assert_sound()
