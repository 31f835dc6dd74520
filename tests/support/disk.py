"""What SQLite asks the system to write, watched from within its process: to fail exactly between two writes.

SQLite lets its system calls be replaced, for tests as these (`xSetSystemCall` of its `unix` VFS). Nothing else of it is
touched: whatever was written before is in the file, as after a kill at any other moment.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
from collections.abc import Callable
from typing import Any

LOG = "-wal"
FRAME_HEAD = 24  # bytes before each page of the log; in the head of a transaction's last one stands the file's new size
SIZE_AT = slice(4, 8)

_POINTER = ctypes.c_void_p
_WRITE = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, _POINTER, ctypes.c_size_t, ctypes.c_int64, use_errno=True)
_SET = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, ctypes.c_char_p, _POINTER)
_GET = ctypes.CFUNCTYPE(_POINTER, _POINTER, ctypes.c_char_p)
_CALLS = (b"pwrite", b"pwrite64")  # of which a build uses one

Wrote = Callable[[str, bytes, Callable[[int], Any]], None]
"""Hears of a write before it is done: which file (`ledger`, `log`), the bytes, and what writes the first so many of
them itself."""


class _Vfs(ctypes.Structure):
    """struct sqlite3_vfs, version 3, as far as it is wanted."""

    _fields_ = [
        ("version", ctypes.c_int), ("size", ctypes.c_int), ("longest", ctypes.c_int), ("next", _POINTER),
        ("name", ctypes.c_char_p), ("data", _POINTER), *((f"call{n}", _POINTER) for n in range(13)),
        ("set_call", _SET), ("get_call", _GET),
    ]  # fmt: skip


def _library() -> ctypes.CDLL | None:
    """The SQLite that Python's own module uses; None where its functions cannot be had."""
    try:
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    except (AttributeError, OSError):  # built into Python, or hidden
        return None
    return library


def problem() -> str | None:
    """Why writes cannot be watched here; None where they can."""
    library = _library()
    found = library.sqlite3_vfs_find(None) if library else None
    if not found or found.contents.version < 3:
        return "a SQLite whose system calls can be replaced"
    if not any(found.contents.get_call(ctypes.cast(found, _POINTER), name) for name in _CALLS):
        return "a SQLite that writes by pwrite"
    return None


_kept: list[Any] = []  # what SQLite calls must outlive it


def watch(ledger: str, wrote: Wrote) -> None:
    """Have `wrote` called before each write to the ledger of this file name and to its log, in this process."""
    library = _library()
    assert library is not None
    vfs = library.sqlite3_vfs_find(None)
    own = ctypes.cast(vfs, _POINTER)
    for name in _CALLS:
        if address := vfs.contents.get_call(own, name):
            hook = _WRITE(_hooked(_WRITE(address), ledger, wrote))
            _kept.append(hook)
            vfs.contents.set_call(own, name, ctypes.cast(hook, _POINTER))


def _hooked(real: Any, ledger: str, wrote: Wrote) -> Callable[[int, int, int, int], int]:
    files = {ledger: "ledger", ledger + LOG: "log"}

    def write(descriptor: int, data: int, size: int, offset: int) -> int:
        file = files.get(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        if file is not None:
            wrote(file, ctypes.string_at(data, size), lambda part: real(descriptor, data, part, offset))
        return int(real(descriptor, data, size, offset))

    return write


def ends_a_transaction(head: bytes) -> bool:
    """Whether this is the head of the last page of a transaction in the log."""
    return len(head) == FRAME_HEAD and any(head[SIZE_AT])
