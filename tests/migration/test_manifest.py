"""The other side's list of control ids, as people export it."""

from __future__ import annotations

import pytest

from engine.migration.manifest import ManifestError, read_manifest

READ = {
    "a header": (b"control_id\nA1\nA2\n", [("A1", None), ("A2", None)]),
    "one column without a header": (b"A1\nA2\n", [("A1", None), ("A2", None)]),
    "a channel for each": (b"control_id,channel\nA1,acme\nA2,\n", [("A1", "acme"), ("A2", None)]),
    "other columns, in any order": (b"when,CHANNEL, Control_ID \n1 May,acme,A1\n", [("A1", "acme")]),
    "semicolons": (b"control_id;channel\nA1;acme\n", [("A1", "acme")]),
    "tabs": (b"control_id\tchannel\nA1\tacme\n", [("A1", "acme")]),
    "a byte order mark and Windows' line ends": (b"\xef\xbb\xbfcontrol_id\r\nA1\r\n", [("A1", None)]),
    "blank lines and blanks": (b"\ncontrol_id\n\n  A1 \n \n", [("A1", None)]),
    "quotes": (b'control_id,channel\n"A,1","acme"\n', [("A,1", "acme")]),
    "a short line": (b"control_id,channel\nA1\n", [("A1", None)]),
    "one id twice": (b"A1\nA1\n", [("A1", None), ("A1", None)]),
}


@pytest.mark.parametrize("case", READ)
def test_a_list_is_read(case: str):
    data, items = READ[case]
    assert read_manifest(data, "list.csv") == items


WRONG = {
    "nothing": (b"\n\n", ["list.csv:1: found no lines; expected control ids"]),
    "columns without the one": (
        b"\nid,channel\nA1,acme\n",
        ["list.csv:2: found 2 columns and none named control_id; expected a header with control_id"],
    ),
    "lines without an id": (
        b"channel,control_id\nacme,A1\nacme,\nacme\n",
        [
            "list.csv:3: found no control id; expected one in column 2",
            "list.csv:4: found no control id; expected one in column 2",
        ],
    ),
    "a line that is too long": (
        b"control_id,channel\nA1,acme\nSMITH,acme,1970\n",
        ["list.csv:3: found 3 cells; expected 2, as in the first line"],
    ),
    "bytes that are not UTF-8": (
        b"control_id\nA1\n\xff\n",
        ["list.csv:3: found bytes that are not UTF-8; expected text in UTF-8"],
    ),
    "broken quotes": (b'control_id\n"A1"x\n', ["list.csv:2: found broken quotes; expected CSV"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_told_with_its_line_and_without_what_stands_there(case: str):
    data, told = WRONG[case]
    with pytest.raises(ManifestError) as caught:
        read_manifest(data, "list.csv")
    assert caught.value.problems == told


def test_of_very_many_mistakes_the_first_are_told():
    with pytest.raises(ManifestError) as caught:
        read_manifest(b"control_id,channel\n" + b",acme\n" * 1000, "list.csv")
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "list.csv: and 980 more"
