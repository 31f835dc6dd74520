"""The parallel run: did both sides do the same work, and is nothing open that could hurt somebody?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from engine.config.model import Channel
from engine.ledger.course import Compared
from engine.migration.gate.check import BOTH, UNKNOWN, Check, Outcome, Subject, Verdict, When, worst
from engine.migration.gate.words import count, listed

ANSWERS = ""  # the name under which the answers to the sender are compared
NO_TAP = "No tap shows what the old engine sends, so its work cannot be compared with ours."


def match(compared: Compared) -> float | None:
    """(matched + explained) of all that was compared, 0 to 1; None where nothing was."""
    good = compared.matched + compared.explained
    whole = good + compared.unexplained
    return good / whole if whole else None


def matched(subject: Subject, _: When) -> Verdict:
    """Each tap has its share and its number of messages; the answers have the share, where any was compared."""
    if not subject.channel.taps:
        return Verdict(Outcome.NOT_MEASURED, NO_TAP, subject.now, _evidence(subject))
    verdicts = [_tap(subject, tap.name) for tap in subject.channel.taps]
    if match(subject.compared.get(ANSWERS, Compared())) is not None:
        verdicts.append(_share(subject, ANSWERS))
    return worst(verdicts, subject.now, _evidence(subject))


def harmless(subject: Subject, _: When) -> Verdict:
    """No discrepancy is open that is clinical, and none of a message that one side alone has."""
    open_ = [line for tap, compared in subject.compared.items() for line in _open(tap, compared)]
    if open_:
        said = f"Open: {listed(open_)}. Each is to be explained, fixed or accepted, by name."
        return Verdict(Outcome.FAIL, said, subject.now, _evidence(subject))
    if not subject.channel.taps:
        return Verdict(Outcome.NOT_MEASURED, NO_TAP, subject.now, _evidence(subject))
    verdicts = [_compared(subject, tap.name) for tap in subject.channel.taps]
    return worst(verdicts, subject.now, _evidence(subject))


def _open(tap: str, compared: Compared) -> list[str]:
    lines = []
    if compared.open_clinical:
        lines.append(f"{compared.open_clinical} clinical at {_named(tap)}")
    if compared.open_missing:
        lines.append(f"{compared.open_missing} of messages that one side alone has, at {_named(tap)}")
    return lines


def _compared(subject: Subject, tap: str) -> tuple[Outcome, str]:
    if not _comparable(subject.channel, tap):
        return Outcome.NOT_MEASURED, f"{_named(tap)} cannot be compared: no destination of ours goes there"
    if match(subject.compared.get(tap, Compared())) is None:
        return Outcome.NO_DATA, f"nothing was compared at {_named(tap)}"
    return Outcome.PASS, f"nothing clinical and nothing missing is open at {_named(tap)}"


def _tap(subject: Subject, tap: str) -> tuple[Outcome, str]:
    gate = subject.channel.gate
    if not _comparable(subject.channel, tap):
        return _compared(subject, tap)
    compared = subject.compared.get(tap, Compared())
    whole = compared.matched + compared.explained + compared.unexplained
    if compared.pending_late:
        late = count(compared.pending_late, "input")
        return Outcome.FAIL, f"{late} at {_named(tap)} should have been compared by now"
    if whole < gate.min_messages:
        return Outcome.NO_DATA, f"{_named(tap)}: {whole:,} of the {gate.min_messages:,} messages that must be compared"
    return _share(subject, tap)


def _share(subject: Subject, tap: str) -> tuple[Outcome, str]:
    compared, least = subject.compared[tap], subject.channel.gate.min_match
    whole = compared.matched + compared.explained + compared.unexplained
    share = match(compared) or 0.0
    said = (
        f"{_named(tap)}: {_percent(share)} of {whole:,} ({compared.matched:,} matched,"
        f" {compared.explained:,} explained, {compared.unexplained:,} unexplained;"
        f" {compared.not_comparable:,} could not be compared)"
    )
    if share < least:
        return Outcome.FAIL, f"{said}, and {_percent(least)} is the least"
    return Outcome.PASS, said


def _percent(share: float) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{int(share * 100_000) / 1000:g} %"


def _comparable(channel: Channel, tap: str) -> bool:
    forward = next(known.forward for known in channel.taps if known.name == tap)
    return any(forward == to.endpoint for to in channel.destinations)


def _named(tap: str) -> str:
    return f"the tap {tap}" if tap else "the answers to the sender"


def _evidence(subject: Subject) -> dict[str, Any]:
    return {tap: asdict(compared) for tap, compared in subject.compared.items()}


CHECKS = (
    Check("parallel_run", "the parallel run matched", BOTH, matched),
    Check(
        "clinical", "no clinical discrepancy is open", BOTH, harmless, UNKNOWN,
        "a clinical discrepancy is explained or accepted itself (interlock discrepancies)",
    ),
)  # fmt: skip
