"""Reconciliation: the equation from both its sources, and the other side's list of control ids against ours. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.ledger.model import State
from engine.ledger.routing import LEGACY

NEEDS_A_PERSON = (State.UNKNOWN.label, State.PARKED.label, State.DEAD.label)
ON_THE_WAY = (State.WAITING.label, State.SENDING.label, State.RETRYING.label)
OLD_ENGINE_WORKS = ("legacy", "parallel")
MOST_NAMED = 5  # of the messages with one control id, in a sentence

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ours:
    """A stored message. phase: of its epoch. states: by destination, as the equation counts it."""

    channel: str
    seq: int
    control_id: str | None
    phase: str
    states: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. clean: the equation holds from both sides, nobody is needed, and both lists say the same.

    missing: the other side has it and we do not. extra: we have it and the other side does not. doubled: both have
    it, and we more often. Each item is named, as a dict of channel, seq, control_id and a sentence.
    """

    equation: tuple[dict[str, Any], ...]
    problems: tuple[str, ...]
    missing: tuple[dict[str, Any], ...]
    extra: tuple[dict[str, Any], ...]
    doubled: tuple[dict[str, Any], ...]
    summary: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not (self.problems or self.missing or self.extra or self.doubled)

    def as_dict(self) -> dict[str, Any]:
        return {
            "clean": self.clean,
            "equation": list(self.equation),
            "problems": list(self.problems),
            "missing": list(self.missing),
            "extra": list(self.extra),
            "doubled": list(self.doubled),
            "summary": list(self.summary),
        }


def reconcile(
    equation: Sequence[Row],
    rebuilt: Sequence[str],
    phases: Mapping[tuple[str, int], str],
    manifest: Sequence[tuple[str, str | None]] | None = None,
    ours: Iterable[Ours] = (),
    parked: Sequence[tuple[str, str, int]] = (),
) -> Report:
    """Compare all that is known of the channels in `equation`.

    equation: a row for each channel, epoch and destination, with its states counted. rebuilt: what differed when
    everything was counted again from the rows. phases: of (channel, epoch number). manifest: (control id, channel or
    None for any of them); None = the equation alone, and `ours` is not looked at. parked: (channel, tap, how many
    outputs of the old engine it keeps for a person).
    """
    rows = tuple(_told(row, phases.get((row["channel"], row["epoch"]), "")) for row in equation)
    problems = [*rebuilt, *(problem for row in rows for problem in _problems(row)), *map(_kept, parked)]
    summary = [f"{row['channel']}, epoch {row['epoch']} ({row['phase']}): {row['said']}." for row in rows]
    if manifest is None:
        return Report(rows, tuple(problems), (), (), (), tuple(summary))
    channels = {row["channel"] for row in rows}
    wanted, elsewhere = _wanted(manifest, channels)
    missing, extra, doubled, both = _matched(wanted, ours)
    summary.append(_lists(len(manifest) - sum(elsewhere.values()), both, len(missing), len(extra), len(doubled)))
    summary.extend(
        f"The list has {n} of {channel}, which is not selected: left out." for channel, n in elsewhere.items()
    )
    return Report(rows, tuple(problems), tuple(missing), tuple(extra), tuple(doubled), tuple(summary))


# -- the equation


def _told(row: Row, phase: str) -> dict[str, Any]:
    """The row with its phase, and a clause that says what became of the messages in the words of that phase."""
    states, where = row["states"], row["destination"]
    counted = [f"{n:,} {_settled(state, where, phase)}" for state, n in states.items() if n and _is_settled(state)]
    opened = [f"{n:,} {state}" for state, n in states.items() if n and not _is_settled(state)]
    waits = [f"{', '.join(opened)} {'for the old engine' if where == LEGACY else f'at {where}'}"] if opened else []
    said = "; ".join([", ".join(counted), *waits] if counted else waits) or f"nothing was due at {where}"
    return {**row, "phase": phase, "said": said}


def _is_settled(state: str) -> bool:
    return state not in ON_THE_WAY and state not in NEEDS_A_PERSON


