"""Orders, specimens and results that share a number, or have several: each message finds its own, in whatever order
they come, and whatever the delivery remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from engine.fhir import client
from engine.ledger.outcome import Result
from tests.system.sequences import (
    WHO,
    Resource,
    Site,
    a08,
    day,
    line,
    merge,
    message,
    place,
    result,
    tolerance,
    unlink,
    values,
)

OTHER = WHO.replace("MUSTER^ERIKA||1980", "OTHER^OTTO||1950")
AT_SEVEN = "202603010700+0100"


def asked(
    n: int,
    event: str,
    placer: str,
    filler: str,
    codes: Sequence[str],
    *,
    control: str = "NA",
    status: str = "",
    who: str = WHO,
    mrn: str = "P1",
) -> bytes:
    """Services under the numbers of an order, with a result each where the message is one of results."""
    lines = [f"ORC|{control}|{placer}|{filler}||{status}"]
    for at, code in enumerate(codes, 1):
        lines.append(f"OBR|{at}|{placer}|{filler}|{code}^{code} test^L|||{day(1)}|||||||||||||||{day(n)}")
        if event.startswith("ORU"):
            lines.append(f"OBX|1|NM|{code}R^{code}^L||{n}||||||F")
    return message(event, day(n), who.format(mrn=mrn), *lines)


def orders(site: Site) -> list[tuple[str, str]]:
    """What is asked for, and its status."""
    found = [(one["code"]["coding"][0]["code"], one["status"]) for one in site.held("ServiceRequest")]
    return sorted(found)


def order_of(site: Site, code: str) -> str:
    """What the order asks for on which the report of a service is based."""
    [report] = [one for one in site.held("DiagnosticReport") if any(each.endswith(f":{code}") for each in values(one))]
    [request] = [one for one in site.held("ServiceRequest") if {"reference": place(one)} in report["basedOn"]]
    assert len(report["basedOn"]) == 1
    coded: str = request["code"]["coding"][0]["code"]
    return coded


def numbered(site: Site, number: str) -> list[Resource]:
    return [one for one in site.held("ServiceRequest") if number in values(one)]


async def forget(site: Site, forgets: bool) -> None:
    if forgets:
        site.deliverer = await site.another_process()


transactions = pytest.mark.parametrize("transactions", ["on", "off"])
forgetful = pytest.mark.parametrize("forgets", [False, True], ids=["remembered", "forgotten"])


# --- Orders


@forgetful
@pytest.mark.parametrize("event", ["ORM^O01", "ORU^R01"])
async def test_the_service_that_comes_first_alone_is_not_the_one_that_stands_first_later(
    site: Site, event: str, forgets: bool
) -> None:
    await site.say(asked(1, "ORU^R01", "R500", "F1", ["HGB"]))
    await forget(site, forgets)
    await site.say(asked(2, event, "R500", "F1", ["GLU", "HGB"]))
    assert [code for code, _ in orders(site)] == ["GLU", "HGB"]
    assert order_of(site, "HGB") == "HGB"


@forgetful
async def test_a_service_that_had_become_another_one_comes_back_beside_it(site: Site, forgets: bool) -> None:
    for n, codes in enumerate((["GLU"], ["HGB"], ["GLU", "HGB"]), 1):
        await site.say(asked(n, "ORM^O01", "R500", "F1", codes))
        await forget(site, forgets)
    assert [code for code, _ in orders(site)] == ["GLU", "HGB"]


@forgetful
@pytest.mark.parametrize("numbers", [("R500", "F1"), ("R500", ""), ("", "F1")])
@pytest.mark.parametrize("event", ["ORM^O01", "ORU^R01"])
async def test_a_service_that_comes_later_goes_over_none_of_its_number(
    site: Site, event: str, numbers: tuple[str, str], forgets: bool
) -> None:
    for n, codes in enumerate((["HGB", "PLT"], ["CREA"], ["CREA"], ["HGB"]), 1):
        await site.say(asked(n, event, *numbers, codes, control="NW" if n < 3 else "OC"))
        await forget(site, forgets)
    assert [code for code, _ in orders(site)] == ["CREA", "HGB", "PLT"]
    if event == "ORM^O01":
        assert [code for code, status in orders(site) if status == "revoked"] == ["CREA", "HGB"]
    else:
        assert [order_of(site, code) for code in ("HGB", "PLT", "CREA")] == ["HGB", "PLT", "CREA"]


@forgetful
@pytest.mark.parametrize("said", ["HGB^Hb", "HGB^Hb^99LAB", "HGB"])
async def test_a_service_is_cancelled_by_its_code_whatever_its_system_is(site: Site, said: str, forgets: bool) -> None:
    await site.say(asked(1, "ORM^O01", "R500", "F1", ["GLU", "HGB"], control="NW"))
    await forget(site, forgets)
    cancel = asked(2, "ORM^O01", "R500", "F1", ["HGB"], control="OC")
    await site.say(cancel.replace(b"HGB^HGB test^L", said.encode()))
    assert [(code, status) for code, status in orders(site)] == [("GLU", "active"), ("HGB", "revoked")]


async def test_what_the_laboratory_calls_otherwise_is_the_order_of_that_number(site: Site) -> None:
    await site.say(asked(1, "ORM^O01", "R500", "", ["GLU"], control="NW"))
    result = asked(2, "ORU^R01", "R500", "F1", ["2345-7"]).replace(b"2345-7^2345-7 test^L", b"2345-7^Glucose^LN")
    await site.say(result)
    assert site.one("DiagnosticReport")["basedOn"] == [{"reference": place(site.one("ServiceRequest"))}]


@forgetful
async def test_a_service_of_another_number_is_no_service_that_has_lost_its_number(site: Site, forgets: bool) -> None:
    await site.say(asked(1, "ORM^O01", "R500", "F1", ["GLU", "HGB"], control="NW"))
    await forget(site, forgets)
    await site.say(asked(2, "ORM^O01", "R501", "F1", ["HGB"], control="OC"))
    await site.say(asked(3, "ORM^O01", "R502", "F1", [], control="OC"))
    held = [one for one in site.held("ServiceRequest") if not {"R501", "R502"} & {*values(one)}]
    assert [one["status"] for one in held] == ["active", "active"]


@forgetful
async def test_services_that_only_the_laboratory_has_numbered_are_told_apart_by_the_code(
    site: Site, forgets: bool
) -> None:
    await site.say(asked(1, "ORU^R01", "", "F7", ["GLU", "HGB"]))
    await forget(site, forgets)
    await site.say(asked(2, "ORU^R01", "", "F7", ["HGB"]))
    assert order_of(site, "HGB") == "HGB"
    await site.say(asked(3, "ORM^O01", "O7", "F7", ["GLU"]))
    await site.say(asked(4, "ORM^O01", "O8", "F7", ["HGB"]))
    assert [code for code, _ in orders(site)] == ["GLU", "HGB"]
    await site.say(asked(5, "ORM^O01", "", "F7", ["HGB"], control="OC"))
    assert [code for code, status in orders(site) if status == "revoked"] == ["HGB"]


@pytest.mark.parametrize("number", [1, 9, 12])
async def test_of_many_services_under_one_number_the_one_is_cancelled_that_is_meant(site: Site, number: int) -> None:
    codes = [f"C{n:02}" for n in range(1, 13)]
    await site.say(asked(1, "ORM^O01", "R500", "F1", codes, control="NW"))
    site.deliverer = await site.another_process()
    await site.say(asked(2, "ORM^O01", "R500", "F1", [f"C{number:02}"], control="OC"))
    assert [code for code, _ in orders(site)] == codes
    assert [code for code, status in orders(site) if status == "revoked"] == [f"C{number:02}"]


async def test_of_several_orders_of_one_accession_a_result_finds_its_own(site: Site) -> None:
    codes = [f"C{n:02}" for n in range(1, 13)]
    for n, code in enumerate(codes, 1):
        await site.say(asked(1, "ORM^O01", f"O{n:02}", "F1", [code], control="NW"))
    for code in codes:
        site.deliverer = await site.another_process()
        await site.say(asked(2, "ORU^R01", "", "F1", [code]))
        assert order_of(site, code) == code
    assert len(orders(site)) == 12


@pytest.mark.parametrize("numbers", ["R500 R500 R500", "- O7 -"])
async def test_a_status_that_comes_by_another_number_is_not_forgotten(site: Site, numbers: str) -> None:
    first, second, third = (one.strip("-") for one in numbers.split())
    filler = "" if first else "F7"
    await site.say(asked(1, "ORM^O01", first, filler, ["GLU"], control="SC", status="IP"))
    services = ["GLU"] if not first else []
    await site.say(asked(2, "ORM^O01", second, filler, services, control="SC", status="HD"))
    assert [status for _, status in orders(site)] == ["on-hold"]
    await site.say(asked(3, "ORM^O01", third, filler, ["GLU"], control="SC", status="IP"))
    assert [status for _, status in orders(site)] == ["active"]


async def test_an_isolate_that_comes_later_has_an_order_of_its_own(site: Site) -> None:
    def culture(n: int, *tests: tuple[str, str]) -> bytes:
        lines = []
        for at, (code, sub) in enumerate(tests, 1):
            fields = {1: str(at), 2: "PL10", 3: "F700", 4: f"{code}^{code}^L", 7: "20260301", 22: day(n), 25: "F"}
            parent = {26: f"ORG&Organism&L^{sub}^germ", 29: "PL10^F700"} if sub else {}
            lines += [line("OBR", fields | parent), "OBX|1|ST|AMP^Ampicillin^L||R||||||F"]
        return message("ORU^R01", day(n), WHO.format(mrn="P1"), *lines)

    await site.say(culture(1, ("CULT", ""), ("SENS", "1")))
    await site.say(culture(2, ("SENS", "2")))
    site.deliverer = await site.another_process()
    await site.say(asked(3, "ORM^O01", "PL10", "F700", [], control="SC", status="CM"))
    assert len(numbered(site, "PL10")) == 1


@pytest.mark.parametrize("event", ["ORU^R01", "ORM^O01"])
async def test_a_number_that_the_laboratory_uses_again_leads_to_nobody_elses_order(site: Site, event: str) -> None:
    await site.say(asked(1, "ORU^R01", "", "F72", ["GLU"]))
    await site.say(asked(2, event, "O9", "F72", ["GLU"], who=OTHER, mrn="P2"))
    [request] = numbered(site, "O9")
    assert request["subject"] == {"reference": place(site.patient("P2"))}
    assert len(site.held("ServiceRequest")) == 2


async def test_a_specimens_number_that_is_used_again_leads_to_nobody_elses(site: Site) -> None:
    def of(n: int, event: str, number: str, mrn: str, who: str) -> bytes:
        lines = (
            f"ORC|NW|O{mrn}|F{mrn}",
            f"OBR|1|O{mrn}|F{mrn}|GLU^Glucose^L|||{day(1)}",
            f"SPM|1|{number}||BLD^Blood^L",
        )
        return message(event, day(n), who.format(mrn=mrn), *lines)

    await site.say(of(1, "OML^O21", "1", "P1", WHO))
    await site.say(of(2, "OUL^R22", "1^L77", "P2", OTHER))
    subjects = [one["subject"] for one in site.held("Specimen")]
    assert subjects == [{"reference": place(site.patient(mrn))} for mrn in ("P1", "P2")]


@forgetful
@pytest.mark.parametrize("numbers", [("1", "1^L77"), ("1^L77", "1")])
async def test_a_number_of_one_specimen_of_a_message_is_no_former_one_of_another(
    site: Site, forgets: bool, numbers: tuple[str, str]
) -> None:
    def of(n: int, *specimens: str) -> bytes:
        lines = (f"SPM|{n}|{number}||BLD^Blood^L" for n, number in enumerate(specimens, 1))
        request = ("ORC|NW|O1|F1", f"OBR|1|O1|F1|GLU^Glucose^L|||{day(1)}")
        return message("OML^O21", day(n), WHO.format(mrn="P1"), *request, *lines)

    await site.say(of(1, "1"))
    [first] = site.held("Specimen")
    for n in (2, 3):
        await forget(site, forgets)
        await site.say(of(n, *numbers))
        held = {place(one): one["identifier"][-1]["value"] for one in site.held("Specimen")}
        assert held.pop(place(first)) == "1"
        assert [*held.values()] == ["L77"]


def chemistry(n: int, mrn: str, *codes: str) -> bytes:
    results = (f"OBX|{at}|NM|{code}^{code}^L||{n}||||||F" for at, code in enumerate(codes, 1))
    request = f"OBR|1|O1|F1|CHEM^Chemistry^L|||{day(1)}|||||||||||||||{day(n)}|||P"
    return message("ORU^R01", day(n), WHO.format(mrn=mrn), request, *results)


@forgetful
@pytest.mark.parametrize("number", ["P1", "P2"])
async def test_what_comes_of_a_report_after_a_merge_joins_what_came_before(
    site: Site, number: str, forgets: bool
) -> None:
    """Its patient is another record now, and the same person."""
    await site.say(chemistry(1, "P1", "GLU", "NA"))
    await site.say(merge(2, "P2", "P1"))
    await forget(site, forgets)
    await site.say(chemistry(3, number, "K"))
    assert len(site.one("DiagnosticReport")["result"]) == 3


@forgetful
async def test_what_comes_of_a_report_after_the_patients_are_two_again_joins_what_came_before(
    site: Site, forgets: bool
) -> None:
    await site.say(a08(1, mrn="P1"))
    await site.say(merge(2, "P2", "P1"))
    await site.say(chemistry(3, "P1", "GLU", "NA"))
    await site.say(unlink(4, "P1", "P2"))
    await forget(site, forgets)
    await site.say(chemistry(5, "P1", "K"))
    report = site.one("DiagnosticReport")
    assert (report["subject"], len(report["result"])) == ({"reference": place(site.patient("P1"))}, 3)


@transactions
async def test_what_a_message_made_follows_the_patient_whose_merge_was_seen_late(site: Site, transactions: str) -> None:
    """Order and visit, too, which were written before the patient was looked at again."""
    site.sandbox.config(transactions=transactions)

    def visit(n: int) -> bytes:
        lines = (
            "PV1|1|O|||||||||||||||||V{0}",
            "ORC|RE|O{0}|F{0}",
            "OBR|1|O{0}|F{0}|GLU^Glucose^L",
            "OBX|1|NM|GLU^G^L||5||||||F",
        )
        return message("ORU^R01", day(n), WHO.format(mrn="P1"), *(one.format(n) for one in lines))

    def subjects(n: int) -> dict[str, str]:
        held = [one for kind in ("Encounter", "ServiceRequest", "DiagnosticReport") for one in site.held(kind)]
        return {
            one["resourceType"]: one["subject"]["reference"] for one in held if any(str(n) in v for v in values(one))
        }

    await site.say(a08(1, mrn="P1"))
    async with site.elsewhere() as other:
        await other.say(merge(2, "P2", "P1"))
    await site.say(visit(3))
    assert set(subjects(3).values()) == {place(site.patient("P2"))}
    async with site.elsewhere() as other:
        await other.say(unlink(4, "P1", "P2"))
    await site.say(visit(5))
    assert set(subjects(5).values()) == {place(site.patient("P1"))}
    assert len(subjects(3)) == len(subjects(5)) == 3


async def test_messages_of_one_report_in_two_processes_where_transactions_are_not_atomic(site: Site) -> None:
    """What one of them finds created by the other is not taken for its own."""
    site.sandbox.config(transactions="off")
    await site.say(a08(1))
    async with site.elsewhere() as other:
        ways = (site.hand(result(3, "P", "5"), number=3), other.hand(result(4, "F", "6"), number=4))
        outcomes = await asyncio.gather(*ways)
    assert [one.result for one in outcomes] == [Result.DELIVERED] * 2
    held = site.one("Observation")
    assert (held["status"], held["valueQuantity"]["value"]) == ("final", 6)


TWO_NUMBERS = WHO.replace("{mrn}", "P9^^^OTHER^MR~{mrn}")


@transactions
@pytest.mark.parametrize("merged", [False, True])
async def test_messages_of_one_report_take_turns_whatever_number_its_patient_has(
    site: Site, transactions: str, merged: bool
) -> None:
    site.sandbox.config(transactions=transactions)
    await site.say(a08(1, TWO_NUMBERS))
    if merged:
        await site.say(merge(2, "P1", "P0"))
    early = result(3, "P", "5", mrn="P0" if merged else "P1")
    late = result(4, "F", "6", who=WHO if merged else TWO_NUMBERS)
    outcomes = await asyncio.gather(site.hand(early, number=3), site.hand(late, number=4))
    assert [one.result for one in outcomes] == [Result.DELIVERED] * 2
    held = site.one("Observation")
    assert (held["status"], held["valueQuantity"]["value"]) == ("final", 6)
    assert site.one("DiagnosticReport")["status"] == "final"
    assert len(site.held("Provenance")) == (4 if merged else 3)


# --- Results of one test at several times


def timed(n: int, *lines: tuple[str, str, str], from_: str = "", to: str = "", sent: str = "") -> bytes:
    """(OBX-14, status, value) of one test."""
    at = sent or day(n)
    request = f"OBR|1|O1|F1|OGTT^Glucose tolerance^L|||{from_}|{to}||||||||||||||{at}|||F"
    results = [
        f"OBX|{number}|NM|GLU^Glucose^L||{value}|mg/dL|||||{status}|||{time}"
        for number, (time, status, value) in enumerate(lines, 1)
    ]
    return message("ORU^R01", at, WHO.format(mrn="P1"), request, *results)


def seen(site: Site) -> list[tuple[str, str, float]]:
    """(hour, status, value) of the results, all of which are the report's."""
    held = site.held("Observation")
    [report] = site.held("DiagnosticReport")
    assert {one["reference"] for one in report["result"]} == {*map(place, held)}
    site.sandbox.assert_sound()
    found = [
        (one.get("effectiveDateTime", "-")[11:13], one["status"], one.get("valueQuantity", {}).get("value"))
        for one in held
    ]
    return sorted(found)


