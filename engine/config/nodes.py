"""YAML as nodes that know where they stand, so that every problem has a file, a line and a column.

Values are never built by the YAML library: kinds (kinds.py) read them from the nodes as they were written, so
`01:00` stays a time and `no` is not silently false. libyaml's composer keeps 250 files under 150 ms.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from engine.config.problem import Note, Problem

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

STR = "tag:yaml.org,2002:str"
INT = "tag:yaml.org,2002:int"
FLOAT = "tag:yaml.org,2002:float"
BOOL = "tag:yaml.org,2002:bool"
NULL = "tag:yaml.org,2002:null"

Place: TypeAlias = Node | tuple[str, int, int] | str
"""Where something stands: a node, (file, line, column), or a file as a whole."""

MAX_DEPTH = 30
_SECRET = re.compile(r"(\$)?\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Findings:
    """Collects the problems and notes of all files; `environment` fills in ${SECRETS}."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.problems: dict[Problem, None] = {}  # a mistake in defaults.yaml shows once, not for each channel
        self.notes: dict[Note, None] = {}
        self.count = 0  # every problem found, also one that is known from another channel: has this one any?

    def problem(self, place: Place, found: str, wanted: str) -> None:
        self.add(Problem(*_position(place), found, wanted))

    def add(self, problem: Problem) -> None:
        self.problems[problem] = None
        self.count += 1

    def note(self, place: Place, text: str) -> None:
        self.notes[Note(*_position(place), text)] = None

    def text(self, node: ScalarNode) -> str | None:
        """The scalar with ${NAME} filled in ($${NAME} stays ${NAME}); None, and a problem, where NAME is not set."""
        value: str = node.value
        if "${" not in value:
            return value
        missing = [m[2] for m in _SECRET.finditer(value) if not m[1] and not self.environment.get(m[2])]
        for name in missing:
            self.problem(node, f"${{{name}}}, which is not set", f"the environment variable {name}")
        if missing:
            return None
        return _SECRET.sub(lambda m: f"${{{m[2]}}}" if m[1] else self.environment[m[2]], value)


def _position(place: Place) -> tuple[str, int, int]:
    if isinstance(place, str):
        return place, 1, 1
    if isinstance(place, tuple):
        return place
    mark: Any = place.start_mark
    return mark.name, mark.line + 1, mark.column + 1


def where(node: Node) -> str:
    """`file:line`, for a problem that points to a second place."""
    file, line, _ = _position(node)
    return f"{file}:{line}"


def shown(path: Path) -> str:
    """The path as the user would type it from where he stands."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


class _Named(io.BytesIO):
    """libyaml puts the stream's name into every mark."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def compose(path: Path, findings: Findings) -> Node | None:
    """The file's root node; None, and a problem, where there is none. JSON is YAML too."""
    name = shown(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        findings.problem(name, f"a file that cannot be read ({error.strerror})", "a readable YAML file")
        return None
    return compose_bytes(data, name, findings)


def compose_bytes(data: bytes, name: str, findings: Findings) -> Node | None:
    try:
        node: Node | None = yaml.compose(_Named(data, name), Loader=Loader)
    except yaml.MarkedYAMLError as error:
        _broken(error, name, findings)
        return None
    except (yaml.YAMLError, UnicodeDecodeError):
        findings.problem(name, "bytes that are not UTF-8 text", "a YAML file in UTF-8")
        return None
    if node is None:
        findings.problem(name, "an empty file", "at least one key")
    return node


def _broken(error: yaml.MarkedYAMLError, name: str, findings: Findings) -> None:
    mark: Any = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    findings.add(Problem(name, line, column, f"broken YAML ({error.problem or error.context})", "valid YAML"))


def keys(node: MappingNode) -> Iterator[tuple[ScalarNode, str, Node]]:
    """(key node, key, value node) of a table, as written."""
    for key, value in node.value:
        if isinstance(key, ScalarNode):
            yield key, key.value, value


def merged(above: Node, beneath: Node | None) -> Node:
    """`above` with what only `beneath` has; tables are merged key by key, all else is replaced."""
    if not isinstance(above, MappingNode) or not isinstance(beneath, MappingNode):
        return above
    mine = {key: position for position, (_, key, _) in enumerate(keys(above))}
    pairs = list(above.value)
    for key_node, key, value in keys(beneath):
        if key in mine:
            pairs[mine[key]] = (pairs[mine[key]][0], merged(pairs[mine[key]][1], value))
        else:
            pairs.append((key_node, value))
    return MappingNode(above.tag, pairs, above.start_mark, above.end_mark, above.flow_style)


def plain(node: Node, depth: int = 0) -> Any:
    """The node as dicts, lists and scalars; ${SECRETS} are left as written."""
    if depth > MAX_DEPTH:
        return None  # an alias within itself
    if isinstance(node, MappingNode):
        return {key: plain(value, depth + 1) for _, key, value in keys(node)}
    if isinstance(node, SequenceNode):
        return [plain(item, depth + 1) for item in node.value]
    return _scalar(node)


def _scalar(node: Node) -> str | int | float | bool | None:
    text: str = node.value
    if node.tag == NULL:
        return None
    if node.tag == BOOL:
        return text.lower() in ("true", "yes", "on", "y")
    try:
        return int(text) if node.tag == INT else float(text) if node.tag == FLOAT else text
    except ValueError:
        return text  # 01:00 and its like: a number to YAML 1.1 only


def empty(node: Node) -> bool:
    """`key:` without a value counts as left out."""
    return isinstance(node, ScalarNode) and node.tag == NULL


def described(node: Node) -> str:
    """What stands there, for a sentence. Secrets are shown as ${NAME}, never filled in."""
    if isinstance(node, MappingNode):
        return "a table of keys"
    if isinstance(node, SequenceNode):
        return "a list"
    text = node.value if len(node.value) <= 60 else node.value[:57] + "..."
    if node.tag == NULL:
        return "nothing"
    if node.tag in (INT, FLOAT):
        return f"the number {text}"
    if node.tag == BOOL:
        return f"the yes-or-no value {text}"
    return f"'{text}'"
