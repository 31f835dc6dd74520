"""Which addresses may connect to a listener."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


class Allowed:
    """Networks in CIDR notation; none at all admits everybody."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def admits(self, peer: str) -> bool:
        """Whether a peer (`ip:port`, IPv6 in brackets) may connect."""
        if not self._networks:
            return True
        host = peer.rpartition(":")[0].strip("[]")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)
