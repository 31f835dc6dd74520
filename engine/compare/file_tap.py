"""A tap over files: the old engine writes its output into a folder of ours, where its real endpoint has another one.

    claimed → its inputs are found and its fate decided → put where it belongs → recorded by its claimed name → archived

What becomes of a file is decided as at a port; there is no answer to be relayed. A file goes on whole or not at all:
where its messages have not all one fate, a person decides. Until it is recorded it stays claimed, and what follows it
waits. One that is found again after a crash is put again, which changes nothing where it is there, and recorded once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from engine.compare.tapping import NO_SOCKET, Fate, fate, own_destination, why_parked
from engine.config.edge import Files
from engine.config.model import Channel, Tap
from engine.files import inbox
from engine.files.folder import Folder, FolderError, plain
from engine.files.inbox import Claimed, Inbox
from engine.files.places import shown
from engine.hl7.peek import peek
from engine.intake.cutting import Unreadable, cut
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.interface import Ledger
from engine.ledger.model import TapOutput
from engine.ledger.sqlite import files
from engine.ledger.sqlite.large import LARGE
from engine.observe import file_events as events
from engine.observe.events import emit
from engine.observe.tap_events import OUTPUTS, OutputParked


@dataclass(slots=True)
class _Hand:
    """The file in hand. Its inputs are looked for once: each answer uses one of them up. put: it is where it belongs,
    and is not put there again, since the endpoint may have taken it away by now."""

    id: str
    digest: bytes
    decided: Fate
    outputs: list[TapOutput]
    put: bool = False


class FileTap:
    """One tap of a channel. Both folders are closed by whoever opened them."""

    listener = None  # nobody connects

    def __init__(
        self,
        channel: Channel,
        tap: Tap,
        book: ChannelBook,
        ledger: Ledger,
        attribute: Callable[[bytes, int], int | None],
        now: Callable[[], int],
        folder: Folder,
        forward: Folder,
        recorded: Callable[[TapOutput], None],
    ) -> None:
        """`attribute`: the input that an output belongs to, None where that is not known. `now`: microseconds since
        1970. `forward`: the folder of the real endpoint. `recorded` hears of each output once it is durable."""
        assert isinstance(tap.source, Files)
        self.channel = channel
        self.tap = tap
        self.down: str | None = None  # why the folder cannot be read
        self.address = shown(tap.source.place)
        self._book = book
        self._ledger = ledger
        self._attribute = attribute
        self._now = now
        self._forward = forward
        self._recorded = recorded
        self._last = 0.0
        self._hand: _Hand | None = None
        self._trouble: str | None = None  # why the endpoint's folder takes nothing
        self._task: asyncio.Task[None] | None = None
        self.destination = own_destination(channel, tap)
        self._counts = {each: OUTPUTS.of(channel.id, tap.name, each.value) for each in Fate}
        self._inbox = Inbox(tap.source, folder, channel.takes.max_bytes, self, now)

    @property
    def quiet_since(self) -> float | None:
        """When the last one was taken, in seconds of the event loop's clock; 0 where none was. None as long as one may
        be there that is not taken."""
        return None if self._inbox.waiting or self.down else self._last

    async def open(self) -> None:
        """Begin to read. A folder that cannot be had is tried again by itself."""
        self._task = asyncio.get_running_loop().create_task(self._inbox.run(), name=f"files of tap {self.tap.name}")

    async def close(self, grace: float = 0.0) -> None:
        """Read no more, at once. A file in hand stays claimed, and is found again by the next process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        emit(events.OutputFolderLeft(self.channel.id, self.tap.name))

    # -- from the inbox (engine.files.inbox.Taker)

    def told(self, down: str | None) -> None:
        self.down, channel, tap = down, self.channel.id, self.tap.name
        emit(events.OutputFolderUp(channel, tap) if down is None else events.OutputFolderDown(channel, tap, down))

    def waits(self, count: int) -> None:
        events.AT_TAP.of(self.channel.id, self.tap.name).n = count

    async def take(self, file: Claimed, data: bytes) -> inbox.Fate:
        if not plain(file.name):
            return self._bad(len(data), "its name has a backslash")
        digest, messages = await asyncio.to_thread(_examine, data)
        for known in (inbox.Fate.STORED, inbox.Fate.PARKED):
            if await self._is_known(self._identity(file, known), digest):
                return known
        if self._hand is None or (self._hand.id, self._hand.digest) != (file.id, digest):
            self._hand = await self._decide(file, digest, messages)
        hand = self._hand
        if hand.decided is Fate.FORWARD and not hand.put:
            hand.put = await self._put(file.name, data)
            if not hand.put:
                return inbox.Fate.LATER
        became = inbox.Fate.PARKED if hand.decided is Fate.PARK else inbox.Fate.STORED
        await self._record(hand, self._identity(file, became), len(data))
        self._hand = None
        return became

    async def too_large(self, file: Claimed, head: bytes, size: int) -> inbox.Fate:
        return self._bad(size, "too large")

    # -- from the ledger

    def kept(self, output: TapOutput) -> None:
        """An output is durable."""
        if output.decision == Fate.PARK.value:
            emit(OutputParked(self.channel.id, self.tap.name, output.reply))

    def unkept(self, output: TapOutput) -> None:
        """Never: what could not be stored is still there as a file, and is stored as soon as that is possible."""

    # -- inside

    def _bad(self, size: int, why: str) -> inbox.Fate:
        emit(events.OutputFileFailed(self.channel.id, self.tap.name, why, size))
        return inbox.Fate.FAILED

    def _identity(self, file: Claimed, became: inbox.Fate) -> str:
        """Under which a file is recorded: it says where the file belongs. The channel's own files have no slash."""
        return f"{self.tap.name}/{became.value}/{file.id}"

    async def _is_known(self, name: str, digest: bytes) -> bool:
        channel = self._book.id
        return await self._ledger.read(lambda reader: files.known(reader.connection, channel, name, digest))  # type: ignore[no-any-return]

    async def _decide(self, file: Claimed, digest: bytes, messages: list[bytes]) -> _Hand:
        now = self._now()
        inputs = []
        for raw in messages:
            inputs.append(self._attribute(raw, now))
            await asyncio.sleep(0)  # a file may have many, and others have their turn
        fates = [fate(self._book, seq, self.destination) for seq in inputs]
        decided = fates[0] if len(set(fates)) == 1 else Fate.PARK
        outputs = [
            TapOutput(
                self._book, self.tap.name, raw, now, socket=NO_SOCKET, control_id=peek(raw).control_id,
                decision=decided.value, seq=seq, reply=_why_parked(seq, own) if decided is Fate.PARK else None,
            )
            for raw, seq, own in zip(messages, inputs, fates, strict=True)
        ]  # fmt: skip
        return _Hand(file.id, digest, decided, outputs)

    async def _put(self, name: str, data: bytes) -> bool:
        """Write it into the endpoint's folder. A name that is taken is waited for: the endpoint has yet to read it."""
        before, self._trouble = self._trouble, None
        try:
            await self._forward.put(name, data)
        except FolderError as error:
            self._trouble = error.reason
            if error.reason != before:
                emit(events.OutputFileWaits(self.channel.id, self.tap.name, error.reason))
        return self._trouble is None

    async def _record(self, hand: _Hand, identity: str, size: int) -> None:
        """All outputs of a file and the file itself, in one transaction."""
        outputs, channel, now = hand.outputs, self._book.id, self._now()

        def act(book: Book) -> None:
            for output in outputs:
                book.output(output)
            book.put("add_file", channel, identity, size, hand.digest, now)

        for output in outputs:
            if len(output.raw) > LARGE and output.large is None:
                await self._ledger.lay_down(output)
        await self._ledger.transaction(act)
        self._last = asyncio.get_running_loop().time()
        self._counts[hand.decided].n += len(outputs)
        for output in outputs:
            self._recorded(output)


def _examine(data: bytes) -> tuple[bytes, list[bytes]]:
    """The digest, and the messages. What consists of none is one output as it is: at a port it would be, too."""
    digest = hashlib.sha256(data).digest()
    try:
        return digest, cut(data)
    except Unreadable:
        return digest, [data]


def _why_parked(seq: int | None, own: Fate) -> str:
    if own is not Fate.PARK:
        return "its file has outputs that are to be sent, and others that are not"
    return why_parked(seq)
