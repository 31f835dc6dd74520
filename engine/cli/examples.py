"""test: the mappings' own examples, those of the product and those of the site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from engine.cli.console import REFUSED, Stop, many, out, out_json
from engine.cli.options import SETTINGS_FILE, Config, Json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.mapping.examples import Verdict


def run_examples(config: Config = SETTINGS_FILE, json: Json = False) -> None:
    """Run the mappings' own examples."""
    verdicts = list(_verdicts(config))
    for verdict in verdicts:
        _show(verdict, json)
    wrong = sum(bool(verdict.faults) for verdict in verdicts)
    if not json:
        out(f"{many(len(verdicts), 'example')}: " + (f"{wrong} do not hold" if wrong else "all of them hold"))
    if wrong:
        raise typer.Exit(REFUSED)


def _show(verdict: Verdict[Any], json: bool) -> None:
    from engine.config.nodes import shown

    example = verdict.example
    file = shown(example.file)
    if json:
        out_json({"file": file, "name": example.name, "ok": not verdict.faults, "faults": verdict.faults})
        return
    for fault in verdict.faults:
        out(f"{file}: {example.name}: {fault}")


def _verdicts(config: Path) -> Iterator[Verdict[Any]]:
    from engine.cli.files import configuration_of, library_of, v2_library_of
    from engine.config.shipped import shipped_mappings
    from engine.mapping import examples
    from engine.mapping.v2 import examples as v2_examples

    configuration = configuration_of(config, required=False)
    site = configuration.service.mappings if configuration else None
    library, v2_library = library_of(site), v2_library_of(site)
    for folder in filter(None, (shipped_mappings(), site)):
        try:
            for example in examples.load(folder / "examples"):
                yield examples.check(example, library)
            for each in v2_examples.load(folder / "v2" / "examples"):
                yield v2_examples.check(each, v2_library)
        except ValueError as error:
            raise Stop(str(error)) from None