def hour(n: int) -> str:
    return f"202603010{n}00+0100"


FINAL = [("07", "final", 70), ("08", "final", 80), ("09", "final", 90)]


@transactions
@pytest.mark.parametrize("first", [7, 8, 9])
@pytest.mark.parametrize("again", [(7, 8, 9), (9, 8, 7), (8, 9, 7)], ids=str)
async def test_one_time_and_then_all(site: Site, transactions: str, first: int, again: tuple[int, ...]) -> None:
    site.sandbox.config(transactions=transactions)
    await site.say(tolerance(1, (first, "F", f"{first}0")))
    await site.say(tolerance(2, *((hour, "F", f"{hour}0") for hour in again)))
    assert seen(site) == FINAL


@transactions
@pytest.mark.parametrize(
    ("count", "from_", "to"), [(1, "", ""), (3, "", ""), (1, AT_SEVEN, hour(9)), (3, AT_SEVEN, "")]
)
async def test_the_times_come_with_the_final_result(
    site: Site, transactions: str, count: int, from_: str, to: str
) -> None:
    site.sandbox.config(transactions=transactions)
    await site.say(timed(1, *[("", "P", f"{value}0") for value in (7, 8, 9)][:count], from_=from_, to=to))
    await site.say(timed(2, *((hour(n), "F", f"{n}0") for n in (7, 8, 9)), from_=from_, to=to))
    assert seen(site) == FINAL


