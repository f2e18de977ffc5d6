from __future__ import annotations

from pathlib import Path

import pytest
from adapter_kit import MAKERS, MakeAdapter, planted

from crossfade.adapters.base import Adapter


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> MakeAdapter:
    return MAKERS[request.param]


@pytest.fixture
def fitted(make: MakeAdapter) -> Adapter:
    return make().fit_pairs(planted(noise=0.1))


@pytest.fixture
def saved(fitted: Adapter, tmp_path: Path) -> Path:
    fitted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"
