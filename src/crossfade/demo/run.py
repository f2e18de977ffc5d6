"""The demo: an old gallery, a new model, every way out measured, the best one carried out and undone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from crossfade.demo.material import (
    ASSETS,
    GALLERY_SCENES,
    PAIR_SCENES,
    Embedded,
    Model,
    Scenes,
    gallery_table,
    pairs_of,
    right_answers,
    tasks_of,
)
from crossfade.errors import CrossfadeError, UsageError
from crossfade.evaluation import Evaluation, evaluate
from crossfade.extras import load
from crossfade.report import Hit, ReportPaths, SampleSearch, write_report
from crossfade.report.read import adapter_folder
from crossfade.report.terminal import facts_panel, matrix_table, verdict_panel
from crossfade.stores import Hits
from crossfade.upgrade import Plan, Searcher, Upgrade
from crossfade.upgrade.planning import plan as make_plan

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_QUERIES = 6
SHOWN_HITS = 5
IMAGE_ENCODER = f"onnx:{ASSETS / 'new'}#image"


@dataclass(frozen=True)
class DemoResult:
    """What the demo made and found."""

    folder: Path
    store: str
    evaluation: Evaluation
    plan: Plan
    report: ReportPaths
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "folder": str(self.folder),
            "store": self.store,
            "report": str(self.report.html),
            "seconds": round(self.seconds, 1),
            "verdict": self.evaluation.verdict.to_dict(),
            "plan": self.plan.to_dict(),
            "evaluation": self.evaluation.to_dict(),
        }


@dataclass
class Demo:
    """The steps of the demo, in order; each prints what it did.

    Args:
        folder: where everything goes.
        console: where it is told.
        scenes: number of scenes in the gallery.
    """

    folder: Path
    console: Console
    scenes: int = GALLERY_SCENES
    _step: int = field(default=0, init=False)

    def run(self) -> DemoResult:
        """Go through an upgrade from beginning to end, and back, and forth again."""
        started = time.perf_counter()
        self._require_empty()
        self._embed()
        self._build_gallery()
        self._swap_naively()
        evaluation = self._evaluate()
        before = self._ask()
        plan, upgrade = self._upgrade(evaluation)
        after = self._ask()
        self._back_and_forth(upgrade)
        report = self._report(evaluation, plan, upgrade, before, after)
        self._farewell(report, plan, time.perf_counter() - started)
        return DemoResult(self.folder, self.store, evaluation, plan, report, time.perf_counter() - started)

    @property
    def store(self) -> str:
        """Address of the gallery's vectors."""
        return f"lancedb://{self.folder / 'db'}#scenes.vector"

    # --- steps --------------------------------------------------------------------------------

    def _embed(self) -> None:
        self._say("A gallery, an old model, a new one")
        self.gallery = Scenes.make("gallery", self.scenes)
        sample = Scenes.make("pairs", min(PAIR_SCENES, self.scenes))
        self.old_model, self.new_model = Model.load("old"), Model.load("new")
        self.old, self.new = (
            Embedded.by(self.old_model, self.gallery),
            Embedded.by(self.new_model, self.gallery),
        )
        self.pairs = pairs_of(Embedded.by(self.old_model, sample), Embedded.by(self.new_model, sample))
        self._tell(f"{len(self.gallery):,} pictures, {len(self.gallery.texts):,} captions")
        self._tell(f"old {self.old_model.space}")
        self._tell(f"new {self.new_model.space}")
        self._tell(
            f"{len(self.pairs):,} pairs to fit on: pictures and captions of {len(sample):,} other scenes"
        )

    def _build_gallery(self) -> None:
        self._say("The gallery as it is today: the old model's vectors in LanceDB")
        database = load("lancedb", "lance").connect(str(self.folder / "db"))
        table = gallery_table(self.gallery, self.old.images.matrix, self.old_model.space)
        # several fragments, as a table that has grown has: an interrupted apply goes on with the next one
        database.create_table("scenes", table[: len(table) // 2])
        database.open_table("scenes").add(table[len(table) // 2 :])
        self._tell(f"{self.store}: {len(table):,} rows")

    def _swap_naively(self) -> None:
        self._say("What a naive swap does: a query of the new model against the old vectors")
        query = self.new.texts.matrix[:1]
        try:
            Searcher(self.store).search(old=query)
        except CrossfadeError as error:
            self._tell(f"refused: {error}")
        shared = min(self.old_model.space.dimension, self.new_model.space.dimension)
        truth = self.gallery.captions.text_to_image
        scores = self.new.texts.matrix[:, :shared] @ self.old.images.matrix[:, :shared].T
        found = scores.argmax(axis=1)
        right = set(zip(truth.queries.tolist(), truth.items.tolist(), strict=True))
        hits = np.mean([(query, item) in right for query, item in enumerate(found.tolist())])
        self._tell(
            f"forced through on {shared} components: Recall@1 {hits:.4f}, chance {1 / self.scenes:.4f}"
        )

    def _evaluate(self) -> Evaluation:
        self._say("Every way out, measured on held-out queries")
        tasks = tasks_of(self.gallery, self.old, self.new)
        evaluation = evaluate(tasks, self.pairs)
        for task in evaluation.tasks:
            self.console.print(matrix_table(task, evaluation.verdict.row))
        self.console.print(verdict_panel(evaluation))
        for key, adapter in evaluation.adapters.items():
            adapter.save_pretrained(adapter_folder(self.folder / "evaluation", key))
        write_report(evaluation, self.folder / "evaluation")
        return evaluation

    def _upgrade(self, evaluation: Evaluation) -> tuple[Plan, Upgrade]:
        self._say("The plan, and what it comes to")
        plan = make_plan(
            self.store,
            evaluation=evaluation,
            encoder=self.new_model.image,
            items="image",
            encoders={"items": IMAGE_ENCODER},
        )
        plan.save(self.folder / "plan.json")
        self.console.print(facts_panel(f"plan {plan.id}", plan.summary()))
        upgrade = Upgrade.create(plan)
        if plan.strategy != "keep":
            self._carry_out(upgrade)
        return plan, upgrade

    def _carry_out(self, upgrade: Upgrade) -> None:
        self._say("Apply, verify, cut over")
        upgrade.apply(encoder=self.new_model.image)
        verification = upgrade.verify(encoder=self.new_model.image)
        self.console.print(facts_panel("verified", verification.summary()))
        upgrade.cutover(encoder=self.new_model.image)
        self._tell(f"state {upgrade.status().state.value}: readers see the new model")

    def _ask(self) -> list[Hits]:
        searcher = Searcher(
            self.store,
            old=self.old_model.text,
            new=self.new_model.text,
            items=self.new_model.image,
            exact=True,
        )
        queries = [self.gallery.texts[text] for text in self._shown()]
        return searcher.search(queries, SHOWN_HITS, columns=("caption", "image"))

    def _back_and_forth(self, upgrade: Upgrade) -> None:
        if upgrade.plan.strategy == "keep":
            return
        self._say("Roll back, and forward again")
        upgrade.rollback()
        self._tell(f"state {upgrade.status().state.value}: readers see the old model, as before")
        upgrade.cutover()
        self._tell(f"state {upgrade.status().state.value}: readers see the new model again")

    def _report(
        self, evaluation: Evaluation, plan: Plan, upgrade: Upgrade, before: list[Hits], after: list[Hits]
    ) -> ReportPaths:
        return write_report(
            evaluation,
            self.folder,
            samples=self._samples(before, after, plan.strategy),
            plan=plan.summary(),
            history=upgrade.status().log(),
        )

    def _farewell(self, report: ReportPaths, plan: Plan, seconds: float) -> None:
        self._say(f"Done in {seconds:.0f} s")
        self._tell(f"report  {report.html}")
        self._tell(f"plan    {self.folder / 'plan.json'}")
        self._tell(f"store   {self.store}")
        self.console.print("\nOn your own data:", markup=False)
        for command in (
            "crossfade inspect 'lancedb://DIR#table.vector' --space old-model",
            "crossfade evaluate --old old.parquet --new new.parquet --label class --out evaluation",
            "crossfade plan 'lancedb://DIR#table.vector' --evaluation evaluation",
        ):
            self.console.print(f"  {command}", markup=False, soft_wrap=True)

    # --- samples ------------------------------------------------------------------------------

    def _shown(self) -> list[int]:
        """Captions to show: those that come first in a seeded shuffle; not picked by how they turn out."""
        order = np.random.default_rng(0).permutation(len(self.gallery.texts))
        return [int(text) for text in order[:SHOWN_QUERIES]]

    def _samples(self, before: list[Hits], after: list[Hits], strategy: str) -> list[SampleSearch]:
        shown = self._shown()
        right = right_answers(self.gallery, shown)
        return [
            SampleSearch(
                self.gallery.texts[text],
                columns=[
                    ("before: old/old", _shown_hits(before[place], right[place])),
                    (f"after: {strategy}", _shown_hits(after[place], right[place])),
                ],
            )
            for place, text in enumerate(shown)
        ]

    # --- telling ------------------------------------------------------------------------------

    def _require_empty(self) -> None:
        if self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError(f"{self.folder} is not empty; remove it or name another folder with --out")
        self.folder.mkdir(parents=True, exist_ok=True)

    def _say(self, title: str) -> None:
        self._step += 1
        self.console.print(f"\n[bold]{self._step}. {title}[/]")

    def _tell(self, text: str) -> None:
        self.console.print(f"   {text}", markup=False, soft_wrap=True)


def _shown_hits(hits: Hits, right: set[str]) -> Sequence[Hit]:
    captions, images = hits.columns["caption"], hits.columns["image"]
    ids: pa.Array = hits.ids
    return [
        Hit(
            id=str(ids[place].as_py()),
            caption=captions[place].as_py(),
            image=images[place].as_py(),
            relevant=ids[place].as_py() in right,
            score=float(hits.scores[place]),
        )
        for place in range(len(hits))
    ]
