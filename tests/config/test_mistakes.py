"""Every mistake, word for word: where it stands, what was found, what would be right. One bad file each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.conftest import BETA, CHANNEL, HEAD, Load, Write, problems

NO_LEGACY = HEAD + "listen: {port: 6101}\n"
TAPS = CHANNEL.replace("{mllp: old-engine}", "{mllp: old-engine, taps: [TAPS]}")
ENDPOINT_OR_ADDRESS = "a name in channels/endpoints.yaml, or host:port"
SOCKET_KEYS = "port, host, allow, probes, frame_timeout, framing, connections, tls"
LISTEN_KEYS = f"{SOCKET_KEYS}, accepts, encoding, undeclared, max_bytes, batch"

CHANNELS: dict[str, tuple[str, str]] = {
    "a misspelt key": (
        CHANNEL + "onwer: me\n",
        "7:1: found the unknown key 'onwer' in a channel; expected 'owner', perhaps (one of id, connection, title, "
        "direction, labels, owner, timezone, profile, phase, listen, connect, feed, files, ack, identity, legacy, "
        "target, remember, rollback, silence_alert, compare, gate, retention, window, duplicates, emit)",
    ),
    "a misspelt key further in": (
        HEAD + "listen: {port: 6101, acepts: [ORU^R01]}\nlegacy: {mllp: old-engine}\n",
        f"5:22: found the unknown key 'acepts' in listen; expected 'accepts', perhaps (one of {LISTEN_KEYS})",
    ),
    "a key that is like no other": (
        HEAD + "listen: {port: 6101, zzzz: 1}\nlegacy: {mllp: old-engine}\n",
        f"5:22: found the unknown key 'zzzz' in listen; expected one of {LISTEN_KEYS}",
    ),
    "a key that stands there twice": (
        CHANNEL + "id: other\n",
        "7:1: found the key 'id' a second time (first at channels/acme.yaml:1); expected it once",
    ),
    "a key that is missing": (
        "connection: acme\ndirection: results\ntimezone: UTC\nlisten: {port: 6101}\nlegacy: {mllp: old-engine}\n",
        "1:1: found a channel without 'id'; expected id: its name, for ever: the ledger knows the channel by it",
    ),
    "a key without a value counts as missing": (
        "id:\nconnection: acme\ndirection: results\ntimezone: UTC\nlisten: {port: 6101}\nlegacy: {mllp: old-engine}\n",
        "1:1: found a channel without 'id'; expected id: its name, for ever: the ledger knows the channel by it",
    ),
    "a list where a table is wanted": (
        HEAD + "listen: [6101]\nlegacy: {mllp: old-engine}\n",
        "5:9: found a list; expected listen, with keys such as port, host, allow",
    ),
    "a word where a list is wanted": (
        HEAD + "listen: {port: 6101, allow: 10.0.0.0/8}\nlegacy: {mllp: old-engine}\n",
        "5:29: found '10.0.0.0/8'; expected a list",
    ),
    "a number where text is wanted": (
        CHANNEL + "owner: 5\n",
        "7:8: found the number 5; expected text",
    ),
    "a yes that YAML takes for true": (
        CHANNEL + "owner: yes\n",
        "7:8: found the yes-or-no value yes; expected text",
    ),
    "a port out of range": (
        HEAD + "listen: {port: 66101}\nlegacy: {mllp: old-engine}\n",
        "5:16: found the number 66101; expected a port from 1 to 65535",
    ),
    "a port that is no number": (
        HEAD + "listen: {port: mllp}\nlegacy: {mllp: old-engine}\n",
        "5:16: found 'mllp'; expected a port from 1 to 65535",
    ),
    "a port in quotes": (
        HEAD + "listen: {port: '6101'}\nlegacy: {mllp: old-engine}\n",
        "5:16: found '6101'; expected a port from 1 to 65535",
    ),
    "the port of http": (
        HEAD + "listen: {port: 8600}\nlegacy: {mllp: old-engine}\n",
        "5:16: found port 8600, which http of the settings has too; expected a port of its own",
    ),
    "an unknown direction": (
        CHANNEL.replace("results", "result"),
        "3:12: found 'result'; expected 'results', perhaps (one of orders, results, adt, query)",
    ),
    "an unknown phase": (
        CHANNEL + "phase: paralel\n",
        "7:8: found 'paralel'; expected 'parallel', perhaps (one of outside, legacy, parallel, live)",
    ),
    "a first phase retired": (
        CHANNEL + "phase: retired\n",
        "7:8: found 'retired'; expected one of outside, legacy, parallel, live: "
        "a channel is retired from live, never begun so",
    ),
    "phase legacy without an old engine": (
        NO_LEGACY + "phase: legacy\ntarget: {destinations: [{medplum: {}}]}\n",
        "6:8: found phase legacy in a channel without legacy:; expected outside or live, or legacy: with mllp:",
    ),
    "phase parallel without an old engine": (
        NO_LEGACY + "phase: parallel\ntarget: {destinations: [{medplum: {}}]}\n",
        "6:8: found phase parallel in a channel without legacy:; expected outside or live, or legacy: with mllp:",
    ),
    "phase parallel without a target": (
        CHANNEL + "phase: parallel\n",
        "7:8: found phase parallel in a channel without target:; expected target: with destinations:",
    ),
    "no old engine and no target": (
        NO_LEGACY,
        "1:1: found phase live in a channel without target:; expected target: with destinations:",
    ),
    "phase live with an old engine and without a way back": (
        CHANNEL + "phase: live\ntarget: {destinations: [{medplum: {}}]}\n",
        "7:8: found phase live in a channel with legacy: and without rollback:; "
        "expected rollback: {replay: guarded | undelivered | all | none}, which has no default",
    ),
    "rollback without replay": (
        CHANNEL + "rollback: {until: 72h}\n",
        "7:11: found rollback without 'replay'; expected replay: what a rollback sends to the old engine again",
    ),
    "a live endpoint that does not say what becomes of unknown messages": (
        NO_LEGACY + "target: {destinations: [{mllp: old-engine}]}\n",
        "6:32: found the endpoint 'old-engine' without on_unknown: in a channel that is live; "
        "expected on_unknown: resend, or on_unknown: park, in endpoints.yaml",
    ),
    "an unknown endpoint": (
        HEAD + "listen: {port: 6101}\nlegacy: {mllp: old-engin}\n",
        f"6:16: found the unknown endpoint 'old-engin'; expected 'old-engine', perhaps ({ENDPOINT_OR_ADDRESS})",
    ),
    "an unknown mapping": (
        CHANNEL + "target: {mapping: oru_r1, destinations: [{medplum: {}}]}\n",
        "7:19: found the unknown mapping 'oru_r1'; expected 'ORU_R01', perhaps (one of ORM_O01, ORU_R01, OUL_R21)",
    ),
    "an unknown mapping to be used otherwise": (
        CHANNEL + "target:\n  mapping:\n    unmapped: count\n    use: oul_r2\n  destinations: [{medplum: {}}]\n",
        "10:10: found the unknown mapping 'oul_r2'; expected 'OUL_R21', perhaps (one of ORM_O01, ORU_R01, OUL_R21)",
    ),
    "a target without destinations": (
        CHANNEL + "target: {destinations: []}\n",
        "7:24: found an empty list; expected at least one destination, such as medplum: {}",
    ),
    "a destination of no kind": (
        CHANNEL + "target: {destinations: [{name: x}]}\n",
        "7:25: found a destination without medplum:, mllp: or file:; expected one of them",
    ),
    "a destination of two kinds": (
        CHANNEL + "target: {destinations: [{medplum: {}, mllp: acme-emr}]}\n",
        "7:45: found a destination with both medplum: and mllp:; expected only one of them",
    ),
    "two destinations of one name": (
        CHANNEL + "target: {destinations: [{medplum: {}}, {medplum: {}}]}\n",
        "7:40: found a destination named 'medplum', as another one is; expected a name: of its own",
    ),
    "an unknown time zone": (
        CHANNEL.replace("Chicago", "Chicgo"),
        "4:11: found 'America/Chicgo'; expected 'America/Chicago', perhaps (an IANA time zone)",
    ),
    "a duration without a unit": (
        HEAD + "listen: {port: 6101, frame_timeout: 30}\nlegacy: {mllp: old-engine}\n",
        "5:37: found the number 30; expected a duration such as 30s, 10m or 72h",
    ),
    "a size that is none": (
        HEAD + "listen: {port: 6101, max_bytes: 32 megs}\nlegacy: {mllp: old-engine}\n",
        "5:33: found '32 megs'; expected a size such as 512KiB or 32MiB",
    ),
    "a network with bits beyond its prefix": (
        HEAD + "listen: {port: 6101, allow: [10.20.0.1/16]}\nlegacy: {mllp: old-engine}\n",
        "5:30: found '10.20.0.1/16'; expected '10.20.0.0/16' (bits beyond the prefix must be 0)",
    ),
    "a network that is none": (
        HEAD + "listen: {port: 6101, allow: [10.20.0.0.0]}\nlegacy: {mllp: old-engine}\n",
        "5:30: found '10.20.0.0.0'; expected a network such as 10.20.0.0/16",
    ),
    "a message type without its trigger": (
        HEAD + "listen: {port: 6101, accepts: [ORU]}\nlegacy: {mllp: old-engine}\n",
        "5:32: found 'ORU'; expected a message type such as ORU^R01",
    ),
    "a character set that nobody knows": (
        HEAD + "listen: {port: 6101, encoding: utf-9}\nlegacy: {mllp: old-engine}\n",
        "5:32: found 'utf-9'; expected auto, or a character set such as utf-8 or latin-1",
    ),
    "an identifier system that is no URI": (
        CHANNEL + "identity: {patient: mrn}\n",
        "7:21: found 'mrn'; expected a URI, such as https://acme.example/mrn or urn:oid:1.2.3",
    ),
    "a misspelt identity": (
        CHANNEL + "identity: {placr: 'https://a.example/p'}\n",
        "7:12: found the key 'placr', which nothing reads; expected 'placer'",
    ),
    "an id with a blank": (
        CHANNEL.replace("id: acme", "id: acme results"),
        "1:5: found 'acme results'; expected letters, digits, '-', '_' and '.', at most 64",
    ),
    "a secret that is not there": (
        CHANNEL + "owner: ${OWNER}\n",
        "7:8: found ${OWNER}, which is not set; expected the environment variable OWNER",
    ),
    "a tap without its port": (
        TAPS.replace("TAPS", "{forward: acme-emr}"),
        "6:35: found a tap without listen:, on_link: or files:; expected one of them",
    ),
    "a tap without its endpoint": (
        TAPS.replace("TAPS", "{listen: 7201}"),
        "6:35: found a tap without 'forward'; "
        "expected forward: where that output belongs: the name of an endpoint, or host:port, or {via: CHANNEL}",
    ),
    "taps of no old engine": (
        HEAD + "listen: {port: 6101}\nlegacy: {taps: [{listen: 7201, forward: acme-emr}]}\n",
        "6:9: found legacy without mllp: or observed:; expected one of them",
    ),
    "a tap for an unknown endpoint": (
        TAPS.replace("TAPS", "{listen: 7201, forward: acme-erm}"),
        f"6:59: found the unknown endpoint 'acme-erm'; expected 'acme-emr', perhaps ({ENDPOINT_OR_ADDRESS})",
    ),
    "a tap that sends the old engine's output back to it": (
        TAPS.replace("TAPS", "{listen: 7201, forward: old-engine}"),
        "6:59: found a tap that forwards to 'old-engine', the old engine itself; "
        "expected the endpoint that the old engine's output belongs to",
    ),
    "the old engine under its other name": (
        TAPS.replace("TAPS", "{listen: 7201, forward: '10.0.0.5:6661'}"),
        "6:59: found a tap that forwards to 'old-engine', the old engine itself; "
        "expected the endpoint that the old engine's output belongs to",
    ),
    "two taps for one endpoint": (
        TAPS.replace("TAPS", "{listen: 7201, forward: acme-emr}, {listen: 7202, forward: acme-emr}"),
        "6:94: found a second tap that forwards to 'acme-emr'; expected one tap for each endpoint of the old engine",
    ),
    "two taps on one port": (
        TAPS.replace("TAPS", "{listen: 7201, forward: acme-emr}, {listen: {port: 7201}, forward: '10.0.0.7:1'}"),
        "6:86: found port 7201, which a tap of the channel 'acme' has too; expected a port of its own",
    ),
    "a tap on the channel's port": (
        TAPS.replace("TAPS", "{listen: 6101, forward: acme-emr}"),
        "6:44: found port 6101, which the channel 'acme' has too; expected a port of its own",
    ),
    "a tap's listen with a misspelt key": (
        TAPS.replace("TAPS", "{listen: {port: 7201, hots: x}, forward: acme-emr}"),
        f"6:57: found the unknown key 'hots' in a tap's listen; expected 'host', perhaps (one of {SOCKET_KEYS})",
    ),
    "a guarded rollback without taps": (
        CHANNEL + "rollback: {replay: guarded}\n",
        "7:20: found replay: guarded in a channel without taps; "
        "expected taps: in legacy:, or one of undelivered, all, none",
    ),
    "a difference ignored without a reason": (
        CHANNEL + "compare: {ignore: [{path: MSH-7}]}\n",
        "7:20: found a rule that ignores a difference without 'reason'; "
        "expected reason: why the difference does not matter",
    ),
    "a reason that says nothing": (
        CHANNEL + "compare: {ignore: [{path: MSH-7, reason: '-'}]}\n",
        "7:42: found '-'; expected a reason in words",
    ),
    "a place with an index": (
        CHANNEL + "compare: {ignore: [{path: 'OBX[1]-5', reason: r}]}\n",
        "7:27: found 'OBX[1]-5'; expected a field such as MSH-7 or OBX-5.2, or a segment such as ZDS",
    ),
    "a tolerance that nobody knows": (
        CHANNEL + "compare: {tolerate: [{how: paddings, reason: r}]}\n",
        "7:28: found 'paddings'; expected 'padding', perhaps "
        "(one of padding, precision, order, case, escapes, time_precision, time_zone, null)",
    ),
    "a key of a whole segment": (
        CHANNEL + "compare: {key: [OBR]}\n",
        "7:17: found 'OBR'; expected a field such as OBR-3.1",
    ),
    "a share in percent": (
        CHANNEL + "gate: {min_match: 99.9}\n",
        "7:19: found the number 99.9; expected a number from 0 to 1",
    ),
    "a gate that nothing passes through": (
        CHANNEL + "gate: {min_messages: 0}\n",
        "7:22: found the number 0; expected a number of messages from 1 to 1000000",
    ),
    "a window without its end": (
        CHANNEL + "window: {from: '01:00'}\n",
        "7:9: found window without 'to'; expected to: when it closes; before from: on the next day",
    ),
    "a window without length": (
        CHANNEL + "window: {from: '01:00', to: 1:00}\n",
        "7:29: found 01:00, when it opens as well; expected another time; a whole day is from 00:00 to 24:00",
    ),
    "a window on no day of the week": (
        CHANNEL + "window: {days: [saturday], from: '01:00', to: '05:00'}\n",
        "7:17: found 'saturday'; expected one of mon, tue, wed, thu, fri, sat, sun",
    ),
    "broken YAML": (
        "id: [acme\n",
        "2:1: found broken YAML (did not find expected ',' or ']'); expected valid YAML",
    ),
    "two documents in a file": (
        "id: acme\n---\nid: other\n",
        "2:1: found broken YAML (but found another document); expected valid YAML",
    ),
    "an empty file": ("", "1:1: found an empty file; expected at least one key"),
    "a list for a channel": (
        "- id: acme\n",
        "1:1: found a list; expected a channel, with keys such as id, connection, title",
    ),
}

CHANNELS |= {
    "a v2 mapping that is not there": (
        CHANNEL + "target: {destinations: [{mllp: acme-emr, mapping: acme_em}]}\n",
        "7:51: found the unknown v2 mapping 'acme_em'; expected 'acme_emr', perhaps (one of acme_emr)",
    ),
    "a v2 mapping for Medplum": (
        CHANNEL + "target: {destinations: [{medplum: {}, mapping: acme_emr}]}\n",
        "7:48: found 'mapping' beside medplum:; expected it in target:",
    ),
    "a filter that drops and keeps": (
        CHANNEL + "target: {filter: [{drop: PID-1 = 1, keep: PID-1 = 2, reason: x}], destinations: [{medplum: {}}]}\n",
        "7:43: found a filter with both drop: and keep:; expected only one of them",
    ),
    "a filter without a reason": (
        CHANNEL + "target: {destinations: [{mllp: acme-emr, filter: [{drop: PID-1 = 1}]}]}\n",
        "7:51: found a filter without 'reason'; expected reason: why, as it is shown wherever they are counted",
    ),
    "what is remembered is no field": (
        CHANNEL + "remember: [{as: orders, key: ORC2, keep: 10d, values: {ward: PV1-3.1}}]\n",
        "7:30: found 'ORC2'; expected a field such as OBR-3.1",
    ),
    "control ids that are too short": (
        CHANNEL + "target: {destinations: [{mllp: acme-emr, emit: {length: 8}}]}\n",
        "7:57: found the number 8; expected a number of characters from 16 to 199",
    ),
    "control ids where none are sent": (
        CHANNEL + "emit: {control_id: ours}\n",
        "7:1: found 'emit'; expected it at a destination with mllp: or file:",
    ),
}

LATER: dict[str, tuple[str, str]] = {
    "an override that is no table": (
        CHANNEL + "target: {mapping: {use: oru_r01, override: [a]}, destinations: [{medplum: {}}]}\n",
        "7:44: found a list; expected maps, resources, groups, tables, decisions or fields, by name",
    ),
}


@pytest.mark.parametrize("case", [*CHANNELS, *LATER])
def test_a_mistake_in_a_channel_is_told_with_its_place_and_what_is_right(case: str, write: Write) -> None:
    text, told = (CHANNELS | LATER)[case]
    write("channels/acme.yaml", text)
    assert problems() == [f"channels/acme.yaml:{told}"]


ENDPOINTS: dict[str, tuple[str, str]] = {
    "no address": (
        "old-engine: {connections: 2}\n",
        "1:13: found an endpoint without its address; expected one of mllp, directory, sftp, via",
    ),
    "an address without a port": (
        "old-engine: {mllp: 10.0.0.5}\n",
        "1:20: found '10.0.0.5'; expected host:port, such as 127.0.0.1:6661",
    ),
    "an unknown way": (
        "old-engine: {mllp: '10.0.0.5:6661', on_unknown: ask}\n",
        "1:49: found 'ask'; expected one of resend, park",
    ),
    "one address under two names": (
        "old-engine: {mllp: '10.0.0.5:6661'}\nsame: {mllp: '10.0.0.5:6661'}\n",
        "2:14: found 10.0.0.5:6661, which 'old-engine' has too; "
        "expected one name for each address, so that all channels share one sender",
    ),
    "a list of endpoints": ("- old-engine\n", "1:1: found a list; expected a table of endpoints by name"),
}


@pytest.mark.parametrize("case", ENDPOINTS)
def test_a_mistake_in_endpoints_is_told(case: str, write: Write) -> None:
    text, told = ENDPOINTS[case]
    write("channels/endpoints.yaml", text)
    write("channels/acme.yaml", NO_LEGACY + "target: {destinations: [{medplum: {}}]}\n")
    assert problems() == [f"channels/endpoints.yaml:{told}"]


def test_an_endpoint_with_a_mistake_is_not_unknown_to_its_channels_as_well(write: Write) -> None:
    write("channels/endpoints.yaml", "old-engine: {mllp: nowhere}\n")
    assert len(problems()) == 1


SETTINGS: dict[str, tuple[str, str]] = {
    "PostgreSQL": (
        "ledger: postgresql://db/interlock\n",
        "1:9: found 'postgresql://db/interlock'; expected sqlite:///var/interlock.db: "
        "this version keeps its ledger in SQLite, PostgreSQL comes later",
    ),
    "a ledger that is a path": (
        "ledger: var/interlock.db\n",
        "1:9: found 'var/interlock.db'; expected sqlite:///FILE, such as sqlite:///var/interlock.db",
    ),
    "workers": (
        "workers: 65\n",
        "1:10: found the number 65; expected a number of worker processes from 0 to 64",
    ),
    "the FHIR path in the base URL": (
        "medplum: {base_url: http://m.example/fhir/R4, client_id: a, client_secret: b}\n",
        "1:21: found 'http://m.example/fhir/R4'; expected http(s)://host without /fhir/R4",
    ),
    "no client secret": (
        "medplum: {base_url: http://m.example, client_id: a}\n",
        "1:10: found medplum without 'client_secret'; expected client_secret: of the ClientApplication; "
        "write ${NAME}, not the secret",
    ),
    "an unset secret": (
        "medplum: {base_url: http://m.example, client_id: a, client_secret: '${SECRET}'}\n",
        "1:68: found ${SECRET}, which is not set; expected the environment variable SECRET",
    ),
    "a bad http": ("http: 8600\n", "1:7: found the number 8600; expected host:port, such as 127.0.0.1:6661"),
    "a misspelt setting": (
        "chanels: ./channels\n",
        "1:1: found the unknown key 'chanels' in the settings; expected 'channels', perhaps "
        "(one of channels, mappings, ledger, http, workers, medplum, retention)",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_mistake_in_the_settings_is_told(case: str, write: Write) -> None:
    text, told = SETTINGS[case]
    write("interlock.yaml", text)
    assert problems() == [f"interlock.yaml:{told}"]


def test_a_folder_that_is_not_there_is_told(write: Write) -> None:
    write("interlock.yaml", "channels: ./chanels\n")
    assert problems() == ["interlock.yaml:1:11: found no folder <root>/chanels; expected a folder of channels"]


def test_a_missing_settings_file_is_told(write: Write, tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").unlink()
    found = "found a file that cannot be read (No such file or directory)"
    assert problems() == [f"interlock.yaml:1:1: {found}; expected a readable YAML file"]


def test_a_folder_without_channels_is_told(write: Write, tmp_path: Path) -> None:
    (tmp_path / "channels/acme.yaml").unlink()
    assert problems() == ["channels:1:1: found no channel files; expected at least one, such as acme-results.yaml"]


def test_bytes_that_are_not_utf_8_are_told(write: Write, tmp_path: Path) -> None:
    (tmp_path / "channels/acme.yaml").write_bytes(b"id: \xff\xfe\xfa\n")
    told = "channels/acme.yaml:1:1: found bytes that are not UTF-8 text; expected a YAML file in UTF-8"
    assert problems() == [told]


def test_a_misspelt_environment_variable_is_told(write: Write) -> None:
    assert problems(INTERLOCK_MEDPLUM__BASEURL="http://m.example") == [
        "environment INTERLOCK_MEDPLUM__BASEURL: found a variable that is no setting; "
        "expected 'INTERLOCK_MEDPLUM__BASE_URL', perhaps (one of INTERLOCK_CHANNELS, INTERLOCK_MAPPINGS, "
        "INTERLOCK_LEDGER, INTERLOCK_HTTP, INTERLOCK_WORKERS, INTERLOCK_MEDPLUM__BASE_URL, "
        "INTERLOCK_MEDPLUM__CLIENT_ID, INTERLOCK_MEDPLUM__CLIENT_SECRET, INTERLOCK_MEDPLUM__TIME_LIMIT, "
        "INTERLOCK_RETENTION__AUDIT, INTERLOCK_RETENTION__REASON)"
    ]


def test_a_wrong_value_of_the_environment_names_its_variable(write: Write) -> None:
    told = "environment INTERLOCK_HTTP: found 'nowhere'; expected host:port, such as 127.0.0.1:6661"
    assert problems(INTERLOCK_HTTP="nowhere") == [told]


def test_a_medplum_destination_wants_a_medplum_server(write: Write) -> None:
    write("interlock.yaml", "http: 127.0.0.1:8600\n")
    write("channels/acme.yaml", CHANNEL + "target: {destinations: [{medplum: {}}]}\n")
    assert problems() == [
        "channels/acme.yaml:7:35: found a medplum destination without a Medplum server; "
        "expected medplum: {base_url, client_id, client_secret} in the settings"
    ]


def test_an_id_that_two_channels_have_is_told_with_both_places(write: Write) -> None:
    write("channels/beta.yaml", CHANNEL.replace("6101", "6102"))
    assert problems() == [
        "channels/beta.yaml:1:5: found the id 'acme' a second time (first at channels/acme.yaml:1); "
        "expected an id of its own for each channel and feed"
    ]


@pytest.mark.parametrize("hosts", [("0.0.0.0", "0.0.0.0"), ("0.0.0.0", "10.0.0.1"), ("10.0.0.1", "10.0.0.1")])
def test_two_channels_on_one_port_clash(hosts: tuple[str, str], write: Write) -> None:
    write("channels/acme.yaml", CHANNEL.replace("port: 6101", f"port: 6101, host: {hosts[0]}"))
    write("channels/beta.yaml", CHANNEL.replace("id: acme", "id: beta").replace("6101", f"6101, host: {hosts[1]}"))
    assert problems() == [
        "channels/beta.yaml:5:16: found port 6101, which the channel 'acme' has too; expected a port of its own"
    ]


def test_one_port_on_two_addresses_is_no_clash(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL.replace("port: 6101", "port: 6101, host: 10.0.0.1"))
    write("channels/beta.yaml", CHANNEL.replace("id: acme", "id: beta").replace("6101", "6101, host: 10.0.0.2"))
    assert load()


def test_all_problems_of_all_files_are_told_at_once(write: Write) -> None:
    write("interlock.yaml", "workers: -1\n")
    write("channels/endpoints.yaml", "old-engine: {}\n")
    write("channels/acme.yaml", CHANNEL.replace("6101", "0") + "owner: 5\nidd: x\n")
    write("channels/beta.yaml", "id: [\n")
    files = [told.split(":")[0] for told in problems()]
    assert files == [
        *["channels/acme.yaml"] * 3,
        "channels/beta.yaml",
        "channels/endpoints.yaml",
        "interlock.yaml",
    ]


def test_a_mistake_in_the_defaults_shows_once_and_in_their_file(write: Write) -> None:
    write("channels/beta.yaml", BETA)
    write("channels/defaults.yaml", "ack: {on_relay_timeout: hang}\n")
    assert problems() == ["channels/defaults.yaml:1:25: found 'hang'; expected one of silent, close, ae"]


def test_a_secret_is_never_shown_filled_in(write: Write) -> None:
    write("interlock.yaml", "http: '${SECRET}'\n")
    assert "hunter2" not in problems(SECRET="hunter2")[0]
