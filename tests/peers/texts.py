"""What the peers send and get: orders and results of people who do not exist."""

from __future__ import annotations

from engine.simulate.messages import Messages

RESULTS, ORDERS = Messages("oru", seed=21), Messages("oml", seed=22)
ACCEPTS = ("ORU^R01", "OML^O21")


def result(number: int) -> str:
    return RESULTS.message(number).decode()


def order(number: int) -> str:
    return ORDERS.message(number).decode()


def control_id(text: str) -> str:
    """MSH-10."""
    return text.split("|")[9]


def foreign(number: int, charset: str) -> str:
    """A result of Zoë Müller, sent by a facility whose name is not ASCII either. `charset`: MSH-18."""
    text = result(number).replace("UNICODE UTF-8", charset, 1).replace("|REFLAB|", "|LABO GENÈVE|", 1)
    assert charset in text
    return text + "NTE|1||Zoë Müller, 37 °C\r"


def large(number: int, size: int) -> str:
    """A result with so many bytes of a document in it."""
    return result(number) + f"OBX|99|ED|PDF^Report^L||^application^pdf^Base64^{'QUJD' * (size // 4)}||||||F\r"


def same(text: str, other: str) -> bool:
    """Whether two are the same message: peers add or leave out the last segment's CR."""
    return text.rstrip("\r") == other.rstrip("\r")
