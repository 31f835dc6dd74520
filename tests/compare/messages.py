"""Messages for comparing: a report with notes and characters outside ASCII, and whatever else a test needs."""

from __future__ import annotations

from engine.compare.diff import Comparison, compare
from engine.compare.rules import Rules
from engine.config.model import Compare, Ignored, Tolerated

REPORT = "\r".join(
    (
        "MSH|^~\\&|LAB|ACMELAB|EMR|CLINIC|20261102141000-0600||ORU^R01^ORU_R01|R-1|P|2.5.1||||||UNICODE UTF-8",
        "PID|1||700101^^^ACME^MR~800202^^^STATE^SS||Fennimoré^Jasper^R||19710921|M|||48 Example Road^^Springfield^IL",
        "PD1||||1750000001^Brightwater^Odile",
        "PV1|1|O|CLINIC1^^^ACME|||||1750000001^Brightwater^Odile",
        "ORC|RE|P-1^EMR|A-1^LAB|G-1^EMR||CM||||20261102140000-0600",
        "OBR|1|P-1^EMR|A-1^LAB|51990-0^Basic metabolic panel^LN|||20261102081000-0600|||||||||1750000001^Brightwater"
        "||||||20261102140500-0600||CH|F",
        "OBX|1|NM|2345-7^Glucose^LN||104|mg/dL^milligram per deciliter^UCUM|70-99|H|||F|||20261102081000-0600",
        "NTE|1|L|Specimen slightly hemolyzed; Dr. Élise Marchand was told by telephone at 8 a.m.",
        "OBX|2|NM|3094-0^Urea nitrogen^LN||7.1|mg/dL^milligram per deciliter^UCUM|7.0-20.0|N|||F|||20261102081000-0600",
        "OBX|3|SN|2160-0^Creatinine^LN||<0.5|mg/dL^milligram per deciliter^UCUM|0.6-1.1|N|||F|||20261102081000-0600",
        "OBR|2|P-2^EMR|A-2^LAB|57698-3^Lipid panel^LN|||20261102081000-0600|||||||||||||||20261102140500-0600||CH|F",
        "OBX|1|TX|8251-1^Comment^LN||first line of the text||||||F",
        "OBX|2|TX|8251-1^Comment^LN||second line of the text||||||F",
        "",
    )
)

STANDARD = Rules.of(Compare())


def rules(*ignore: str, **tolerate: str | None) -> Rules:
    """Rules that ignore paths, and tolerate (how=path, None anywhere)."""
    return Rules.of(
        Compare(
            ignore=tuple(Ignored(path, "a test says so") for path in ignore),
            tolerate=tuple(Tolerated(how, "a test says so", path) for how, path in tolerate.items()),  # type: ignore[arg-type]
        )
    )


def changed(old: str, new: str, count: int = 1, text: str = REPORT) -> str:
    """The report with another text in it."""
    assert old in text
    return text.replace(old, new, count)


def found(legacy: str | bytes, target: str | bytes = REPORT, by: Rules = STANDARD) -> list[tuple[str, str, str]]:
    """(path, kind, severity) of every difference."""
    return [(one.path, one.kind, one.severity) for one in comparison(legacy, target, by).differences]


def comparison(legacy: str | bytes, target: str | bytes = REPORT, by: Rules = STANDARD) -> Comparison:
    made = compare(_bytes(legacy), _bytes(target), by)
    assert made.comparable, made.why
    return made


def _bytes(message: str | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.encode()
