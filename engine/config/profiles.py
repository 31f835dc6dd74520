"""What lies beneath a file: profiles by name, the shipped ones and the site's, and defaults.yaml beneath them.

A key that the file leaves out is taken from the last profile that has it, then from the defaults. What does not go with
what the file itself has chosen stays out: defaults with `listen: {host: …}` mean nothing to a channel with `feed:`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from engine.config.declared.channel import CHANNEL, SOURCES
from engine.config.declared.profile import ENDPOINT as PROFILE_ENDPOINT
from engine.config.declared.profile import PROFILE
from engine.config.kinds import guessed
from engine.config.nodes import Findings, compose, described, empty, keys, merged
from engine.config.tables import Table

SHIPPED = Path(__file__).parent / "profiles.yaml"
WAYS = ("mllp", "observed", "file")
"""How the old engine is reached: one of them."""

Dropped = frozenset[tuple[str, ...]]
"""Keys: (key,) or (key, key within)."""
ALONE = ("legacy", "")
"""A `legacy:` that names no way to the old engine is dropped as a whole: the file itself has none."""


class Profiles:
    """defaults: the root of defaults.yaml. Its mistakes, and those of the site's profiles, are told at once."""

    def __init__(self, site: Path, defaults: Node | None, findings: Findings) -> None:
        self._findings = findings
        self._defaults = defaults if isinstance(defaults, MappingNode) else None
        if defaults is not None:
            CHANNEL.partial().read(defaults, findings)
        self._site = _load(site, findings) if site.is_file() else {}
        for profile in self._site.values():
            PROFILE.read(profile, findings)
        self._beneath: dict[tuple[tuple[str, ...], Dropped], Node | None] = {}

    @cached_property
    def _named(self) -> dict[str, Node]:
        return _load(SHIPPED, self._findings) | self._site

    def beneath_channel(self, node: Node, findings: Findings) -> Node:
        """The channel with what lies beneath it."""
        if not isinstance(node, MappingNode):
            return node
        names = self._names(node, findings) or self._names(self._defaults, findings)
        drop = _excluded(node, self._defaults)
        if (names, drop) not in self._beneath:
            self._beneath[names, drop] = self._layers(names, self._defaults, drop)
        return merged(node, self._beneath[names, drop])

    def beneath_feed(self, node: Node, findings: Findings) -> Node:
        """The feed with its profiles; defaults.yaml is the channels' alone."""
        if not isinstance(node, MappingNode):
            return node
        chosen = {"ack", *_there(node, ("listen", "connect"))}
        drop = frozenset((key,) for key in PROFILE.fields if key not in chosen)
        return merged(node, self._layers(self._names(node, findings), None, drop))

    def beneath_endpoint(self, node: MappingNode, table: Table, findings: Findings) -> Node:
        """The endpoint with what its profiles say of endpoints, as far as one of its kind has it."""
        unknown = frozenset((key,) for key in PROFILE_ENDPOINT.fields if not table.takes(key))
        whole: Node = node
        for name in reversed(self._names(node, findings)):
            inner = _child(self._named[name], "endpoint")
            whole = merged(whole, _without(inner, unknown)) if inner else whole
        return whole

    def _layers(self, names: tuple[str, ...], defaults: MappingNode | None, drop: Dropped) -> Node | None:
        """The profiles, of which the last wins, above the defaults, without what is dropped."""
        out: Node | None = None
        for layer in (defaults, *(self._named[name] for name in names)):
            if isinstance(layer, MappingNode):
                out = merged(_without(layer, drop), out)
        legacy = _child(out, "legacy")
        if isinstance(out, MappingNode) and legacy and ALONE in drop and not _there(legacy, WAYS):
            return _without(out, frozenset({("legacy",)}))
        return out

    def _names(self, node: MappingNode | None, findings: Findings) -> tuple[str, ...]:
        """The profiles that a file names and that there are, in its order; of any other, a problem."""
        given = next((value for _, key, value in keys(node) if key == "profile"), None) if node else None
        if given is None:
            return ()
        out = []
        for item in given.value if isinstance(given, SequenceNode) else [given]:
            if not isinstance(item, ScalarNode) or not item.value:
                continue  # what it should be, its kind says
            if item.value in self._named:
                out.append(item.value)
            else:
                known = sorted(self._named)
                wanted = guessed(item.value, known, "one of " + ", ".join(known) + ", or one of channels/profiles.yaml")
                findings.problem(item, f"the unknown profile '{item.value}'", wanted)
        return tuple(out)


def _load(path: Path, findings: Findings) -> dict[str, Node]:
    root = compose(path, findings)
    if root is None:
        return {}
    if not isinstance(root, MappingNode):
        findings.problem(root, described(root), "a table of profiles by name")
        return {}
    return {name: value for _, name, value in keys(root)}


def _excluded(own: MappingNode, defaults: MappingNode | None) -> Dropped:
    """What of the layers beneath does not go with what the file itself has chosen."""
    chosen = _there(own, SOURCES) or (_there(defaults, SOURCES) if defaults else set())
    drop: set[tuple[str, ...]] = {("endpoint",), *((key,) for key in SOURCES if key not in chosen)}
    if chosen & {"feed", "files"}:
        drop.add(("ack",))  # the one is answered by its feed, the other by nobody
    legacy = _child(own, "legacy")
    ways = _there(legacy, WAYS) if legacy else set()
    if "observed" in ways:
        drop.add(("ack", "from"))
    if legacy is None:
        drop.add(ALONE)
    if not ways:
        ways = {"observed"} | ({"file"} if "files" in chosen else set() if "feed" in chosen else {"mllp"})
    return frozenset(drop | {("legacy", way) for way in WAYS if way not in ways})


def _there(node: MappingNode, names: Iterable[str]) -> set[str]:
    wanted = set(names)
    return {key for _, key, value in keys(node) if key in wanted and not empty(value)}


def _child(node: Node | None, name: str) -> MappingNode | None:
    pairs = keys(node) if isinstance(node, MappingNode) else ()
    return next((value for _, key, value in pairs if key == name and isinstance(value, MappingNode)), None)


def _without(node: MappingNode, drop: Dropped) -> MappingNode:
    """The table less the keys of `drop`, which are one or two deep."""
    pairs = []
    for key_node, key, value in keys(node):
        inner = frozenset(path[1:] for path in drop if len(path) > 1 and path[0] == key)
        if (key,) not in drop:
            pairs.append((key_node, _without(value, inner) if inner and isinstance(value, MappingNode) else value))
    return MappingNode(node.tag, pairs, node.start_mark, node.end_mark, node.flow_style)
