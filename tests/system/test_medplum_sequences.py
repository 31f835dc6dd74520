"""Messages of one patient one after another, in order and out of order: what Medplum holds after each of them.

The messages go through the shipped mappings and the delivery to a real server process. A step is a message; after it
the test says what stands there now.
"""

from __future__ import annotations

from itertools import permutations

import pytest

from engine.ledger.outcome import Result
from tests.system.sequences import (
    RICH,
    WHO,
    Site,
    a08,
    but,
    day,
    line,
    links,
    merge,
    message,
    old_numbers,
    order,
    own_numbers,
    panel,
    place,
    result,
    tolerance,
    tube,
    unlink,
    values,
)

# --- The same again


@pytest.mark.parametrize(
    "raw",
    [result(1), order(1, "NW"), a08(1, RICH), merge(1, "P1", "P2"), unlink(1, "P1", "P2")],
    ids=["ORU", "ORM", "A08", "A40", "A37"],
)
async def test_the_same_message_again_writes_nothing(site: Site, raw: bytes) -> None:
    await site.say(raw)
    before = site.versions()
    await site.say(raw)
    assert site.versions() == before
    site.deliverer = await site.another_process()
    await site.say(raw)
    assert site.versions() == before


# --- Results


@pytest.mark.parametrize("order_of_arrival", list(permutations("PFC")), ids="".join)
@pytest.mark.parametrize("issued", [True, False])
async def test_preliminary_final_and_corrected_in_whatever_order(
    site: Site, order_of_arrival: tuple[str, ...], issued: bool
) -> None:
    """By the time of issue, and where no OBR-22 tells it, by that of the message."""
    said = {"P": (1, "preliminary"), "F": (2, "final"), "C": (3, "corrected")}
    newest = 0
    for arrived, status in enumerate(order_of_arrival, 1):
        n, _ = said[status]
        raw = result(n, status, str(n), issued=day(n) if issued else "")
        await site.say(raw, channel=f"lane{n}", number=arrived)
        newest = max(newest, n)
        expected = next(word for number, word in said.values() if number == newest)
        seen, report = site.one("Observation"), site.one("DiagnosticReport")
        assert (seen["status"], seen["valueQuantity"]["value"]) == (expected, newest)
        assert report["status"] == expected
    site.sandbox.assert_sound()


def at_hours(site: Site) -> dict[int, tuple[str, float | None]]:
    found = {}
    for one in site.held("Observation"):
        hour = int(one["effectiveDateTime"][11:13])
        assert hour not in found
        found[hour] = one["status"], one.get("valueQuantity", {}).get("value")
    [report] = site.held("DiagnosticReport")
    assert sorted(one["reference"] for one in report["result"]) == sorted(map(place, site.held("Observation")))
    return found


@pytest.mark.parametrize("again", [(7, 8, 9), (9, 8, 7), (8, 7, 9)], ids=str)
async def test_one_test_at_several_hours_is_corrected_at_the_one_that_is_meant(
    site: Site, again: tuple[int, ...]
) -> None:
    await site.say(tolerance(1, (7, "F", "70"), (8, "P", "80"), (9, "F", "90")))
    expected = {7: ("final", 70), 8: ("preliminary", 80), 9: ("final", 90)}
    assert at_hours(site) == expected
    await site.say(tolerance(2, (9, "C", "99")))
    expected[9] = ("corrected", 99)
    assert at_hours(site) == expected
    await site.say(tolerance(3, (8, "U", "")))
    expected[8] = ("final", 80)
    assert at_hours(site) == expected
    values = {7: ("C", "77"), 8: ("C", "88"), 9: ("C", "99")}
    await site.say(tolerance(4, *((hour, *values[hour]) for hour in again)))
    expected = {hour: ("corrected", int(value)) for hour, (_, value) in values.items()}
    assert at_hours(site) == expected
    site.deliverer = await site.another_process()
    for n, hour in enumerate(again, 5):
        await site.say(tolerance(n, (hour, "C", str(n))))
        expected[hour] = ("corrected", n)
        assert at_hours(site) == expected
    site.sandbox.assert_sound()


