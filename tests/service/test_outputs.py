"""What a message becomes at an HL7 destination: filtered, mapped, split, with what earlier messages brought."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.filtering import Emit, Remember, Rule, Written
from engine.config.model import Channel
from engine.delivery.outputs import Outputs
from engine.hl7.peek import peek
from engine.ledger.model import State
from engine.mapping.v2.emission import control_id
from engine.mapping.v2.tables import Later
from engine.observe.service_events import TABLE_BROKEN
from engine.service.remedies import Remedies
from engine.service.service import Service
from tests.support.fake import crash_image
from tests.support.house import (
    assert_balances,
    channel,
    configuration,
    emr,
    exchanged,
    open_work,
    running,
    settled,
    states,
    until,
)
from tests.support.moving import decide
from tests.support.ports import free_port

SPLIT = """
steps:
  - set: MSH-5
    to: CLINIC
  - split: OBR
"""
LOOKUP = """
steps:
  - lookup: PV1-3.1
    in: orders
    key: OBR-2
    value: ward
    missing: clear
"""


def written(text: str) -> Written:
    return Written(text, "test.yaml", 1, 1)


def result(n: int, *orders: str, patient: str = "7") -> bytes:
    head = f"MSH|^~\\&|LAB|L|EMR|C|20260101||ORU^R01|C{n}|P|2.5\rPID|1||{patient}^^^H\rPV1|1|I\r"
    return (head + "".join(f"OBR|{i}|{order}\rOBX|1|ST|T||{order}\r" for i, order in enumerate(orders, 1))).encode()


def order(n: int, number: str, ward: str) -> bytes:
    return (
        f"MSH|^~\\&|EMR|C|LAB|L|20260101||ORM^O01|O{n}|P|2.5\rPID|1||7^^^H\rPV1|1|I|{ward}\rORC|NW|{number}\r".encode()
    )


def files(folder: Path, **mappings: str) -> Path:
    (folder / "mappings" / "v2").mkdir(parents=True, exist_ok=True)
    for name, text in mappings.items():
        (folder / "mappings" / "v2" / f"{name}.yaml").write_text(text)
    return folder / "mappings"


@asynccontextmanager
async def service(folder: Path, *channels: Channel, **mappings: str) -> Any:
    made = configuration(folder, *channels)
    made = replace(made, service=replace(made.service, mappings=files(folder, **mappings)))
    async with running(made) as it:
        yield it
        await assert_balances(it)


async def test_a_message_is_split_and_each_part_goes_out_in_order_with_an_id_of_its_own(tmp_path: Path, old_engine):
    to = replace(emr(old_engine.port), name="emr", mapping="each_order")
    port = free_port()
    async with service(tmp_path, channel("acme", port=port, destinations=(to,)), each_order=SPLIT) as it:
        await exchanged(port, result(1, "A", "B", "C"), result(2, "D"))
        await settled(it, "acme", "emr", 2)
        assert await states(it, "acme", "emr") == {"delivered": 2}
        receipts = await it.ledger.read(lambda r: r.connection.execute("select seq, part from receipt").fetchall())
        assert receipts == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert [text(payload) for payload in old_engine.payloads] == ["A", "B", "C", "D"]
    ids = [peek(payload).control_id for payload in old_engine.payloads]
    assert (ids[0], ids[3], len(set(ids))) == ("C1", "C2", 4)
    assert all(b"|CLINIC|" in payload for payload in old_engine.payloads)


def text(payload: bytes) -> str:
    return payload.split(b"|ST|T||")[1].split(b"\r")[0].decode()


async def test_killed_between_two_parts_what_was_acknowledged_is_not_sent_again(tmp_path: Path, old_engine):
    to = replace(emr(old_engine.port, ack_timeout=30.0), name="emr", mapping="each_order")
    port = free_port()
    acme = channel("acme", port=port, destinations=(to,))
    async with service(tmp_path, acme, each_order=SPLIT) as it:
        second = own_id(it, 1, part=2)
        old_engine.faults = type(old_engine.faults)(by_id={second: ("silent",)})
        await exchanged(port, result(1, "A", "B", "C"))
        await until(lambda: [work.key for work in it.ledger.channels["acme"].courses[0].open.values()] == [(1, 2, 1)])
        await until(lambda: [text(payload) for payload in old_engine.payloads] == ["A", "B"])
        crash_image(it.ledger.path, tmp_path / "next")
    async with service(tmp_path / "next", acme, each_order=SPLIT) as it:
        await settled(it, "acme", "emr", 1)
        assert await states(it, "acme", "emr") == {"delivered": 1}
    assert [text(payload) for payload in old_engine.payloads] == ["A", "B", "B", "C"]
    assert [peek(payload).control_id for payload in old_engine.payloads][1:3] == [second, second]


def own_id(it: Service, seq: int, part: int) -> str:
    return control_id(it.ledger.incarnation, "acme", seq, "emr", part)


async def test_a_part_that_is_refused_waits_for_a_person_and_the_rest_goes_with_it(tmp_path: Path, old_engine):
    to = replace(emr(old_engine.port), name="emr", mapping="each_order")
    port = free_port()
    async with service(tmp_path, channel("acme", port=port, destinations=(to,)), each_order=SPLIT) as it:
        old_engine.faults = type(old_engine.faults)(by_id={own_id(it, 1, part=2): ("ar",)})
        await exchanged(port, result(1, "A", "B", "C"), result(2, "D"))
        await until(lambda: open_work(it, "acme", "emr") == [State.DEAD])
        assert [text(payload) for payload in old_engine.payloads] == ["A", "B"]
        (row,) = await Remedies(it).work(selector=None, messages=[("acme", 1)], destination=None, state=None)
        assert (row["part"], row["parts"], row["behind"]) == (2, 3, 1)
        done = await decide(it, "discard", 1)
        assert done["plan"]["lines"][-1] == "of 1 the receiver has the first parts already; the others are not sent"
        await settled(it, "acme", "emr", 2)
        assert await states(it, "acme", "emr") == {"delivered": 1, "discarded": 1}
    assert [text(payload) for payload in old_engine.payloads] == ["A", "B", "D"]


async def test_what_a_rule_holds_back_is_filtered_with_its_reason(tmp_path: Path, old_engine):
    rule = Rule(written("OBR[*]-2 = 'A'"), True, "orders of type A")
    to = replace(emr(old_engine.port), name="emr", filter=(rule,))
    port = free_port()
    async with service(tmp_path, channel("acme", port=port, destinations=(to,))) as it:
        await exchanged(port, result(1, "A"), result(2, "B"))
        await settled(it, "acme", "emr", 2)
        assert await states(it, "acme", "emr") == {"filtered": 1, "delivered": 1}
        assert [row.why for row in await it.ledger.read(lambda r: r.receipts(1))] == ["orders of type A"]
    assert list(old_engine.payloads) == [result(2, "B")]


async def test_our_own_control_ids_are_what_the_answer_is_known_by(tmp_path: Path, old_engine):
    to = replace(emr(old_engine.port), name="emr", emit=Emit(ours=True, prefix="IL"))
    port = free_port()
    async with service(tmp_path, channel("acme", port=port, destinations=(to,))) as it:
        await exchanged(port, result(1, "A"))
        await settled(it, "acme", "emr", 1)
        assert await states(it, "acme", "emr") == {"delivered": 1}
    (id,) = old_engine.control_ids
    assert (id[:2], len(id)) == ("IL", 20)


async def test_captured_are_the_outputs_that_would_be_sent(tmp_path: Path, old_engine):
    to = replace(emr(1), name="emr", mapping="each_order")
    port = free_port()
    acme = channel("acme", port=port, old_engine=old_engine.port, phase="parallel", destinations=(to,))
    async with service(tmp_path, acme, each_order=SPLIT) as it:
        await exchanged(port, result(1, "A", "B"))
        await until(lambda: it.ledger.channels["acme"].course("emr").frontier == 1)
        await until(lambda: not it.ledger.channels["acme"].course("emr").open)
        assert await states(it, "acme", "emr") == {"captured": 1}
        query = "select part, output from captured order by part"
        rows = await it.ledger.read(lambda r: r.connection.execute(query).fetchall())
    assert [(part, text(zlib.decompress(output))) for part, output in rows] == [(1, "A"), (2, "B")]


async def test_what_an_order_brought_is_there_when_its_result_comes(tmp_path: Path, old_engine):
    orders, results = free_port(), free_port()
    brought = Remember("orders", written("ORC-2"), {"ward": written("PV1-3.1")}, 3600.0)
    to = replace(emr(old_engine.port), name="emr", mapping="with_ward")
    channels = (
        replace(channel("acme-orders", port=orders, destinations=(emr(1),)), remember=(brought,)),
        channel("acme", port=results, destinations=(to,)),
    )
    async with service(tmp_path, *channels, with_ward=LOOKUP) as it:
        it.ledger.pause(it.ledger.channels["acme-orders"].courses[0], True)
        for n in range(20):
            await exchanged(orders, order(n, f"N{n}", f"WARD{n}"))
            await exchanged(results, result(n, f"N{n}"))
        await exchanged(results, result(99, "UNKNOWN"))
        await settled(it, "acme", "emr", 21)
    wards = [payload.split(b"PV1|1|I")[1].split(b"\r")[0].decode().strip("|") for payload in old_engine.payloads]
    assert wards == [*(f"WARD{n}" for n in range(20)), ""]


async def test_messages_of_one_patient_stay_in_order_and_others_pass(tmp_path: Path, old_engine):
    to = replace(emr(old_engine.port), name="emr", order_by="patient")
    port = free_port()
    old_engine.faults = type(old_engine.faults)(by_id={"C1": ("ar",)})
    async with service(tmp_path, channel("acme", port=port, destinations=(to,))) as it:
        await exchanged(port, result(1, "A", patient="1"), result(2, "B", patient="1"), result(3, "C", patient="2"))
        await until(lambda: open_work(it, "acme", "emr") == [State.DEAD, State.PARKED])
        await until(lambda: old_engine.control_ids == ["C1", "C3"])


def count_calls(monkeypatch: pytest.MonkeyPatch, of: Any, name: str) -> Callable[[], int]:
    """How often a method was called."""
    calls, method = [0], getattr(of, name)

    async def counted() -> Any:
        calls[0] += 1
        return await method()

    monkeypatch.setattr(of, name, counted)
    return lambda: calls[0]


async def test_a_table_whose_file_changes_is_read_anew_and_opens_an_epoch(tmp_path: Path, old_engine, monkeypatch):
    monkeypatch.setattr("engine.service.service.TABLES_EVERY", 0.05)
    table = tmp_path / "mappings" / "v2" / "tables"
    table.mkdir(parents=True)
    (table / "doctors.yaml").write_text("csv: doctors\nfile: ../../../doctors.csv\nkey: code\nvalues: [name]\n")
    (tmp_path / "doctors.csv").write_text("code,name\nA,ADAMS\n")
    to = replace(emr(old_engine.port), name="emr", mapping="named")
    port = free_port()
    named = "steps:\n  - translate: OBR-2\n    table: doctors\n    unmapped: keep\n"
    async with service(tmp_path, channel("acme", port=port, destinations=(to,)), named=named) as it:
        await exchanged(port, result(1, "A"))
        await settled(it, "acme", "emr", 1)
        (tmp_path / "doctors.csv").write_text("code,name\nA,BAKER\n")
        await until(lambda: it.ledger.channels["acme"].epoch.number == 2)
        await exchanged(port, result(2, "A"))
        await settled(it, "acme", "emr", 2)
    assert [payload.split(b"OBR|1|")[1].split(b"\r")[0] for payload in old_engine.payloads] == [b"ADAMS", b"BAKER"]


async def test_a_table_whose_file_is_broken_is_said_once_and_counted_until_it_is_whole(
    tmp_path: Path, old_engine, monkeypatch, capsys
):
    monkeypatch.setattr("engine.service.service.TABLES_EVERY", 0.02)
    table = tmp_path / "mappings" / "v2" / "tables"
    table.mkdir(parents=True)
    (table / "nurses.yaml").write_text("csv: nurses\nfile: ../../../nurses.csv\nkey: code\nvalues: [name]\n")
    file = tmp_path / "nurses.csv"
    file.write_text("code,name\nA,ADAMS\n")
    to = replace(emr(old_engine.port), name="emr", mapping="named")
    named = "steps:\n  - translate: OBR-2\n    table: nurses\n    unmapped: keep\n"
    async with service(tmp_path, channel("acme", port=free_port(), destinations=(to,)), named=named) as it:
        looked = count_calls(monkeypatch, it.ways, "refresh")
        file.rename(tmp_path / "aside")
        file.write_text("code;name\n")
        await until(lambda: TABLE_BROKEN.of("nurses").n == 1)
        seen = looked()
        await until(lambda: looked() > seen + 3)
        (tmp_path / "aside").rename(file)  # as though nothing had been
        await until(lambda: TABLE_BROKEN.of("nurses").n == 0)
    said = [line for line in capsys.readouterr().err.splitlines() if '"table_broken"' in line]
    assert len(said) == 1


async def test_captures_that_cannot_be_made_yet_are_made_later_in_every_lane(tmp_path: Path, old_engine, monkeypatch):
    stale, made = [True], Outputs._made

    def now_and_then(self, work, by):
        if stale[0]:
            raise Later("table", "doctors", "fresh")
        return made(self, work, by)

    monkeypatch.setattr(Outputs, "_made", now_and_then)
    to = replace(emr(1), name="emr", mapping="each_order", order_by="patient")
    to = replace(to, endpoint=replace(to.endpoint, connections=3))
    port = free_port()
    acme = channel("acme", port=port, old_engine=old_engine.port, phase="parallel", destinations=(to,))
    async with service(tmp_path, acme, each_order=SPLIT) as it:
        course = it.ledger.channels["acme"].course("emr")
        await exchanged(port, *(result(n, "A", patient=str(n % 3)) for n in range(1, 7)))
        await until(lambda: len(course.open) == 6)
        stale[0] = False
        await until(lambda: not course.open)
        assert await states(it, "acme", "emr") == {"captured": 6}