async def test_a_time_that_is_corrected_among_the_others(site: Site) -> None:
    await site.say(tolerance(1, (7, "F", "70"), (8, "F", "80"), (9, "F", "90")))
    await site.say(tolerance(2, (6, "C", "70"), (8, "F", "80"), (9, "F", "90")))
    await site.say(tolerance(3, (6, "C", "70"), (5, "C", "80"), (9, "F", "90")))
    assert seen(site) == [("05", "corrected", 80), ("06", "corrected", 70), ("09", "final", 90)]


async def test_the_clocks_change_between_the_preliminary_and_the_final_result(site: Site) -> None:
    times = [(f"202603280{n}00", f"{n}0") for n in (7, 8, 9)]
    await site.say(timed(1, *((time, "P", value) for time, value in times), sent="20260328100000+0100"))
    await site.say(timed(2, *((time, "F", value) for time, value in times), sent="20260330100000+0200"))
    assert seen(site) == FINAL


async def test_all_are_cancelled_without_their_times(site: Site) -> None:
    await site.say(tolerance(1, (7, "P", "70"), (8, "P", "80")))
    await site.say(timed(2, ("", "X", ""), ("", "X", "")))
    assert [status for _, status, _ in seen(site)] == ["cancelled", "cancelled"]


async def test_twice_at_one_time_and_in_another_order(site: Site) -> None:
    await site.say(tolerance(1, (7, "F", "70"), (7, "F", "71"), (8, "F", "80")))
    await site.say(tolerance(2, (8, "F", "80"), (7, "F", "70"), (7, "F", "71")))
    assert seen(site) == [("07", "final", 70), ("07", "final", 71), ("08", "final", 80)]


