"""`interlock test-connection`: can a peer be reached, and what does it answer, in words that its people understand.

interlock test-connection acme-emr
interlock test-connection 10.20.1.5:6661 --message ping.hl7

It connects by itself, from this machine, with the settings of the endpoint; the service need not run. Without a message
none is sent; with one, its answer is waited for and judged as the endpoint says. A peer that should speak no TLS is
asked whether it does, on a second connection. A folder that files are written to is tried with a hidden one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.console import REFUSED, USAGE, Stop, out, out_json, wrapped
from engine.cli.options import SETTINGS_FILE, Config, Json

if TYPE_CHECKING:
    from engine.config.address import Address
    from engine.config.endpoint import Endpoint
    from engine.config.model import Channel, Configuration
    from engine.mllp.finding import Finding

TIMEOUT_S = 10.0
NO_TARGET = "no_target"


def connection(
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET…", help="Endpoints of endpoints.yaml, channels, or host:port.")
    ],
    message: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Send this message, and judge its answer.")
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also connect to an endpoint with probe: none.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds for each step.", min=0.1)] = TIMEOUT_S,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Find out what is between us and a peer."""
    chosen, only_read = _chosen(targets, config)
    found = asyncio.run(_all(chosen, Asked(_read(message), anyway, timeout, only_read)))
    if json:
        out_json(found)
    else:
        for each in found:
            for line in wrapped(_told(each), indent="  "):
                out(line)
    if any(each["code"] == NO_TARGET for each in found):
        raise typer.Exit(USAGE)
    if any(each["good"] is not True for each in found):
        raise typer.Exit(REFUSED)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is sent, if anything; whether endpoints are asked that may not be; seconds for each step; the endpoints that
    files are only read from."""

    message: bytes | None
    anyway: bool
    seconds: float
    only_read: frozenset[str]


def _read(message: Path | None) -> bytes | None:
    from engine.cli.sending import as_sent
    from engine.hl7.peek import peek

    if message is None:
        return None
    raw = as_sent(message.read_bytes())
    if not peek(raw).ok:  # nothing else may reach a real endpoint
        raise typer.BadParameter(
            f"{message} holds no HL7 v2 message: expected one that begins with MSH", param_hint="--message"
        )
    return raw


async def _all(chosen: list[tuple[str, Endpoint | str]], asked: Asked) -> list[dict[str, Any]]:
    return await asyncio.gather(*(_one(name, what, asked) for name, what in chosen))


async def _one(name: str, endpoint: Endpoint | str, asked: Asked) -> dict[str, Any]:
    """`endpoint`: or a sentence why there is none."""
    if isinstance(endpoint, str):
        return _row(name, NO_TARGET, False, endpoint)
    if endpoint.via is not None:
        return _row(name, "senders", None, f"what goes to {endpoint} goes on the connections that they make to us:"
                    " see interlock status")  # fmt: skip
    if endpoint.probe == "none" and asked.message is None and not asked.anyway:
        return _row(name, "not_asked", None, "it may not be connected to without a message (probe: none); to do it all"
                    " the same: --anyway, or --message FILE")  # fmt: skip
    if endpoint.place is not None:
        return await _place(name, endpoint, asked)
    assert endpoint.mllp is not None
    return await _mllp(name, endpoint.mllp, endpoint, asked)


async def _place(name: str, endpoint: Endpoint, asked: Asked) -> dict[str, Any]:
    from engine.config.edge import Sftp
    from engine.files.places import folder_of, shown

    place = endpoint.place
    assert place is not None
    if isinstance(place, Sftp):
        place = replace(place, connect_timeout=asked.seconds, timeout=asked.seconds)
    folder, writes = folder_of(place), endpoint.name not in asked.only_read
    try:
        why = await folder.check() or (await folder.try_writing() if writes else None)
    finally:
        await folder.close()
    if why is not None:
        return _row(name, "place", False, f"{shown(place)}: {why}")
    said = "a hidden file was written there, and removed again" if writes else "the folder can be looked into"
    unsent = "; the message was not sent: whoever reads there would take it" if asked.message is not None else ""
    return _row(name, "place", True, said + unsent)


async def _mllp(name: str, address: Address, endpoint: Endpoint, asked: Asked) -> dict[str, Any]:
    from engine.delivery.destinations.mllp import MODES, is_awaited, is_more_than_committed
    from engine.hl7.modes import wanted
    from engine.hl7.peek import peek
    from engine.mllp.diagnose import diagnose
    from engine.mllp.tls import ClientTls

    answers, elsewhere = endpoint.answers, endpoint.answers.listen
    message = (
        asked.message if elsewhere is None else None
    )  # its answer would come to the service, which did not send it
    asks = wanted(peek(message or b""), MODES[answers.mode or "original"])
    finding = await diagnose(
        address,
        framing=endpoint.framing,
        tls=ClientTls(endpoint.tls) if endpoint.tls else None,
        timeout=asked.seconds,
        message=message,
        source=endpoint.source_address,
        final=is_more_than_committed if "CA" not in answers.accepted else lambda payload: True,
        expects=is_awaited(answers, asks),
    )
    row = _row(name, finding.code, finding.good, finding.sentence)
    row |= {"connect_ms": finding.connect_ms, "answer_ms": finding.answer_ms}
    if finding.payload is not None and message is not None:
        row |= _answer(finding.payload, message, endpoint, asked.seconds)
        return _with_more(row, finding, message, endpoint)
    if finding.good and elsewhere is not None and asked.message is not None:
        told = f"{finding.sentence}; the message was not sent: its answer comes to our port {elsewhere.port}, where the"
        row |= {
            "good": None,
            "code": "answers_elsewhere",
            "said": f"{told} service waits for those to its own messages",
        }
    return row


def _answer(payload: bytes, raw: bytes, endpoint: Endpoint, seconds: float) -> dict[str, Any]:
    """What an answer says of our message."""
    from engine.hl7.ack import parse_ack
    from engine.hl7.peek import peek
    from engine.mllp.framing import STORED, Bare

    if isinstance(payload, Bare):
        if payload == STORED:
            return {"said": "it answered by the bare byte 0x06"}
        return {"good": False, "code": "said_no", "said": "it was reached, and answered by the bare byte 0x15"}
    answer = parse_ack(payload)
    if answer is None:
        return {"good": False, "code": "no_hl7_answer", "said": "it answered with a frame that is no acknowledgement"}
    if endpoint.answers.check and not answer.is_for(peek(raw).control_id or ""):
        said = f"it answered {answer.code}, to another message than this one (MSA-2 is not our MSH-10)"
        return {"good": False, "code": "other_message", "said": said}
    if answer.code in endpoint.answers.accepted:
        return {"said": f"it answered {answer.code}"}
    if answer.code == "CA":
        said = f"it answered CA, and within {seconds:g} s not what its accept: waits for: one of"
        return {"good": False, "code": "only_committed", "said": f"{said} {', '.join(endpoint.answers.accepted)}"}
    error = f", error {answer.error}" if answer.error else ""
    return {"good": False, "code": "said_no", "said": f"it was reached, and answered {answer.code}{error}"}


def _with_more(row: dict[str, Any], finding: Finding, raw: bytes, endpoint: Endpoint) -> dict[str, Any]:
    """What a peer does besides giving its answer, where the endpoint is to say so."""
    from engine.hl7.ack import parse_ack
    from engine.hl7.peek import peek

    more = parse_ack(finding.more) if finding.more is not None else None
    if more is not None and more.is_for(peek(raw).control_id or ""):
        row["said"] += f", and then {more.code}: with accept: [AA] such a second answer is the one that counts"
        if more.code not in endpoint.answers.accepted:
            row |= {"good": False, "code": "said_no"}
    if finding.closes and endpoint.persistent:
        row["said"] += "; it closes the connection after its answer: its endpoint wants persistent: false"
    return row


def _row(name: str, code: str, good: bool | None, said: str) -> dict[str, Any]:
    return {"target": name, "code": code, "good": good, "said": said, "connect_ms": None, "answer_ms": None}


def _told(row: dict[str, Any]) -> str:
    mark = {True: "ok", False: "FAILED", None: "not tested"}[row["good"]]
    times = [f"{word} {row[key]:.1f} ms" for word, key in (("connected in", "connect_ms"), ("answered in", "answer_ms"))
             if row[key] is not None]  # fmt: skip
    return f"{row['target']}: {mark}: {row['said']}" + (f" ({', '.join(times)})" if times else "")


# -- what is meant


def _chosen(targets: list[str], config: Path) -> tuple[list[tuple[str, Endpoint | str]], frozenset[str]]:
    """(name, endpoint) of what the targets mean, or (target, why it means nothing), beside which others are tried; and
    the names of the endpoints that files are only read from."""
    from engine.config.endpoint import Endpoint
    from engine.config.kinds import address

    found: list[tuple[str, Endpoint | str]] = []
    made: Configuration | None = None
    for target in targets:
        given = address(target)
        if given is None:
            made = made or _configuration(config)
            found += _named(target, made, config)
        else:
            found.append((target, Endpoint(target, given)))
    return found, _only_read(made) if made else frozenset()


def _only_read(made: Configuration) -> frozenset[str]:
    """SFTP servers that a channel or a tap reads files of, and nothing is written to."""
    from engine.config.edge import Files, Place, Sftp

    def server(place: Place | None) -> Sftp | None:
        return replace(place, directory="") if isinstance(place, Sftp) else None

    sources = [source for each in made.channels for source in (each.source, *(tap.source for tap in each.taps))]
    read = {server(source.place) for source in sources if isinstance(source, Files)} - {None}
    written = {name for channel in made.channels for name, _ in _peers(channel)}
    return frozenset(
        name for name, each in made.endpoints.items() if name not in written and server(each.place) in read
    )


def _named(target: str, made: Configuration, config: Path) -> list[tuple[str, Endpoint | str]]:
    if target in made.endpoints:
        return [(target, made.endpoints[target])]
    channel = next((channel for channel in made.channels if channel.id == target), None)
    if channel is None:
        known = [*made.endpoints, *(each.id for each in made.channels if _peers(each))]
        usable = f"one of {', '.join(sorted(known))}" if known else "there is none that can be tried"
        return [(target, f"this is neither host:port nor an endpoint or channel of {config}; {usable}")]
    others = [each.name for each in channel.destinations if not each.endpoint]
    only = f" (only to {', '.join(others)})" if others else ""
    return [*_peers(channel)] or [(target, f"this channel sends to no HL7 peer{only}: there is nothing to connect to")]


def _configuration(config: Path) -> Configuration:
    from engine.config.loading import load
    from engine.config.problem import ConfigError

    try:
        return load(config)
    except ConfigError as error:
        raise Stop(f"the configuration has problems:\n{error}") from None


def _peers(channel: Channel) -> list[tuple[str, Endpoint]]:
    """Whom a channel sends to, or connects to."""
    from engine.config.edge import Connect
    from engine.config.endpoint import Endpoint

    mine = [channel.legacy.endpoint] if channel.legacy and channel.legacy.endpoint else []
    mine += [tap.forward for tap in channel.taps]
    mine += [channel.ack.to] if channel.ack.to else []
    mine += [each.endpoint for each in channel.destinations if each.endpoint]
    if isinstance(channel.source, Connect):
        source = channel.source
        name = f"{channel.id} (its sender, which we connect to)"
        mine.append(
            Endpoint(name, source.address, framing=source.framing, tls=source.tls, source_address=source.source_address)
        )
    return list({endpoint.name: (endpoint.name, endpoint) for endpoint in mine}.values())
