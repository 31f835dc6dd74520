"""Endpoints: real addresses outside, by the names of endpoints.yaml or in place as host:port."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from yaml.nodes import MappingNode, Node

from engine.config.address import Address
from engine.config.declared.endpoint import ENDPOINTS
from engine.config.edge import Answers, Directory, Framing, Hours, Listen, Place, Sftp
from engine.config.endpoint import Endpoint
from engine.config.kinds import ID, address, guessed
from engine.config.nodes import Findings, compose, described, keys
from engine.config.paths import file_in, path_in
from engine.config.profiles import Profiles
from engine.config.sockets import check_source, read_client_tls, read_framing, read_listen
from engine.config.tables import Section, note_unused

NAME = "a name in channels/endpoints.yaml"
NAMELESS = "it left out: a byte names no message, so the answer to each is waited for on its own connection"


class Endpoints:
    """What channels and feeds may name. Two ways to write one host:port are one endpoint, and so have one sender.

    named: by name. declared: every name of endpoints.yaml, also of what is wrong there.
    sections: where an endpoint was read from. through: (where it stands, channel) of each `via:`.
    """

    def __init__(self) -> None:
        self.named: dict[str, Endpoint] = {}
        self.declared: set[str] = set()
        self.sections: dict[str, Section] = {}
        self.through: list[tuple[Node, str]] = []
        self._by_reach: dict[object, Endpoint] = {}

    def add(self, endpoint: Endpoint, section: Section, findings: Findings) -> None:
        other = self._by_reach.setdefault(_reach(endpoint), endpoint)
        if other is not endpoint:
            key = next(key for key in ENDPOINTS if key in section.places)
            wanted = (
                f"one name for each {'folder' if endpoint.place else 'address'}, so that all channels share one sender"
            )
            findings.problem(section.place(key), f"{_shown(endpoint)}, which '{other.name}' has too", wanted)
        self.named[endpoint.name] = endpoint
        self.sections[endpoint.name] = section
        if endpoint.via:
            self.through.append((section.place("via"), endpoint.via))

    def find(self, node: Node, given: str | Section, findings: Findings) -> Endpoint | None:
        """What `mllp:` names: a name, host:port, or {via: CHANNEL}."""
        return self._through(given) if isinstance(given, Section) else self._found(node, given, findings, via=True)

    def address(self, node: Node, given: str, findings: Findings) -> Endpoint | None:
        """As `find`, where somebody must be listening: a name, or host:port."""
        return self._found(node, given, findings, via=False)

    def _found(self, node: Node, given: str, findings: Findings, *, via: bool) -> Endpoint | None:
        place = address(given)
        if given in self.declared or place is None:
            found = self._named(node, given, f"{NAME}, or host:port", findings)
            if found and (found.place or (found.via and not via)):
                findings.problem(node, f"'{given}', {_kind(found)}", "an endpoint with mllp:")
                return None
            return found
        known = self._by_reach.get(_one_host(place))
        if known is None:
            known = self._by_reach[_one_host(place)] = self.named[given] = Endpoint(given, place)
        return known

    def folder(self, node: Node, name: str, findings: Findings) -> Endpoint | None:
        """What `file:` names."""
        found = self._named(node, name, f"{NAME} with directory: or sftp:", findings)
        if found and found.place is None:
            findings.problem(node, f"'{name}', {_kind(found)}", "an endpoint with directory: or sftp:")
            return None
        return found

    def server(self, node: Node, name: str, findings: Findings) -> Place | None:
        """What `sftp:` names: the server, with the folder that its endpoint has."""
        found = self._named(node, name, f"{NAME} with sftp:", findings)
        if found and not isinstance(found.place, Sftp):
            findings.problem(node, f"'{name}', {_kind(found)}", "an endpoint with sftp:")
            return None
        return found.place if found else None

    def _named(self, node: Node, name: str, wanted: str, findings: Findings) -> Endpoint | None:
        if name not in self.declared:
            findings.problem(node, f"the unknown endpoint '{name}'", guessed(name, sorted(self.declared), wanted))
        return self.named.get(name)  # one that is declared and not named has a problem of its own

    def _through(self, given: Section) -> Endpoint | None:
        channel = given.get("via")
        if channel is None:
            return None
        self.through.append((given.place("via"), channel))
        known = self._by_reach.get(("via", channel))
        if known is None:
            name = f"via:{channel}"
            known = self._by_reach["via", channel] = self.named[name] = Endpoint(name, None, via=channel)
        return known


def _reach(endpoint: Endpoint) -> object:
    place = endpoint.place
    if isinstance(place, Sftp):
        return replace(place, address=_one_host(place.address))
    return _one_host(endpoint.mllp) if endpoint.mllp else place or ("via", endpoint.via)


def _one_host(address: Address) -> Address:
    """However it is written: letters of either case are one name (RFC 4343). As it is written it may stand in files of
    known hosts."""
    return Address(address.host.lower(), address.port)


def _shown(endpoint: Endpoint) -> str:
    place = endpoint.place
    if isinstance(place, Sftp):
        return f"{place.address} {place.directory}"
    return str(place.path) if place else str(endpoint.mllp or endpoint.via)


def _kind(endpoint: Endpoint) -> str:
    if endpoint.via:
        return "an endpoint with via:"
    if isinstance(endpoint.place, Sftp):
        return "an endpoint with sftp:"
    return f"an endpoint with {'directory:' if endpoint.place else 'mllp:'}"


def load_endpoints(path: Path, root: Path, profiles: Profiles, findings: Findings) -> Endpoints:
    """root: the folder of the settings file, which paths are relative to."""
    endpoints = Endpoints()
    node = compose(path, findings) if path.is_file() else None
    if node is None:
        return endpoints
    if not isinstance(node, MappingNode):
        findings.problem(node, described(node), "a table of endpoints by name")
        return endpoints
    for key_node, name, value in keys(node):
        ID.read(key_node, findings)
        if name in endpoints.declared:
            findings.problem(key_node, f"the endpoint '{name}' a second time", "each name once")
        endpoints.declared.add(name)
        before = findings.count
        section = _section(value, profiles, findings)
        endpoint = _endpoint(name, section, root, findings) if section else None
        if section and endpoint and findings.count == before:
            endpoints.add(endpoint, section, findings)
    return endpoints


def _section(node: Node, profiles: Profiles, findings: Findings) -> Section | None:
    """The endpoint's section, read by the table that its own key chooses."""
    if not isinstance(node, MappingNode):
        findings.problem(node, described(node), "an endpoint, such as {mllp: 'host:port'}")
        return None
    there = [key for _, key, _ in keys(node)]
    kinds = [kind for kind in ENDPOINTS if kind in there]
    if kinds[:2] == ["sftp", "directory"]:
        kinds.remove("directory")
    if len(kinds) != 1:
        found = f"an endpoint with both {kinds[0]}: and {kinds[1]}:" if kinds else "an endpoint without its address"
        almost = next((key for key in there if get_close_matches(key, ENDPOINTS, 1, 0.6)), "")
        findings.problem(
            node, found, guessed("" if kinds else almost, tuple(ENDPOINTS), "one of mllp, directory, sftp, via")
        )
        return None
    table = ENDPOINTS[kinds[0]]
    section = table.read(profiles.beneath_endpoint(node, table, findings), findings)
    return section if isinstance(section, Section) else None


