"""What a message brings for later ones; and channels whose lookups nobody feeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.config.filtering import Remember, Written
from engine.config.model import Channel, Destination, Target
from engine.mapping.problems import Problems
from engine.mapping.v2.channels import check
from engine.mapping.v2.library import Filtered
from engine.mapping.v2.memory import Memories
from tests.mapping.v2.mapping import CONTEXT, ORU, library


def written(text: str) -> Written:
    return Written(text, "c.yaml", 2, 5)


def remember(key: str, when: str = "", **values: str) -> Remember:
    condition = written(when) if when else None
    return Remember("orders", written(key), {name: written(path) for name, path in values.items()}, 60.0, condition)


def memories(*declared: Remember) -> Memories:
    problems = Problems()
    found = Memories(declared, problems)
    problems.check()
    return found


def test_each_order_is_remembered_by_itself_with_what_belongs_to_it() -> None:
    found = memories(remember("ORC-2", test="OBR-4.1", ward="PV1-3", patient="PID-3.1", gone="OBX-5"))
    assert found.remembered(ORU) == [
        ("orders", "P1", {"test": "24323-8", "ward": "WARD^1^^NORTH", "patient": "MRN1", "gone": "99.5"}),
        ("orders", "P2", {"test": "57021-8", "ward": "WARD^1^^NORTH", "patient": "MRN1"}),
    ]


def test_a_condition_is_asked_of_each_and_what_has_no_key_is_not_remembered() -> None:
    assert [key for _, key, _ in memories(remember("ORC-2", "OBR-1 = '2'", x="ORC-3")).remembered(ORU)] == ["P2"]
    assert memories(remember("ORC-5", x="ORC-3")).remembered(ORU) == []
    assert memories(remember("ORC-2", x="ORC-9")).remembered(ORU) == []


def test_a_batch_brings_what_its_messages_bring() -> None:
    batch = b"BHS|^~\\&\r" + ORU + ORU.replace(b"P1", b"P3") + b"BTS|2\r"
    assert [key for _, key, _ in memories(remember("ORC-2", x="ORC-3")).remembered(batch)] == ["P1", "P2", "P3", "P2"]


def test_what_one_sender_wrote_with_its_delimiters_another_ones_mapping_finds(tmp_path: Path) -> None:
    order = b"MSH$*@!%$X$$$$$$ORM*O01\rORC$NW$P1*A%1$F\rOBR$1$$$$S*a^b$\r"
    stored = {
        (store, key): values for store, key, values in memories(remember("ORC-2", priority="OBR-5")).remembered(order)
    }
    assert stored == {("orders", "P1^A&1"): {"priority": "S^a\\S\\b"}}
    text = "steps:\n  - lookup: PV1-2\n    in: orders\n    key: ORC-2\n    value: priority\n    missing: refuse\n"
    mapping = library(text, tmp_path).mapping("m")
    assert dict(mapping.recalls) == {"orders": {"priority"}}
    raw = ORU.replace(b"ORC|RE|P1", b"ORC|RE|P1^A&1")
    context = replace(CONTEXT, recall=lambda store, key, later: stored.get((store, key)))
    made = mapping.run(raw, context)
    assert not isinstance(made, Filtered)
    assert made == [raw.replace(b"|O|", b"|S^a\\S\\b|")]


def channel(remembers: tuple[Remember, ...], mapping: str | None = "m") -> Channel:
    destination = Destination("emr", "mllp", None, mapping=mapping)
    blank: dict[str, object] = dict.fromkeys(Channel.__dataclass_fields__)
    blank |= {"file": "c.yaml", "remember": remembers, "target": Target(None, (destination,))}
    return Channel(**blank)  # type: ignore[arg-type]


def test_a_lookup_that_no_channel_feeds_is_a_mistake(tmp_path: Path) -> None:
    text = "steps:\n  - lookup: PV1-2\n    in: orders\n    key: ORC-2\n    value: priority\n    missing: keep\n"
    found = library(text, tmp_path)
    assert [str(each) for each in check([channel(())], found)] == [
        "c.yaml:1:1: found the mapping m, which looks up in orders; expected a channel with remember: [{as: orders, …}]"
    ]
    assert [str(each) for each in check([channel((remember("ORC-2", ward="PV1-3"),))], found)] == [
        "c.yaml:1:1: found the mapping m, which looks up priority in orders; expected it among the values: of orders"
    ]
    assert check([channel((remember("ORC-2", priority="PV1-3"),))], found) == []
    wrong = check([channel((remember("ORC-2", "PID-8 ist valued", priority="PV1-3"),))], found)
    assert [str(each).partition("; ")[0] for each in wrong] == ["c.yaml:2:11: found ist"]
