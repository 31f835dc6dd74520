"""The shipped mappings realise HL7's v2-to-FHIR guide, and say why where they do not.

The guide's tables are not part of this repository: INTERLOCK_REFERENCE names the folder that has them in v2-to-fhir/.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.mapping.guide import Guide, compare, percent
from tests.mapping.folders import shipped

REFERENCE = os.environ.get("INTERLOCK_REFERENCE", "")
TABLES = Path(REFERENCE, "v2-to-fhir")
LEAST = 95.0
"""Percent of the rows that have a target."""

pytestmark = pytest.mark.skipif(
    not (REFERENCE and (TABLES / "segments.csv").is_file()),
    reason="INTERLOCK_REFERENCE does not name a folder with v2-to-fhir/",
)


@pytest.fixture(scope="module")
def guide() -> Guide:
    return compare(TABLES, shipped().files())


def test_of_its_rows_nearly_all_are_realised(guide: Guide) -> None:
    assert len(guide.answers) > 1000
    assert percent([answer.outcome for answer in guide.answers]) >= LEAST


def test_each_row_that_is_not_has_its_reason(guide: Guide) -> None:
    assert [f"{answer.row}: {answer.by}" for answer in guide.answers if answer.outcome == "missing"] == []


def test_each_map_that_is_not_made_has_its_reason(guide: Guide) -> None:
    assert [name for name, reason in guide.unmade.items() if len(reason) < 10] == []


def test_of_its_codes_nearly_all_are_translated(guide: Guide) -> None:
    assert percent([code.outcome for code in guide.codes]) >= LEAST


def test_each_code_that_is_not_has_its_reason(guide: Guide) -> None:
    assert [f"{code.map} {code.v2} -> {code.fhir}" for code in guide.codes if code.outcome == "missing"] == []


def test_no_reason_is_out_of_date(guide: Guide) -> None:
    assert guide.stale == []
