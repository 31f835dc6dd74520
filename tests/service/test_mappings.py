"""By which mapping a message is made: what waits, by the present one; what went out in part, what may have gone out and
what a replay wants so, by the one as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.filtering import Rule, Written
from engine.fhir.output import Output
from engine.hl7.peek import peek
from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result
from engine.migration.refused import Refused
from engine.service.service import Service
from tests.service.test_outputs import own_id, text
from tests.support.fake import crash_image
from tests.support.house import (
    MEDPLUM,
    assert_balances,
    channel,
    configuration,
    emr,
    exchanged,
    open_work,
    running,
    settled,
    until,
    written,
)
from tests.support.moving import decide, replay
from tests.support.ports import free_port


def to_clinic(name: str, then: str = "") -> str:
    return f"steps:\n  - set: MSH-5\n    to: {name}\n{then}"


SPLIT = "  - split: OBR\n"
DOCTORS = "steps:\n  - translate: OBR-2\n    table: doctors\n    unmapped: keep\n"


def result(n: int, *orders: str) -> bytes:
    head = f"MSH|^~\\&|LAB|L|EMR|C|20260101||ORU^R01|C{n}|P|2.5\rPID|1||7^^^H\r"
    return (head + "".join(f"OBR|{i}|{order}\rOBX|1|ST|T||{order}\r" for i, order in enumerate(orders, 1))).encode()


class House:
    """A channel to one clinic, whose mapping a test writes."""

    def __init__(self, folder: Path, clinic: Any) -> None:
        self.folder, self.clinic = folder, clinic
        self.port = free_port()
        to = replace(emr(clinic.port), name="emr", mapping="m")
        self.channel = channel("acme", port=self.port, destinations=(to,))

    def says(self, mapping: str) -> House:
        (self.folder / "mappings" / "v2" / "tables").mkdir(parents=True, exist_ok=True)
        (self.folder / "mappings" / "v2" / "m.yaml").write_text(mapping)
        return self

    @asynccontextmanager
    async def open(self, ledger: Path | None = None, **changes: Any) -> AsyncIterator[Service]:
        """A service over this folder's ledger, or another one; `changes` of the channel's only destination."""
        assert self.channel.target is not None
        to = replace(self.channel.target.destinations[0], **changes)
        made = configuration(
            self.folder, replace(self.channel, target=replace(self.channel.target, destinations=(to,)))
        )
        service = replace(made.service, mappings=self.folder / "mappings", ledger=ledger or made.service.ledger)
        async with running(replace(made, service=service)) as it:
            yield it
            await assert_balances(it)

    async def send(self, *payloads: bytes) -> None:
        await exchanged(self.port, *payloads)

    @property
    def heard(self) -> list[str]:
        """Whom each message at the clinic was for."""
        return [peek(payload).fields[4].decode() for payload in self.clinic.payloads]


@pytest.fixture
def house(tmp_path: Path, old_engine: Any) -> House:
    return House(tmp_path, old_engine)


async def ordered(it: Service, first: int, last: int, mapping: str, **options: Any) -> dict[str, Any]:
    await written(it)
    return await replay(it, "emr", first, last, mapping=mapping, **options)


async def replayed(it: Service, mapping: str, first: int, last: int) -> None:
    await ordered(it, first, last, mapping)
    course = it.ledger.channels["acme"].courses[0]
    await until(lambda: not it.replaying.running() and not course.open)


class TestReplay:
    async def test_as_was_is_made_by_the_mapping_by_which_it_first_went_there(self, house: House):
        async with house.says(to_clinic("ONE")).open() as it:
            await house.send(result(1, "A"))
            await settled(it, "acme", "emr", 1)
        async with house.says(to_clinic("TWO")).open() as it:
            await house.send(result(2, "B"))
            await settled(it, "acme", "emr", 2)
            await replayed(it, "as-is", 1, 2)
            await replayed(it, "as-was", 1, 2)
        assert house.heard == ["ONE", "TWO", "TWO", "TWO", "ONE", "TWO"]

    async def test_the_plan_says_how_many_by_which(self, house: House):
        async with house.says(to_clinic("ONE")).open() as it:
            await house.send(result(1, "A"), result(2, "A"))
            await settled(it, "acme", "emr", 2)
            version = it.ledger.channels["acme"].epoch.routing.routes[0].mapping
        async with house.says(to_clinic("TWO")).open() as it:
            await house.send(result(3, "B"))
            await settled(it, "acme", "emr", 3)
            lines = (await ordered(it, 1, 3, "as-was", dry_run=True))["plan"]["lines"]
            assert lines[0].endswith("by the mapping as it was when they first went there")
            assert lines[1].startswith(f"2 of them by mapping {version}, of epoch 1 from 20")
            assert lines[2] == "1 of them by the one that is the present one"
            lines = (await ordered(it, 1, 3, "as-is", dry_run=True))["plan"]["lines"]
            assert lines[1] == "2 of them were made by another mapping: --mapping as-was sends them as they were"

    async def test_a_mapping_that_is_not_kept_is_refused_with_the_numbers_and_what_would_be_right(self, house: House):
        async with house.says(to_clinic("ONE")).open() as it:
            await house.send(result(1, "A"), result(2, "A"))
            await settled(it, "acme", "emr", 2)
        async with house.says(to_clinic("TWO")).open() as it:
            await house.send(result(3, "B"))
            await settled(it, "acme", "emr", 3)
            it.ledger.mappings -= {it.ledger.channels["acme"].epochs[0].routing.routes[0].mapping}
            with pytest.raises(
                Refused, match=r"2 of them were made by a mapping that is not kept .*: 1-2\. Leave those"
            ):
                await ordered(it, 1, 3, "as-was")
            await replayed(it, "as-was", 3, 3)
        assert house.heard == ["ONE", "ONE", "TWO", "TWO"]

    async def test_what_a_person_discarded_is_left_out_of_a_range(self, house: House):
        async with house.says(to_clinic("ONE")).open() as it:
            house.clinic.faults = type(house.clinic.faults)(by_id={"C1": ("ar",)})
            await house.send(result(1, "A"))
            await until(lambda: open_work(it, "acme", "emr") == [State.DEAD])
            await decide(it, "discard", 1)
            await house.send(result(2, "B"))
            await settled(it, "acme", "emr", 2)
            said = (await ordered(it, 1, 2, "as-was", dry_run=True))["plan"]
            assert (said["count"], said["lines"][-1]) == (
                1, "left out (1 discarded there: name one alone to send it all the same)",
            )  # fmt: skip

    async def test_the_filter_and_the_control_ids_are_as_they_were_too(self, house: House):
        rule = Rule(Written("OBR-2 = 'A'", "test.yaml", 1, 1), True, "orders of type A")
        async with house.says(to_clinic("ONE")).open() as it:
            await house.send(result(1, "A"))
            await settled(it, "acme", "emr", 1)
        async with house.open(mapping=None, filter=(rule,)) as it:
            await replayed(it, "as-is", 1, 1)
            assert house.heard == ["ONE"]
            await replayed(it, "as-was", 1, 1)
            assert house.heard == ["ONE", "ONE"]
        async with house.open(mapping=None) as it:  # it goes as it came
            await replayed(it, "as-is", 1, 1)
            await replayed(it, "as-was", 1, 1)
        assert house.heard == ["ONE", "ONE", "EMR", "ONE"]

    async def test_a_table_whose_file_has_changed_says_what_it_said_then(self, house: House, monkeypatch):
        monkeypatch.setattr("engine.service.service.TABLES_EVERY", 0.05)
        doctors = house.says(DOCTORS).folder / "doctors.csv"
        (house.folder / "mappings" / "v2" / "tables" / "doctors.yaml").write_text(
            "csv: doctors\nfile: ../../../doctors.csv\nkey: code\nvalues: [name]\nmax_age: 1d\nstale: refuse\n"
        )
        doctors.write_text("code,name\nA,ADAMS\n")
        async with house.open() as it:
            await house.send(result(1, "A"))
            await settled(it, "acme", "emr", 1)
            for n, name in ((2, "BAKER"), (3, "CLARK")):
                doctors.write_text(f"code,name\nA,{name}\n")
                await until(lambda n=n: it.ledger.channels["acme"].epoch.number == n)
            await replayed(it, "as-was", 1, 1)
            await replayed(it, "as-is", 1, 1)
        async with house.open() as it:  # and from the ledger alone
            await replayed(it, "as-was", 1, 1)
        said = [payload.split(b"OBR|1|")[1].split(b"\r")[0] for payload in house.clinic.payloads]
        assert said == [b"ADAMS", b"ADAMS", b"CLARK", b"ADAMS"]

    async def test_after_a_kill_it_goes_on_as_it_was(self, house: House, tmp_path: Path):
        async with house.says(to_clinic("ONE")).open() as it:
            await house.send(*(result(n, "A") for n in range(1, 6)))
            await settled(it, "acme", "emr", 5)
        house.clinic.faults = type(house.clinic.faults)(by_id={"C3": ("silent",)})
        async with house.says(to_clinic("TWO")).open() as it:
            await ordered(it, 1, 5, "as-was")
            await until(lambda: len(house.clinic.payloads) == 8)
            await written(it)
            crash_image(it.ledger.path, tmp_path / "next")
        house.clinic.faults = type(house.clinic.faults)()
        async with house.open(tmp_path / "next" / "interlock.db") as it:
            await until(lambda: not it.replaying.running() and not it.ledger.channels["acme"].courses[0].open)
        assert set(house.heard) == {"ONE"}


class TestParts:
    async def test_after_a_part_that_went_out_the_others_are_made_as_it_was(self, house: House, tmp_path: Path):
        async with house.says(to_clinic("ONE", SPLIT)).open() as it:
            house.clinic.faults = type(house.clinic.faults)(by_id={own_id(it, 1, 2): ("silent",)})
            await house.send(result(1, "A", "B", "C"))
            await until(lambda: len(house.clinic.payloads) == 2)
            await written(it)
            crash_image(it.ledger.path, tmp_path / "next")
        house.clinic.faults = type(house.clinic.faults)()
        async with house.says(to_clinic("TWO")).open(tmp_path / "next" / "interlock.db") as it:  # splits no more
            await house.send(result(2, "D", "E"))
            await settled(it, "acme", "emr", 2)
        assert house.heard == ["ONE", "ONE", "ONE", "ONE", "TWO"]
        assert [text(payload) for payload in list(house.clinic.payloads)[-3:]] == ["B", "C", "D"]

    async def test_a_retry_of_a_later_part_is_made_as_it_was_and_says_so(self, house: House):
        async with house.says(to_clinic("ONE", SPLIT)).open() as it:
            second = own_id(it, 1, 2)
            house.clinic.faults = type(house.clinic.faults)(by_id={second: ("ar",)})
            await house.send(result(1, "A", "B", "C"))
            await until(lambda: open_work(it, "acme", "emr") == [State.DEAD])
        house.clinic.faults = type(house.clinic.faults)()
        async with house.says(to_clinic("TWO")).open() as it:
            said = (await decide(it, "retry", 1))["plan"]["lines"]
            assert said[-1] == "1 of them by the mapping that made what went before; a new one is for a replay"
            await settled(it, "acme", "emr", 1)
        assert house.heard == ["ONE"] * 4

    async def test_where_the_mapping_of_the_first_part_is_not_kept_a_person_decides(self, house: House):
        async with house.says(to_clinic("ONE", SPLIT)).open() as it:
            second = own_id(it, 1, 2)
            house.clinic.faults = type(house.clinic.faults)(by_id={second: ("ar",)})
            await house.send(result(1, "A", "B"))
            await until(lambda: open_work(it, "acme", "emr") == [State.DEAD])
            version = it.ledger.channels["acme"].epoch.routing.routes[0].mapping
            lost = [("delete from mapping where version = ?", (version,))]
            await it.ledger.transaction(lambda book: None, lost)
        async with house.says(to_clinic("TWO")).open() as it:
            await decide(it, "retry", 1)
            await until(lambda: open_work(it, "acme", "emr") == [State.DEAD])
            (work,) = it.ledger.channels["acme"].courses[0].open.values()
            assert work.why == f"it is bound to an earlier mapping: mapping {version} is not kept"


class TestOpen:
    async def test_what_merely_waits_is_made_by_the_present_mapping(self, house: House, tmp_path: Path):
        async with house.says(to_clinic("ONE")).open() as it:
            await house.send(result(1, "A"))
            await settled(it, "acme", "emr", 1)
            it.ledger.pause(it.ledger.channels["acme"].courses[0], True)
            await house.send(result(2, "B"))
            await written(it)
            crash_image(it.ledger.path, tmp_path / "next")
        async with house.says(to_clinic("TWO")).open(tmp_path / "next" / "interlock.db") as it:
            await settled(it, "acme", "emr", 2)
            await written(it)
            rows = "select seq, epoch, made_by from receipt order by id"
            found = await it.ledger.read(lambda r: r.connection.execute(rows).fetchall())
            assert found == [(1, 1, 1), (2, 1, 2)]
            await replayed(it, "as-was", 1, 2)
        assert house.heard == ["ONE", "TWO", "ONE", "TWO"]

    async def test_what_may_have_been_taken_goes_again_as_it_was(self, house: House, tmp_path: Path):
        house.clinic.faults = type(house.clinic.faults)(by_id={"C1": ("silent",)})
        async with house.says(to_clinic("ONE")).open() as it:
            await house.send(result(1, "A"))
            await until(lambda: len(house.clinic.payloads) == 1)
            await written(it)
            crash_image(it.ledger.path, tmp_path / "next")
        house.clinic.faults = type(house.clinic.faults)()
        async with house.says(to_clinic("TWO")).open(tmp_path / "next" / "interlock.db") as it:
            await settled(it, "acme", "emr", 1)
        assert house.heard == ["ONE", "ONE"]

    async def test_a_retry_is_made_by_the_present_mapping(self, house: House):
        house.clinic.faults = type(house.clinic.faults)(by_id={"C1": ("ar",)})
        async with house.says(to_clinic("ONE")).open() as it:
            await house.send(result(1, "A"))
            await until(lambda: open_work(it, "acme", "emr") == [State.DEAD])
        house.clinic.faults = type(house.clinic.faults)()
        async with house.says(to_clinic("TWO")).open() as it:
            assert (await decide(it, "retry", 1))["plan"]["lines"][-1] == (
                "what is sent is made by the mapping as it is now"
            )
            await settled(it, "acme", "emr", 1)
        assert house.heard == ["ONE", "TWO"]


class TestKept:
    async def test_at_a_start_with_the_same_files_nothing_is_kept_again_and_no_epoch_opened(self, house: House):
        counts = (
            "select (select count(*) from mapping), (select count(*) from mapping_part), (select count(*) from epoch)"
        )
        found = []
        for _ in range(2):
            async with house.says(to_clinic("ONE")).open() as it:
                found.append(await it.ledger.read(lambda r: r.connection.execute(counts).fetchone()))
            house.says("# remarked\n" + to_clinic("ONE"))
        assert found == [(1, 1, 1)] * 2

    async def test_what_no_message_needs_any_more_goes(self, house: House):
        for name in ("ONE", "TWO", "THREE"):
            async with house.says(to_clinic(name)).open() as it:
                await house.send(result(1, "A"))
                await until(lambda: not it.ledger.channels["acme"].courses[0].unsettled())
        async with house.open() as it:
            assert await it.ledger.drop_mappings() == 0
            kept = it.ledger.kept[it.ledger.channels["acme"].id]
            kept.marks["raw"] = 1
            assert await it.ledger.drop_mappings() == 1
            kept.marks["raw"] = 3
            assert await it.ledger.drop_mappings() == 1
            assert await it.ledger.read(lambda r: r.rebuilt()) == []
            kept.marks.clear()


class Medplum:
    """Keeps what would be written."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []

    async def deliver(self, output: Output, tag: str, **_: Any) -> Outcome:
        self.outputs.append(output)
        return Outcome(Result.DELIVERED)

    async def probe(self) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        pass


RESULT = Path("samples/result.hl7").read_bytes().replace(b"\n", b"\r").replace(b"-0600", b"")


async def test_what_goes_to_medplum_is_made_as_it_was_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    medplum, port = Medplum(), free_port()
    monkeypatch.setattr("engine.service.carriers.Deliverer", lambda *_, **__: medplum)
    acme = channel("acme", port=port, destinations=(MEDPLUM,), accepts=("ORU^R01",), mapping="oru_r01")

    @asynccontextmanager
    async def live(zone: str) -> AsyncIterator[Service]:
        made = configuration(tmp_path, replace(acme, timezone=zone), medplum="http://127.0.0.1:1")
        async with running(made) as it:
            yield it
            course = it.ledger.channels["acme"].courses[0]
            await until(lambda: not it.replaying.running() and not course.unsettled())
            await assert_balances(it)

    async with live("America/Chicago"):
        await exchanged(port, RESULT)
    for mapping in ("as-was", "as-is"):
        async with live("Europe/Berlin") as it:
            await replay(it, "medplum", 1, 1, mapping=mapping)
    first, was, now = map(repr, medplum.outputs)
    assert first == was != now
