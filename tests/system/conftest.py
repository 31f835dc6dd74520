from __future__ import annotations

from tests.support.sandbox import sandbox, sandbox_process

__all__ = ["sandbox", "sandbox_process"]
