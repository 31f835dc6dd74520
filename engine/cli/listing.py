"""Groups of commands whose first word may be left out: `interlock audit` is `interlock audit list`."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup


class _ListUnlessTold(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def command_group(text: str) -> typer.Typer:
    """An empty group; its command `list` is the one that is meant where none is named."""
    return typer.Typer(cls=_ListUnlessTold, help=text, add_completion=False, rich_markup_mode=None)
