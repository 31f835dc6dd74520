"""The verbs about files of messages: map, send. Neither needs a running service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from engine.cli.console import REFUSED, USAGE, Stop, err, out, out_json, usage
from engine.cli.options import SETTINGS_FILE, Config
from engine.cli.running import placed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.cli.outputs import Outputs
    from engine.config.address import Address
    from engine.config.model import Channel, Configuration
    from engine.mapping.effective import Effective
    from engine.mapping.library import Context, Library, Mapping
    from engine.mapping.v2.library import V2Library, V2Mapping

T = TypeVar("T")


def map_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="HL7 v2 messages; - is standard input.")],
    channel: Annotated[str | None, typer.Option(help="Map as this channel does.", metavar="ID")] = None,
    mapping: Annotated[str | None, typer.Option(help="Use this mapping.", metavar="NAME")] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Tell on standard error what is from where, and what went nowhere.")
    ] = False,
    config: Config = SETTINGS_FILE,
    json: Annotated[bool, typer.Option("--json", help="Always so: the output is JSON.")] = False,
) -> None:
    """Map messages: FHIR R4 and HL7 v2, an output a line."""
    if channel and mapping:
        usage("--channel and --mapping do not go together: the channel names its mapping")
    mapper = _Mapper(config, channel, mapping, trace)
    failed = 0
    for file in files:
        received = _received(file)
        number = 0
        for number, raw in _messages(file):
            failed += not mapper.map(str(file), number, raw, received)
        failed += not (number or mapper.nothing_in(str(file)))
    if failed:
        raise typer.Exit(REFUSED)


def _messages(file: Path) -> Iterator[tuple[int, bytes]]:
    """(number in the file from 1, message)"""
    from engine.mapping.read import split_messages

    for number, (_, raw) in enumerate(split_messages(_read(file)), 1):
        yield number, raw


def _received(file: Path) -> int:
    """µs since 1970 when a file's messages count as received: its last change, so that the output stays the same."""
    import time

    return file.stat().st_mtime_ns // 1000 if file.is_file() else time.time_ns() // 1000


def _read(file: Path) -> bytes:
    import sys

    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise Stop(f"{file} cannot be read: {error.strerror}", USAGE) from None


class _Mapper:
    """What `map` needs, found once for all messages."""

    def __init__(self, config: Path, channel: str | None, mapping: str | None, trace: bool) -> None:
        configuration = configuration_of(config, required=channel is not None)
        self._channel = _channel(configuration, channel)
        name = mapping or (self._channel.target.mapping if self._channel and self._channel.target else None)
        site = configuration.service.mappings if configuration else None
        self._library = library_of(site)
        from engine.config.changes import UNCHANGED

        self._changes = self._channel.target.changes if self._channel and self._channel.target else UNCHANGED
        if self._channel and self._channel.target and not mapping:
            own, changes = self._channel.target.mapping, self._changes
            self._library = right(lambda: library_of(site).changed(own, changes))
        self._mapping, self._v2 = _named(self._library, site, name) if name else (None, None)
        self._outputs = _outputs(self._channel, self._library, site) if self._channel and self._channel.target else None
        self._as_it_came = _as_it_came(self._channel)
        self._trace = trace
        self._seq = 0

    def nothing_in(self, file: str) -> bool:
        return self._fail(file, 0, "no message", "MSH", "lines that begin with MSH")

    def map(self, file: str, number: int, raw: bytes, received: int) -> bool:
        """Print what it becomes, or the error on standard error; True where it was mapped."""
        from engine.cli.outputs import named
        from engine.hl7.peek import peek
        from engine.mapping.library import Unmappable

        self._seq += 1
        header = peek(raw)
        if not header.ok:
            return self._fail(file, number, header.problem or "no MSH", "MSH", "a message that begins with MSH")
        good = True
        try:
            if self._v2 is not None:
                for value in named(self._v2, raw, self._context(received)):
                    out_json(value)
                return True
            reason = self._outputs.filtered(raw) if self._outputs else None
            if reason is not None:
                out_json({"destination": "medplum", "filtered": reason})
            elif self._outputs is None or self._outputs.to_medplum:
                good = self._bundle(file, number, raw, received)
        except Unmappable as error:
            good = self._fail(file, number, error.code, error.where, error.wanted)
        return self._to_others(file, number, raw, received) and good if self._outputs else good

    def _to_others(self, file: str, number: int, raw: bytes, received: int) -> bool:
        """What MLLP and file destinations get."""
        assert self._outputs is not None
        failed: list[str] = []

        def fail(destination: str, found: str, where: str, wanted: str) -> None:
            failed.append(destination)
            self._fail(file, number, found, where, wanted, destination=destination)

        for value in self._outputs.of(raw, self._context(received), fail):
            out_json(value)
        return not failed

    def _bundle(self, file: str, number: int, raw: bytes, received: int) -> bool:
        from engine.cli.traces import traced
        from engine.fhir.single import single
        from engine.hl7.peek import peek

        header = peek(raw)
        mapping = self._mapping or self._library.for_message(header.type, header.trigger)
        if mapping is None:
            wanted = "a type that `interlock mapping list` shows, or a mapping of your own; or say --mapping NAME"
            return self._fail(file, number, f"no mapping for {header.type}^{header.trigger}", "MSH-9", wanted)
        if self._trace:
            output, lineage = mapping.trace(raw, self._context(received))
            out_json(single(output))
            for line in traced(output, lineage, mapping.reasons()):
                err(f"{file}: message {number}: {line}")
        else:
            out_json(single(mapping.account(raw, self._context(received), self._changes.unmapped)))
        return True

    def _context(self, received: int) -> Context:
        name = self._channel.id if self._channel else "map"
        return self._as_it_came.context(name, received=received, incarnation="map", seq=self._seq)

    def _fail(self, file: str, number: int, found: str, where: str, wanted: str, **more: str) -> bool:
        import orjson

        error = {"error": found, "where": where, "expected": wanted, "file": file, "message": number, **more}
        err(orjson.dumps(error).decode())
        return False


