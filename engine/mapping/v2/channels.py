"""What the channels say about their messages in the mappings' own words, checked: conditions, paths, lookups."""

from __future__ import annotations

from collections.abc import Iterable

from engine.config.model import Channel
from engine.config.problem import Problem
from engine.mapping.problems import Place, Problems
from engine.mapping.v2.filters import Filter
from engine.mapping.v2.library import V2Library
from engine.mapping.v2.memory import Memories


def check(channels: Iterable[Channel], library: V2Library | None) -> list[Problem]:
    """All mistakes in the filters and memories of the channels; with a library also lookups that nobody feeds."""
    problems, channels = Problems(), list(channels)
    for channel in channels:
        Memories(channel.remember, problems)
        for destination in channel.destinations:
            Filter.of(destination.filter, problems)
    if library is not None:
        _check_lookups(channels, library, problems)
    return sorted(set(problems.found))


def _check_lookups(channels: list[Channel], library: V2Library, problems: Problems) -> None:
    known: dict[str, set[str]] = {}
    for channel in channels:
        for each in channel.remember:
            known.setdefault(each.name, set()).update(each.values)
    for channel in channels:
        for destination in channel.destinations:
            if destination.mapping is None or destination.mapping not in library.names:
                continue
            for store, names in library.mapping(destination.mapping).recalls.items():
                place, what = Place(channel.file, 1, 1), f"the mapping {destination.mapping}, which looks up"
                if store not in known:
                    problems.add(place, f"{what} in {store}", f"a channel with remember: [{{as: {store}, …}}]")
                for name in sorted(names - known.get(store, names)):
                    problems.add(place, f"{what} {name} in {store}", f"it among the values: of {store}")
