"""Is this the time that was agreed?"""

from __future__ import annotations

from engine.migration.gate.check import BOTH, Check, Outcome, Subject, Verdict, When
from engine.migration.gate.window import clock, inside, next_closing, next_opening
from engine.migration.gate.words import SECOND, span


def in_window(subject: Subject, _: When) -> Verdict:
    """Now is inside the channel's window. A channel without one may be moved at any time, and the verdict says so."""
    window, zone, now = subject.channel.window, subject.channel.timezone, subject.now
    if window is None:
        return Verdict(Outcome.PASS, "No window is declared: at any time.", now)
    evidence = {"days": window.days, "from": window.start, "to": window.end, "timezone": zone}
    if inside(window, zone, now):
        return Verdict(Outcome.PASS, f"Open {_until(zone, next_closing(window, zone, now))}.", now, evidence)
    opening = next_opening(window, zone, now)
    if opening is None:
        return Verdict(Outcome.FAIL, "The window does not open in the coming weeks.", now, evidence)
    said = f"It opens {clock(zone, opening)}, in {span((opening - now) / SECOND)}."
    return Verdict(Outcome.FAIL, said, now, evidence)


def _until(zone: str, closing: int | None) -> str:
    return f"until {clock(zone, closing)}" if closing else "at all hours"


CHECKS = (Check("window", "it is inside the agreed window", BOTH, in_window),)
