"""Typed events: one thing that happens = one call of `emit` = one log line and its metric.

An event is a frozen dataclass under `Event`; its fields come from the table in `fields.py`. Where standard error
is a terminal the line is for reading, else it is one JSON object: `ts` (UTC), `level`, `event`, the fields.
Events that may come in floods (`limited`) print the first of a class, channel and destination in a second, then the
newest, with its own time and how many `more` there were between; their metrics count every one. Whoever emits has
`sweep` called about once a second: the newest may be the last for a long time.
"""

from __future__ import annotations

import atexit
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import ClassVar, Literal, TextIO

import orjson

from engine.observe.fields import cleared

Level = Literal["debug", "info", "warning", "error"]

WINDOW_S = 1.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    level: None = counted only, no line. `error` means that a person has to do something.
    said: the line for people; `{field}` stands for a field.
    limited: the first of a second for each channel (or endpoint) and destination, then the newest of the others.
    """

    level: ClassVar[Level | None] = "info"
    said: ClassVar[str] = ""
    limited: ClassVar[bool] = False

    def count(self) -> None:
        """Update the metrics that belong to this event."""

    @classmethod
    def name(cls) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def values(self) -> dict[str, object]:
        """The fields as they may be written: what has not its field's shape is withheld."""
        return {field.name: cleared(field.name, getattr(self, field.name)) for field in fields(self)}


class Log:
    """Writes events to a stream, limiting floods. Safe to call from any thread; never raises on a broken stream."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        readable: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._stream = stream
        self._readable = readable
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._windows: dict[tuple[type[Event], object, object], tuple[float, int, Event, float]] = {}

    def write(self, event: Event) -> None:
        if event.level is None:
            return
        with self._lock:
            self._sweep()
            now = self._now()
            if event.limited and not self._first_of_its_window(event, now):
                return
            self._put(event.level, event.name(), event.values(), event.said, now)

    def sweep(self) -> None:
        """Write the newest of each flood whose second is over."""
        with self._lock:
            self._sweep()

    def flush(self) -> None:
        """Say now how many lines were left out, also for windows that are still open."""
        with self._lock:
            self._sweep(everything=True)

    def _first_of_its_window(self, event: Event, now: float) -> bool:
        where = getattr(event, "channel", getattr(event, "endpoint", None))
        key = (type(event), where, getattr(event, "destination", None))
        window = self._windows.get(key)
        if window is None:
            self._windows[key] = (self._clock() + WINDOW_S, 0, event, now)
            return True
        self._windows[key] = (window[0], window[1] + 1, event, now)
        return False

    def _sweep(self, everything: bool = False) -> None:
        if not self._windows:
            return
        now = self._clock()
        for key in [key for key, (end, *_) in self._windows.items() if everything or end <= now]:
            _, later, newest, came = self._windows.pop(key)
            if later:
                more = {"more": later - 1} if later > 1 else {}
                said = newest.said + (" (and {more} more like this)" if more else "")
                self._put(newest.level or "info", newest.name(), newest.values() | more, said, came)

    def _put(self, level: Level, name: str, values: dict[str, object], said: str, at: float) -> None:
        stream = sys.stderr if self._stream is None else self._stream
        moment = datetime.fromtimestamp(at, UTC)
        try:
            stream.write(self._line(moment, level, name, values, said, stream))
            stream.flush()
        except (OSError, ValueError):
            pass  # whoever read our log is gone; the service goes on, and the metrics still count

    def _line(
        self, moment: datetime, level: Level, name: str, values: dict[str, object], said: str, stream: TextIO
    ) -> str:
        readable = stream.isatty() if self._readable is None else self._readable
        if not readable:
            head = {"ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), "level": level}
            return orjson.dumps({**head, "event": name, **values}).decode() + "\n"
        where = f" {values['channel']}:" if values.get("channel") else ""
        return f"{moment.astimezone().isoformat(' ', 'seconds')} {level:<7}{where} {_sentence(said, values) or name}\n"


def _sentence(said: str, values: dict[str, object]) -> str:
    try:
        return said.format_map(values)
    except (TypeError, ValueError):  # a None where the sentence wants a number
        return ""


LOG = Log()
atexit.register(LOG.flush)


def emit(event: Event) -> None:
    """Count the event and write its line."""
    event.count()
    LOG.write(event)
