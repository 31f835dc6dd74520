"""The process of `interlock run`: the service, its HTTP port, and the signals that end both.

The vendors' ports come first: what only HTTP needs is imported when they are open, and the garbage collector, which
finds nothing while everything is being built, waits until then. The HTTP port opens last and closes first: who finds
it open finds a service that works.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from typing import TYPE_CHECKING

import uvloop

from engine.cli.console import DONE, REFUSED, Stop
from engine.cli.version import installed_version
from engine.config.model import Configuration
from engine.ledger.sqlite.loading import LedgerError
from engine.observe.events import LOG, emit
from engine.observe.service_events import HangupIgnored, ServiceStarted, ServiceStopped
from engine.service.service import Service, StartError
from engine.service.view import View

if TYPE_CHECKING:
    from engine.api.application import Server


def run(configuration: Configuration) -> int:
    """Run until SIGTERM, SIGINT or a defect that leaves no choice; the exit status. Stops with a sentence."""
    try:
        return uvloop.run(_run(configuration))
    except (LedgerError, StartError) as error:
        raise Stop(str(error)) from None
    finally:
        LOG.flush()


async def _run(configuration: Configuration) -> int:
    begun = time.monotonic()
    service = Service(configuration)
    reasons = _on_signals(service.ended)
    await service.start()
    gc.enable()
    reason = "the HTTP port cannot be had"
    try:
        server = await _serve(service, configuration)
        try:
            http = str(configuration.service.http)
            emit(ServiceStarted(installed_version(), len(configuration.channels), http, time.monotonic() - begun))
            await service.ended.wait()
            reason = reasons[0] if reasons else "defect"
        finally:
            await server.close()
    finally:
        stopping = time.monotonic()
        await service.stop(reason)
        emit(ServiceStopped(time.monotonic() - stopping))
    return REFUSED if service.fatal else DONE


async def _serve(service: Service, configuration: Configuration) -> Server:
    from engine.api.application import Asked, serve
    from engine.service.evidence import Evidence
    from engine.service.orders import Orders
    from engine.service.parked import AtTaps
    from engine.service.remedies import Remedies
    from engine.service.unmapped import Unmapped
    from engine.service.upkeep import Upkeep

    version = installed_version()
    channels = configuration.channels
    orders = Orders(service.conductor, channels)
    evidence = Evidence(service.conductor, service.comparisons, channels)
    view, upkeep, remedies = View(service, version), Upkeep(service), Remedies(service)
    asked = Asked(view, orders, evidence, upkeep, remedies, AtTaps(service), Unmapped(service))
    try:
        return await serve(asked, configuration.service, version)
    except OSError as error:
        raise Stop(f"http {configuration.service.http} cannot be had: {os.strerror(error.errno or 0)}") from None


def _on_signals(ended: asyncio.Event) -> list[str]:
    """Set `ended` at a signal; the list holds its name then. SIGHUP, which elsewhere means to read the files again,
    ends nothing: a hand that is used to that, or a terminal that closes, must not stop the traffic."""
    reasons: list[str] = []

    def end(name: str) -> None:
        reasons.append(name)
        ended.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number.name)
    loop.add_signal_handler(signal.SIGHUP, lambda: emit(HangupIgnored()))
    return reasons
