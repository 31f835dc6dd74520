"""Times as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from engine.cli.console import usage


def moment(option: str, text: str, now: datetime | None = None) -> str:
    """A time as the API wants it, ISO 8601 in UTC. Typed is a duration, so long ago (`2h`), or a date or time, in the
    reader's own zone unless it names one."""
    from engine.config.units import duration

    ago = duration(text)
    if ago is not None:
        return _iso((now or datetime.now(UTC)) - timedelta(seconds=ago))
    try:
        return _iso(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        usage(f"{option} {text}: wanted is a time, such as 2026-11-02T14:15, 2026-11-02, or 2h for so long ago")


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
