"""Conditions on messages as they are written in a channel's file. What they mean is for the mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Written:
    """A text, and where it begins. Where it stands is no part of what it says."""

    text: str
    file: str = field(compare=False)
    line: int = field(compare=False)
    column: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """Messages that fit `when` are held back (`drop`), or those that do not. reason: shown where it is counted."""

    when: Written
    drop: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Remember:
    """What later messages may look up: name → path, kept under what stands at `key`.

    name: of the store. Of a key's segment that repeats, each occurrence is remembered by itself. keep: seconds.
    """

    name: str
    key: Written
    values: Mapping[str, Written]
    keep: float
    when: Written | None = None


@dataclass(frozen=True, slots=True)
class Emit:
    """The control ids of what we send. ours: each message gets one of ours; else only where one would stand twice."""

    ours: bool = False
    prefix: str = ""
    length: int = 20


AS_IT_CAME = Emit()
