"""A model that searches the old gallery directly: planned, served and undone without an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upgrade_kit import NEW, OLD, Kit, NewEncoder, OldEncoder, old_vectors

from crossfade.encoders import Encoder
from crossfade.errors import DimensionMismatch, UsageError
from crossfade.evaluation import (
    Compatible,
    Evaluation,
    RetrievalTask,
    evaluate,
    self_search_task,
)
from crossfade.spaces import Space
from crossfade.upgrade import Plan, Searcher, Upgrade, plan
from crossfade.vectors import Vectors

BCT = Space("bct", OLD.dimension)


class XbtEncoder(Encoder):
    """A new model whose vectors are in the old space."""

    @property
    def space(self) -> Space:
        return OLD

    def encode(self, items: Sequence[Any]) -> np.ndarray:
        return old_vectors([int(str(item).split()[1]) for item in items])


def measured(space: Space = OLD, claim: float = 0.1) -> Evaluation:
    """Twenty classes; the compatible model sees them in the old space with less noise than the old model."""
    rng = np.random.default_rng(0)
    labels = rng.integers(20, size=300)
    centres = rng.standard_normal((20, OLD.dimension))
    old = Vectors(np.arange(300), centres[labels] + 2.0 * rng.standard_normal((300, OLD.dimension)), OLD)
    new = Vectors(np.arange(300), rng.standard_normal((300, NEW.dimension)), NEW)
    own = Vectors(np.arange(300), centres[labels] + claim * rng.standard_normal((300, OLD.dimension)), space)
    task: RetrievalTask = self_search_task(old, new, labels)
    return evaluate([replace(task, compatible={"xbt": Compatible(own)})], None, samples=100)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return measured()


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path / "db").create(60)


def test_an_encoder_of_the_old_space_needs_no_adapter(kit: Kit) -> None:
    made = plan(kit.uri, strategy="query", encoder=XbtEncoder(), old=OLD)
    assert (made.compatible, made.adapter, made.new) == (True, None, OLD)
    assert made.steps[2].endswith("search the old gallery as they are")
    assert Plan.from_json(made.to_json()) == made
    upgrade = Upgrade.create(made)
    upgrade.apply()
    upgrade.verify()
    upgrade.cutover()
    found = Searcher(kit.uri, new=XbtEncoder(), exact=True).search(["item 7", "item 41"], 1)
    assert [hits.ids[0].as_py() for hits in found] == [7, 41]
    upgrade.rollback()
    assert Searcher(kit.uri, old=OldEncoder(), exact=True).search(["item 7"], 1)[0].ids[0].as_py() == 7
    kit.expect_old()


def test_an_encoder_of_another_space_needs_one(kit: Kit) -> None:
    with pytest.raises(UsageError, match="strategy query needs an adapter"):
        plan(kit.uri, strategy="query", encoder=NewEncoder(), old=OLD)


def test_the_verdict_for_a_compatible_model_is_planned_as_it_was_measured(
    kit: Kit, evaluation: Evaluation
) -> None:
    assert evaluation.verdict.row == "native:xbt"
    made = plan(kit.uri, evaluation=evaluation, old=OLD)
    assert (made.strategy, made.compatible, made.new) == ("native", True, OLD)
    assert [one.row for one in made.quality] == ["native:xbt"]
    assert plan(kit.uri, strategy="query", evaluation=evaluation, old=OLD).quality == made.quality
    assert plan(kit.uri, row="native:xbt", evaluation=evaluation.to_dict(), old=OLD).quality == made.quality
    assert plan(kit.uri, strategy="native", evaluation=evaluation, old=OLD).quality == made.quality
    by_name = plan(kit.uri, strategy="query", row="native:xbt", evaluation=evaluation, old=OLD)
    assert (by_name.strategy, by_name.compatible) == ("query", True)


def test_a_claim_that_an_evaluation_measured_is_enough(kit: Kit) -> None:
    made = plan(kit.uri, evaluation=measured(BCT), old=OLD)
    assert (made.compatible, made.new) == (True, BCT)


def test_both_queries_together(kit: Kit, evaluation: Evaluation) -> None:
    made = plan(kit.uri, row="interpolate:xbt", evaluation=evaluation, old=OLD)
    assert (made.strategy, made.compatible, made.adapter) == ("interpolate", True, None)
    assert made.weight == evaluation.tasks[0].row("interpolate:xbt").weight
    assert made.steps[0] == "apply: nothing is written"
    upgrade = Upgrade.create(made)
    upgrade.apply()
    upgrade.verify()
    upgrade.cutover()
    searcher = Searcher(kit.uri, old=OldEncoder(), new=XbtEncoder(), exact=True)
    assert searcher.search(["item 12"], 1)[0].ids[0].as_py() == 12


def test_an_adapter_that_is_named_is_used(kit: Kit, evaluation: Evaluation) -> None:
    from upgrade_kit import adapter

    made = plan(kit.uri, strategy="query", adapter=adapter("backward"), evaluation=evaluation, old=OLD)
    assert not made.compatible
    assert made.adapter is not None
    assert made.quality == ()


def test_what_embeds_the_gallery_again_is_no_search_of_the_old_one(kit: Kit) -> None:
    found = measured()
    task = found.tasks[0]
    row = replace(task.row("native:xbt"), key="native-new:xbt", candidate=False)
    seen = replace(found, tasks=(replace(task, rows=(*task.rows, row)),))
    with pytest.raises(UsageError, match="a gallery that xbt embeds again; plan --strategy backfill"):
        plan(kit.uri, row="native-new:xbt", evaluation=seen, old=OLD)


def test_a_claim_about_other_dimensions_is_refused(kit: Kit, evaluation: Evaluation) -> None:
    wrong = replace(evaluation, compatible={"xbt": NEW})
    with pytest.raises(DimensionMismatch, match="its vectors are not as long"):
        plan(kit.uri, evaluation=wrong, old=OLD)
