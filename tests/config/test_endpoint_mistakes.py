"""Mistakes in endpoints.yaml, word for word, one bad entry each."""

from __future__ import annotations

import pytest

from tests.config.conftest import BETA, CHANNEL, ENDPOINTS, Write, problems

SFTP = "x: {sftp: 'h:22', user: u, known_hosts: interlock.yaml"

CASES: dict[str, tuple[str, str]] = {
    "no address": (
        "x: {connections: 2}",
        "3:4: found an endpoint without its address; expected one of mllp, directory, sftp, via",
    ),
    "a misspelt address": (
        "x: {mlp: '10.0.0.9:1'}",
        "3:4: found an endpoint without its address; expected 'mllp', perhaps (one of mllp, directory, sftp, via)",
    ),
    "two addresses": (
        "x: {mllp: '10.0.0.9:1', directory: out}",
        "3:4: found an endpoint with both mllp: and directory:; expected one of mllp, directory, sftp, via",
    ),
    "an address alone": (
        "x: '10.0.0.9:1'",
        "3:4: found '10.0.0.9:1'; expected an endpoint, such as {mllp: 'host:port'}",
    ),
    "a time-out of a folder": (
        "x: {directory: out, ack_timeout: 5s}",
        "3:21: found the unknown key 'ack_timeout' in an endpoint with directory:; "
        "expected one of directory, name, on_unknown, probe, sink, rate, deliver, profile",
    ),
    "no time for an answer": (
        "x: {mllp: '10.0.0.9:1', ack_timeout: 0s}",
        "3:38: found '0s'; expected more than 0s",
    ),
    "a rate of a folder": (
        "x: {directory: out, rate: 2/s}",
        "3:21: found 'rate'; expected it at an endpoint with mllp: or via:, since files are written without a limit",
    ),
    "a source address of another family": (
        "x: {mllp: '[::1]:1', source_address: 10.0.0.1}",
        "3:38: found '10.0.0.1', an IPv4 address, towards ::1, an IPv6 address; expected an IPv6 address",
    ),
    "hours of every day": (
        "x: {mllp: '10.0.0.9:1', deliver: {during: '22:00-06:00', timezone: UTC}}",
        "3:43: found '22:00-06:00'; expected 'mon-sun 22:00-06:00', perhaps (the days first)",
    ),
    "a list of days": (
        "x: {mllp: '10.0.0.9:1', deliver: {during: [mon, wed], timezone: UTC}}",
        "3:43: found a list; expected days and hours such as 'mon-fri 07:00-19:00', with one stretch of days",
    ),
    "an abbreviation of a zone": (
        "x: {mllp: '10.0.0.9:1', deliver: {during: mon-fri, timezone: CST}}",
        "3:62: found 'CST'; expected an IANA time zone such as America/Chicago",
    ),
    "a zone that is misspelt": (
        "x: {mllp: '10.0.0.9:1', deliver: {during: mon-fri, timezone: America/Chigago}}",
        "3:62: found 'America/Chigago'; expected 'America/Chicago', perhaps (an IANA time zone)",
    ),
    "one host in two spellings": (
        "x: {mllp: 'EMR.acme.example:1'}\ny: {mllp: 'emr.Acme.example:1'}",
        "4:11: found emr.Acme.example:1, which 'x' has too; "
        "expected one name for each address, so that all channels share one sender",
    ),
    "connections to a sender": (
        "x: {via: acme, connections: 5}",
        "3:16: found the unknown key 'connections' in an endpoint with via:; "
        "expected one of via, ack_timeout, accept, reject, check_control_id, answers, ack_mode, on_unknown, probe, "
        "sink, rate, deliver, profile",
    ),
    "a rate without its unit": (
        "x: {mllp: '10.0.0.9:1', rate: 10}",
        "3:31: found the number 10; expected a rate such as 10/s or 600/m",
    ),
    "a rate of nothing": (
        "x: {mllp: '10.0.0.9:1', rate: 0/s}",
        "3:31: found '0/s'; expected a rate such as 10/s or 600/m",
    ),
    "hours without minutes": (
        "x: {mllp: '10.0.0.9:1', deliver: {during: mon-fri 7-19, timezone: UTC}}",
        "3:43: found 'mon-fri 7-19'; expected days and hours such as 'mon-fri 07:00-19:00', with one stretch of days",
    ),
    "hours after midnight": (
        "x: {mllp: '10.0.0.9:1', deliver: {during: 'mon 07:00-25:00', timezone: UTC}}",
        "3:43: found 'mon 07:00-25:00'; "
        "expected days and hours such as 'mon-fri 07:00-19:00', with one stretch of days",
    ),
    "days that are none": (
        "x: {mllp: '10.0.0.9:1', deliver: {during: mon-fry, timezone: UTC}}",
        "3:43: found 'mon-fry'; expected days and hours such as 'mon-fri 07:00-19:00', with one stretch of days",
    ),
    "hours of no zone": (
        "x: {mllp: '10.0.0.9:1', deliver: {during: mon-fri}}",
        "3:34: found deliver without 'timezone'; expected timezone: their zone, such as America/Chicago",
    ),
    "a code that is none": (
        "x: {mllp: '10.0.0.9:1', accept: [AA, OK]}",
        "3:38: found 'OK'; expected one of AA, AE, AR, CA, CE, CR",
    ),
    "a code that is accepted and rejected": (
        "x: {mllp: '10.0.0.9:1', accept: [AA, AR]}",
        "3:33: found AR in accept: and in reject:; expected it in one of them",
    ),
    "no code that is accepted": (
        "x: {mllp: '10.0.0.9:1', accept: []}",
        "3:33: found an empty list; expected at least one code, such as AA",
    ),
    "a port for answers that never come": (
        "x: {mllp: '10.0.0.9:1', answers: false, answers_on: 7300}",
        "3:53: found answers_on: with answers: false; expected one of them",
    ),
    "how it answers, of a peer that never does": (
        "x: {mllp: '10.0.0.9:1', answers: false, ack_mode: enhanced}",
        "3:51: found ack_mode: with answers: false; expected one of them",
    ),
    "answers of a kind that nobody knows": (
        "x: {mllp: '10.0.0.9:1', answers: byte}",
        "3:34: found 'byte'; expected true, false or bare",
    ),
    "a byte that could begin a message": (
        "x: {mllp: '10.0.0.9:1', answers: bare, framing: {start: none}}",
        "3:34: found bare answers, 0x06 and 0x15, that this framing would not let be told from blocks; "
        "expected a start byte, neither of the two in start: and end:, and release 1",
    ),
    "a byte at a port where it names nobody": (
        "x: {mllp: '10.0.0.9:1', answers: bare, answers_on: 7300}",
        "3:52: found answers_on: with answers: bare; "
        "expected it left out: a byte names no message, so the answer to each is waited for on its own connection",
    ),
    "a byte that nobody waits for": (
        "x: {mllp: '10.0.0.9:1', answers: bare, ack_mode: enhanced}",
        "3:50: found ack_mode: with answers: bare; "
        "expected it left out: a byte names no message, so the answer to each is waited for on its own connection",
    ),
    "a byte on the sender's own connection": (
        "x: {via: acme, answers: bare}",
        "3:25: found 'bare'; expected true or false",
    ),
    "a port for answers that http has": (
        "x: {mllp: '10.0.0.9:1', answers_on: {port: 8600}}",
        "3:44: found port 8600, which http of the settings has too; expected a port of its own",
    ),
    "a source address that is a name": (
        "x: {mllp: '10.0.0.9:1', source_address: here}",
        "3:41: found 'here'; expected an IP address of this machine, such as 10.1.1.1",
    ),
    "an authority that is not there": (
        "x: {mllp: '10.0.0.9:1', tls: {ca: nowhere.pem}}",
        "3:35: found <root>/nowhere.pem, which is no file; expected a file that can be read",
    ),
    "one folder under two names": (
        "x: {directory: out}\ny: {directory: ./out}",
        "4:16: found <root>/out, which 'x' has too; "
        "expected one name for each folder, so that all channels share one sender",
    ),
    "one sender under two names": (
        "x: {via: acme}\ny: {via: acme}",
        "4:10: found acme, which 'x' has too; "
        "expected one name for each address, so that all channels share one sender",
    ),
    "the senders of an unknown channel": (
        "x: {via: acmee}",
        "3:10: found the unknown channel 'acmee'; "
        "expected 'acme', perhaps (the id of a channel with listen: or connect:)",
    ),
    "file names that are not unique": (
        "x: {directory: out, name: '{channel}.hl7'}",
        "3:27: found '{channel}.hl7'; "
        "expected the name of a file with {sequence} in it, and perhaps {channel} and {control_id}",
    ),
    "file names with what is not known": (
        "x: {directory: out, name: '{sequence}-{patient}.hl7'}",
        "3:27: found '{sequence}-{patient}.hl7'; "
        "expected the name of a file with {sequence} in it, and perhaps {channel} and {control_id}",
    ),
    "file names that are paths": (
        "x: {directory: out, name: 'a/{sequence}'}",
        "3:27: found 'a/{sequence}'; "
        "expected the name of a file with {sequence} in it, and perhaps {channel} and {control_id}",
    ),
    "hidden files": (
        "x: {directory: out, name: '.{sequence}'}",
        "3:27: found '.{sequence}'; "
        "expected the name of a file with {sequence} in it, and perhaps {channel} and {control_id}",
    ),
    "a server that asks nobody in": (
        SFTP + "}",
        "3:4: found an endpoint with sftp: without key: or password:; expected one of them",
    ),
    "a key and a password": (
        SFTP + ", key: interlock.yaml, password: p}",
        "3:88: found an endpoint with sftp: with both key: and password:; expected only one of them",
    ),
    "a server that anybody could be": (
        "x: {sftp: 'h:22', user: u, key: interlock.yaml}",
        "3:4: found an endpoint with sftp: without 'known_hosts'; "
        "expected known_hosts: file with the server's public key, as ssh-keyscan prints it: no other server is "
        "talked to",
    ),
    "known hosts that are not there": (
        "x: {sftp: 'h:22', user: u, known_hosts: known, key: interlock.yaml}",
        "3:41: found <root>/known, which is no file; expected a file that can be read",
    ),
    "a password that is not set": (
        SFTP + ", password: '${SFTP}'}",
        "3:67: found ${SFTP}, which is not set; expected the environment variable SFTP",
    ),
    "an unknown profile": (
        "x: {mllp: '10.0.0.9:1', profile: mirth}",
        "3:34: found the unknown profile 'mirth'; "
        "expected one of cloverleaf-mllp, end-block-only, mirth-default, one-message, or one of "
        "channels/profiles.yaml",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_in_an_endpoint_is_told_with_its_place_and_what_is_right(case: str, write: Write) -> None:
    text, told = CASES[case]
    write("channels/endpoints.yaml", ENDPOINTS + text + "\n")
    assert problems() == [f"channels/endpoints.yaml:{told}"]


USES: dict[str, tuple[str, str]] = {
    "a folder where a socket is wanted": (
        "target: {destinations: [{mllp: drop}]}\n",
        "7:32: found 'drop', an endpoint with directory:; expected an endpoint with mllp:",
    ),
    "a server's folder where a socket is wanted": (
        "target: {destinations: [{mllp: server}]}\n",
        "7:32: found 'server', an endpoint with sftp:; expected an endpoint with mllp:",
    ),
    "a folder of this machine where a server is wanted": (
        "legacy: {mllp: old-engine, taps: [{files: {sftp: drop}, forward: drop}]}\n",
        "6:50: found 'drop', an endpoint with directory:; expected an endpoint with sftp:",
    ),
    "a folder for an old engine that listens": (
        "legacy: {mllp: drop}\n",
        "6:16: found 'drop', an endpoint with directory:; expected an endpoint with mllp:",
    ),
    "a sender for an old engine that listens": (
        "legacy: {mllp: back}\n",
        "6:16: found 'back', an endpoint with via:; expected an endpoint with mllp:",
    ),
}


@pytest.mark.parametrize("case", USES)
def test_an_endpoint_of_the_wrong_kind_is_told_where_it_is_named(case: str, write: Write) -> None:
    text, told = USES[case]
    kinds = SFTP.replace("x:", "server:") + ", key: interlock.yaml}\ndrop: {directory: out}\nback: {via: acme}\n"
    write("channels/endpoints.yaml", ENDPOINTS + kinds)
    head, _, _ = CHANNEL.partition("legacy:")
    write("channels/acme.yaml", (head if "legacy:" in text else CHANNEL) + text)
    assert problems() == [f"channels/acme.yaml:{told}"]


def test_a_port_for_answers_is_taken_for_channels(write: Write) -> None:
    write("channels/endpoints.yaml", ENDPOINTS + "x: {mllp: '10.0.0.9:1', answers_on: 6101}\n")
    assert problems() == [
        "channels/acme.yaml:5:16: found port 6101, which answers_on: of the endpoint 'x' has too; "
        "expected a port of its own"
    ]


@pytest.mark.parametrize("way", ["target: {destinations: [{file: drop}]}", "legacy: {file: drop}"])
def test_two_channels_in_one_folder_want_their_id_in_the_file_names(way: str, write: Write) -> None:
    write("channels/endpoints.yaml", ENDPOINTS + "drop: {directory: out, name: '{sequence}.hl7'}\n")
    write("channels/acme.yaml", CHANNEL + "target: {destinations: [{file: drop}]}\n")
    head = BETA.partition("listen:")[0]
    write("channels/beta.yaml", head + f"files: {{directory: in}}\n{way}\n")
    assert problems() == [
        "channels/endpoints.yaml:3:30: found '{sequence}.hl7', for files of 'acme' and of 'beta'; "
        "expected {channel} in it: a sequence is one channel's"
    ]
