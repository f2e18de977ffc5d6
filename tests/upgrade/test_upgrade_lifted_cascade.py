"""A cascade over a lifted gallery, planned from what an evaluation measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from upgrade_kit import NEW, OLD, Kit, adapter, measured

from crossfade.errors import PlanRefused
from crossfade.upgrade import plan


def evaluated(*difference: float) -> dict[str, Any]:
    """An evaluation that recommends 20 candidates from the lifted gallery."""
    low, value, high = difference
    row = {"strategy": "lifted-cascade", "method": "ridge", "depth": 20, "first_stage": "gallery"}
    return measured((low, value, high), "cascade:gallery@20", **row, needs=["raw items"])


def test_the_verdict_is_planned_with_its_depth_and_figures(tmp_path: Path) -> None:
    kit, evaluation = Kit(tmp_path / "db").create(), evaluated(0.01, 0.05, 0.09)
    given = {"evaluation": evaluation, "adapter": adapter("forward"), "items": "text", "old": OLD}
    made = plan(kit.uri, **given)
    assert (made.strategy, made.depth, made.first_stage) == ("lifted-cascade", 20, "")
    assert made.new == NEW
    (quality,) = made.quality
    assert (quality.row, quality.value) == ("cascade:gallery@20", 0.55)
    assert plan(kit.uri, row="cascade:gallery@20", **given).depth == 20
    assert plan(kit.uri, strategy="lifted-cascade", **given).quality == made.quality
    assert plan(kit.uri, strategy="lifted-cascade", depth=50, **given).quality == (), "not measured"


def test_a_lifted_cascade_that_makes_search_worse_is_refused(tmp_path: Path) -> None:
    kit, evaluation = Kit(tmp_path / "db").create(), evaluated(-0.09, -0.05, -0.01)
    with pytest.raises(PlanRefused, match="strategy lifted-cascade makes search worse"):
        plan(kit.uri, evaluation=evaluation, adapter=adapter("forward"), items="text", old=OLD)