async def test_a_time_that_is_itself_corrected_is_that_of_the_same_result(site: Site) -> None:
    await site.say(tolerance(1, (7, "P", "70")))
    await site.say(tolerance(2, (8, "F", "71")))
    assert at_hours(site) == {8: ("final", 71)}
    await site.say(tolerance(3, (7, "F", "70"), (8, "F", "71")))
    assert at_hours(site) == {7: ("final", 70), 8: ("final", 71)}
    site.sandbox.assert_sound()


async def test_a_result_that_is_cancelled_stays_cancelled(site: Site) -> None:
    await site.say(result(1, "P"))
    await site.say(result(3, "X", ""))
    assert site.one("Observation")["status"] == site.one("DiagnosticReport")["status"] == "cancelled"
    await site.say(result(2, "F"))
    assert site.one("Observation")["status"] == site.one("DiagnosticReport")["status"] == "cancelled"


# --- Orders


async def test_an_order_is_cancelled_once_and_for_all(site: Site) -> None:
    await site.say(order(1, "NW"))
    assert site.one("ServiceRequest")["status"] == "active"
    await site.say(order(3, "OC"))
    cancelled = site.one("ServiceRequest")
    assert cancelled["status"] == "revoked"
    await site.say(order(2, "NW"), channel="other")
    assert site.one("ServiceRequest")["status"] == "revoked"


async def test_a_result_and_its_order_are_one_request_whichever_comes_first(site: Site) -> None:
    await site.say(result(2))
    assert len(site.held("ServiceRequest")) == 1
    await site.say(order(1, "NW"), channel="orders")
    request = site.one("ServiceRequest")
    assert request["status"] == "active"
    assert site.one("DiagnosticReport")["basedOn"] == [{"reference": place(request)}]


# --- Patients


async def test_services_under_one_number_are_told_apart_in_later_messages_too(site: Site) -> None:
    await site.say(panel(1, "NW", "80053", "85025"))
    first = {one["code"]["coding"][0]["code"]: one for one in site.held("ServiceRequest")}
    await site.say(panel(2, "DC", "85025"))
    held = {place(one): (one["code"]["coding"][0]["code"], one["status"]) for one in site.held("ServiceRequest")}
    assert held == {place(first["80053"]): ("80053", "active"), place(first["85025"]): ("85025", "revoked")}
    await site.say(panel(3, "DC", "80053"))
    assert {one["status"] for one in site.held("ServiceRequest")} == {"revoked"}
    assert len(site.held("ServiceRequest")) == 2


async def test_an_order_whose_service_gets_another_code_is_the_same_order(site: Site) -> None:
    await site.say(panel(1, "NW", "80053"))
    await site.say(panel(2, "XO", "80048"))
    assert [one["code"]["coding"][0]["code"] for one in site.held("ServiceRequest")] == ["80048"]


async def test_services_that_come_in_another_order_are_the_same(site: Site) -> None:
    await site.say(panel(1, "NW", "80053", "85025"))
    before = site.held("ServiceRequest")
    for n, codes in ((2, ("85025", "80053")), (3, ("80053", "85025"))):
        site.deliverer = await site.another_process()
        await site.say(panel(n, "NW", *codes))
        assert [but(one, "identifier") for one in site.held("ServiceRequest")] == [
            but(one, "identifier") for one in before
        ]
        assert [("R500" in values(one)) for one in site.held("ServiceRequest")].count(True) == 1


