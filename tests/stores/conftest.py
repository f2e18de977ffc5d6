from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from store_backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS, ids=lambda kind: kind.name)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Every store in turn."""
    if request.param.library:
        pytest.importorskip(request.param.library, reason=f"{request.param.library} is not installed")
    made: Backend = request.param(tmp_path / "db")
    return made
