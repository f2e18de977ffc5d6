from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from upgrade_kit import Kit


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    """A gallery of 240 rows in four parts."""
    return Kit(tmp_path / "db").create()
