"""Which addresses may connect to a listener."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from engine.mllp.sockets import host_of


class Networks:
    """Networks in CIDR notation."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, host: object) -> bool:
        """Whether an IP address is in one of them. What is no IP address is in none."""
        if not self._networks:
            return False
        try:
            address = ipaddress.ip_address(str(host))
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class Allowed:
    """Networks in CIDR notation; none at all admits everybody."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = Networks(networks)

    def admits(self, peer: str) -> bool:
        """Whether a peer (`ip:port`, IPv6 in brackets) may connect."""
        return not self._networks or host_of(peer) in self._networks
