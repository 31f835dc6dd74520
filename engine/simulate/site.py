"""The configuration of an engine that stands in the middle of the simulated world, as tables for YAML files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from engine.simulate.layout import Layout, Link, Way
from engine.simulate.wire import LOOPBACK

LAB_NUMBERS: Final = "https://lab.example/accession"

IGNORED: Final = (
    ("MSH-9.3", "the old engine's acknowledgements name no message structure"),
    ("MSH-18", "the old engine's acknowledgements name no character set"),
    ("MSA-3", "the old engine adds a text to each acknowledgement"),
)
TOLERATED: Final = (
    ("padding", "the old engine pads to the width of its tables"),
    ("precision", "the old engine writes one more decimal, which nobody measured"),
    ("order", "the old engine sends results in the order of its tables"),
    ("escapes", "the old engine escapes slashes, which need none"),
    ("time_precision", "the old engine writes thousandths of seconds, which nobody measured"),
)
"""What a simulated old engine does otherwise and nobody minds: fields, and ways of writing."""
ACCEPTS: Final = {"orders": ["ORM^O01", "OML^O21"], "results": ["ORU^R01"]}


def endpoints(layout: Layout, *, ack_timeout: str = "10s", on_unknown: str = "resend") -> dict[str, dict[str, Any]]:
    """endpoints.yaml: laboratories, clinics, and the old engine's inputs. `on_unknown`: of the real endpoints."""
    real = {"ack_timeout": ack_timeout, "on_unknown": on_unknown, "probe": "always"}
    return {
        **{name: {"mllp": f"{LOOPBACK}:{port}", **real} for name, port in layout.endpoints.items()},
        **{old_engine(way): {"mllp": f"{LOOPBACK}:{way.old}", "ack_timeout": ack_timeout} for way in layout.ways},
    }


def old_engine(way: Way) -> str:
    """The name of the old engine's input for a channel."""
    return f"old-{way.channel}"


def channels(
    layout: Layout,
    *,
    phase: str = "legacy",
    medplum: bool = False,
    min_messages: int = 100,
    settle: str | None = None,
    within: str = "10m",
    replay: str = "guarded",
) -> dict[str, dict[str, Any]]:
    """Each channel's file, by id. `settle`: of the taps, else three times their lag. `medplum`: write there as well.
    `within`: how long an output may come after its input."""
    tap = {"settle": settle} if settle else {}
    common = {
        "owner": "interfaces@example.org",
        "timezone": "America/Chicago",
        "phase": phase,
        "compare": {
            "within": within,
            "ignore": [{"path": path, "reason": reason} for path, reason in IGNORED],
            "tolerate": [{"how": how, "reason": reason} for how, reason in TOLERATED],
        },
        "window": {"from": "00:00", "to": "24:00"},
        "gate": {"min_match": 0.999, "min_messages": min_messages},
        "rollback": {"replay": replay, "until": "72h"},
    }
    return {
        way.channel: {**_channel(link, way, tap, [{"medplum": {}}] if medplum else []), **common}
        for link in layout.links
        for way in link.ways
    }


def _channel(link: Link, way: Way, tap: dict[str, Any], more: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": way.channel,
        "connection": link.connection,
        "title": f"{link.connection}, {way.direction}",
        "direction": way.direction,
        "labels": {"laboratory": link.laboratory},
        "listen": {"host": LOOPBACK, "port": way.listen, "accepts": ACCEPTS[way.direction]},
        "identity": {
            "patient": f"https://{link.connection}.example/mrn",
            "placer": f"https://{link.connection}.example/order",
            "filler": LAB_NUMBERS,
        },
        "legacy": {"mllp": old_engine(way), "taps": [{"listen": way.tap, "forward": way.endpoint, **tap}]},
        "target": {"destinations": [{"mllp": way.endpoint}, *more]},
    }
