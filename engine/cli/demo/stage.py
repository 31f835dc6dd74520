"""Everything that the demo needs, in one folder and one process group: built, told its story, and taken down again."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop
import yaml
from aiohttp import ClientError

from engine.cli.console import Stop, wrapped
from engine.cli.demo import parts
from engine.cli.demo.operator import Operator, Trouble
from engine.cli.demo.report import many
from engine.cli.demo.roles import SHARE, Roles, cast
from engine.cli.demo.story import Pace, Story
from engine.config.address import Address
from engine.simulate import site
from engine.simulate.alterations import FAULTS
from engine.simulate.layout import Layout, free_ports, lay_out
from engine.simulate.wire import LOOPBACK
from engine.simulate.world import Plan, World

LABORATORIES: Final = 4
WITHIN: Final = "15s"
"""How long an output may come after its input: short, so that a dropped message shows within the demo."""

SCRAPE_S: Final = 15.0
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for on the command line. `rate`: orders a second, of all clinics together."""

    connections: int
    minutes: float
    rate: float
    keep: Path | None
    medplum: bool
    seed: int


def run(wanted: Wanted) -> int:
    """The whole demo; the exit status. Stops with a sentence where it cannot begin."""
    if wanted.keep is not None:
        _prepare(wanted.keep)
    with nullcontext(str(wanted.keep)) if wanted.keep else tempfile.TemporaryDirectory(prefix="interlock-") as folder:
        try:
            return uvloop.run(_until_told(wanted, Path(folder).resolve()))
        except asyncio.CancelledError:
            _say("\nended before its time")
            return INTERRUPTED


def _prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Stop(f"{folder} is not empty: name another folder, or none")


async def _until_told(wanted: Wanted, folder: Path) -> int:
    """Ctrl-C, SIGTERM and SIGHUP end it early, once: a second one must not leave half of it behind."""
    loop = asyncio.get_running_loop()
    playing = asyncio.create_task(_play(wanted, folder), name="demo")
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end() -> None:
        for number in signals:
            loop.add_signal_handler(number, lambda: None)
        playing.cancel()

    for number in signals:
        loop.add_signal_handler(number, end)
    return await playing


async def _play(wanted: Wanted, folder: Path) -> int:
    async with AsyncExitStack() as stack:
        http, sandbox = (Address(LOOPBACK, port) for port in free_ports(2))
        laboratories = min(LABORATORIES, wanted.connections)
        layout = lay_out(wanted.connections, laboratories, beside=(http.port, sandbox.port))
        roles = cast(layout, wanted.seed)
        _say(f"Starting a Medplum sandbox, {many(wanted.connections, 'clinic')}, an old engine and the service …")
        medplum = await stack.enter_async_context(_medplum(wanted, sandbox, folder))
        settings = write_site(folder, layout, http, medplum)
        world = World(layout, _plan(wanted, roles), folder=folder)
        stack.push_async_callback(world.stop)
        await world.start()
        service = parts.service(settings, folder)
        stack.push_async_callback(service.stop)
        await service.start(lambda: parts.is_ready(http))
        _say(_introduction(wanted, folder, layout, roles, medplum))
        try:
            operator = await stack.enter_async_context(Operator(http, folder / "interlock.db"))
            await stack.enter_async_context(_scraping(operator))
            pace = Pace(wanted.minutes * 60, wanted.rate / wanted.connections)
            return await Story(world, operator, roles.faulty, _telling(), pace).tell()
        except (Trouble, ClientError, TimeoutError) as error:
            raise Stop(f"the service fails: {error or type(error).__name__}; {service.last_words()}") from None


@asynccontextmanager
async def _medplum(wanted: Wanted, address: Address, folder: Path) -> AsyncIterator[Address | None]:
    """A sandbox that runs; None where there is to be none, or cannot be."""
    if not wanted.medplum:
        yield None
        return
    why_not = parts.why_no_sandbox()
    if why_not is not None:
        _say(f"No Medplum in this demo: {why_not}.")
        yield None
        return
    part = parts.sandbox(address, folder)
    try:
        await part.start(lambda: parts.listens(address))
        yield address
    finally:
        await part.stop()


@asynccontextmanager
async def _scraping(operator: Operator) -> AsyncIterator[None]:
    """Somebody reads the metrics all the while, as the gate wants it."""

    async def scrape() -> None:
        while True:
            await operator.scrape()
            await asyncio.sleep(SCRAPE_S)

    task = asyncio.create_task(scrape(), name="demo scrapes metrics")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _plan(wanted: Wanted, roles: Roles) -> Plan:
    return Plan(
        turnaround=(0.5, 3.0),
        delay=0.05,
        seed=wanted.seed,
        mischief=roles.mischief,
        habits=roles.habits,
        alterations=FAULTS,
    )


def write_site(folder: Path, layout: Layout, http: Address, medplum: Address | None) -> Path:
    """The configuration of the service, in files as a person would write them; where the settings are."""
    channels = folder / "channels"
    channels.mkdir()
    settings: dict[str, Any] = {"http": str(http), "ledger": "sqlite:///interlock.db"}
    if medplum is not None:
        sandbox = {"client_id": "sandbox-client", "client_secret": "sandbox-secret", "time_limit": "5s"}
        settings["medplum"] = {"base_url": f"http://{medplum}", **sandbox}
    _write(folder / "interlock.yaml", settings)
    _write(channels / "endpoints.yaml", site.endpoints(layout))
    declared = site.channels(layout, medplum=medplum is not None, min_messages=3, within=WITHIN)
    for id, channel in declared.items():
        _write(channels / f"{id}.yaml", channel)
    return folder / "interlock.yaml"


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def _introduction(wanted: Wanted, folder: Path, layout: Layout, roles: Roles, medplum: Address | None) -> str:
    channels = len(layout.channels)
    lines = [
        "",
        f"{wanted.connections} clinics send orders to {min(LABORATORIES, wanted.connections)} laboratories, which"
        f" report back: {wanted.connections} connections, {channels} channels.",
        f"Between them stands an old engine. With {many(len(roles.faulty), 'connection')} it spoils up to"
        f" {SHARE:.0%} of the results; with most it has habits that hurt nobody.",
        f"Interlock has taken over the vendors' ports and passes everything on to it. Medplum: {medplum or 'none'}.",
        f"All of it is in {folder}" + (", which stays." if wanted.keep else ", which goes when the demo ends."),
        "Ctrl-C ends everything.",
        "",
    ]
    return "\n".join(lines)


def _telling() -> Any:
    """Each sentence with the time since the beginning; a table stands by itself."""
    begun = time.monotonic()

    def tell(text: str) -> None:
        if "\n" in text:
            return _say(f"\n{text}\n")
        minutes, seconds = divmod(int(time.monotonic() - begun), 60)
        indent = " " * (len(text) - len(text.lstrip()) + len("[00:00] "))
        return _say("\n".join(wrapped(f"[{minutes:02d}:{seconds:02d}] {text}", indent=indent)))

    return tell


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
