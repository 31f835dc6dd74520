"""Acknowledgements through the running service: whose answer, in which mode and form, on which connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Ack, AckForm, Answers, Framing, Listen
from engine.hl7.ack import parse_ack
from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result
from engine.observe.delivery_events import STRAY
from engine.observe.intake_events import UNSENT
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.fake import DELIVERED, Fake, FakeWays
from tests.support.house import (
    MEDPLUM,
    Peer,
    assert_balances,
    channel,
    configuration,
    emr,
    kept,
    live,
    old,
    open_work,
    port_of,
    running,
    served,
    settled,
    states,
    until,
)
from tests.support.ports import free_port
from tests.support.scripted import Scripted, ack, at_first
from tests.support.wanting import asking

MESSAGES = Messages("oru", seed=51)


def message(number: int = 1, accept: str = "", application: str = "") -> bytes:
    """One with MSH-15 and MSH-16."""
    return asking(MESSAGES.message(number), accept, application)


def not_taken(number: int, accept: str = "", application: str = "") -> bytes:
    """One of a type that the channel does not take."""
    return message(number, accept, application).replace(b"ORU^R01", b"MDM^T02")


def code(answer: bytes) -> str:
    parsed = parse_ack(answer)
    assert parsed is not None
    return parsed.code


async def codes(peer: Peer, count: int) -> list[str]:
    """What comes, and that nothing else does."""
    said = [code(await peer.answer()) for _ in range(count)]
    assert await peer.silence()
    return said


# -- ours: `stored`

MODES = [
    ("", "", ["AA"], ["AR"]),
    ("AL", "NE", ["CA"], ["CR"]),
    ("AL", "AL", ["CA", "AA"], ["CR"]),
    ("NE", "AL", ["AA"], ["AR"]),
    ("NE", "NE", [], []),
    ("ER", "NE", [], ["CR"]),
    ("SU", "NE", ["CA"], []),
    ("ER", "AL", ["AA"], ["CR"]),
    ("NE", "ER", [], ["AR"]),
    ("ER", "ER", [], ["CR"]),
    ("SU", "SU", ["CA", "AA"], []),
    ("AL", "ER", ["CA"], ["CR"]),
    ("AL", "", ["CA"], ["CR"]),
    ("", "AL", ["AA"], ["AR"]),
]


@pytest.mark.parametrize(("accept", "application", "taken", "refused"), MODES)
async def test_a_sender_hears_what_msh_15_and_16_ask_for(
    tmp_path: Path, accept: str, application: str, taken: list[str], refused: list[str]
):
    async with served(tmp_path, live()) as (service, peer):
        peer.send(message(1, accept, application))
        assert await codes(peer, len(taken)) == taken
        peer.send(not_taken(2, accept, application))
        assert await codes(peer, len(refused)) == refused
        assert service.ledger.channels["acme"].seq == 1
        assert code(await peer.exchange(message(3))) == "AA", "the connection goes on"


async def test_a_channel_may_answer_in_original_mode_whatever_is_asked_for(tmp_path: Path):
    async with served(tmp_path, live(ack=Ack("stored", mode="original"))) as (_, peer):
        peer.send(message(1, "NE", "NE"))
        assert await codes(peer, 1) == ["AA"]


async def test_a_channel_may_answer_in_enhanced_mode_though_nothing_is_asked_for(tmp_path: Path):
    async with served(tmp_path, live(ack=Ack("stored", mode="enhanced"))) as (_, peer):
        peer.send(message(1))
        assert await codes(peer, 1) == ["CA"]
        peer.send(not_taken(2))
        assert await codes(peer, 1) == ["CR"]


FORMS: dict[str, tuple[AckForm, bytes, Callable[[bytes], bool]]] = {
    "codes": (AckForm(codes={"AA": "CA", "AR": "AE"}), b"\rMSA|AE|", lambda yes: b"\rMSA|CA|" in yes),
    "kind": (AckForm(kind="ACK"), b"|ACK|", lambda yes: b"|ACK|" in yes),
    "err none": (AckForm(err="none"), b"\rMSA|AR|", lambda yes: b"\rERR" not in yes),
    "err 2.3": (AckForm(err="2.3"), b"\rERR|MSH^1^9^20", lambda yes: b"\rERR" not in yes),
    "err 2.5": (AckForm(err="2.5"), b"\rERR||MSH^1^9|20", lambda yes: b"\rERR" not in yes),
    "no text": (AckForm(text=False), b"|E\r", lambda yes: b"\rMSA|AA|" in yes),
}


@pytest.mark.parametrize("name", FORMS)
async def test_our_answers_have_the_partners_form(tmp_path: Path, name: str):
    form, no, yes = FORMS[name]
    async with served(tmp_path, live(ack=Ack("stored", form=form))) as (_, peer):
        assert yes(await peer.exchange(message(1)))
        assert no in await peer.exchange(not_taken(2))


async def test_the_answer_is_in_the_senders_charset_and_delimiters(tmp_path: Path):
    async with served(tmp_path, live()) as (_, peer):
        latin = b"MSH|^~\\&|L\xe4b|F|EMR|C|20260101||ORU^R01|\xe91|P|2.3||||||8859/1\rPID|1||1||M\xfcller\r"
        answer = await peer.exchange(latin)
        assert b"|EMR|C|L\xe4b|F|" in answer
        assert b"\rMSA|AA|\xe91\r" in answer
        wide = message(2).decode().encode("utf-16")
        answer = await peer.exchange(wide)
        assert f"MSA|AA|{MESSAGES.control_id(2)}" in answer.decode("utf-16")
        odd = b"MSH#*~\\&#LAB#F#EMR#C#20260101##ORU*R01#X1#P#2.5\rPID#1\r"
        assert b"\rMSA#AA#X1\r" in await peer.exchange(odd)


async def test_an_acknowledgement_is_never_acknowledged(tmp_path: Path):
    async with served(tmp_path, live()) as (service, peer):
        stray = ack(message(1))
        peer.send(stray)
        assert await peer.silence()
        assert code(await peer.exchange(message(2))) == "AA"
        assert await kept(service, "kind", "raw", "answer") == [("stray_acknowledgement", stray, None)]
        assert service.ledger.channels["acme"].seq == 1


async def test_answers_go_to_a_second_port_where_the_channel_says_so(tmp_path: Path):
    async with (
        Scripted(lambda payload: ()) as second,
        served(tmp_path, live(ack=Ack("stored", to=old(second.port)))) as (_, peer),
    ):
        peer.send(message(1))
        peer.send(not_taken(2))
        await until(lambda: len(second.payloads) == 2)
        assert [code(payload) for payload in second.payloads] == ["AA", "AR"]
        assert await peer.silence()


async def test_an_accept_acknowledgement_comes_on_the_senders_own_connection_all_the_same(tmp_path: Path):
    async with (
        Scripted(lambda payload: ()) as second,
        served(tmp_path, live(ack=Ack("stored", to=old(second.port)))) as (_, peer),
    ):
        peer.send(message(1, "AL", "NE"))
        assert await codes(peer, 1) == ["CA"]
        peer.send(message(2, "AL", "AL"))
        assert await codes(peer, 1) == ["CA"]
        peer.send(not_taken(3, "AL", "AL"))
        assert await codes(peer, 1) == ["CR"]
        await until(lambda: len(second.payloads) == 1)
        assert code(second.payloads[0]) == "AA"


async def test_answers_go_to_the_second_port_as_its_endpoint_says(tmp_path: Path):
    heard = asyncio.Queue[bytes]()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                heard.put_nowait(await reader.readuntil(b"\x03"))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        there = old(server.sockets[0].getsockname()[1], framing=Framing(b"\x02", b"\x03"), persistent=False)
        async with served(tmp_path, live(ack=Ack("stored", to=there))) as (_, peer):
            for number in (1, 2):
                peer.send(message(number))
                answer = await asyncio.wait_for(heard.get(), 5)
                assert answer[:1] == b"\x02"
                assert parse_ack(answer[1:-1]).control_id == MESSAGES.control_id(number)


async def test_an_answer_that_nobody_takes_at_the_second_port_is_seen(tmp_path: Path):
    nobody = Ack("stored", to=old(free_port()))
    async with served(tmp_path, live("unheard", ack=nobody)) as (_, peer):
        before = UNSENT.of("unheard").n
        peer.send(message(1))
        await until(lambda: UNSENT.of("unheard").n == before + 1)


# -- the old engine's: `authoritative`

DATA = {
    "ORR": b"MSH|^~\\&|OLD|F|LAB|C|20260101||ORR^O02|77|P|2.3\rMSA|AA|%b\rPID|1||9\rORC|OK|1|F-9\r",
    "ORL": b"MSH|^~\\&|OLD|F|LAB|C|20260101||ORL^O22^ORL_O22|77|P|2.5.1\rMSA|AA|%b\rORC|OK|1|F-9\rOBR|1|1|F-9\r",
    "RSP": b"MSH|^~\\&|OLD|F|LAB|C|20260101||RSP^K22^RSP_K22|77|P|2.5\rMSA|AA|%b\rQAK|Q1|OK\rPID|1||9||JO\xc3\x8b\r",
    "without a last CR": b"MSH|^~\\&|OLD|F|LAB|C|20260101||ACK|77|P|2.2\rMSA|AA|%b|all well",
    "LF": b"MSH|^~\\&|OLD|F|LAB|C|20260101||ACK|77|P|2.2\nMSA|AA|%b\n",
    "padded": b"MSH|^~\\&|OLD|F|LAB|C|20260101||ACK|77|P|2.2\rMSA|AA |%b\r",
}


@pytest.mark.parametrize("name", DATA)
async def test_what_the_old_engine_says_is_relayed_byte_for_byte(tmp_path: Path, name: str):
    answer = DATA[name] % MESSAGES.control_id(1).encode()
    async with (
        Scripted(lambda payload: (answer,)) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer),
    ):
        assert await peer.exchange(message(1)) == answer
        await settled(service, "acme", "legacy", 1)
        assert await states(service, "acme", "legacy") == {"delivered": 1}


async def test_the_old_engines_accept_acknowledgement_and_its_later_answer_are_both_relayed(tmp_path: Path):
    async with (
        Scripted(lambda payload: (ack(payload, "CA"), 0.2, ack(payload, "AA"))) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer),
    ):
        asked = message(1, "AL", "AL")
        assert await peer.exchange(asked) == ack(asked, "CA")
        assert await peer.answer() == ack(asked, "AA")
        await settled(service, "acme", "legacy", 1)
        assert set(engine.sockets) == {1}
        assert await kept(service, "kind", "answer") == [("application_answer", ack(asked, "AA"))]
        assert await peer.exchange(message(2, "AL", "AL")) == ack(message(2), "CA")


async def test_the_answer_to_an_earlier_message_is_not_taken_for_the_next_ones(tmp_path: Path):
    """CA for the first; its AA comes while the second waits for its own."""
    says = at_first(
        lambda first: (ack(first, "CA"), 0.15, ack(first, "AA")),
        lambda second: (0.4, ack(second, "CA"), ack(second, "AA")),
    )
    async with Scripted(says) as engine, served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer):
        one, two = message(1, "AL", "AL"), message(2, "AL", "AL")
        assert await peer.exchange(one) == ack(one, "CA")
        peer.send(two)
        assert await peer.answer() == ack(one, "AA")
        assert await peer.answer() == ack(two, "CA")
        assert await peer.answer() == ack(two, "AA")
        await settled(service, "acme", "legacy", 2)
        assert engine.payloads == [one, two], "nothing was sent twice"
        assert set(engine.sockets) == {1}


async def test_nor_is_it_where_the_senders_ask_for_nothing(tmp_path: Path):
    says = at_first(
        lambda first: (ack(first, "CA"), 0.15, ack(first, "AA")),
        lambda second: (0.4, ack(second, "AA")),
    )
    async with Scripted(says) as engine, served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer):
        one, two = message(1), message(2)
        assert await peer.exchange(one) == ack(one, "CA")
        assert await peer.exchange(two) == ack(two, "AA"), "which could be taken for another one's, too"
        await settled(service, "acme", "legacy", 2)
        assert engine.payloads == [one, two], "nothing was sent twice"


async def test_where_no_answer_is_wanted_none_is_waited_for(tmp_path: Path):
    async with (
        Scripted(lambda payload: ()) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer),
    ):
        for number in range(1, 6):
            peer.send(message(number, "NE", "NE"))
        await settled(service, "acme", "legacy", 5, 3.0)
        assert await peer.silence()
        assert engine.payloads == [message(number, "NE", "NE") for number in range(1, 6)]
        assert set(engine.sockets) == {1}


async def test_a_sender_that_wants_to_hear_of_errors_only_is_not_held_up_by_what_goes_well(tmp_path: Path):
    """It sends the next message at once, as ever; only an error would make it stop."""
    async with (
        Scripted(lambda payload: ()) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer),
    ):
        for number in range(1, 6):
            peer.send(message(number, "NE", "ER"))
        await settled(service, "acme", "legacy", 5, 4.0)  # the endpoint's ack_timeout is 5 s for each


async def test_an_old_engine_that_answers_though_no_answer_is_wanted_is_heard_by_the_sender(tmp_path: Path):
    """It knows nothing of MSH-15 and 16, and its partners have always had its AA."""
    async with (
        Scripted(lambda payload: (0.02, ack(payload))) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer),
    ):
        for number in range(1, 6):
            peer.send(message(number, "NE", "NE"))
        answers = [await peer.answer() for _ in range(5)]
        assert answers == [ack(message(number)) for number in range(1, 6)]
        await settled(service, "acme", "legacy", 5)
        assert engine.payloads == [message(number, "NE", "NE") for number in range(1, 6)]
        assert set(engine.sockets) == {1}


async def test_in_original_mode_the_old_engines_answer_is_waited_for_whatever_is_asked(tmp_path: Path):
    async with (
        Scripted(lambda payload: (0.1, ack(payload, "AR"))) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port, ack=Ack("authoritative", mode="original"))) as (
            service,
            peer,
        ),
    ):
        assert await peer.exchange(message(1, "NE", "NE")) == ack(message(1), "AR")
        assert await states(service, "acme", "legacy") == {"refused": 1}


@pytest.mark.parametrize("how", ["silent", "close", "ae"])
async def test_an_answer_that_is_late(tmp_path: Path, how: str):
    async with (
        Scripted(lambda payload: ()) as engine,
        served(tmp_path, channel("acme", old_engine=old(engine.port, ack_timeout=0.4), on_relay_timeout=how)) as (
            _,
            peer,
        ),
    ):
        peer.send(message(1))
        if how == "ae":
            assert code(await peer.answer()) == "AE"
        elif how == "close":
            assert await peer.closed()
        else:
            assert await peer.silence(1.0)
        await until(lambda: len(engine.payloads) > 1)  # the engine had it, and has it again


async def test_a_late_answer_is_not_relayed_and_the_repeat_gets_its_own(tmp_path: Path):
    async with (
        Scripted(at_first(lambda first: (1.2, ack(first, own="LATE")))) as engine,
        served(tmp_path, channel("acme", old_engine=old(engine.port, ack_timeout=0.4))) as (service, peer),
    ):
        peer.send(message(1))
        await until(lambda: len(engine.payloads) == 2)  # ours, again, on a new connection
        await settled(service, "acme", "legacy", 1)
        assert await peer.silence()
        assert await peer.exchange(message(1)) == ack(message(1))
        assert await peer.silence(1.0)
        await assert_balances(service)


# -- a destination's


@pytest.mark.parametrize(("said", "state"), [("AA", "delivered"), ("AR", "refused")])
async def test_a_destinations_answer_is_relayed_once_live(tmp_path: Path, said: str, state: str):
    async with Scripted(lambda payload: (ack(payload, said),)) as clinic:
        there = emr(clinic.port)
        async with served(tmp_path, live(destinations=(there, emr(1)), ack=Ack(there.name))) as (service, peer):
            assert await peer.exchange(message(1)) == ack(message(1), said)
            assert await states(service, "acme", there.name) == {state: 1}
            if said == "AR":
                await until(lambda: service.ledger.channels["acme"].course("emr-1").frontier == 1)
                assert await states(service, "acme", "emr-1") == {"refused": 1}


@pytest.mark.parametrize(
    ("outcome", "heard"), [(DELIVERED, "AA"), (Outcome(Result.NEVER, "HTTP 422"), "AR")], ids=["taken", "not taken"]
)
@pytest.mark.parametrize(
    ("accept", "application", "form"), [("", "", "{}"), ("AL", "AL", "CA {}"), ("NE", "AL", "{}"), ("AL", "NE", "CA")]
)
async def test_medplums_verdict_is_the_answer_where_the_channel_says_so(
    tmp_path: Path, outcome: Outcome, heard: str, accept: str, application: str, form: str
):
    chan = live(destinations=(MEDPLUM,), ack=Ack("medplum"))
    config = configuration(tmp_path, chan)
    async with running(config, FakeWays(config, Fake(lambda work: outcome))):
        peer = await Peer.connect(port_of(chan))
        peer.send(message(1, accept, application))
        wanted = form.format(heard).split()
        assert await codes(peer, len(wanted)) == wanted
        assert code(await peer.exchange(not_taken(2))) == "AR"
        await peer.close()


async def test_a_destination_that_is_late_is_an_application_error_after_the_accept_acknowledgement(tmp_path: Path):
    async with Scripted(lambda payload: ()) as clinic:
        there = emr(clinic.port, ack_timeout=0.4)
        async with served(tmp_path, live(destinations=(there,), ack=Ack(there.name, "ae"))) as (_, peer):
            peer.send(message(1, "AL", "AL"))
            assert code(await peer.answer()) == "CA"
            assert code(await peer.answer()) == "AE"


# -- outbound

ANSWERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "AA": ({}, "AA", "delivered"),
    "CA": ({}, "CA", "delivered"),
    "a code of the partner's own": ({"answers": Answers(accepted=("OK",))}, "OK", "delivered"),
    "an error that is taken": ({"answers": Answers(accepted=("AA", "AE"))}, "AE", "delivered"),
    "AR": ({}, "AR", "dead"),
    "an error that is final": ({"answers": Answers(rejected=("AE",))}, "AE", "dead"),
    "MSA-2 that need not fit": ({"answers": Answers(check=False)}, "other id", "delivered"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_an_endpoints_answers_mean_is_the_endpoints(tmp_path: Path, name: str):
    options, said, state = ANSWERS[name]

    def says(payload: bytes) -> tuple[bytes]:
        if said == "other id":
            return (ack(payload, "AA", "SOMETHING"),)
        return (ack(payload, "AA").replace(b"|AA|", b"|" + said.encode() + b"|"),)

    async with Scripted(says) as clinic:
        there = emr(clinic.port, **options)
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            await peer.exchange(message(1))
            course = service.ledger.channels["acme"].course(there.name)
            await until(lambda: course.frontier == 1 and State.SENDING not in open_work(service, "acme", there.name))
            assert await states(service, "acme", there.name) == {state: 1}
            assert len(clinic.payloads) == 1


async def test_a_wrong_msa_2_is_no_answer_and_the_connection_is_not_used_again(tmp_path: Path):
    async with Scripted(at_first(lambda first: (ack(first, "AA", "SOMETHING"),))) as clinic:
        there = emr(clinic.port)
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            await peer.exchange(message(1))
            await settled(service, "acme", there.name, 1)
            assert clinic.sockets == [1, 2]
            assert clinic.payloads == [message(1)] * 2


async def test_a_late_answer_is_never_taken_for_the_next_messages(tmp_path: Path):
    """Even where MSA-2 is not looked at: the connection of the late one is gone."""
    late, soon = (lambda first: (0.8, ack(first, "AR"))), (lambda payload: (0.3, ack(payload)))
    async with Scripted(at_first(late, then=soon)) as clinic:
        there = emr(clinic.port, ack_timeout=0.5, answers=Answers(check=False))
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            await peer.exchange(message(1))
            await peer.exchange(message(2))
            await settled(service, "acme", there.name, 2)
            assert await states(service, "acme", there.name) == {"delivered": 2}
            assert clinic.payloads == [message(1), message(1), message(2)]


async def test_an_endpoint_may_say_ca_and_aa_later_and_nothing_goes_twice(tmp_path: Path):
    async with Scripted(lambda payload: (ack(payload, "CA"), 0.05, ack(payload, "AA"))) as clinic:
        there = emr(clinic.port)
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            sent = [message(number, "AL", "AL") for number in range(8)]
            for payload in sent:
                peer.send(payload)
            await settled(service, "acme", there.name, 8)
            assert clinic.payloads == sent
            assert set(clinic.sockets) == {1}


async def test_where_ca_is_not_enough_the_application_is_waited_for(tmp_path: Path):
    async with Scripted(lambda payload: (ack(payload, "CA"), 0.2, ack(payload, "AR"))) as clinic:
        there = emr(clinic.port, answers=Answers(accepted=("AA",)))
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            await peer.exchange(message(1))
            await until(lambda: open_work(service, "acme", there.name) == [State.DEAD])
            assert len(clinic.payloads) == 1
            assert STRAY.of(there.name).n == 0, "the CA was expected"


@pytest.mark.parametrize("answers", [False, True])
async def test_an_endpoint_that_never_answers_is_not_waited_for(tmp_path: Path, answers: bool):
    """And where it does answer after all, nobody minds."""
    async with Scripted(lambda payload: (0.01, ack(payload)) if answers else ()) as clinic:
        there = emr(clinic.port, answers=Answers(expected=False))
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            sent = [message(number) for number in range(20)]
            for payload in sent:
                await peer.exchange(payload)
            await settled(service, "acme", there.name, 20, 3.0)
            await until(lambda: clinic.payloads == sent)
            assert set(clinic.sockets) == {1}


class SecondPort:
    """A clinic that answers on a connection that it makes itself; with `hangs_up` it closes ours after each message."""

    def __init__(self, port: int, hangs_up: bool) -> None:
        self.port = port
        self.hangs_up = hangs_up

    def says(self, payload: bytes) -> tuple[Any, ...]:
        self.task = asyncio.get_running_loop().create_task(self._answer(payload))
        return (0.02, None) if self.hangs_up else ()

    async def _answer(self, payload: bytes) -> None:
        await asyncio.sleep(0.05)
        line = await Peer.connect(self.port)
        line.send(ack(payload))
        await line.close()


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_an_endpoints_answers_may_come_at_a_port_of_ours(tmp_path: Path, hangs_up: bool):
    back = SecondPort(free_port(), hangs_up)
    async with Scripted(back.says) as clinic:
        there = emr(clinic.port, answers=Answers(listen=Listen(back.port, "127.0.0.1")))
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            for number in range(3):
                await peer.exchange(message(number))
            await settled(service, "acme", there.name, 3)
            assert clinic.payloads == [message(number) for number in range(3)]
            assert await states(service, "acme", there.name) == {"delivered": 3}


async def test_a_port_for_answers_that_somebody_else_has_is_down_until_it_is_ours(tmp_path: Path):
    back = SecondPort(free_port(), hangs_up=False)
    async with Scripted(back.says) as clinic:
        there = emr(clinic.port, answers=Answers(listen=Listen(back.port, "127.0.0.1")))
        name = f"answers of {there.name}"
        async with (
            await asyncio.start_server(lambda *_: None, "127.0.0.1", back.port) as somebody,
            served(tmp_path, live(destinations=(there,))) as (service, peer),
        ):
            view = View(service, "0")
            before = await view.readiness()
            assert before["ready"] is False
            assert before["listeners"][name].endswith("Address already in use")
            somebody.close()
            await somebody.wait_closed()
            await until(lambda: not service.ways.down)
            after = await view.readiness()
            assert (after["ready"], after["listeners"][name]) == (True, "")
            await peer.exchange(message(1))
            await settled(service, "acme", there.name, 1)