async def test_one_more_time_alone_goes_over_none_of_several(site: Site) -> None:
    await site.say(tolerance(1, (7, "F", "70"), (8, "F", "80")))
    await site.say(tolerance(2, (9, "F", "90")))
    assert seen(site) == FINAL
    await site.say(tolerance(3, (9, "C", "99")))
    assert seen(site)[2] == ("09", "corrected", 99)


@forgetful
async def test_what_is_final_unchanged_is_so_at_the_time_that_is_meant(site: Site, forgets: bool) -> None:
    await site.say(tolerance(1, (7, "P", "70"), (8, "P", "80"), (9, "P", "90")))
    for n, at in enumerate((8, 7), 2):
        await site.say(tolerance(n, (at, "U", "")))
        await forget(site, forgets)
    assert seen(site) == [*FINAL[:2], ("09", "preliminary", 90)]
    await site.say(tolerance(4, (9, "U", ""), (8, "C", "88"), (7, "U", "")))
    assert seen(site) == [FINAL[0], ("08", "corrected", 88), FINAL[2]]
    await site.say(tolerance(5, (7, "C", "77")))
    assert seen(site)[0] == ("07", "corrected", 77)


@transactions
@pytest.mark.parametrize(
    ("first", "then", "held"),
    [
        ([(7, "F", "70"), (8, "F", "80")], [[(9, "U", "")], [(9, "F", "90")]], FINAL),
        ([(7, "P", "70")], [[(8, "F", "80"), (7, "U", "")]], FINAL[:2]),
        ([(7, "F", "71"), (8, "F", "80"), (9, "F", "90")], [[(7, "F", "70"), (8, "U", ""), (9, "U", "")]], FINAL),
        ([(7, "F", "70"), (8, "F", "80")], [[(8, "F", "80"), (9, "F", "90")]], FINAL),
    ],
    ids=str,
)
async def test_some_are_confirmed_and_others_new(
    site: Site,
    transactions: str,
    first: list[tuple[int, str, str]],
    then: list[list[tuple[int, str, str]]],
    held: list[tuple[str, str, float]],
) -> None:
    site.sandbox.config(transactions=transactions)
    for n, lines in enumerate([first, *then], 1):
        await site.say(tolerance(n, *lines))
    assert seen(site) == held


