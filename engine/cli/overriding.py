"""What channels have otherwise than the mappings that they use, checked for `validate`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.config.changes import Changes
    from engine.config.model import Channel
    from engine.config.problem import Problem
    from engine.mapping.library import Library


def mistakes(channels: Iterable[Channel], library: Library) -> list[Problem]:
    """All mistakes in the overrides and the options of the channels, at their places in each channel's file. What
    channels have in common is compiled once, also where it is wrong: that takes half a second."""
    from engine.mapping.problems import MappingError

    found: list[Problem] = []
    wrong: dict[tuple[Any, ...], tuple[Changes, list[Problem]]] = {}
    for channel in channels:
        if channel.target is None:
            continue
        use, changes = channel.target.mapping, channel.target.changes
        key = use and use.upper(), changes.override, changes.options
        if key not in wrong:
            try:
                library.changed(use, changes)
            except MappingError as error:
                wrong[key] = changes, error.problems
        if key in wrong:
            found += _moved(*wrong[key], channel)
    return found


def _moved(first: Changes, problems: list[Problem], channel: Channel) -> Iterator[Problem]:
    """The mistakes of one channel's changes, in the file of a channel that says the same."""
    from engine.mapping.problems import Place
    from engine.mapping.source import option_places

    assert channel.target is not None
    mine = channel.target.changes
    options = option_places(mine)
    chosen = {place: options[name] for name, place in option_places(first).items()}
    there, here = list(_positions(first.node)), list(_positions(mine.node))
    to = dict(zip(there, here, strict=False))  # a key that stands there twice says no more than one
    there.sort()
    for problem in problems:
        if option := chosen.get(Place(problem.file, problem.line, problem.column)):
            yield replace(problem, file=option.file, line=option.line, column=option.column)
        elif first.node is None or problem.file != first.node.start_mark.name:  # a mapping file, by what was changed
            yield problem
        else:
            place = problem.line, problem.column
            start = there[max(0, bisect_right(there, place) - 1)]
            line, column = to.get(start, here[0])
            line, column = line + place[0] - start[0], column + place[1] - start[1]
            yield replace(problem, file=mine.node.start_mark.name, line=line, column=column)


def _positions(node: Any) -> Iterator[tuple[int, int]]:
    """Where a node and each one within it begin."""
    if node is None:
        return
    yield node.start_mark.line + 1, node.start_mark.column + 1
    for each in node.value if isinstance(node.value, list) else ():
        for one in each if isinstance(each, tuple) else (each,):
            yield from _positions(one)
