"""`interlock status` of a channel that is held: by a person, or by itself."""

from __future__ import annotations

import re

from tests.cli.conftest import Interlock
from tests.support.told import Told, status

HOLD = {
    "stopped": True, "who": "the policy dead: stops_channel", "why": "message 812 is dead at medplum",
    "since": "2026-11-02T14:16:00.000Z", "until": "2026-11-02T14:16:00.000Z",
}  # fmt: skip


def test_a_channel_that_stopped_by_itself_says_for_what_and_how_it_goes_on(interlock: Interlock, service: Told) -> None:
    service.state = status()
    service.state["channels"][0] |= {"phase": "live", "hold": HOLD}
    result = interlock("status")
    assert result.status == 1
    assert "live, stopped" in result.out
    said = r"acme: stopped .+ ago, message 812 is dead at medplum: settle that, or release the channel"
    assert re.fullmatch(said, result.out.splitlines()[-1])


def test_one_that_a_person_holds_too_long_names_the_person(interlock: Interlock, service: Told) -> None:
    service.state = status()
    service.state["channels"][0]["hold"] = HOLD | {"stopped": False, "who": "ann", "why": "the clinic moves"}
    result = interlock("status")
    assert ", held" in result.out
    assert re.fullmatch(r"acme: held by ann, .+ longer than it should be: release it", result.out.splitlines()[-1])
