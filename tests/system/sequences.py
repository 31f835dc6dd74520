"""Messages one after another to a real server process, through the shipped mappings and the delivery."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from engine.fhir.client import FhirClient
from engine.fhir.deliverer import Deliverer
from engine.hl7.peek import peek
from engine.ledger.outcome import Outcome, Result
from engine.mapping.library import Context, Library
from tests.support.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox

Resource = dict[str, Any]

WHO = "PID|1||{mrn}^^^ACME^MR||MUSTER^ERIKA||19800203|F"
RICH = WHO + "|||LANE 1^^ULM^^89073||^PRN^PH^^^^5551|^WPN^PH^^^^5552|||||||"


class Site:
    """Channels that deliver to one project. A message's number is its place in its channel, later ones have higher."""

    def __init__(self, sandbox: Sandbox, library: Library, numbers: Iterator[int] | None = None) -> None:
        self.sandbox, self._library = sandbox, library
        self.deliverer = Deliverer(FhirClient(sandbox.base, CLIENT_ID, CLIENT_SECRET))
        self._numbers = numbers or count(1)

    async def say(self, raw: bytes, *, channel: str = "acme", connection: str = "acme", number: int = 0) -> Outcome:
        """Deliver a message. number: its place in the channel, where it is not the next."""
        next_one = next(self._numbers)
        outcome = await self.hand(raw, channel=channel, connection=connection, number=number or next_one)
        assert outcome.result is Result.DELIVERED, outcome.reason
        return outcome

    async def hand(self, raw: bytes, *, channel: str = "acme", connection: str = "acme", number: int = 99) -> Outcome:
        head = peek(raw)
        mapping = self._library.for_message(head.type, head.trigger)
        assert mapping is not None, head
        context = Context(channel, connection, {}, "UTC", "auto", 1_767_225_600_000_000)
        return await self.deliverer.deliver(mapping.run(raw, context), f"i/{channel}/{number}")

    async def another_process(self) -> Deliverer:
        """A delivery that remembers nothing."""
        await self.deliverer.close()
        return Deliverer(FhirClient(self.sandbox.base, CLIENT_ID, CLIENT_SECRET))

    @asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[Site]:
        """Another process that delivers to the same project; neither knows what the other one does."""
        other = Site(self.sandbox, self._library, self._numbers)
        try:
            yield other
        finally:
            await other.deliverer.close()

    def held(self, kind: str) -> list[Resource]:
        return self.sandbox.dump(kind)

    def one(self, kind: str) -> Resource:
        return self.sandbox.one(kind)

    def versions(self) -> dict[str, int]:
        counted: dict[str, int] = self.sandbox.stats()["versions"]
        return counted

    # --- Patients by their own number

    def patient(self, mrn: str) -> Resource:
        [found] = [one for one in self.held("Patient") if mrn in own_numbers(one)]
        return found

    def owner(self, filler: str) -> str:
        """The number of the patient who has the report and all of its results."""
        [report] = [one for one in self.held("DiagnosticReport") if filler in values(one)]
        results = [one for one in self.held("Observation") if {"reference": place(one)} in report["result"]]
        assert results
        subjects = {one["subject"]["reference"] for one in (report, *results)}
        [who] = [one for one in self.held("Patient") if {place(one)} == subjects]
        return own_numbers(who)[0]


def place(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def values(resource: Resource) -> list[str]:
    return [one["value"] for one in resource["identifier"]]


def own_numbers(patient: Resource) -> list[str]:
    return [one["value"] for one in patient["identifier"] if one.get("use") != "old"]


def old_numbers(patient: Resource) -> list[str]:
    return [one["value"] for one in patient["identifier"] if one.get("use") == "old"]


def links(patient: Resource) -> list[tuple[str, str]]:
    return [(one["type"], one["other"]["reference"]) for one in patient.get("link") or ()]


def but(resource: Resource, *names: str) -> Resource:
    """The resource without some of its elements, and without what the server and the delivery note of it."""
    return {name: value for name, value in resource.items() if name not in (*names, "meta")}


def message(event: str, sent: str, *segments: str) -> bytes:
    """A message whose times are all `sent`."""
    kind, _, trigger = event.partition("^")
    head = f"MSH|^~\\&|LIS|LAB|EMR|CLINIC|{sent}||{event}|{kind}{trigger}{sent}|P|2.5.1"
    lines = [head, f"EVN|{trigger}|{sent}", *segments] if kind == "ADT" else [head, *segments]
    return "".join(f"{line}\r" for line in lines).encode()


def line(name: str, fields: dict[int, str]) -> str:
    """A segment of these fields."""
    return "|".join([name, *(fields.get(n, "") for n in range(1, max(fields) + 1))])


def day(n: int) -> str:
    return f"202603{n:02}100000+0100"


def a08(n: int, pid: str = WHO, mrn: str = "P1", *more: str) -> bytes:
    return message("ADT^A08", day(n), pid.format(mrn=mrn), *more)


def result(
    n: int,
    status: str = "F",
    value: str = "5",
    *,
    filler: str = "F1",
    mrn: str = "P1",
    who: str = WHO,
    issued: str = "",
) -> bytes:
    """A result of one line. issued: OBR-22, where it is told."""
    return message(
        "ORU^R01",
        day(n),
        who.format(mrn=mrn),
        line(
            "OBR",
            {
                1: "1",
                2: "O" + filler.removeprefix("F"),
                3: filler,
                4: "GLU^Glucose^L",
                7: "20260301",
                22: issued,
                25: status,
            },
        ),
        f"OBX|1|NM|GLU^Glucose^L||{value}|mg/dL|||||{status}",
    )


def order(n: int, control: str, *, priority: str = "", status: str = "") -> bytes:
    return message(
        "ORM^O01",
        day(n),
        WHO.format(mrn="P1"),
        f"ORC|{control}|O1|||{status}",
        f"OBR|1|O1||GLU^Glucose^L|{priority}",
    )


def merge(n: int, survivor: str, old: str) -> bytes:
    return message("ADT^A40", day(n), WHO.format(mrn=survivor), f"MRG|{old}^^^ACME^MR")


def unlink(n: int, one: str, other: str) -> bytes:
    return message("ADT^A37", day(n), WHO.format(mrn=one), WHO.format(mrn=other))


def panel(n: int, control: str, *codes: str) -> bytes:
    """Services under one number of the placer."""
    requests = [f"OBR|{at}|R500||{code}^{code} panel^C4" for at, code in enumerate(codes, 1)]
    return message("ORM^O01", day(n), WHO.format(mrn="P1"), f"ORC|{control}|R500", *requests)


def tube(n: int, event: str, number: str, *more: str) -> bytes:
    lines = [f"SPM|{at}|{one}||BLD^Blood^L" for at, one in enumerate((number, *more), 1)]
    order = ("ORC|NW|O1|F1", f"OBR|1|O1|F1|GLU^Glucose^L|||{day(1)}|||||||||||||||{day(n)}|||F")
    return message(event, day(n), WHO.format(mrn="P1"), *order, *lines)


def tolerance(n: int, *lines: tuple[int, str, str]) -> bytes:
    """One test at several hours: (hour, status, value)."""
    request = f"OBR|1|O1|F1|OGTT^Glucose tolerance^L|||202603010700+0100|||||||||||||||{day(n)}|||F"
    results = [
        f"OBX|{at}|NM|GLU^Glucose^L||{value}|mg/dL|||||{status}|||202603010{hour}00+0100"
        for at, (hour, status, value) in enumerate(lines, 1)
    ]
    return message("ORU^R01", day(n), WHO.format(mrn="P1"), request, *results)
