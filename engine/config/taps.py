"""The taps of a channel: where the old engine's output arrives, and which endpoint it belongs to."""

from __future__ import annotations

from yaml.nodes import Node

from engine.config.edge import Listen
from engine.config.endpoint import Endpoint
from engine.config.endpoints import Endpoints
from engine.config.kinds import Section
from engine.config.model import Tap, Target
from engine.config.nodes import Findings

UNCOMPARED = "what this tap takes is forwarded and cannot be compared: no destination of target: is '{}'"


def tap_socket(tap: Section, channel_host: str) -> tuple[Node, int | None, str]:
    """(where the port stands, port, host) of a tap; the port is None where it is wrong or left out."""
    listen = tap.get("listen")
    if isinstance(listen, Section):
        return listen.place("port"), listen.get("port"), listen.get("host", channel_host)
    return tap.place("listen"), listen, channel_host


def read_taps(
    legacy: Section,
    old_engine: Endpoint | None,
    host: str,
    target: Target | None,
    endpoints: Endpoints,
    findings: Findings,
) -> tuple[Tap, ...]:
    """The taps of `legacy:`, in order; a wrong one is left out, its problem recorded. host: the channel's own.

    Of each whose output has nothing of ours to be compared with, a note says so: it never passes a gate by itself.
    """
    ours = {destination.endpoint for destination in target.destinations if destination.endpoint} if target else set()
    taps: dict[str, Tap] = {}
    for section in legacy.get("taps", ()):
        tap = _tap(section, host, endpoints, findings)
        if tap is None:
            continue
        place = section.place("forward")
        if tap.forward is old_engine:
            found = f"a tap that forwards to '{tap.name}', the old engine itself"
            findings.problem(place, found, "the endpoint that the old engine's output belongs to")
        elif tap.name in taps:
            found = f"a second tap that forwards to '{tap.name}'"
            findings.problem(place, found, "one tap for each endpoint of the old engine")
        elif tap.forward not in ours:
            findings.note(place, UNCOMPARED.format(tap.name))
        taps.setdefault(tap.name, tap)
    return tuple(taps.values())


def _tap(section: Section, channel_host: str, endpoints: Endpoints, findings: Findings) -> Tap | None:
    name = section.get("forward")
    forward = endpoints.find(section.place("forward"), name, findings) if name else None
    _, port, host = tap_socket(section, channel_host)
    if forward is None or port is None:
        return None
    listen = section.get("listen")
    allow = listen.get("allow", ()) if isinstance(listen, Section) else ()
    return Tap(forward.name, Listen(port, host, allow), forward, section.get("settle"))
