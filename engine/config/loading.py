"""From files to a Configuration, or to every problem of every file.

Nothing is started and nothing is written. Environment variables are read from the mapping given, so that
tests need no real ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from yaml.nodes import Node

from engine.config.channels import Read, read_channel
from engine.config.clashes import check_file_names, check_folders, check_ids, check_ports, check_through
from engine.config.endpoints import Endpoints, load_endpoints
from engine.config.feed import Feed
from engine.config.feeds import ReadFeed, read_feed
from engine.config.model import Channel, Configuration
from engine.config.nodes import Findings, compose, shown
from engine.config.problem import ConfigError, Note
from engine.config.profiles import Profiles
from engine.config.routes import build_feed
from engine.config.settings import Settings, load_settings
from engine.config.shipped import shipped_mappings
from engine.config.surroundings import Surroundings
from engine.config.uncollected import uncollected

DEFAULTS, ENDPOINTS, PROFILES, WAVES = "defaults", "endpoints", "profiles", "waves"
NO_CHANNELS = (DEFAULTS, ENDPOINTS, PROFILES, WAVES)
FEEDS = "feeds"
SUFFIXES = (".yaml", ".yml", ".json")
NO_MESSAGES = ("examples", "v2")
"""Folders of mappings whose files hold no messages to map to FHIR."""
MESSAGE = re.compile(
    rb"""^(?:---[ \t]+)?(?:\{[ \t]*)?["']?message["']?[ \t]*:[ \t]*["']?([A-Za-z0-9_-]+)""", re.MULTILINE
)


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Configuration:
    """The whole configuration behind a settings file. Raises ConfigError with all problems."""
    return load_with_notes(path, environment)[0]


def load_with_notes(path: Path, environment: Mapping[str, str] = os.environ) -> tuple[Configuration, list[Note]]:
    """As `load`, with what is right but worth knowing."""
    with uncollected():
        return _load(path, environment)


def _load(path: Path, environment: Mapping[str, str]) -> tuple[Configuration, list[Note]]:
    findings = Findings(environment)
    settings = load_settings(path, findings)
    folder = _Folder(settings.channels, settings, findings) if settings and settings.channels else None
    if findings.problems or settings is None or settings.service is None or folder is None:
        raise ConfigError(list(findings.problems))
    named = MappingProxyType(folder.endpoints.named)
    return Configuration(settings.service, folder.channels, named, folder.feeds), sorted(findings.notes)


class _Folder:
    """Everything beneath the folder of the channels, read in the order in which one thing names another."""

    endpoints: Endpoints
    channels: tuple[Channel, ...]
    feeds: tuple[Feed, ...]

    def __init__(self, folder: Path, settings: Settings, findings: Findings) -> None:
        self._folder, self._findings = folder, findings
        defaults = _file(folder, DEFAULTS)
        beneath = compose(defaults, findings) if defaults.is_file() else None
        self._profiles = Profiles(_file(folder, PROFILES), beneath, findings)
        self.endpoints = load_endpoints(_file(folder, ENDPOINTS), settings.root, self._profiles, findings)
        feeds = self._read_feeds(settings.root)
        around = Surroundings(
            root=settings.root,
            endpoints=self.endpoints,
            feeds={feed.id: feed for feed in feeds},
            all_feeds_read=len(feeds) == len(config_files(folder / FEEDS)),
            mappings=mapping_names(settings.mappings),
            medplum=settings.medplum,
            v2_mappings=v2_mapping_names(settings.mappings),
        )
        self._check(feeds, self._read_channels(around), settings)

    def _read_feeds(self, root: Path) -> list[ReadFeed]:
        out = []
        for file, node in self._composed(config_files(self._folder / FEEDS)):
            whole = self._profiles.beneath_feed(node, self._findings)
            feed = read_feed(whole, file, root, self.endpoints, self._findings)
            if feed:
                out.append(feed)
        return out

    def _read_channels(self, around: Surroundings) -> list[Read]:
        files = channel_files(self._folder)
        if not files:
            self._findings.problem(shown(self._folder), "no channel files", "at least one, such as acme-results.yaml")
        out = []
        for file, node in self._composed(files):
            whole = self._profiles.beneath_channel(node, self._findings)
            read = read_channel(whole, file, around, self._findings)
            if read:
                out.append(read)
        return out

    def _composed(self, files: list[Path]) -> Iterator[tuple[str, Node]]:
        for file in files:
            node = compose(file, self._findings)
            if node:
                yield node.start_mark.name, node

    def _check(self, feeds: list[ReadFeed], reads: list[Read], settings: Settings) -> None:
        """What one file cannot know of another. A channel that could not be read may be any that is missed."""
        findings = self._findings
        sections = [read.section for read in reads]
        by_id = {section.get("id"): section for section in sections if section.get("id")}
        every = len(by_id) == len(channel_files(self._folder))
        of_feeds = {feed.id: feed.section for feed in feeds}
        check_ids([*(feed.section for feed in feeds), *sections], findings)
        check_ports(settings.http, self.endpoints, of_feeds, sections, findings)
        check_through(self.endpoints, by_id, every, findings)
        built = [(read.section, read.channel) for read in reads if read.channel]
        check_folders(built, findings)
        check_file_names(self.endpoints, built, findings)
        made = [build_feed(feed, by_id, self._folder / FEEDS, every, findings) for feed in feeds]
        self.channels = tuple(channel for _, channel in built)
        self.feeds = tuple(feed for feed in made if feed)


def channel_files(folder: Path) -> list[Path]:
    """The channel files of a folder by name; defaults, endpoints, profiles and waves are no channels."""
    return [path for path in config_files(folder) if path.stem not in NO_CHANNELS]


def config_files(folder: Path) -> list[Path]:
    """The YAML and JSON files of a folder by name; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name[0] != ".")


def _file(folder: Path, stem: str) -> Path:
    for suffix in SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    return folder / f"{stem}.yaml"


def mapping_names(site: Path | None) -> frozenset[str]:
    """The names that a channel's `mapping:` may have: of the messages in the shipped mapping files and the site's.
    Only looked for, not read as YAML: that would take longer than all else here."""
    found: set[str] = set()
    for folder in _mapping_folders(site):
        for path in folder.rglob("*.yaml"):
            if path.relative_to(folder).parts[0] not in NO_MESSAGES and path.is_file():
                found.update(name.decode() for name in MESSAGE.findall(path.read_bytes()))
    return frozenset(found)


def v2_mapping_names(site: Path | None) -> frozenset[str]:
    """The names that a destination's `mapping:` may have: those of the files."""
    return frozenset(path.stem for folder in _mapping_folders(site) for path in (folder / "v2").glob("*.yaml"))


def _mapping_folders(site: Path | None) -> list[Path]:
    return [shipped_mappings(), *([site] if site else [])]
