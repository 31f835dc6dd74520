"""A command whose `--help` names what is typed as the documentation does: `FILE...`, `N`, and no type of Python's."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

TYPES = {"int": "N", "float": "N", "str": "TEXT", "path": "FILE", "file": "FILE", "directory": "DIR"}
TYPE = re.compile(r" ?<(\w+)(?: range)?>")
TYPE_OF_ARGUMENT = re.compile(r"(?:\.\.\.|…)?(?: <[^>]*>)?$")
BRACES = re.compile(r"\{(.*?)(?:\.\.\.|…)?\}(\.\.\.)?")
"""How a required argument is written beside `[…]` for one that may be left out."""


class Helped(TyperCommand):
    def format_usage(self, ctx: Any, formatter: Any) -> None:
        pieces = [BRACES.sub(r"\1\2", piece) for piece in self.collect_usage_pieces(ctx)]
        formatter.write_usage(ctx.command_path, " ".join(pieces))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments, options = [], []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                arguments.append((TYPE_OF_ARGUMENT.sub("", record[0], count=1), record[1]))
            else:
                options.append((TYPE.sub(lambda found: f" {TYPES.get(found[1], 'VALUE')}", record[0]), record[1]))
        for title, records in (("Arguments", arguments), ("Options", options)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
