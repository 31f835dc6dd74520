"""What a channel says about its move: how it is compared, what must hold, when it may happen, how it goes back."""

from __future__ import annotations

from engine.config.model import Compare, Gate, Ignored, Legacy, Retention, Tolerated, Window
from engine.config.nodes import Findings
from engine.config.tables import Section


def read_compare(section: Section | None) -> Compare:
    if section is None:
        return Compare()
    get = section.get
    return Compare(
        key=get("key", ()),
        nth=get("nth", True),
        within=get("within", 600.0),
        ignore=tuple(Ignored(rule.get("path"), rule.get("reason")) for rule in get("ignore", ())),
        tolerate=tuple(
            Tolerated(rule.get("how"), rule.get("reason"), rule.get("path")) for rule in get("tolerate", ())
        ),
    )


def read_gate(section: Section | None) -> Gate:
    return Gate(**section.values) if section else Gate()


def read_retention(section: Section | None, findings: Findings) -> Retention:
    """How long things are kept: what is needed to read another thing, at least as long as that."""
    retention = Retention(**section.given("raw", "captured", "receipts", "events")) if section else Retention()
    if section and retention.captured > retention.raw:
        found = "captured outputs that are kept longer than the messages that they were made from"
        findings.problem(section.place("captured"), found, "captured: at most as long as raw")
    if section and retention.raw > retention.receipts:
        found = "bytes that are kept longer than what became of them"
        findings.problem(section.place("raw"), found, "raw: at most as long as receipts")
    return retention


def read_window(section: Section | None, findings: Findings) -> Window | None:
    """The window; None where there is none, or it is wrong."""
    start, end = (section.get("from"), section.get("to")) if section else (None, None)
    if section is None or start is None or end is None:
        return None
    start, end = start.zfill(5), end.zfill(5)
    if start == end:
        findings.problem(
            section.place("to"), f"{end}, when it opens as well", "another time; a whole day is from 00:00 to 24:00"
        )
    return Window(section.get("days", ()), start, end)


def check_rollback(section: Section | None, legacy: Legacy | None, findings: Findings) -> None:
    """`guarded` keeps back what the target has delivered already; only a tap shows what the old engine sends."""
    if section is None or legacy is None or legacy.taps:
        return
    if section.get("replay") == "guarded":
        findings.problem(
            section.place("replay"),
            "replay: guarded in a channel without taps",
            "taps: in legacy:, or one of undelivered, all, none",
        )