async def test_an_order_that_only_the_laboratory_had_a_number_for_is_the_one_that_the_placer_numbers(
    site: Site,
) -> None:
    def numbered(n: int, event: str, placer: str, filler: str, code: str = "GLU") -> bytes:
        control = "RE" if event.startswith("ORU") else "NA"
        lines = (f"ORC|{control}|{placer}|{filler}", f"OBR|1|{placer}|{filler}|{code}^{code} test^L|||{day(1)}")
        return message(event, day(n), WHO.format(mrn="P1"), *lines)

    await site.say(numbered(1, "ORU^R01", "", "F7"))
    await site.say(numbered(2, "ORM^O01", "O7", "F7"))
    assert values(site.one("ServiceRequest")) == ["F7", "O7"]
    await site.say(numbered(3, "ORU^R01", "", "F7"))
    await site.say(numbered(4, "ORU^R01", "O7", ""))
    request = site.one("ServiceRequest")
    reports = site.held("DiagnosticReport")
    assert [one["basedOn"] for one in reports] == [[{"reference": place(request)}]] * len(reports)
    # The laboratory's number may be one of several orders: another number of the placer is another order.
    await site.say(numbered(5, "ORM^O01", "O8", "F7", "HGB"))
    await site.say(numbered(6, "ORM^O01", "O9", "F7"))
    assert [values(one)[-1] for one in site.held("ServiceRequest")] == ["O7", "F7", "F7"]
    await site.say(numbered(7, "ORU^R01", "", "F7", "HGB"))  # by what is asked for
    assert len(site.held("ServiceRequest")) == 3


@pytest.mark.parametrize("numbers", list(permutations(("T1", "T1^L1", "^L1"))), ids="_".join)
async def test_a_specimen_is_one_whoever_numbers_it(site: Site, numbers: tuple[str, ...]) -> None:
    """The placer has a number for it, the laboratory another; only a message that tells both can say that it is one."""
    together = numbers.index("T1^L1")
    for n, number in enumerate(numbers, 1):
        await site.say(tube(n, "OML^O21" if number == "T1" else "OUL^R22", number))
        if n > together:
            assert len(site.held("Specimen")) == (1 if together < 2 else 2)
    before = site.versions()
    site.deliverer = await site.another_process()
    for n, number in enumerate(numbers, 1):
        await site.say(tube(n, "OML^O21" if number == "T1" else "OUL^R22", number))
    assert site.versions()["Specimen"] == before["Specimen"]


async def test_two_parts_of_one_specimen_are_two(site: Site) -> None:
    await site.say(tube(1, "OML^O21", "T1"))
    await site.say(tube(2, "OUL^R22", "T1^L1"))
    await site.say(tube(3, "OUL^R22", "T1^L2"))
    await site.say(tube(4, "OUL^R22", "T1^L1", "T1^L2"))
    await site.say(tube(5, "OML^O21", "T1"))
    keys = [one["value"] for held in site.held("Specimen") for one in held["identifier"] if "type" not in one]
    assert keys == ["T1", "L1", "L2"]  # T1 alone finds one of them


async def test_a_report_whose_number_was_somebody_elses_has_none_of_his_results(site: Site) -> None:
    def report(n: int, mrn: str, who: str, *tests: str) -> bytes:
        lines = [f"OBX|{at}|NM|{code}^{code}^L||7.{at}||||||F" for at, code in enumerate(tests, 1)]
        request = f"OBR|1||F72^LAB|CBC^CBC^L|||{day(n)}|||||||||||||||{day(n)}|||F"
        return message("ORU^R01", day(n), f"PID|1||{mrn}^^^ACME^MR||{who}", request, *lines)

    await site.say(report(1, "P1", "ONE^ANNA||19500101|F", "HGB", "PLT"))
    await site.say(report(2, "P2", "TWO^BERT||19600101|M", "HGB"))
    found = site.one("DiagnosticReport")
    [hgb] = [one for one in site.held("Observation") if one["code"]["coding"][0]["code"] == "HGB"]
    assert found["subject"] == {"reference": place(site.patient("P2"))} == hgb["subject"]
    assert found["result"] == [{"reference": place(hgb)}]


async def test_a_thin_a08_after_a_rich_one_blanks_nothing(site: Site) -> None:
    await site.say(a08(1, RICH))
    before = but(site.one("Patient"))
    await site.say(a08(2))
    assert but(site.one("Patient")) == before
    await site.say(a08(3, "PID|1||{mrn}^^^ACME^MR"))
    assert but(site.one("Patient")) == before


async def test_an_a08_that_blanks_a_field_removes_that_and_nothing_else(site: Site) -> None:
    await site.say(a08(1, RICH))
    before = but(site.one("Patient"))
    blanks = WHO + '|||""'
    await site.say(a08(3, blanks))
    assert but(site.one("Patient")) == but(before, "address")
    await site.say(a08(2, RICH), channel="other")
    assert but(site.one("Patient")) == but(before, "address"), "what was said before brings nothing back"
    await site.say(a08(4, RICH))
    assert but(site.one("Patient")) == before


