"""Fuzzing that is guided by coverage: each module here is a target, which `python -m` runs with libFuzzer's options."""

from __future__ import annotations

import sys
from collections.abc import Callable

try:
    import atheris
except ImportError:
    print("fuzzing wants atheris, which is not installed; it is made for Linux on x86-64", file=sys.stderr)
    raise SystemExit(1) from None

__all__ = ["atheris", "fuzz"]


def fuzz(one_input: Callable[[bytes], None], *options: str) -> None:
    """Try inputs until there is a finding. `options` give way to those of the command line."""
    atheris.Setup([sys.argv[0], *options, *sys.argv[1:]], one_input)
    atheris.Fuzz()
