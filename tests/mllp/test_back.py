"""A line back: what is read of the frames that come on its connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.mllp.back import HEAD, MOST_REMEMBERED, Back

ANSWER = b"MSH|^~\\&|A|B|C|D|1||ORL^O22|R1|P|2.5\rMSA|AA|C1\r"
LARGE = ANSWER + b"OBX|1|ED|x||" + b"A" * 2_000_000 + b"\r"
THEIRS: Any = object()  # a connection of the peer's


def back(read: list[int], answer: Callable[[], tuple[str, str] | None]) -> Back:
    def answers(payload: bytes) -> tuple[str, str] | None:
        read.append(len(payload))
        return answer()

    return Back(lambda: (), lambda payload: "C1", answers)


def test_where_nothing_was_sent_no_frame_is_looked_into() -> None:
    read: list[int] = []
    line = back(read, lambda: ("AA", "C1"))
    assert not line.offer(THEIRS, ANSWER)
    assert read == []


def test_of_a_large_frame_only_the_beginning_is_looked_into() -> None:
    read: list[int] = []
    line = back(read, lambda: None)
    line.sent_before(["C1"])
    assert not line.offer(THEIRS, LARGE)
    assert not line.offer(THEIRS, ANSWER)
    assert read == [HEAD, len(ANSWER)]


def test_what_is_heard_of_an_earlier_message_is_offered_to_whoever_waits_for_that() -> None:
    heard: list[bytes] = []
    line = back([], lambda: ("AE", "C1"))
    line.sent_before(["C1"])
    line.later = lambda payload: heard.append(payload) is None
    assert line.offer(THEIRS, LARGE)
    assert heard == [LARGE]


def test_of_what_was_sent_before_the_newest_are_known() -> None:
    line = back([], lambda: None)
    line.sent_before(str(n) for n in range(MOST_REMEMBERED + 5))
    assert line.has_sent("0")
    assert line.has_sent(str(MOST_REMEMBERED - 1))
    assert not line.has_sent(str(MOST_REMEMBERED))
