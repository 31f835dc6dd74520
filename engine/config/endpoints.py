"""Endpoints: real addresses outside, by the names of endpoints.yaml or in place as host:port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yaml.nodes import MappingNode, Node

from engine.config.declared import ENDPOINT
from engine.config.endpoint import Endpoint
from engine.config.kinds import ID, Section, address, guessed
from engine.config.nodes import Findings, compose, described, keys


class Endpoints:
    """What `mllp: …` may name. Two ways to write one host:port are one endpoint, and so have one sender."""

    def __init__(self, named: dict[str, Endpoint], declared: set[str]) -> None:
        self.named = named
        self.declared = declared
        self._by_address = {endpoint.mllp: endpoint for endpoint in named.values()}

    def find(self, node: Node, text: str, findings: Findings) -> Endpoint | None:
        if text in self.named:
            return self.named[text]
        if text in self.declared:
            return None  # it is there and has a problem of its own
        given = address(text)
        if given is None:
            wanted = "a name in channels/endpoints.yaml, or host:port"
            findings.problem(node, f"the unknown endpoint '{text}'", guessed(text, sorted(self.declared), wanted))
            return None
        known = self._by_address.get(given)
        if known is None:
            known = self._by_address[given] = self.named[text] = Endpoint(text, given)
        return known


def load_endpoints(path: Path, findings: Findings) -> Endpoints:
    root = compose(path, findings) if path.is_file() else None
    if root is None:
        return Endpoints({}, set())
    if not isinstance(root, MappingNode):
        findings.problem(root, described(root), "a table of endpoints by name")
        return Endpoints({}, set())
    named: dict[str, Endpoint] = {}
    declared: set[str] = set()
    places: dict[Any, str] = {}
    for key_node, name, node in keys(root):
        before = findings.count
        ID.read(key_node, findings)
        if name in declared:
            findings.problem(key_node, f"the endpoint '{name}' a second time", "each name once")
        declared.add(name)
        section = ENDPOINT.read(node, findings)
        if isinstance(section, Section) and findings.count == before:
            endpoint = _endpoint(name, section)
            if endpoint.mllp in places:
                other = places[endpoint.mllp]
                wanted = "one name for each address, so that all channels share one sender"
                findings.problem(section.place("mllp"), f"{endpoint.mllp}, which '{other}' has too", wanted)
            places[endpoint.mllp] = name
            named[name] = endpoint
    return Endpoints(named, declared)


def _endpoint(name: str, section: Section) -> Endpoint:
    keys = ("mllp", "connections", "ack_timeout", "on_unknown", "connect_timeout", "probe", "sink")
    return Endpoint(name=name, **{key: section.values[key] for key in keys if key in section.values})
