"""From files to a Configuration, or to every problem of every file.

Nothing is started and nothing is written. Environment variables are read from the mapping given, so that
tests need no real ones.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from engine.config.address import Address
from engine.config.channels import Read, Surroundings, read_channel
from engine.config.clashes import check_ids, check_ports
from engine.config.endpoint import Endpoint
from engine.config.endpoints import load_endpoints
from engine.config.model import Channel, Configuration
from engine.config.nodes import Findings, compose, merged, shown
from engine.config.problem import ConfigError, Note
from engine.config.settings import load_settings
from engine.config.shipped import shipped_mappings

DEFAULTS, ENDPOINTS, WAVES = "defaults", "endpoints", "waves"
SUFFIXES = (".yaml", ".yml", ".json")


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Configuration:
    """The whole configuration behind a settings file. Raises ConfigError with all problems."""
    return load_with_notes(path, environment)[0]


def load_with_notes(path: Path, environment: Mapping[str, str] = os.environ) -> tuple[Configuration, list[Note]]:
    """As `load`, with what is right but worth knowing."""
    collecting = gc.isenabled()
    gc.disable()  # nothing is freed on the way: collections would only cost a third of the time
    try:
        return _load(path, environment)
    finally:
        if collecting:
            gc.enable()


def _load(path: Path, environment: Mapping[str, str]) -> tuple[Configuration, list[Note]]:
    findings = Findings(environment)
    settings = load_settings(path, findings)
    named: dict[str, Endpoint] = {}
    channels: tuple[Channel, ...] = ()
    if settings and settings.channels:
        endpoints = load_endpoints(_file(settings.channels, ENDPOINTS), findings)
        around = Surroundings(endpoints, mapping_names(settings.mappings), settings.medplum)
        channels = _channels(settings.channels, settings.http, around, findings)
        named = endpoints.named
    if findings.problems or settings is None or settings.service is None:
        raise ConfigError(list(findings.problems))
    return Configuration(settings.service, channels, MappingProxyType(named)), sorted(findings.notes)


def _channels(folder: Path, http: Address, around: Surroundings, findings: Findings) -> tuple[Channel, ...]:
    defaults_file = _file(folder, DEFAULTS)
    defaults = compose(defaults_file, findings) if defaults_file.is_file() else None
    files = channel_files(folder)
    if not files:
        findings.problem(shown(folder), "no channel files", "at least one, such as acme-results.yaml")
    reads: list[Read] = []
    for file in files:
        node = compose(file, findings)
        read = node and read_channel(merged(node, defaults), shown(file), around, findings)
        if read:
            reads.append(read)
    sections = [read.section for read in reads]
    check_ids(sections, findings)
    check_ports(sections, http, findings)
    return tuple(read.channel for read in reads if read.channel)


def channel_files(folder: Path) -> list[Path]:
    """The channel files of a folder by name; endpoints, defaults and waves are no channels."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in SUFFIXES and path.stem not in (DEFAULTS, ENDPOINTS, WAVES) and path.name[0] != "."
    )


def _file(folder: Path, stem: str) -> Path:
    for suffix in SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    return folder / f"{stem}.yaml"


def mapping_names(site: Path | None) -> frozenset[str]:
    """The names that a channel's `mapping:` may have, in lower case: the shipped message mappings and the site's."""
    folders = [shipped_mappings(), *([site] if site else [])]
    return frozenset(path.stem.lower() for folder in folders for path in (folder / "messages").glob("*.yaml"))
