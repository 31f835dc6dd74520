"""Compiled mappings in a file, so that a start reads no YAML and checks nothing a second time.

The file is code and is trusted only if it is this user's own, nobody else can write it, and its key says that it was
made by this engine, on this Python, of these very files. Anything else is ignored and made anew; nothing raises.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from functools import cache as once
from hashlib import blake2b
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import engine
from engine.files import private
from engine.mapping.compiled import Shelf

_MARK = b"interlock mappings\n"
_SIZE = 32  # bytes of a hash
_CODE = ("mapping/*.py", "mapping/r4.json", "hl7/*.py")


def key(language: int, shipped: Path, site: Path | None) -> bytes | None:
    """The hash of all that a compiled mapping depends on; None where it cannot be told."""
    try:
        whole = blake2b(_code(), digest_size=_SIZE)
        whole.update(f"{language} {sys.version} {sys.implementation.cache_tag}".encode() + MAGIC_NUMBER)
        for folder in (shipped, site):
            whole.update(b"folder")
            if folder is not None:
                _add(whole, folder, "*.yaml", deep=True)
                _add(whole, folder, "*.csv", deep=True)
    except OSError:
        return None
    return whole.digest()


def read(path: Path, wanted: bytes) -> Shelf | None:
    """What is in the file, if it is ours, whole, and of the wanted key."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            if not _is_own(os.fstat(file.fileno())):
                return None
            found = file.read()
    except OSError:
        return None
    head = _MARK + wanted
    payload = found[len(head) + _SIZE :]
    if found[: len(head) + _SIZE] != head + blake2b(payload, digest_size=_SIZE).digest():
        return None
    return Shelf.of(payload)


def write(path: Path, wanted: bytes, shelf: Shelf) -> None:
    """Put the mappings into the file, all or nothing, for this user's eyes only."""
    payload = shelf.packed()
    with contextlib.suppress(OSError):
        private.put(path, _MARK + wanted + blake2b(payload, digest_size=_SIZE).digest() + payload)


def _is_own(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


@once
def _code() -> bytes:
    """The hash of the engine's own code for mappings. Raises OSError where that is in no folder."""
    whole = blake2b(digest_size=_SIZE)
    for pattern in _CODE:
        _add(whole, Path(engine.__file__).parent, pattern)
    return whole.digest()


def _add(whole: blake2b, folder: Path, pattern: str, deep: bool = False) -> None:
    paths = sorted(folder.rglob(pattern) if deep else folder.glob(pattern))
    if not paths and not deep:
        raise FileNotFoundError(pattern)
    for path in paths:
        content = path.read_bytes()
        whole.update(f"{path.relative_to(folder).as_posix()} {len(content)} ".encode() + content)
