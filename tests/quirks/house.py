"""The service that the quirks are tried on: all their channels in one process, in a thread of its own, built from YAML.

Each set of options is a channel, with an old engine and a clinic of its own.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from engine.config.loading import load
from engine.config.model import Channel
from engine.service.service import Service
from tests.quirks.reading import Quirk
from tests.support.house import written
from tests.support.ports import free_port
from tests.support.scripted import Scripted

T = TypeVar("T")


class Place:
    """One channel of the service, and who is behind it."""

    def __init__(self, id: str, options: dict[str, Any]) -> None:
        self.id = id
        self.options = options
        self.port = free_port()
        self.old_engine, self.clinic = Scripted(), Scripted()
        self.channel: Channel

    def declared(self) -> dict[str, Any]:
        """The channel's file."""
        options = self.options
        common: dict[str, Any] = {"id": self.id, "connection": self.id, "direction": "results", "timezone": "UTC"}
        common["duplicates"] = {"window": "0s"}  # quirks send the same messages, each as a first one
        more = dict(options.get("channel", {}))
        listen = {"port": self.port, "host": "127.0.0.1", "accepts": ["ORU^R01"]} | more.pop("listen", {})
        ways: dict[str, Any] = {"target": {"destinations": [{"mllp": f"clinic-{self.id}"}]}}
        if options.get("phase", "live") == "legacy":
            ways = {"legacy": {"mllp": f"old-{self.id}"}, "phase": "legacy"}
        return {**common, "listen": listen, **ways, **more}

    def endpoints(self) -> dict[str, Any]:
        """What of endpoints.yaml is its own."""
        clinic = {"mllp": f"127.0.0.1:{self.clinic.port}", "ack_timeout": "1s", "on_unknown": "resend"}
        old = {"mllp": f"127.0.0.1:{self.old_engine.port}", "ack_timeout": "1s"}
        return {
            f"clinic-{self.id}": clinic | self.options.get("endpoint", {}),
            f"old-{self.id}": old | self.options.get("old", {}),
        }


class House:
    """Everything runs between `start` and `stop`. `run` has something done there, and waits for it."""

    def __init__(self, folder: Path, quirks: list[Quirk]) -> None:
        self._folder = folder
        keys = sorted({quirk.key for quirk in quirks})
        self.places = {key: Place(f"q{number}", json.loads(key)) for number, key in enumerate(keys, 1)}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="quirks", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self.run(self._start())

    def stop(self) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def read(self, query: Callable[[Any], T]) -> T:
        """From the ledger, with all that was said before it."""

        async def read() -> T:
            await written(self.service)
            return await self.service.ledger.read(lambda reader: query(reader.connection))

        return self.run(read())

    async def _start(self) -> None:
        channels = self._folder / "channels"
        channels.mkdir()
        endpoints: dict[str, Any] = {}
        for place in self.places.values():
            await place.old_engine.__aenter__()
            await place.clinic.__aenter__()
            (channels / f"{place.id}.yaml").write_text(json.dumps(place.declared()))
            endpoints |= place.endpoints()
        (channels / "endpoints.yaml").write_text(json.dumps(endpoints))
        settings = self._folder / "interlock.yaml"
        settings.write_text(f"ledger: sqlite:///{self._folder}/interlock.db\n")
        configuration = load(settings, {})
        by_id = {channel.id: channel for channel in configuration.channels}
        for place in self.places.values():
            place.channel = by_id[place.id]
        self.service = Service(configuration)
        await self.service.start()

    async def _stop(self) -> None:
        await self.service.stop()
        for place in self.places.values():
            await place.old_engine.__aexit__()
            await place.clinic.__aexit__()
