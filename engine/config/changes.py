"""What a channel has otherwise than the mapping that it uses, as its file says it. What it means is for the mapping."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from yaml.nodes import MappingNode, Node, SequenceNode

from engine.config.nodes import NULL

Unmapped = Literal["ignore", "count", "keep", "refuse"]


@dataclass(frozen=True, slots=True)
class Changes:
    """override: JSON. options: of the mapping, by name. unmapped: what is done about values that no rule takes.

    node, options_node: the override and the options as they stand in the file; where they stand is no part of what
    they say.
    """

    override: str = ""
    options: tuple[tuple[str, str], ...] = ()
    unmapped: Unmapped = "ignore"
    node: Any = field(default=None, compare=False, repr=False)
    options_node: Any = field(default=None, compare=False, repr=False)


UNCHANGED = Changes()


def as_written(node: Node) -> Any:
    """What a node says, for JSON; scalars as they were written."""
    if isinstance(node, MappingNode):
        return {key.value: as_written(value) for key, value in node.value}
    if isinstance(node, SequenceNode):
        return [as_written(value) for value in node.value]
    return "" if node.tag == NULL else node.value
