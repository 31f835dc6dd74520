"""A life of the state machine that a test leads, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.migration.machine import InterlockMachine

TURNS = range(14)
"""Of the event loop; the moments that matter lie between two of them."""


class Whatever:
    """In the place of what hypothesis draws: what was on its way when a process ended has not arrived."""

    def draw(self, strategy: Any) -> bool:
        return False


@contextmanager
def life(phase: str = "parallel", policy: Any = "all", unknown: str = "resend") -> Iterator[InterlockMachine]:
    """One connection: `acme-results` with taps to a clinic, `acme-orders` without to a LIS."""
    machine = InterlockMachine()
    try:
        machine.begin(
            relays=(False, False), wards=False, phase=phase, unknown=(unknown,) * 3, policies=(policy, policy)
        )
        yield machine
        machine.no_rule_is_broken()
        machine.the_equation_balances_from_both_sources()
        machine.nothing_stored_is_lost()
    finally:
        machine.put_away()


def ended(machine: InterlockMachine, *, killed: bool) -> None:
    machine.the_process_ends(Whatever(), killed)