async def test_an_older_a08_changes_nothing_that_a_newer_one_has_said(site: Site) -> None:
    await site.say(a08(3))
    await site.say(a08(2, RICH.replace("ERIKA", "ERICA")), channel="other")
    who = site.one("Patient")
    assert who["name"][0]["given"] == ["ERIKA"]
    assert who["address"], "what nobody had told yet"


async def test_a_visit_that_ended_goes_on_only_when_somebody_says_so(site: Site) -> None:
    stay = {2: "I", 3: "W^1^1", 19: "V1^^^ACME", 44: "202603011000"}

    def adt(trigger: str, n: int, visit: dict[int, str] = stay) -> bytes:
        return message(f"ADT^{trigger}", day(n), WHO.format(mrn="P1"), line("PV1", visit))

    await site.say(adt("A01", 1))
    assert site.one("Encounter")["status"] == "in-progress"
    await site.say(adt("A03", 3, {**stay, 45: "202603031000"}))
    finished = site.one("Encounter")
    assert (finished["status"], finished["class"]["code"]) == ("finished", "IMP")
    await site.say(adt("A08", 4, {19: "V1^^^ACME"}))
    assert but(site.one("Encounter")) == but(finished)
    await site.say(adt("A02", 2), channel="other")
    assert site.one("Encounter")["status"] == "finished"
    await site.say(adt("A13", 5))
    assert site.one("Encounter")["status"] == "in-progress"


async def test_two_practices_with_one_number_have_two_patients(site: Site) -> None:
    for practice, filler in (("north", "F1"), ("south", "F2")):
        await site.say(
            result(1, filler=filler, who=WHO.replace("^^^ACME^MR", "")), channel=practice, connection=practice
        )
    systems = {one["identifier"][0]["system"] for one in site.held("Patient")}
    assert len(systems) == 2
    subjects = {one["subject"]["reference"] for one in site.held("DiagnosticReport")}
    assert subjects == {place(one) for one in site.held("Patient")}


async def test_somebody_else_with_the_number_is_for_a_person_to_decide(site: Site) -> None:
    await site.say(result(1))
    before = site.versions()
    outcome = await site.hand(result(2, filler="F2", who=WHO.replace("MUSTER", "OTHER").replace("1980", "1950")))
    assert outcome.result is Result.NEVER
    assert site.versions() == before


# --- Merges


@pytest.mark.parametrize("transactions", ["on", "off"])
async def test_a_merge_leads_the_old_number_to_the_survivor_and_an_unlink_back(site: Site, transactions: str) -> None:
    site.sandbox.config(transactions=transactions)
    await site.say(a08(1, mrn="NEW"))
    await site.say(a08(1, mrn="OLD"))
    await site.say(result(2, filler="BEFORE", mrn="OLD"))
    assert site.owner("BEFORE") == "OLD"

    await site.say(merge(3, "NEW", "OLD"))
    new, old = site.patient("NEW"), site.patient("OLD")
    assert links(new) == [("replaces", place(old))]
    assert links(old) == [("replaced-by", place(new))]
    assert (old["active"], new.get("active", True)) == (False, True)
    assert (own_numbers(new), old_numbers(new), own_numbers(old)) == (["NEW"], ["OLD"], ["OLD"])
    assert site.owner("BEFORE") == "OLD", "what stood there is not moved"

    during = result(4, filler="DURING", mrn="OLD")
    await site.say(during, number=50)
    assert site.owner("DURING") == "NEW"
    assert len(site.held("Patient")) == 2

    await site.say(a08(5, RICH.replace("ERIKA", "ERICA"), "OLD"), number=51)
    new = site.patient("NEW")
    assert (new["name"][0]["given"], bool(new["address"])) == (["ERIKA"], True), "it fills the survivor, no more"
    assert but(site.patient("OLD")) == but(old)

    await site.say(unlink(6, "NEW", "OLD"), number=52)
    new, old = site.patient("NEW"), site.patient("OLD")
    assert links(new) == links(old) == []
    assert (old["active"], new.get("active", True)) == (True, True)
    assert (own_numbers(new), old_numbers(new), own_numbers(old)) == (["NEW"], [], ["OLD"])
    await site.say(result(7, filler="AFTER", mrn="OLD"), number=53)
    assert (site.owner("AFTER"), site.owner("BEFORE")) == ("OLD", "OLD")

    [report] = [one for one in site.held("DiagnosticReport") if "DURING" in "".join(values(one))]
    assert report["subject"]["identifier"]["value"] == "OLD", "by which number it came"
    assert site.owner("DURING") == "NEW", "until it is replayed"
    await site.say(during, number=50)
    assert site.owner("DURING") == "OLD"
    site.sandbox.assert_sound()