def _settled(state: str, destination: str, phase: str) -> str:
    if destination == LEGACY:
        return "handed over to the old engine" if state == "delivered" else f"{state} on the way to the old engine"
    if state == "delivered" and phase in OLD_ENGINE_WORKS:
        return f"delivered to {destination} beside the old engine"
    return f"delivered to {destination}" if state == "delivered" else f"{state} at {destination}"


def _problems(row: Row) -> list[str]:
    place = f"{row['channel']}, epoch {row['epoch']}, {row['destination']}"
    problems = []
    if not row["balanced"]:
        counted = sum(row["states"].values())
        problems.append(f"{place}: {row['stored']:,} stored, and {counted:,} counted in all states.")
    needed = [f"{row['states'][state]:,} {state}" for state in NEEDS_A_PERSON if row["states"].get(state)]
    if needed:
        problems.append(f"{place}: {', '.join(needed)}, for a person to decide.")
    return problems


def _kept(parked: tuple[str, str, int]) -> str:
    channel, tap, count = parked
    outputs = "1 output" if count == 1 else f"{count:,} outputs"
    return f"{channel}, tap {tap}: {outputs} of the old engine parked, for a person to decide."


# -- the lists

Place = str | None  # a channel, or None: any


def _wanted(
    manifest: Iterable[tuple[str, Place]], channels: set[str]
) -> tuple[Counter[tuple[Place, str]], Counter[str]]:
    """How often each control id is listed, and how many items are of channels that are not selected."""
    wanted: Counter[tuple[Place, str]] = Counter()
    elsewhere: Counter[str] = Counter()
    for control_id, channel in manifest:
        if channel is not None and channel not in channels:
            elsewhere[channel] += 1
        else:
            wanted[channel, control_id] += 1
    return wanted, elsewhere


Items = list[dict[str, Any]]


def _matched(wanted: Counter[tuple[Place, str]], ours: Iterable[Ours]) -> tuple[Items, Items, Items, int]:
    """(missing, extra, doubled, how many both have). An item that names its channel takes a message of it first."""
    left = Counter(wanted)
    stored: defaultdict[str, list[str]] = defaultdict(list)  # control id -> where both have it
    extra: Items = []
    doubled: Items = []
    both = 0
    for message in ours:
        key = _taken(message, left)
        if key is not None:
            left[key] -= 1
            both += 1
            if len(stored[key[1]]) < MOST_NAMED:
                stored[key[1]].append(f"{message.channel}/{message.seq}")
        elif _listed(message, wanted):
            doubled.append(_item(message, f"stored already as {', '.join(stored[message.control_id or ''])}"))
        else:
            extra.append(_item(message, "not listed" if message.control_id else "not listed: it has no control id"))
    missing = [item for (channel, id), n in left.items() if n for item in _absent(channel, id, n, stored.get(id, []))]
    return missing, extra, doubled, both


def _keys(message: Ours) -> list[tuple[Place, str]]:
    return [(message.channel, message.control_id), (None, message.control_id)] if message.control_id else []


def _taken(message: Ours, left: Counter[tuple[Place, str]]) -> tuple[Place, str] | None:
    return next((key for key in _keys(message) if left[key]), None)


def _listed(message: Ours, wanted: Counter[tuple[Place, str]]) -> bool:
    return any(wanted[key] for key in _keys(message))


def _absent(channel: Place, control_id: str, times: int, stored: list[str]) -> Items:
    said = f"listed more often than it is stored: as {', '.join(stored)}" if stored else "listed, and never stored"
    return [{"channel": channel, "seq": None, "control_id": control_id, "said": said} for _ in range(times)]


def _item(message: Ours, what: str) -> dict[str, Any]:
    became = ", ".join(_became(state, to, message.phase) for to, state in message.states.items())
    said = f"{what}; {became}" if became else what
    return {"channel": message.channel, "seq": message.seq, "control_id": message.control_id, "said": said}


def _became(state: str, destination: str, phase: str) -> str:
    if _is_settled(state):
        return _settled(state, destination, phase)
    return f"{state} {'for the old engine' if destination == LEGACY else f'at {destination}'}"


def _lists(listed: int, both: int, missing: int, extra: int, doubled: int) -> str:
    return f"{listed:,} listed, {both:,} of them stored; {missing:,} missing, {extra:,} extra, {doubled:,} doubled."
