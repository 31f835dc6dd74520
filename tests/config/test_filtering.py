"""What a channel says about v2 mappings, filters, memories and control ids, as values."""

from __future__ import annotations

from engine.config.filtering import AS_IT_CAME, Emit, Remember, Rule, Written
from tests.config.conftest import CHANNEL, Load, Write

TARGET = """\
target:
  filter: [{drop: PID-8 = 'M', reason: one}]
  destinations:
    - medplum: {}
      filter: [{keep: "PID-8 = 'F'", reason: two}]
    - mllp: acme-emr
      mapping: acme_emr
      emit: {control_id: ours, prefix: IL, length: 24}
"""
REMEMBER = "remember: [{as: orders, key: ORC-2, keep: 10d, values: {ward: PV1-3.1}, when: ORC-1 = 'NW'}]\n"


def test_a_destinations_rules_come_after_those_of_its_target(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL + TARGET)
    (channel,) = load().channels
    assert channel.target is not None
    medplum, emr = channel.target.destinations
    both = Rule(Written("PID-8 = 'M'", "", 0, 0), True, "one")
    assert medplum.filter == (both, Rule(Written("PID-8 = 'F'", "", 0, 0), False, "two"))
    assert (emr.filter, emr.mapping, emr.emit) == ((both,), "acme_emr", Emit(True, "IL", 24))
    assert medplum.emit is AS_IT_CAME


def test_a_condition_knows_where_it_begins_also_behind_a_quote(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL + TARGET)
    (channel,) = load().channels
    assert channel.target is not None
    one, two = (rule.when for rule in channel.target.destinations[0].filter)
    assert (one.file, one.line, one.column) == ("channels/acme.yaml", 8, 19)
    assert (two.line, two.column) == (11, 24)


def test_what_a_channel_remembers(write: Write, load: Load) -> None:
    write("channels/acme.yaml", CHANNEL + REMEMBER)
    (channel,) = load().channels
    text = lambda text: Written(text, "", 0, 0)  # noqa: E731
    assert channel.remember == (
        Remember("orders", text("ORC-2"), {"ward": text("PV1-3.1")}, 864000.0, text("ORC-1 = 'NW'")),
    )
