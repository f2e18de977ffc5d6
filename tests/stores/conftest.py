from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from store_backends import BACKENDS, Backend

from crossfade.stores.table import capability_table

USED: set[type[Backend]] = set()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what the contract suite ran on, and what each store can do."""
    if not USED:
        return
    terminalreporter.section("stores")
    for kind in sorted(USED, key=lambda kind: kind.name):
        terminalreporter.write_line(f"{kind.name}: tested on {kind.engine()}")
    terminalreporter.write_line("")
    for line in capability_table().partition("\n\n")[0].splitlines():
        terminalreporter.write_line(line)


@pytest.fixture(params=BACKENDS, ids=lambda kind: kind.name)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Every store in turn."""
    if request.param.library:
        pytest.importorskip(request.param.library, reason=f"{request.param.library} is not installed")
    USED.add(request.param)
    made: Backend = request.param(tmp_path / "db")
    return made