async def test_what_is_confirmed_again_is_final_again(site: Site) -> None:
    for n, lines in enumerate(((7, "P", "70"), (7, "U", ""), (7, "P", "71"), (7, "U", "")), 1):
        await site.say(tolerance(n, lines).replace(f"|||||||||||||||{day(n)}".encode(), b""))
    assert seen(site) == [("07", "final", 71)]


async def test_what_is_confirmed_before_it_came_has_its_value(site: Site) -> None:
    await site.say(tolerance(2, (7, "U", "")), channel="other")
    await site.say(tolerance(1, (7, "P", "70")))
    assert seen(site) == [("07", "final", 70)]


async def test_what_confirms_a_value_corrects_no_time(site: Site) -> None:
    await site.say(tolerance(1, (7, "P", "70")))
    await site.say(tolerance(2, (8, "U", "")))
    assert ("07", "preliminary", 70) in seen(site)


async def test_a_time_of_a_series_may_be_written_in_another_way(site: Site) -> None:
    await site.say(timed(1, ("202603010700+0100", "P", "70"), ("202603010800+0100", "P", "80")))
    first = {place(one): one["valueQuantity"]["value"] // 10 for one in site.held("Observation")}
    await site.say(timed(2, ("20260301070000.000+0000", "F", "81"), ("20260301060000+0000", "F", "71")))
    assert {place(one): one["valueQuantity"]["value"] // 10 for one in site.held("Observation")} == first
    assert seen(site) == [("06", "final", 71), ("07", "final", 81)]


async def test_a_series_that_goes_on_with_the_newest_first_covers_nothing(site: Site) -> None:
    await site.say(timed(1, *((f"20260301{at:02}00+0100", "F", str(at)) for at in (6, 7, 8))))
    await site.say(timed(2, *((f"20260301{at:02}00+0100", "F", str(at)) for at in (9, 8, 7))))
    assert [value for _, _, value in seen(site)] == [6, 7, 8, 9]


async def test_results_that_are_added_go_over_none(site: Site) -> None:
    await site.say(tolerance(1, (6, "F", "60"), (7, "F", "70")))
    await site.say(tolerance(2, (8, "F", "80"), (9, "F", "90")))
    assert [value for _, _, value in seen(site)] == [60, 70, 80, 90]


async def test_a_message_that_is_repeated_after_its_times_were_corrected_adds_nothing(site: Site) -> None:
    first = tolerance(1, (7, "P", "70"))
    await site.say(first)
    await site.say(tolerance(2, (8, "F", "70"), (9, "F", "90")))
    held = seen(site)
    await site.say(first, number=1)
    assert seen(site) == held == [("08", "final", 70), ("09", "final", 90)]


async def test_what_one_search_does_not_bring_is_told_and_doubles_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MOST_MATCHES", 6)
    await site.say(tolerance(1, *((hour, "F", f"{hour}0") for hour in range(1, 8))))
    outcome = await site.hand(tolerance(2, (7, "C", "71")))
    assert (outcome.result, outcome.reason) == (Result.NEVER, "more resources match than one search brings")
    assert len(seen(site)) == 7


async def test_a_result_of_a_specimen_is_corrected(site: Site) -> None:
    def of(n: int, status: str) -> bytes:
        lines = (
            f"OBR|1|O1|F1|GLU^Glucose^L|||{day(1)}|||||||||||||||{day(n)}",
            f"OBX|1|NM|GLU^Glucose^L||{n}||||||{status}",
        )
        return message("ORU^R01", day(n), WHO.format(mrn="P1"), *lines, "SPM|1|S1||BLD^Blood^L")

    await site.say(of(1, "F"))
    await site.say(of(2, "C"))
    held = site.one("Observation")
    assert (held["status"], held["valueQuantity"]["value"]) == ("corrected", 2)


async def test_two_entries_of_one_message_that_are_one_order(site: Site) -> None:
    lines = (
        "ORC|NW|R500|F1", "OBR|1|R500|F1|GLU^Glucose^L", "OBX|1|ST|Q1^Fasting^L||Y||||||F", "SPM|1|S1||BLD^Blood^L",
        "ORC|NW||F1", "OBR|2||F1|GLU^Glucose^L", "DG1|1||E11^Diabetes^I10", "SPM|1|S2||BLD^Blood^L",
    )  # fmt: skip
    for n in (1, 2):
        await site.say(message("OML^O21", day(n), WHO.format(mrn="P1"), *lines))
        request = site.one("ServiceRequest")
        assert (len(request["supportingInfo"]), len(request["reasonReference"])) == (1, 1), "one of each"


@transactions
async def test_a_series_that_one_search_does_not_hold(site: Site, transactions: str) -> None:
    site.sandbox.config(transactions=transactions)

    def minutes(n: int, *which: int) -> bytes:
        return timed(n, *((f"2026030108{minute:02}+0100", "F", str(minute)) for minute in which))

    await site.say(minutes(1, 59))
    assert (await site.hand(minutes(2, *range(60)))).result is Result.DELIVERED
    assert [value for _, _, value in seen(site)] == list(range(60))
    assert len({one["effectiveDateTime"] for one in site.held("Observation")}) == 60
