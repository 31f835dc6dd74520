"""For all tests: where every tool was installed, a test that is skipped for the lack of one fails the run."""

from __future__ import annotations

import contextlib
import io
import os

import pytest

from engine.observe.events import LOG

EVERY_TOOL = "INTERLOCK_EVERY_TOOL"
REASON = "not installed:"  # how a skip's reason begins where a tool is missing


def pytest_sessionfinish(session: pytest.Session) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        LOG.flush()  # what floods left out in tests is not news
    if os.environ.get(EVERY_TOOL) and _skipped_for_a_tool(session) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if os.environ.get(EVERY_TOOL):
        for report in terminalreporter.getreports("skipped"):
            if REASON in str(report.longrepr):
                line = f"FAILED {report.nodeid}: skipped where every tool is to be there"
                terminalreporter.write_line(line, red=True)


def _skipped_for_a_tool(session: pytest.Session) -> bool:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    return reporter is not None and any(REASON in str(report.longrepr) for report in reporter.getreports("skipped"))
