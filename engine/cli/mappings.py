"""mapping: what the mappings say, beside what HL7's guide says. For those who write them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.console import REFUSED, USAGE, WIDTH, Stop, many, out, out_json, table, usage
from engine.cli.listing import command_group
from engine.cli.options import SETTINGS_FILE, Config, Json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.mapping.examples import Verdict
    from engine.mapping.files import Files
    from engine.mapping.guide import Answer, Code, Guide
    from engine.mapping.library import Library
    from engine.mapping.rule_coverage import RuleCoverage
    from engine.mapping.shown import Shown

LENGTH = 16  # of a version that people read

mapping = command_group("Show the mappings; compare them with HL7's guide.")


@mapping.command("list")
def list_mappings(config: Config = SETTINGS_FILE, json: Json = False) -> None:
    """Show the mappings: their names, the messages that they accept, their versions."""
    from engine.cli.files import library_of

    library = library_of(site_of(config))
    found = [library.mapping(name) for name in library.names]
    if json:
        for one in found:
            out_json({"name": one.name, "accepts": list(one.accepts), "named": one.named, "version": one.version})
        return
    rows = [
        [one.name, one.version[:LENGTH], ", ".join(one.accepts) + (" of channels that name it" if one.named else "")]
        for one in found
    ]
    out(table(["name", "version", "accepts"], rows, width=WIDTH))


@mapping.command("show")
def show(
    channel: Annotated[str | None, typer.Argument(metavar="CHANNEL", help="As this channel has it.")] = None,
    mapping: Annotated[str | None, typer.Option("--mapping", help="This mapping.", metavar="NAME")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="This part: a message, a resource of it (ORU_R01.order), a map, a table, a decision.",
            metavar="PART",
        ),
    ] = None,
    config: Config = SETTINGS_FILE,
) -> None:
    """Print a mapping as it is in effect: its groups and resources, all maps and tables that it uses.

    Each row tells where it stands, and what it stands instead of where the channel has it otherwise.
    """
    from engine.mapping.problems import guess

    if channel is None and mapping is None and not only:
        usage("wanted is a channel, --mapping NAME or --only PART")
    shown, names, library = _shown(config, channel, mapping)
    for part in only or ():
        if part not in shown.names:
            raise Stop(f"there is no part {part}; expected {guess(part, shown.names, 'part')}", USAGE)
        for line in shown.part(part):
            out(line)
    if only:
        return
    for name in names:
        out(f"# {name}: policy urn:interlock:{library.mapping(name).version}")  # as in the Provenances that it makes
    for line in shown.whole(names):
        out(line)


def _shown(config: Path, channel: str | None, name: str | None) -> tuple[Shown, list[str], Library]:
    """What there is to be shown, the names of the messages, and what they are compiled to."""
    from engine.cli.files import configuration_of, library_of, right
    from engine.config.changes import UNCHANGED
    from engine.mapping.shown import Shown

    configuration = configuration_of(config, required=True) if channel is not None else None
    library = library_of(site_of(config))
    base, changes, accepted = library.files(), UNCHANGED, set(library.names)
    if channel is not None and configuration is not None:
        known = {one.id: one for one in configuration.channels}
        if channel not in known:
            raise Stop(f"there is no channel '{channel}'; there are {', '.join(known)}", USAGE)
        target = known[channel].target
        if target is None:
            raise Stop(f"channel {channel} has no Medplum destination, so that it uses no mapping to FHIR")
        changes, name = target.changes, name or target.mapping
        takes = set(known[channel].takes.accepts)
        accepted = {one for one in library.names if not takes or takes & set(library.mapping(one).accepts)}
    try:
        names = [library.mapping(name).name] if name else sorted(accepted)
    except KeyError as error:
        raise Stop(str(error.args[0]), USAGE) from None
    own = right(lambda: library.changed(names[0] if name else None, changes))  # with mistakes it is not in effect
    return Shown(own.files(), base, own.moves), names, own


@mapping.command("schema")
def schema() -> None:
    """Print the JSON Schema of the mapping files and their examples, for an editor."""
    from engine.mapping.editor_schema import editor_schema

    out_json(editor_schema())


@mapping.command("guide")
def guide(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The tables of HL7's v2-to-FHIR guide, as CSV.")],
    rows: Annotated[
        list[str] | None,
        typer.Option("--rows", help="Show each row of a map, or of those that begin so.", metavar="MAP"),
    ] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Show the rows that want a rule or a reason.")] = False,
    codes: Annotated[bool, typer.Option("--codes", help="Compare the tables of codes as well.")] = False,
    least: Annotated[
        float, typer.Option("--min", help="Refuse a share below this, and rows without a reason.", metavar="PERCENT")
    ] = 0.0,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Compare with HL7's v2-to-FHIR guide, row by row.

    A row is realised where a rule reads its field and sets its element. It departs where the mapping files say why it
    is otherwise, and is left out where they say why it is not. All else is missing.
    """
    from engine.mapping.guide import compare, percent

    try:
        found = compare(folder, files_of(config))
    except ValueError as error:
        raise Stop(str(error)) from None
    chosen = [one for one in found.answers if not rows or one.row.map.startswith(tuple(rows))]
    if json:
        _as_json(found, chosen, codes)
    elif rows or missing:
        for answer in chosen:
            if not missing or answer.outcome == "missing":
                out(f"{answer.outcome:8}  {answer.row}\n          {answer.by}")
        for code in found.codes if codes else ():
            if not missing or code.outcome == "missing":
                out(f"{code.outcome:8}  {code.map}:{code.number} {code.v2} -> {code.fhir}  {code.by}".rstrip())
    else:
        _summary(found, codes)
    share = percent([one.outcome for one in found.answers])
    if not json:
        out(f"{share:.1f} % of {len(found.answers)} rows realised, or departed from for a reason")
    if least and (share < least or any(one.outcome == "missing" for one in found.answers)):
        raise typer.Exit(REFUSED)


