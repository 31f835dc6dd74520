"""Without Node, the tests of the peers that run in it are skipped before they begin."""

from __future__ import annotations

import pytest

from tests.peers import receivers, senders
from tests.peers.node import require_node


@pytest.fixture(autouse=True)
def in_node(request: pytest.FixtureRequest) -> None:
    peer = request.node.callspec.params.get("peer") if hasattr(request.node, "callspec") else None
    if peer in (senders.MEDPLUM, senders.NODE_HL7, receivers.NODE_HL7):
        require_node()
