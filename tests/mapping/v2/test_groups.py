"""How the lines of a message are shared out to the messages that it is split into."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.mapping.v2.draft import Line
from engine.mapping.v2.groups import Groups, Key, parts, rank

LEADING = ["PID", "ORC", "OBR", "OBX", "SPM", "TQ1"]
ORDER, ITEM = rank("OBR"), rank("OBX")


def covers(shared: Key, whole: Key) -> bool:
    return all(mine in (0, theirs) for mine, theirs in zip(shared, whole, strict=True))


@given(
    st.lists(st.sampled_from(["MSH", "PV1", "NTE", "ZAC", *LEADING]), min_size=1, max_size=30), st.sampled_from(LEADING)
)
def test_a_part_is_a_group_with_all_that_it_shares_with_others(names: list[str], by: str) -> None:
    lines = [Line(name) for name in names]
    Groups(lines)
    led = {line.key for line in lines if line.name == by}
    keys = [line.key for line in lines]
    if rank(by) < ITEM:
        keys = [(patient, order if rank(by) >= ORDER else 0, 0) for patient, order, _ in keys]
    else:
        keys = [key if key in led else (*key[:2], 0) for key in keys]
    whole = [key for key in dict.fromkeys(keys) if not any(other != key and covers(key, other) for other in keys)]
    shared_out = [[line for line, key in zip(lines, keys, strict=True) if covers(key, one)] for one in whole]
    assert parts(lines, by) == (shared_out if len(whole) > 1 else [lines])
