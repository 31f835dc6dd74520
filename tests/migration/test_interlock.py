"""Random lives of a connection: whatever is stored, sent, lost, moved, stopped or killed, its rules hold."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.migration.machine import InterlockMachine

TestInterlock = InterlockMachine.TestCase
TestInterlock.settings = settings(
    max_examples=120, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.soak
def test_a_thousand_longer_lives() -> None:
    run_state_machine_as_test(
        InterlockMachine,
        settings=settings(
            max_examples=1000, stateful_step_count=80, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
