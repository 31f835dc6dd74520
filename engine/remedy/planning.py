"""What a replay would send, by which mapping, and what stands against it. Functions of what was read of the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from engine.ledger.course import ChannelBook, Course
from engine.ledger.keeping import Kept
from engine.ledger.model import State
from engine.ledger.routing import Mode
from engine.ledger.sqlite.replays import AS_IS, AS_WAS, Before
from engine.ledger.sqlite.restoring import moment
from engine.remedy.verb import Plan

NAMED = 10  # stretches of numbers in a sentence
PUT_AWAY = (State.DISCARDED, State.DUPLICATE, State.REFUSED)
PUT_AWAY_ONLY = frozenset(PUT_AWAY)


@dataclass(slots=True)
class Found:
    """Numbers of a channel that can be replayed to a destination, and why the others cannot.

    mapping: AS_IS, or AS_WAS. never_made: of which no mapping has made anything there: discarded, refused, never due.
    put_away: what a person discarded, what repeats another one, what its sender was refused: sent only
    where it is the one that is meant.
    by: version → how many it has made; None: as they came. not_kept: the numbers whose version cannot be had.
    """

    mapping: str = AS_IS
    numbers: list[int] = field(default_factory=list)
    open: int = 0
    gone: int = 0
    delivered: int = 0
    never_due: int = 0
    never_made: int = 0
    put_away: Counter[State] = field(default_factory=Counter)
    by: Counter[str | None] = field(default_factory=Counter)
    not_kept: list[int] = field(default_factory=list)


def sort_out(
    course: Course, numbers: Sequence[int], stored: Mapping[int, int], kept: Kept | None, mapping: str
) -> Found:
    """Which of these numbers are settled there, and have their bytes. stored: number → message id."""
    found = Found(mapping)
    opened = {key[0] for key in course.open}
    for seq in numbers:
        if seq not in stored or (kept is not None and kept.bytes_gone(seq)):
            found.gone += 1
        elif seq in opened or (seq > course.frontier and course.spans and course.spans[0].first <= seq):
            found.open += 1
        else:
            found.numbers.append(seq)
    return found


def look_up(course: Course, found: Found, before: Mapping[int, Before], kept: Collection[str]) -> None:
    """By which mappings the messages were made there. before: by number, of those that have receipts there. kept: the
    versions that can be had."""
    numbers, found.numbers = found.numbers, []
    for seq in numbers:
        one = before.get(seq)
        if len(numbers) > 1 and one is not None and (state := _put_away(one)) is not None:
            found.put_away[state] += 1
            continue
        if one is None or not one.made:
            found.never_made += 1
            if found.mapping == AS_WAS:
                continue
        elif one.made_by is None or not _is_kept(version := version_of(course, one.made_by), kept):
            found.not_kept.append(seq)
        else:
            found.by[version] += 1
        found.numbers.append(seq)
        found.delivered += one is not None and State.DELIVERED in one.states
        found.never_due += one is None


def _put_away(one: Before) -> State | None:
    """Why a message that is settled there without having been sent is not to be sent: somebody has decided so."""
    return next((state for state in PUT_AWAY if state in one.states), None) if one.states <= PUT_AWAY_ONLY else None


def _is_kept(version: str | None, kept: Collection[str]) -> bool:
    return version is None or version in kept


def version_of(course: Course, epoch: int) -> str | None:
    """The version by which an epoch has messages made for a destination; None: they go as they came."""
    route = course.channel.epochs[epoch - 1].routing.route(course.name)  # numbers count from 1
    return route.mapping if route else None


def plan(book: ChannelBook, course: Course, found: Found) -> Plan:
    made = Plan("replay", len(found.numbers))
    route = book.epoch.routing.route(course.name)
    if route is None or route.mode not in (Mode.SEND, Mode.CAPTURE):
        made.refused.append(f"{book.name} sends nothing to {course.name} in phase {book.epoch.phase}")
    if course.runner is None:
        made.refused.append(f"{course.name} is no longer configured in {book.name}")
    if not found.numbers:
        made.refused.append(f"none of these messages can go to {course.name} again{_why(found)}")
        return made
    if found.mapping == AS_WAS and found.not_kept:
        made.refused.append(_not_kept(found))
    first, last = found.numbers[0], found.numbers[-1]
    captured = " (its output is made and not sent, as the phase says)" if route and route.mode is Mode.CAPTURE else ""
    by = "is now" if found.mapping == AS_IS else "was when they first went there"
    made.lines.append(
        f"{len(found.numbers)} messages of {book.name} ({first} … {last}) go to {course.name} once more, in their"
        f" order, by the mapping as it {by}{captured}"
    )
    made.lines += _by_which(course, found)
    if found.delivered:
        made.lines.append(f"{found.delivered} of them were delivered there already: the receiver gets them again")
    if found.never_due:
        made.lines.append(f"{found.never_due} of them were never due there")
    if later := book.seq - last:
        made.lines.append(
            f"{later} later messages of {book.name} may have been delivered: old contents may come after newer ones"
        )
    if skipped := _why(found):
        made.lines.append(f"left out{skipped}")
    return made


def _by_which(course: Course, found: Found) -> list[str]:
    present = version_of(course, course.channel.epoch.number)
    if found.mapping == AS_WAS:
        return [f"{count} of them by {_named(course, version, present)}" for version, count in found.by.items()]
    lines = []
    if other := found.by.total() - found.by[present]:
        lines.append(f"{other} of them were made by another mapping: --mapping as-was sends them as they were")
    if found.not_kept:
        lines.append(f"{len(found.not_kept)} of them were made by a mapping that is not kept")
    return lines


def _named(course: Course, version: str | None, present: str | None) -> str:
    if version == present:
        return "the one that is the present one"
    first = next(epoch for epoch in course.channel.epochs if version_of(course, epoch.number) == version)
    what = f"mapping {version}" if version else "none, as they came"
    return f"{what}, of epoch {first.number} from {moment(first.at)}"


def _not_kept(found: Found) -> str:
    stretches = ranges(found.not_kept)
    told = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in stretches[:NAMED])
    more = f" and {len(stretches) - NAMED} more stretches" if len(stretches) > NAMED else ""
    return (
        f"{len(found.not_kept)} of them were made by a mapping that is not kept (it is from before mappings were kept,"
        f" or was removed with the messages of its time): {told}{more}. Leave those out, or replay them with"
        " --mapping as-is"
    )


def ranges(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Rising numbers as stretches, first and last of each."""
    found: list[tuple[int, int]] = []
    for seq in numbers:
        if found and found[-1][1] == seq - 1:
            found[-1] = (found[-1][0], seq)
        else:
            found.append((seq, seq))
    return tuple(found)


def _why(found: Found) -> str:
    reasons = []
    if found.open:
        reasons.append(f"{found.open} still open there: retry those")
    if found.gone:
        reasons.append(f"{found.gone} not there, or their bytes pruned")
    for state, count in sorted(found.put_away.items()):
        reasons.append(f"{count} {state.label} there: name one alone to send it all the same")
    if found.never_made and found.mapping == AS_WAS:
        reasons.append(f"{found.never_made} that no mapping has made anything of there: those go with --mapping as-is")
    return f" ({'; '.join(reasons)})" if reasons else ""