def _summary(found: Guide, codes: bool) -> None:
    out(_table("map", [(one.row.map, one.outcome) for one in found.answers]))
    if codes:
        out()
        out(_table("table of codes", [(one.map, one.outcome) for one in found.codes]))
    if found.unmade:
        out()
        out(table(["not made", "because"], [[name, why] for name, why in found.unmade.items()]))
    if found.stale:
        out()
        out("Reasons for what is not in the guide, or is realised all the same:")
        for line in found.stale:
            out(f"  {line}")
    out()


def _table(head: str, pairs: list[tuple[str, str]]) -> str:
    from engine.mapping.guide import OUTCOMES, percent

    maps: dict[str, list[str]] = {}
    for name, outcome in pairs:
        maps.setdefault(name, []).append(outcome)
    lines = []
    for name, outcomes in maps.items():
        count = Counter(outcomes)
        share = percent(outcomes)  # type: ignore[arg-type]
        lines.append([name, *(str(count[one]) for one in OUTCOMES), f"{share:.0f} %"])
    return table([head, *OUTCOMES, "share"], lines, right=[*OUTCOMES, "share"])


def _as_json(found: Guide, answers: list[Answer], codes: bool) -> None:
    """A line for each row."""
    for one in answers:
        row = one.row
        said = {"map": row.map, "row": row.number, "v2": row.path, "fhir": row.element}
        out_json(said | {"outcome": one.outcome, "by": one.by})
    every: list[Code] = found.codes if codes else []
    for code in every:
        said = {"map": code.map, "row": code.number, "v2": code.v2, "fhir": code.fhir}
        out_json(said | {"outcome": code.outcome, "by": code.by})
    for name, why in found.unmade.items():
        out_json({"map": name, "unmade": why})


