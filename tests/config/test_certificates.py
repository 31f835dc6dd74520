"""Files of TLS are read before anything starts: one that cannot be used is a mistake with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.config.conftest import ENDPOINTS, HEAD, LEGACY, TARGET, Load, Write, problems
from tests.support.certificates import Authority, key_pem

OWN = "certificate: own.pem, key: own.key"


@pytest.fixture
def files(write: Write, tmp_path: Path) -> None:
    """own.pem and own.key, ca.pem; other.key of nobody here, locked.key with a passphrase, text.pem."""
    authority = Authority(tmp_path)
    authority.issue("own")
    authority.issue("other")
    write("locked.key", key_pem(ec.generate_private_key(ec.SECP256R1()), b"secret words").decode())
    write("text.pem", "hello\n")


def listener(tls: str) -> str:
    return HEAD + f"listen: {{port: 6101, tls: {{{tls}}}}}\n" + LEGACY


def connecting(tls: str) -> str:
    return HEAD + f"connect: {{to: '10.0.0.1:1', tls: {{{tls}}}}}\n" + TARGET


PEM = "a file of PEM certificates"
CASES: dict[str, tuple[str, str]] = {
    "a key of another certificate": (
        listener("certificate: own.pem, key: other.key"),
        "5:55: found <root>/other.key, which is not the key of <root>/own.pem; expected the one that it was made with",
    ),
    "a certificate that is none": (
        listener("certificate: text.pem, key: own.key"),
        f"5:41: found <root>/text.pem, which has no certificate that can be read; expected {PEM}",
    ),
    "a key that is none": (
        listener("certificate: own.pem, key: text.pem"),
        "5:55: found <root>/text.pem, which has no private key that can be read; expected a PEM key",
    ),
    "a key with a passphrase": (
        listener("certificate: own.pem, key: locked.key"),
        "5:55: found <root>/locked.key, which is encrypted; expected a key without a passphrase",
    ),
    "authorities that are none": (
        listener(OWN + ", ca: text.pem"),
        f"5:68: found <root>/text.pem, which has no certificate that can be read; expected {PEM}",
    ),
    "a peer's authority that is none": (
        connecting("ca: text.pem"),
        f"5:39: found <root>/text.pem, which has no certificate that can be read; expected {PEM}",
    ),
    "our key for a peer": (
        connecting("certificate: own.pem, key: other.key"),
        "5:62: found <root>/other.key, which is not the key of <root>/own.pem; expected the one that it was made with",
    ),
    "a tap's key": (
        HEAD + "listen: {port: 6101}\nlegacy:\n  mllp: old-engine\n"
        "  taps: [{listen: {port: 7201, tls: {certificate: own.pem, key: other.key}}, forward: acme-emr}]\n",
        "8:65: found <root>/other.key, which is not the key of <root>/own.pem; expected the one that it was made with",
    ),
    "the key of a port for answers": (
        HEAD + "listen: {port: 6101}\n" + TARGET + "ack: {listen: {port: 6102, tls: {certificate: own.pem, "
        "key: other.key}}}\n",
        "7:61: found <root>/other.key, which is not the key of <root>/own.pem; expected the one that it was made with",
    ),
}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("case", CASES)
def test_a_file_that_cannot_be_used_is_told_with_its_place(case: str, write: Write) -> None:
    text, told = CASES[case]
    write("channels/acme.yaml", text)
    assert problems() == [f"channels/acme.yaml:{told}"]


@pytest.mark.usefixtures("files")
def test_an_endpoints_and_a_feeds(write: Write) -> None:
    tls = "certificate: own.pem, key: other.key"
    write("channels/endpoints.yaml", ENDPOINTS + f"x: {{mllp: 'h:1', tls: {{{tls}}}}}\n")
    write("channels/feeds/lis.yaml", f"id: lis\nlisten: {{port: 6200, tls: {{{tls}}}}}\ndefault: acme\n")
    write("channels/acme.yaml", HEAD + "feed: lis\n" + TARGET)
    assert [told.partition(": found")[0] for told in problems()] == [
        "channels/endpoints.yaml:3:51",
        "channels/feeds/lis.yaml:2:55",
    ]


@pytest.mark.usefixtures("files")
def test_files_that_fit_are_right(write: Write, load: Load) -> None:
    write("channels/acme.yaml", listener(OWN + ", ca: ca.pem"))
    assert load()