async def test_a_merge_that_comes_after_the_unlink_that_followed_it_changes_nothing(site: Site) -> None:
    await site.say(a08(1, mrn="NEW"))
    await site.say(unlink(3, "NEW", "OLD"))
    await site.say(merge(2, "NEW", "OLD"), channel="other")
    assert links(site.patient("NEW")) == links(site.patient("OLD")) == []
    await site.say(result(4, mrn="OLD"))
    assert site.owner("F1") == "OLD"


async def test_a_survivor_that_is_merged_again_passes_its_numbers_on(site: Site) -> None:
    await site.say(merge(1, "B", "A"))
    await site.say(merge(2, "C", "B"))
    for n, mrn in enumerate("ABC", 3):
        await site.say(result(n, filler=f"F{mrn}", mrn=mrn))
        assert site.owner(f"F{mrn}") == "C"
    assert len(site.held("Patient")) == 3


async def test_an_order_that_another_process_repeats_has_one_provenance(site: Site) -> None:
    await site.say(a08(1))  # patient and sender are known by it
    for _ in range(2):
        site.deliverer = await site.another_process()
        await site.say(order(2, "NW"), number=2)
    assert len(site.held("Provenance")) == 2


@pytest.mark.parametrize("trigger", ["A18", "A34", "A39", "A40", "A47"])
async def test_every_event_that_gives_a_number_up_leads_it_to_the_one_in_pid(site: Site, trigger: str) -> None:
    await site.say(a08(1, mrn="OLD"))
    await site.say(message(f"ADT^{trigger}", day(2), WHO.format(mrn="NEW"), "MRG|OLD^^^ACME^MR"))
    for n, mrn in enumerate(("OLD", "NEW"), 3):
        await site.say(result(n, filler=f"F{mrn}", mrn=mrn))
        assert site.owner(f"F{mrn}") == "NEW"


async def test_linked_patients_each_keep_what_comes_on_their_own_number(site: Site) -> None:
    link = message("ADT^A24", day(1), WHO.format(mrn="P"), WHO.format(mrn="Q"))
    await site.say(link)
    assert links(site.patient("P")) == [("seealso", place(site.patient("Q")))]
    assert links(site.patient("Q")) == [("seealso", place(site.patient("P")))]
    await site.say(result(2, mrn="Q"))
    assert site.owner("F1") == "Q"
    await site.say(unlink(3, "P", "Q"))
    assert links(site.patient("P")) == links(site.patient("Q")) == []
    assert site.owner("F1") == "Q"


async def test_a_visit_is_moved_to_another_patient_and_nothing_else_is(site: Site) -> None:
    visit = line("PV1", {2: "I", 19: "V1^^^ACME"})
    await site.say(message("ADT^A01", day(1), WHO.format(mrn="WRONG"), visit))
    await site.say(message("ADT^A01", day(1), WHO.format(mrn="RIGHT"), visit.replace("V1^^^", "V2^^^")))
    moved = line("MRG", {1: "WRONG^^^ACME^MR", 5: "V1^^^ACME"})
    await site.say(message("ADT^A45", day(2), WHO.format(mrn="RIGHT"), moved, visit))
    subjects = {one["subject"]["reference"] for one in site.held("Encounter")}
    assert subjects == {place(site.patient("RIGHT"))}
    assert len(site.held("Encounter")) == len(site.held("Patient")) == 2
    assert "link" not in site.patient("WRONG")