def configuration_of(config: Path, *, required: bool) -> Configuration | None:
    """The configuration; where there is none and none is needed, the shipped mappings do."""
    from engine.config.loading import load
    from engine.config.problem import ConfigError

    if not required and not config.is_file():
        return None
    try:
        return load(config)
    except ConfigError as error:
        if required:
            raise Stop(f"the configuration has problems:\n{error}") from None
        return None


def _channel(configuration: Configuration | None, name: str | None) -> Channel | None:
    if name is None or configuration is None:
        return None
    for channel in configuration.channels:
        if channel.id == name:
            return channel
    known = ", ".join(channel.id for channel in configuration.channels)
    raise Stop(f"there is no channel '{name}'; there are {known}", USAGE)


def library_of(site: Path | None) -> Library:
    from engine.config.shipped import shipped_mappings
    from engine.mapping.library import Library

    return right(lambda: Library.load(shipped_mappings(), site))


def v2_library_of(site: Path | None) -> V2Library:
    from engine.config.shipped import shipped_mappings
    from engine.mapping.v2.library import V2Library

    return right(lambda: V2Library.load(shipped_mappings(), site))


def _outputs(channel: Channel, library: Library, site: Path | None) -> Outputs:
    from engine.cli.outputs import Outputs

    return right(lambda: Outputs(channel, library, v2_library_of(site)))


def _as_it_came(channel: Channel | None) -> Effective:
    """What knows how a channel's messages are read, and no more."""
    from engine.config.filtering import AS_IT_CAME
    from engine.mapping.effective import Reading, made

    reading = Reading.of(channel) if channel else Reading("map", {}, "UTC", "auto", None)
    return made(reading, (), AS_IT_CAME, None, None)


def right(make: Callable[[], T]) -> T:
    """What is made of mappings that have no mistakes."""
    from engine.mapping.problems import MappingError

    try:
        return make()
    except MappingError as error:
        told = "\n".join(map(str, placed(error.problems)))
        raise Stop(f"the mappings have problems:\n{told}") from None


def _named(library: Library, site: Path | None, name: str) -> tuple[Mapping | None, V2Mapping | None]:
    """The mapping to FHIR, or else the v2 mapping of a name."""
    try:
        return library.mapping(name), None
    except KeyError:
        pass
    try:
        return None, v2_library_of(site).mapping(name)
    except KeyError:
        raise Stop(f"there is no mapping '{name}'", USAGE) from None


def send(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="HL7 v2 messages; - is standard input.")],
    to: Annotated[str, typer.Option("--to", metavar="HOST:PORT", help="Where to send them.")],
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer.", min=0.1)] = 30.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, one answer a line.")] = False,
) -> None:
    """Send messages over MLLP and show the answers."""
    from engine.cli.sending import Conversation, as_sent, told
    from engine.config.kinds import address

    target: Address | None = address(to)
    if target is None:
        usage(f"--to {to}: wanted is host:port, such as 127.0.0.1:6101")
    worst = 0
    with Conversation(target, timeout) as conversation:  # one connection: order is part of the test
        count = 0
        for number, raw in _messages(file):
            answer = conversation.exchange(number, as_sent(raw))
            out_json(answer.values()) if json else out(told(answer))
            worst = max(worst, 0 if answer.accepted else REFUSED)
            count += 1
            if not answer.open:
                break
    if not count:
        raise Stop(f"{file} holds no message: none of its lines begins with MSH", USAGE)
    if worst:
        raise typer.Exit(worst)
