"""What the peers really write, byte by byte: facts about their versions of today, which their next ones may change.

They stand here so that whoever sees something odd on a line can look up whether it is usual.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from engine.mllp.framing import encode
from tests.peers.receivers import HL7APY, NODE_HL7, PYTHON_HL7, RECEIVERS, receiver
from tests.peers.receivers import MEDPLUM as MEDPLUM_SERVER
from tests.peers.senders import BLOCKING, MEDPLUM, SENDERS, sender
from tests.peers.senders import NODE_HL7 as NODE_HL7_CLIENT
from tests.peers.senders import PYTHON_HL7 as PYTHON_HL7_CLIENT
from tests.peers.texts import control_id, result

TEXT = result(1)
REMARK = "NTE|1||first line\nsecond line \r"

AS_WRITTEN = {
    PYTHON_HL7_CLIENT: TEXT + "NTE|1||first line\nsecond line\r",  # blanks at the end of the message are cut off
    BLOCKING: TEXT + REMARK,  # it sends a text as it is
    MEDPLUM: TEXT + "NTE|1||first line\rsecond line \r",  # a line of a text becomes a segment
    NODE_HL7_CLIENT: TEXT + "NTE|1||first line\nsecond line",  # the same, and no last CR
}

ID = control_id(TEXT)
ANSWERS = {
    PYTHON_HL7: rf"MSH\|\^~\\&\|EMR\|CLINIC\|SIM\|REFLAB\|\d{{14}}\|\|ACK\^R01\^ACK\|\w+\|P\|2\.5\.1\rMSA\|AA\|{ID}\r",
    # No names, and no processing id.
    HL7APY: rf"MSH\|\^~\\&\|\|\|\|\|\d{{14}}\|\|ACK\|H{ID}\|\|2\.5\.1\rMSA\|AA\|{ID}\r",
    # Milliseconds that are not padded, text in MSA-3, no last CR.
    MEDPLUM_SERVER: rf"MSH\|\^~\\&\|EMR\|CLINIC\|SIM\|REFLAB\|\d{{14}}\.\d{{1,3}}\|\|ACK\^R01\^ACK\|\d+\|P\|2\.5\.1\r"
    rf"MSA\|AA\|{ID}\|OK",
    # MSH-9.3 is no structure that there is, MSH-10 always the same; no last CR.
    NODE_HL7: rf"MSH\|\^~\\&\|EMR\|CLINIC\|SIM\|REFLAB\|\d{{14}}\|\|ACK\^R01\^ACK_R01\|ACK\|P\|2\.5\.1\r"
    rf"MSA\|AA\|{ID}",
}  # fmt: skip


@pytest.mark.parametrize("peer", SENDERS)
async def test_a_sender_writes_plain_mllp_and_its_own_idea_of_the_text(peer: str) -> None:
    written: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def heard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        block = await reader.readuntil(b"\x1c\r")
        writer.write(encode(f"MSH|^~\\&|A|B|C|D|20260101||ACK|A1|P|2.5.1\rMSA|AA|{ID}\r".encode()))
        rest = await reader.read()  # until it has closed
        writer.close()
        await writer.wait_closed()
        written.set_result(block + rest)

    listening = await asyncio.start_server(heard, "127.0.0.1", 0)
    async with sender(peer, listening.sockets[0].getsockname()[1]) as vendor:
        ((code, id, _),) = await vendor.send(TEXT + REMARK)
        assert (code, id) == ("AA", ID)
    async with asyncio.timeout(10):
        assert (await written).decode() == f"\x0b{AS_WRITTEN[peer]}\x1c\r"
    listening.close()
    await listening.wait_closed()


@pytest.mark.parametrize("peer", RECEIVERS)
async def test_a_receiver_answers_in_plain_mllp_and_its_own_idea_of_an_acknowledgement(
    tmp_path: Path, peer: str
) -> None:
    async with receiver(peer) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(encode(TEXT.encode()))
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"\x1c\r")
            assert re.fullmatch(f"\x0b{ANSWERS[peer]}\x1c\r", answer.decode()), answer
            if peer == HL7APY:
                assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
