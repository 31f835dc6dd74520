"""The settings of one service: a file, each key overridable by the environment.

`INTERLOCK_MEDPLUM__BASE_URL=…` stands for `medplum: {base_url: …}`; an empty variable counts as not set.
Paths in the file are relative to the file's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from yaml.error import Mark
from yaml.nodes import MappingNode, Node, ScalarNode

from engine.config.address import Address
from engine.config.declared.settings import SETTINGS
from engine.config.kinds import guessed
from engine.config.model import DAY, Medplum, Service
from engine.config.nodes import INT, STR, Findings, compose, merged
from engine.config.tables import Section, Table

PREFIX = "INTERLOCK_"
DEFAULT_LEDGER = "sqlite:///var/interlock.db"
DEFAULT_HTTP = Address("127.0.0.1", 8600)
SIX_YEARS = 2192 * DAY
MAP = "tag:yaml.org,2002:map"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the settings file gave, as far as it is right, so that the channels are checked all the same.

    service: None where the settings have a problem. root: the folder of the file.
    """

    service: Service | None
    root: Path
    channels: Path | None
    mappings: Path | None
    http: Address
    ledger: Path
    medplum: bool


def load_settings(path: Path, findings: Findings) -> Settings | None:
    """The settings; None where there is no table to read. Problems are recorded."""
    before = findings.count
    root = compose(path, findings)
    if root is None:
        return None
    for node in _from_environment(findings):
        root = merged(node, root)
    section = SETTINGS.read(root, findings)
    if not isinstance(section, Section):
        return None
    folder = path.resolve().parent
    channels = _folder(section, "channels", "./channels", folder, findings)
    mappings = _folder(section, "mappings", None, folder, findings)
    http = section.get("http", DEFAULT_HTTP)
    ledger = (folder / section.get("ledger", DEFAULT_LEDGER).removeprefix("sqlite:///")).resolve()
    audit = _audit(section.get("retention"), findings)
    service = None
    if findings.count == before and channels:
        medplum = _medplum(section.get("medplum"))
        workers = section.get("workers", 0)
        service = Service(channels, mappings, ledger, http, workers, medplum, folder, audit)
    return Settings(service, folder, channels, mappings, http, ledger, "medplum" in section.places)


def _medplum(section: Section | None) -> Medplum | None:
    if section is None:
        return None
    base_url = section.get("base_url").rstrip("/")
    return Medplum(base_url, section.get("client_id"), section.get("client_secret"), section.get("time_limit", 60.0))


def _audit(section: Section | None, findings: Findings) -> float:
    """Seconds that the audit chain is kept."""
    kept: float = section.get("audit", 2200 * DAY) if section else 2200 * DAY
    if section and kept < SIX_YEARS and not section.get("reason"):
        found = f"an audit record that is kept for {kept / DAY:g} days"
        findings.problem(section.place("audit"), found, "2192d (six years) or more, or reason: why less is enough here")
    return kept


def _folder(section: Section, key: str, default: str | None, root: Path, findings: Findings) -> Path | None:
    text = section.values.get(key, default)
    if not isinstance(text, str):
        return None
    path = (root / text).resolve()
    if path.is_dir():
        return path
    findings.problem(section.place(key), f"no folder {path}", f"a folder of {key}")
    return None


def _from_environment(findings: Findings) -> list[Node]:
    """A tree for each INTERLOCK_… variable that names a setting, to lie above the file's."""
    nodes = []
    for name, value in sorted(findings.environment.items()):
        if not name.startswith(PREFIX) or not value:
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        if _names_a_setting(path):
            nodes.append(_tree(path, value, name))
        elif _resembles_a_setting(path):
            known = _variables(SETTINGS, PREFIX)
            wanted = guessed(name, known, "one of " + ", ".join(known))
            findings.problem((f"environment {name}", 0, 0), "a variable that is no setting", wanted)
    return nodes


def _variables(table: Table, prefix: str) -> list[str]:
    out = []
    for key, field in table.fields.items():
        inner = field.kind
        name = f"{prefix}{key.upper()}"
        out += _variables(inner, f"{name}__") if isinstance(inner, Table) else [name]
    return out


def _names_a_setting(path: list[str]) -> bool:
    return f"{PREFIX}{'__'.join(path)}".upper() in _variables(SETTINGS, PREFIX)


def _resembles_a_setting(path: list[str]) -> bool:
    """INTERLOCK_MEDPLUM__BASEURL is a mistake; an INTERLOCK_… that has nothing to do with the settings is not ours."""
    return len(path) > 1 or bool(get_close_matches(path[0], SETTINGS.fields, 1, 0.8))


def _tree(path: list[str], value: str, name: str) -> Node:
    mark = Mark(f"environment {name}", 0, -1, -1, None, 0)  # no line and no column
    tag = INT if value.isdigit() else STR
    node: Node = ScalarNode(tag, value.replace("${", "$${"), mark, mark)
    for key in reversed(path):
        node = MappingNode(MAP, [(ScalarNode(STR, key, mark, mark), node)], mark, mark)
    return node