def run_examples(
    only: Annotated[
        list[str] | None, typer.Argument(metavar="FILE|NAME", help="Only the examples of a file, or of a name.")
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Tell which rules set what is otherwise.")] = False,
    coverage: Annotated[bool, typer.Option("--coverage", help="Show the rules that no example has used.")] = False,
    least: Annotated[
        float | None, typer.Option("--min-coverage", help="Refuse a mapping with less.", metavar="PERCENT")
    ] = None,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Run the mappings' own examples."""
    from engine.mapping.rule_coverage import RuleCoverage

    examples = _Examples(config, only or [])
    wanted = coverage or least is not None
    used = RuleCoverage(examples.library.files())
    count = wrong = 0
    for verdict in examples.verdicts(trace or wanted):
        count, wrong = count + 1, wrong + bool(verdict.faults)
        used.add(verdict.used, verdict.left)
        _show_verdict(verdict, json)
    if only and not count:
        raise Stop(f"no example is of a file or a name {', '.join(only)}", USAGE)
    if not json:
        out(f"{many(count, 'example')}: " + (f"{wrong} do not hold" if wrong else "all of them hold"))
    short = _show_coverage(used, examples.library, least or 0.0, coverage, json) if wanted else False
    if wrong or short:
        raise typer.Exit(REFUSED)


class _Examples:
    """Those of the product and of the site, as far as they are asked for."""

    def __init__(self, config: Path, only: list[str]) -> None:
        from engine.cli.files import library_of, v2_library_of
        from engine.config.shipped import shipped_mappings

        site = site_of(config)
        self.library, self._v2 = library_of(site), v2_library_of(site)
        self._folders = [folder for folder in (shipped_mappings(), site) if folder is not None]
        self._files = {Path(one).resolve() for one in only if Path(one).is_file()}
        self._words = [one.lower() for one in only if not Path(one).is_file()]

    def verdicts(self, traced: bool) -> Iterator[Verdict[Any]]:
        from engine.mapping import examples
        from engine.mapping.v2 import examples as v2_examples

        try:
            for folder in self._folders:
                for one in filter(self._wanted, examples.load(folder / "examples")):
                    yield examples.check(one, self.library, traced)
                for each in filter(self._wanted, v2_examples.load(folder / "v2" / "examples")):
                    yield v2_examples.check(each, self._v2)
            for path in sorted(self._files - self._known()):
                for one in examples.read(path):
                    yield examples.check(one, self.library, traced)
        except ValueError as error:
            raise Stop(str(error)) from None

    def _known(self) -> set[Path]:
        """The files of the folders."""
        return {path.resolve() for folder in self._folders for path in folder.rglob("examples/*.yaml")}

    def _wanted(self, example: Any) -> bool:
        if not self._files and not self._words:
            return True
        names = (example.name.lower(), example.file.stem.lower())
        return example.file.resolve() in self._files or any(word in name for word in self._words for name in names)


def _show_verdict(verdict: Verdict[Any], json: bool) -> None:
    from engine.config.nodes import shown
    from engine.mapping.examples import Fault

    example = verdict.example
    file = shown(example.file)
    if json:
        faults = [_as_data(fault) for fault in verdict.faults]
        out_json({"file": file, "name": example.name, "ok": not verdict.faults, "faults": faults})
        return
    for fault in verdict.faults:
        if not isinstance(fault, Fault):
            out(f"{file}: {example.name}: {fault}")
            continue
        out(f"{file}:{fault.place.line}:{fault.place.column}: {example.name}: {fault.what}")
        out(f"    expected {fault.expected}")
        out(f"    found    {fault.found}")
        for rule in fault.rules:
            out(f"    set by   {rule}")


def _as_data(fault: Any) -> Any:
    if isinstance(fault, str):
        return fault
    data = {"line": fault.place.line, "at": fault.what, "expected": fault.expected, "found": fault.found}
    return data | ({"rules": list(fault.rules)} if fault.rules else {})


def _show_coverage(used: RuleCoverage, library: Library, least: float, listed: bool, json: bool) -> bool:
    """Whether one mapping has less than wanted."""
    files = library.files()
    found = [used.of(files.messages[name]) for name in library.names]
    if json:
        for one in found:
            unused = [{"at": str(place), "rule": text} for place, text in one.unused]
            out_json({"mapping": one.mapping, "rules": one.rows, "percent": round(one.percent, 1), "unused": unused})
    else:
        rules = dict.fromkeys(rule for one in found for rule in one.unused) if listed else {}
        for place, text in sorted(rules, key=lambda rule: (rule[0].file, rule[0].line, rule[0].column)):
            out(f"{place}: {text}")
        lines = [[one.mapping, str(one.rows), str(one.rows - len(one.unused)), f"{one.percent:.1f} %"] for one in found]
        out(table(["mapping", "rules", "used", "share"], lines, right=["rules", "used", "share"]))
    return any(one.percent < least for one in found)


def files_of(config: Path) -> Files:
    """What stands in the mapping folders, the site's on top."""
    from engine.cli.files import library_of

    return library_of(site_of(config)).files()


def site_of(config: Path) -> Path | None:
    """The site's folder of mappings. The channels need not be right, nor the secrets be set: who writes mappings may
    have neither."""
    import os

    from engine.config.nodes import Findings
    from engine.config.settings import load_settings

    if not config.is_file():
        return None
    findings = Findings(os.environ)
    settings = load_settings(config, findings)
    if settings is None or (settings.mappings is None and findings.problems):
        raise Stop("the settings have problems:\n" + "\n".join(map(str, sorted(findings.problems))))
    return settings.mappings
