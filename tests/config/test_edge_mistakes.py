"""Mistakes in what faces a peer: sockets, TLS, answers, folders, taps. Word for word, one bad file each."""

from __future__ import annotations

import pytest

from tests.config.conftest import BETA, CHANNEL, HEAD, LEGACY, TARGET, Load, Write, problems


def listen(keys: str) -> str:
    return HEAD + f"listen: {{port: 6101, {keys}}}\n" + LEGACY


def connect(keys: str) -> str:
    return HEAD + f"connect: {{{keys}}}\n" + TARGET


def files(keys: str, rest: str = TARGET) -> str:
    return HEAD + f"files: {{{keys}}}\n" + rest


def ack(keys: str) -> str:
    return CHANNEL + f"ack: {{{keys}}}\n"


def legacy(keys: str) -> str:
    return HEAD + f"listen: {{port: 6101}}\nlegacy: {{{keys}}}\n"


def tap(keys: str) -> str:
    return legacy(f"mllp: old-engine, taps: [{{{keys}}}]")


def destination(keys: str) -> str:
    return CHANNEL + f"target: {{destinations: [{{{keys}}}]}}\n"


CASES: dict[str, tuple[str, str]] = {
    "no source": (
        HEAD + TARGET,
        "1:1: found a channel without listen:, connect:, feed: or files:; expected one of them",
    ),
    "two sources": (
        CHANNEL + "connect: {to: '10.0.0.1:1'}\n",
        "7:10: found a channel with both listen: and connect:; expected only one of them",
    ),
    "a start byte that stands in messages": (
        listen("framing: {start: M}"),
        "5:39: found 'M'; expected a byte from 0x00 to 0x1F such as 0x0B, or none",
    ),
    "two start bytes": (
        listen("framing: {start: 0x0B 0x0B}"),
        "5:39: found '0x0B 0x0B'; expected a byte from 0x00 to 0x1F such as 0x0B, or none",
    ),
    "no end byte": (
        listen("framing: {end: none}"),
        "5:37: found 'none'; "
        "expected one or two bytes from 0x00 to 0x1F such as '0x1C 0x0D', or '0x0D 0x0D' for a blank line, "
        "but not 0x0D or '0x0D 0x0A', which end segments",
    ),
    "an end byte that ends segments": (
        listen("framing: {end: 0x0D}"),
        "5:37: found the number 0x0D; "
        "expected one or two bytes from 0x00 to 0x1F such as '0x1C 0x0D', or '0x0D 0x0D' for a blank line, "
        "but not 0x0D or '0x0D 0x0A', which end segments",
    ),
    "one byte for start and end": (
        listen("framing: {start: 0x1C}"),
        "5:31: found an end: that begins with the byte of start:; "
        "expected a byte of its own, or nobody could tell the two",
    ),
    "an end of what Windows writes between segments": (
        listen("framing: {end: 0x0D 0x0A}"),
        "5:37: found '0x0D 0x0A'; "
        "expected one or two bytes from 0x00 to 0x1F such as '0x1C 0x0D', or '0x0D 0x0D' for a blank line, "
        "but not 0x0D or '0x0D 0x0A', which end segments",
    ),
    "a start that stands in every message": (
        listen("framing: {start: 0x0A}"),
        "5:39: found a start: of 0x0D or 0x0A, which stand inside every message; expected another byte, or none",
    ),
    "one byte for start and the second of the end": (
        listen("framing: {start: 0x0B, end: 0x1C 0x0B}"),
        "5:50: found an end: that ends with the byte of start:; "
        "expected a byte of its own, or nobody could tell the two",
    ),
    "a release of MLLP that there is not": (
        listen("framing: {release: 3}"),
        "5:41: found the number 3; expected a release of MLLP from 1 to 2",
    ),
    "release 2 with other bytes": (
        listen("framing: {release: 2, start: 0x02, end: 0x03}"),
        "5:41: found release 2 with other bytes than MLLP's; expected no start: and no end: beside it",
    ),
    "a framing that nobody knows": (
        listen("framing: mlp"),
        "5:31: found 'mlp'; expected mllp, or {start: 0x0B, end: 0x1C 0x0D}",
    ),
    "a misspelt key of connections": (
        listen("connections: {maximum: 5}"),
        "5:36: found the unknown key 'maximum' in connections; "
        "expected 'max', perhaps (one of max, per_address, newest_wins, idle, keepalive, one_message)",
    ),
    "a listener that nobody may connect to": (
        listen("connections: {max: 0}"),
        "5:41: found the number 0; expected a number of connections from 1 to 10000",
    ),
    "connections as a number": (
        listen("connections: 5"),
        "5:35: found the number 5; expected connections, with keys such as max, per_address, newest_wins",
    ),
    "an idle limit that is none": (
        listen("connections: {idle: never}"),
        "5:42: found 'never'; expected a duration such as 10m, or none",
    ),
    "an idle limit of nothing": (
        listen("connections: {idle: 0s}"),
        "5:42: found '0s'; expected more than 0s; for no limit: none, or idle: left out",
    ),
    "a frame without any time": (
        listen("frame_timeout: 0"),
        "5:37: found the number 0; expected more than 0s",
    ),
    "a pause of nothing": (
        connect("to: '10.0.0.1:1', reconnect: 0.0s"),
        "5:40: found '0.0s'; expected more than 0s",
    ),
    "a source address of another family": (
        connect("to: '10.0.0.1:1', source_address: '::1'"),
        "5:45: found '::1', an IPv6 address, towards 10.0.0.1, an IPv4 address; expected an IPv4 address",
    ),
    "a probe with bits beyond its prefix": (
        listen("probes: [10.0.0.5/8]"),
        "5:31: found '10.0.0.5/8'; expected '10.0.0.0/8' (bits beyond the prefix must be 0)",
    ),
    "a certificate without its key": (
        listen("tls: {certificate: interlock.yaml}"),
        "5:27: found tls without 'key'; expected key: PEM file of its private key",
    ),
    "a certificate that is not there": (
        listen("tls: {certificate: our.pem, key: interlock.yaml}"),
        "5:41: found <root>/our.pem, which is no file; expected a file that can be read",
    ),
    "names that anybody could have": (
        listen("tls: {certificate: us.pem, key: us.pem, names: [a.example]}"),
        "5:69: found names: without ca:, so that anybody could have them; "
        "expected ca: with the authority that has signed the peers' certificates",
    ),
    "auto where nothing is declared": (
        listen("undeclared: auto"),
        "5:34: found 'auto'; expected a character set such as utf-8 or cp1252",
    ),
    "a codec that is none of text": (
        listen("undeclared: hex"),
        "5:34: found 'hex'; expected a character set such as utf-8 or cp1252",
    ),
    "a way with batches that nobody knows": (
        listen("batch: all"),
        "5:29: found 'all'; expected one of refuse, one, each, errors, none",
    ),
    "connecting without a port": (
        connect("to: 10.0.0.1"),
        "5:15: found '10.0.0.1'; expected host:port, such as 127.0.0.1:6661",
    ),
    "connecting to nobody": (
        connect("reconnect: 5s"),
        "5:10: found connect without 'to'; "
        "expected to: host:port of the peer, which sends on the connection that we make",
    ),
    "a source address that is an interface": (
        connect("to: '10.0.0.1:1', source_address: eth0"),
        "5:45: found 'eth0'; expected an IP address of this machine, such as 10.1.1.1",
    ),
    "our certificate without its key": (
        connect("to: '10.0.0.1:1', tls: {certificate: interlock.yaml}"),
        "5:48: found certificate: without key:; expected both of them, or none",
    ),
    "our key without its certificate": (
        connect("to: '10.0.0.1:1', tls: {key: interlock.yaml}"),
        "5:40: found key: without certificate:; expected both of them, or none",
    ),
    "files from nowhere": (files("poll: 5s"), "5:8: found files without directory: or sftp:; expected one of them"),
    "files of an unknown server": (
        files("sftp: acme-emrr"),
        "5:15: found the unknown endpoint 'acme-emrr'; "
        "expected 'acme-emr', perhaps (a name in channels/endpoints.yaml with sftp:)",
    ),
    "files of a server that has none": (
        files("sftp: acme-emr"),
        "5:15: found 'acme-emr', an endpoint with mllp:; expected an endpoint with sftp:",
    ),
    "one folder for what is stored and what is not": (
        files("directory: in, archive: failed"),
        "5:8: found one folder for archive: and failed:; "
        "expected two folders: what is stored is to be told from what is not",
    ),
    "a folder beside the place": (
        files("directory: in, archive: ../x"),
        "5:33: found '../x'; expected the name of a folder beneath the place",
    ),
    "a pattern of paths": (
        files("directory: in, pattern: 'x/*.hl7'"),
        "5:33: found 'x/*.hl7'; expected a pattern of file names such as *.hl7",
    ),
    "an old engine that answers nobody": (
        files("directory: in", TARGET + "ack: {from: authoritative}\n"),
        "7:13: found from: authoritative in a channel with files:; expected stored: nobody waits for an answer",
    ),
    "a mode of answers that nobody gets": (
        files("directory: in", TARGET + "ack: {mode: enhanced}\n"),
        "7:13: found 'mode' in ack: of a channel with files:; expected no mode: nobody waits for an answer",
    ),
    "an old engine that reads no files": (
        files("directory: in", LEGACY),
        "6:16: found mllp: in legacy: of a channel with files:; expected file: the folder that the old engine reads",
    ),
    "files and no old engine in legacy": (
        files("directory: in", "legacy: {settle: 5m}\n"),
        "6:9: found legacy without file: or observed:; expected one of them",
    ),
    "an old engine that reads files beside a socket": (
        legacy("file: old-engine"),
        "6:16: found file: in legacy: of a channel without files:; expected mllp: where the old engine listens",
    ),
    "an old engine behind and in front": (
        legacy("mllp: old-engine, observed: true"),
        "6:38: found legacy with both mllp: and observed:; expected only one of them",
    ),
    "observed: false": (
        legacy("observed: false"),
        "6:20: found the yes-or-no value false; expected true, or the key left out",
    ),
    "live behind an old engine": (
        legacy("observed: true") + TARGET + "phase: live\nrollback: {replay: none}\n",
        "8:8: found phase live in a channel whose old engine is observed; "
        "expected a takeover first: legacy: with mllp: or file:",
    ),
    "the answer of an old engine in front": (
        legacy("observed: true") + "ack: {from: authoritative}\n",
        "7:13: found from: authoritative in a channel whose old engine is observed; "
        "expected stored: the old engine answers its sender itself",
    ),
    "a tap on a link that is not there": (
        legacy("observed: true, taps: [{on_link: true, forward: acme-emr}]"),
        "6:43: found on_link: without a connection of ours to the old engine; "
        "expected listen: or files:, or mllp: in legacy:",
    ),
    "two taps on the link": (
        legacy("mllp: old-engine, taps: [{on_link: true, forward: acme-emr}, {on_link: true, forward: 'h:1'}]"),
        "6:81: found a second tap on our connection to the old engine; expected one: nothing tells whose an output is",
    ),
    "a tap of two kinds": (
        tap("on_link: true, listen: 7201, forward: acme-emr"),
        "6:45: found a tap with both listen: and on_link:; expected only one of them",
    ),
    "a shape that only files have": (
        tap("on_link: true, forward: acme-emr, shape: n:1"),
        "6:77: found 'n:1'; expected '1:1', perhaps (one of 1:1, 1:n, 0..1)",
    ),
    "files that go on to a socket": (
        tap("files: {directory: old}, forward: acme-emr"),
        "6:70: found 'acme-emr', an endpoint with mllp:; expected an endpoint with directory: or sftp:",
    ),
    "files that go on to a sender": (
        tap("files: {directory: old}, forward: {via: acme}"),
        "6:70: found via: for output that comes as files; expected an endpoint with directory: or sftp:",
    ),
    "a tap's certificate that is not there": (
        tap("listen: {port: 7201, tls: {certificate: our.pem, key: interlock.yaml}}, forward: acme-emr"),
        "6:76: found <root>/our.pem, which is no file; expected a file that can be read",
    ),
    "an unknown answer without a target": (
        ack("from: acme-emr"),
        "7:13: found 'acme-emr'; expected one of authoritative, stored",
    ),
    "the answer of an unknown destination": (
        destination("mllp: acme-emr") + "ack: {from: acme-erm}\n",
        "8:13: found 'acme-erm'; expected 'acme-emr', perhaps (one of authoritative, stored, acme-emr)",
    ),
    "a mode of answers that nobody knows": (
        ack("mode: commit"),
        "7:13: found 'commit'; expected one of auto, original, enhanced",
    ),
    "a code that is none": (
        ack("codes: {OK: AA}"),
        "7:15: found the unknown key 'OK' in codes; expected one of AA, AE, AR, CA, CE, CR",
    ),
    "a code for a code that is none": (
        ack("codes: {AA: OK}"),
        "7:19: found 'OK'; expected one of AA, AE, AR, CA, CE, CR",
    ),
    "a form of MSH-9 that nobody knows": (
        ack("type: ACK^R01"),
        "7:13: found 'ACK^R01'; expected 'ACK', perhaps (one of auto, ACK, ACK^trigger, ACK^trigger^ACK)",
    ),
    "a form of ERR that there is not": (
        ack("err: 2.7"),
        "7:12: found the number 2.7; expected '2.5', perhaps (one of auto, none, 2.3, 2.5)",
    ),
    "answers to a port of nobody": (
        ack("to: 6101"),
        "7:11: found the number 6101; expected the name of an endpoint in endpoints.yaml, or host:port",
    ),
    "a second port for answers that is the first": (
        ack("listen: 6101"),
        "7:15: found port 6101, which the channel 'acme' has too; expected a port of its own",
    ),
    "answers at two places": (
        ack("to: 'h:1', listen: 6102"),
        "7:26: found listen: beside to:; expected one of them: an answer goes to one place",
    ),
    "a second port of a sender that we connect to": (
        connect("to: '10.0.0.1:1'") + "ack: {listen: 6102}\n",
        "7:15: found listen: for a sender that we connect to; expected to:, or its own connection",
    ),
    "a second port for answers that nobody has": (
        ack("listen: {host: 127.0.0.1}"),
        "7:15: found ack.listen without 'port'; expected port: the port at which the sender hears our answers",
    ),
    "answers of one byte in words": (
        ack("bare: true, codes: {AA: CA}"),
        "7:26: found codes: with bare: true; "
        "expected it left out: the answer is one byte, on the sender's own connection, yes or no",
    ),
    "two answers of one byte each": (
        ack("bare: true, mode: enhanced"),
        "7:25: found mode: with bare: true; "
        "expected it left out: the answer is one byte, on the sender's own connection, yes or no",
    ),
    "files for an unknown endpoint": (
        destination("file: drop"),
        "7:32: found the unknown endpoint 'drop'; expected a name in channels/endpoints.yaml with directory: or sftp:",
    ),
    "files for a socket": (
        destination("file: acme-emr"),
        "7:32: found 'acme-emr', an endpoint with mllp:; expected an endpoint with directory: or sftp:",
    ),
    "the senders of an unknown channel": (
        destination("mllp: {via: acmee}"),
        "7:38: found the unknown channel 'acmee'; "
        "expected 'acme', perhaps (the id of a channel with listen: or connect:)",
    ),
    "the senders of a channel that reads files": (
        files("directory: in", "phase: outside\ntarget: {destinations: [{mllp: {via: acme}}]}\n"),
        "7:38: found the channel 'acme', which has no connection of its own; "
        "expected a channel with listen: or connect:",
    ),
    "senders that are gone after one message": (
        listen("connections: {one_message: true}") + "target: {destinations: [{mllp: {via: acme}}]}\n",
        "7:38: found the channel 'acme', whose connections end after one message; "
        "expected a channel whose senders stay connected: without one_message: true",
    ),
    "live senders that do not say what becomes of unknown messages": (
        HEAD + "listen: {port: 6101}\ntarget: {destinations: [{mllp: {via: acme}}]}\n",
        "6:32: found the endpoint 'via:acme' without on_unknown: in a channel that is live; "
        "expected an entry {via: acme, on_unknown: resend}, or on_unknown: park, in endpoints.yaml",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_at_the_edge_is_told_with_its_place_and_what_is_right(case: str, write: Write) -> None:
    text, told = CASES[case]
    write("channels/acme.yaml", text)
    assert problems() == [f"channels/acme.yaml:{told}"]


def test_a_file_that_may_not_be_read_is_told(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # a test may run as root, who may read everything
    write("channels/acme.yaml", connect("to: '10.0.0.1:1', tls: {ca: interlock.yaml}"))
    assert problems() == [
        "channels/acme.yaml:5:39: found <root>/interlock.yaml, which this user may not read; "
        "expected a file that can be read"
    ]


def test_two_channels_that_read_one_folder_are_told(write: Write) -> None:
    write("channels/acme.yaml", files("directory: in"))
    write("channels/beta.yaml", files("directory: ./in").replace("id: acme", "id: beta"))
    assert problems() == [
        "channels/beta.yaml:5:8: found the folder and the pattern that the channel 'acme' reads; "
        "expected a folder or a pattern of its own"
    ]


def test_two_patterns_in_one_folder_are_no_clash(write: Write, load: Load) -> None:
    write("channels/acme.yaml", files("directory: in, pattern: 'a*.hl7'"))
    write("channels/beta.yaml", files("directory: in, pattern: 'b*.hl7'").replace("id: acme", "id: beta"))
    assert load()


def test_a_channel_that_cannot_be_read_is_missed_by_nobody(write: Write) -> None:
    write("channels/beta.yaml", BETA + "target: {destinations: [{mllp: {via: acme}}]}\n")
    write("channels/acme.yaml", "id: [\n")
    assert [told.split(":")[0] for told in problems()] == ["channels/acme.yaml"]