def _endpoint(name: str, section: Section, root: Path, findings: Findings) -> Endpoint | None:
    """Everything that the section may hold; of what its table does not know, the defaults. None where it is wrong."""
    before = findings.count
    place = _place(section, root, findings)
    framing = _framing(section, findings)
    answers = _answers(section, root, findings)
    tls = read_client_tls(section.get("tls"), root, findings)
    check_source(section, section.get("mllp"), findings)
    if section.get("persistent") is False:
        note_unused(section, "idle", "beside persistent: false", findings)
    if findings.count != before:
        return None
    values = section.given(
        "via",
        "connections",
        "persistent",
        "idle",
        "keepalive",
        "source_address",
        "ack_timeout",
        "connect_timeout",
        "on_unknown",
        "probe",
        "sink",
        "rate",
        file_name="name",
    )
    return Endpoint(
        name=name,
        mllp=section.get("mllp"),
        place=place,
        **values,
        framing=framing,
        hours=_hours(section.get("deliver")),
        answers=answers,
        tls=tls,
    )


def _framing(section: Section, findings: Findings) -> Framing:
    before, framing = findings.count, read_framing(section, findings)
    if section.get("answers") != "bare" or findings.count != before:
        return framing
    framing = replace(framing, bare=True)
    if framing.flaw:
        findings.problem(section.place("answers"), *framing.flaw[1:])
    return framing


def _place(section: Section, root: Path, findings: Findings) -> Place | None:
    if "sftp" not in section.places:
        path = path_in(section, "directory", root)
        return Directory(path) if path else None
    known_hosts = file_in(section, "known_hosts", root, findings)
    key = file_in(section, "key", root, findings)
    where, user = section.get("sftp"), section.get("user")
    if where is None or user is None or known_hosts is None:
        return None
    others = section.given("password", "directory", "connect_timeout", "timeout")
    return Sftp(where, user, known_hosts, key=key, **others)


def _hours(section: Section | None) -> Hours | None:
    during = section.get("during") if section else None
    if section is None or during is None:
        return None
    days, start, end = during
    return Hours(days, start, end, section.get("timezone"))


def _answers(section: Section, root: Path, findings: Findings) -> Answers:
    accepted, rejected = section.get("accept", Answers().accepted), section.get("reject", Answers().rejected)
    if accepted == ():
        findings.problem(section.place("accept"), "an empty list", "at least one code, such as AA")
    both = [code for code in accepted if code in rejected]
    if both:
        key = "reject" if "reject" in section.places else "accept"
        findings.problem(section.place(key), f"{both[0]} in accept: and in reject:", "it in one of them")
    on, given = section.get("answers_on"), section.get("answers", True)
    for key in ("answers_on", "ack_mode"):
        if section.get(key) is not None and given is False:
            findings.problem(section.place(key), f"{key}: with answers: false", "one of them")
        elif section.get(key) not in (None, "original") and given == "bare":
            findings.problem(section.place(key), f"{key}: with answers: bare", NAMELESS)
    for key in ("accept", "reject", "check_control_id") if given is False else ():
        note_unused(section, key, "beside answers: false", findings)
    return Answers(
        accepted,
        rejected,
        section.get("check_control_id", True),
        given is not False,
        _answers_on(on, root, findings),
        "original" if given == "bare" else section.get("ack_mode"),
    )


def _answers_on(on: int | Section | None, root: Path, findings: Findings) -> Listen | None:
    """Our port for a peer's answers. Its framing is the endpoint's."""
    if on is None:
        return None
    return read_listen(on, root, findings) if isinstance(on, Section) else Listen(on)
