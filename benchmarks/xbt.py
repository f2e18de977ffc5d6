"""XBT against every other way to keep a gallery: one table, a curve over the pairs, ablations.

    python benchmarks/xbt.py fashion scenes --data DIR --work DIR [--out benchmarks/results]
    python benchmarks/xbt.py clip-b32-to-l14 --data DIR --work DIR --device cuda
    python benchmarks/xbt.py scenes --quick --work DIR

Each name is an upgrade in recipes/xbt; the file says which models, pairs, texts and tests it has. Models that
are recipes are trained here. Every stage leaves its result under WORK/NAME and is skipped when that is there
(WORK/NAME/stages tells seconds and machine); a training that was stopped goes on from its checkpoint.
Published: OUT/xbt-NAME.json, .md, and the curves.

All rows search the same gallery with the same queries, text→image and image→text apart; identical captions
are one caption that is right for several images. The old model is asked for its own vectors (old/old), for
texts in stage 1, and by the rows that say so; XBT's second stage never loads it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pyarrow.parquet as pq
from compatibility import printing, read_stages, record_stage
from xbt_measure import Embedded, Searched, measured
from xbt_report import Report, write
from xbt_upgrade import Upgrade, Variant, phi_of, variants

from crossfade.adapters import Adapter, load_adapter, make_adapter
from crossfade.datasets.image_texts import ImageTexts
from crossfade.datasets.scenes import generate, scenes_table
from crossfade.datasets.texts import open_texts
from crossfade.encoders.hugging_face import HuggingFaceDual
from crossfade.encoders.tuned import TunedDual
from crossfade.training.clip import TrainedClip, train_clip
from crossfade.training.clip_recipe import ClipRecipe
from crossfade.training.embed_texts import EmbeddedTexts, cached_text_vectors
from crossfade.training.own_vectors import Embeds, OwnVectors, own_vectors
from crossfade.training.pairs_data import ImagePairs, read_pairs
from crossfade.training.reading import override
from crossfade.training.transformations import TransformationRecipe, train_transformation
from crossfade.training.xbt import TrainedXbt, chosen_images, split_model, train_xbt
from crossfade.training.xbt_recipe import XbtRecipe
from crossfade.training.xbt_text import train_xbt_text
from crossfade.vectors import ArrayPairs, FloatMatrix, Pairs, Vectors, VectorSource, align

RECIPES = Path(__file__).parents[1] / "recipes" / "xbt"
RESULTS = Path(__file__).parent / "results"
QUICK_UPGRADE = (
    "counts=[40]",
    "steps=2",
    "samples=100",
    "projection.epochs=2",
    "projection.hidden=16",
    "tuning.precision=float32",
)
QUICK_SCENES = {"train": 128, "gallery": 50, "validation": 160}
QUICK_CLIP = (
    *(f"architecture.{tower}.{size}" for tower in ("vision", "text") for size in ("width=32", "layers=1")),
    "schedule.epochs=1",
    "schedule.warm_up_epochs=0",
    "precision=float32",
    "batch=32",
)


class Bench:
    """One upgrade, stage by stage.

    Args:
        upgrade: what is to be done.
        data: folder of the data.
        work: folder of the stages' results.
        clip: settings on top of the recipes of models that are trained here.
        device: auto, cpu or cuda.
    """

    def __init__(
        self, upgrade: Upgrade, data: Path, work: Path, *, clip: Sequence[str] = (), device: str = "auto"
    ) -> None:
        self.upgrade, self.work, self.device = upgrade, work, device
        self.data = work / "data" if upgrade.generate else data
        self._clip, self._stages = clip, list[str]()
        work.mkdir(parents=True, exist_ok=True)

    # --- stages -------------------------------------------------------------------------------

    def run(self) -> Report:
        """All stages, then the tables."""
        self._stage("generate", self._generate)
        for role in ("old", "new"):
            if self._recipe(role):
                self._stage(f"train-{role}", partial(self._train_model, role))
        self._stage("embed-texts", lambda: self.text_vectors)
        for variant in variants(self.upgrade):
            self._stage(f"phi-{variant.phi}", partial(self._train_phi, variant.phi))
            if variant.pairs != 0:
                self._stage(f"tune-{variant.key}", partial(self._tune, variant))
        for name in self.upgrade.tests:
            self._stage(f"embed-{name}", partial(self._test, name))
        results = [measured(name, self._test(name), self.upgrade) for name in self.upgrade.tests]
        done = read_stages(self.work)
        return Report(self.upgrade, results, {name: done[name] for name in dict.fromkeys(self._stages)})

    def _stage(self, name: str, make: Callable[[], object]) -> None:
        """Once; what it took and where is noted, earlier runs of a training that went on included."""
        self._stages.append(name)
        if name in read_stages(self.work):
            return
        print(f"{time.strftime('%H:%M:%S')} {self.upgrade.name}: {name}", file=sys.stderr, flush=True)
        wall, processor = time.perf_counter(), time.process_time()
        made = make()
        spent = time.perf_counter() - wall, time.process_time() - processor
        clocks = ("seconds", "processor_seconds")
        seconds = {
            clock: max(one, getattr(made, clock, 0.0)) for clock, one in zip(clocks, spent, strict=True)
        }
        record_stage(self.work, name, seconds, self.device)

    # --- models and data ----------------------------------------------------------------------

    def _generate(self) -> None:
        for split, count in self.upgrade.generate.items():
            folder = self.data / "scenes"
            folder.mkdir(parents=True, exist_ok=True)
            scenes = generate(split, count)  # type: ignore[arg-type]
            if split == "validation":
                lines = [caption for scene in scenes for caption in scene.captions]
                (folder / "texts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
            else:
                pq.write_table(scenes_table(scenes), folder / f"{split}.parquet")

    def _recipe(self, role: str) -> Path | None:
        given = getattr(self.upgrade, role)
        return RECIPES / given if given.endswith(".yaml") else None

    def _train_model(self, role: str) -> TrainedClip:
        recipe = self._recipe(role)
        assert recipe is not None
        return train_clip(
            ClipRecipe.read(recipe, self._clip),
            self.images,
            self.work / "models" / role,
            cache=self.work / "pixels",
            device=self.device,
            progress=self._printing(f"train {role}"),
        )

    def _location(self, role: str) -> str:
        return str(self.work / "models" / role) if self._recipe(role) else getattr(self.upgrade, role)

    @cached_property
    def old(self) -> HuggingFaceDual:
        """The old model; only stages whose results are missing ask for it."""
        return self._load("old")

    @cached_property
    def new(self) -> HuggingFaceDual:
        """The new model, off the shelf."""
        return self._load("new")

    def _load(self, role: str) -> HuggingFaceDual:
        location, revision = split_model(self._location(role))
        return HuggingFaceDual.load(location, revision=revision, device=self._torch_device)

    @property
    def _torch_device(self) -> str | None:
        return None if self.device == "auto" else self.device

    @cached_property
    def images(self) -> ImageTexts:
        """The pairs."""
        return self.upgrade.pairs.open(self.data)

    @cached_property
    def pairs(self) -> ImagePairs:
        """The pairs as the new model sees them."""
        return read_pairs(self.images, self.new.settings, self.work / "pixels")

    def _vectors(self, model: Embeds, images: ImageTexts, settings: Any, folder: Path) -> OwnVectors:
        pairs = read_pairs(images, settings, self.work / "pixels")
        tokens = model.tokenize(pairs.captions)  # type: ignore[attr-defined]
        return own_vectors(model, pairs, tokens, folder)

    @cached_property
    def pair_vectors(self) -> dict[str, OwnVectors]:
        """The pairs under both models."""
        return {
            role: self._vectors(model, self.images, model.settings, self.work / "pixels" / role)
            for role, model in (("old", self.old), ("new", self.new))
        }

    @cached_property
    def text_vectors(self) -> dict[str, VectorSource]:
        """Both models' vectors of every text of stage 1; no image is touched."""
        return self._text_vectors(self.upgrade.texts)

    def _text_vectors(self, further: Sequence[str]) -> dict[str, VectorSource]:
        own = self.work / "captions.txt"
        lines = [" ".join(caption.split()) for captions in self.images.captions for caption in captions]
        own.write_text("\n".join(lines) + "\n", encoding="utf-8")
        texts = open_texts([own, *(self.data / name for name in further)])
        found: dict[str, EmbeddedTexts] = {
            role: cached_text_vectors(model.text, texts, self.work / "texts")
            for role, model in (("old", self.old), ("new", self.new))
        }
        return {role: embedded.open() for role, embedded in found.items()}

    @property
    def text_pairs(self) -> Pairs:
        """The same as pairs new → old."""
        return align(self.text_vectors["old"], self.text_vectors["new"]).reversed()

    # --- the two stages of XBT ----------------------------------------------------------------

    def _train_phi(self, name: str) -> None:
        out, phi = self.work / "phi" / name, phi_of(name)
        recipe = TransformationRecipe("projection", dict(self.upgrade.projection))
        out.parent.mkdir(exist_ok=True)
        if out.exists():
            return
        if phi.pairs is not None:
            train_transformation(recipe, self._direct_pairs(phi.pairs), out, device=self.device)
            return
        vectors = self.text_vectors
        if phi.foreign:
            vectors = self._text_vectors((*self.upgrade.texts, *self.upgrade.foreign))
        train_xbt_text(
            vectors["new"],
            vectors["old"],
            None,
            out,
            recipe=recipe.with_options(**phi.options),
            images=self._unpaired() if phi.images else None,
            device=self.device,
            progress=self._printing_stages(name),
        )

    def _direct_pairs(self, count: int) -> ArrayPairs:
        """Images and captions of so many pairs, new → old: what there is without stage 1."""
        rows = chosen_images(self.pairs, self._tuning(None if count < 0 else count))
        captions = self.pairs.captions_of(rows)
        sides = {
            role: np.concatenate([own.images[rows], own.captions[captions]])
            for role, own in self.pair_vectors.items()
        }
        return ArrayPairs(sides["new"], sides["old"], source=self.new.space, target=self.old.space)

    def _unpaired(self) -> Vectors:
        """The new model's image vectors, of which no caption and no old vector is known."""
        images = self.pair_vectors["new"].images
        return Vectors(np.arange(len(images)), np.asarray(images), self.new.space)

    def _tuning(self, count: int | None, changes: Sequence[str] = ()) -> XbtRecipe:
        """As many steps for few pairs as for many."""
        recipe = XbtRecipe.from_dict(dict(self.upgrade.tuning))
        images = len(self.pairs) if count is None else count
        batch = min(recipe.batch, images)
        epochs = max(1, round(self.upgrade.steps * batch / images))
        settings = [f"batch={batch}", f"schedule.epochs={epochs}", f"schedule.warm_up_epochs={epochs / 10}"]
        settings += [f"data.images={'null' if count is None else count}", *changes]
        return XbtRecipe.from_dict(override(recipe.to_dict(), settings))

    def _tune(self, variant: Variant) -> TrainedXbt:
        (self.work / "tuned").mkdir(exist_ok=True)
        return train_xbt(
            self._tuning(variant.pairs, variant.tuning),
            self._location("new"),
            self.work / "phi" / variant.phi,
            self.images,
            self.work / "tuned" / variant.key,
            cache=self.work / "pixels",
            device=self.device,
            progress=self._printing_stages(variant.key),
        )

    # --- tests --------------------------------------------------------------------------------

    def _test(self, name: str) -> Searched:
        """Every model's vectors of a test; embedded once."""
        images = self.upgrade.test(name, self.data)
        folder = self.work / "vectors" / name
        first = images.relevance().first_rows

        def embedded(own: OwnVectors) -> Embedded:
            return Embedded(np.asarray(own.images), np.asarray(own.captions)[first])

        new = embedded(self._vectors(self.new, images, self.new.settings, folder / "new"))
        old = embedded(self._vectors(self.old, images, self.old.settings, folder / "old"))
        compatible = {"naive": new.each(lambda X: _first_dimensions(X, self.old.space.dimension))}
        compatible["procrustes"] = new.each(self.procrustes.transform)
        for variant in variants(self.upgrade):
            if variant.pairs == 0:
                phi = load_adapter(self.work / "phi" / variant.phi)
                compatible[variant.key] = new.each(phi.transform)
            else:
                tuned = TunedDual.load(self.work / "tuned" / variant.key, device=self._torch_device)
                own = self._vectors(tuned, images, self.new.settings, folder / variant.key)
                compatible[variant.key] = embedded(own)
        return Searched(images.relevance(), old, new, self.old.space, self.new.space, compatible)

    @cached_property
    def procrustes(self) -> Adapter:
        """The closed form, from the text pairs."""
        return make_adapter("procrustes").fit_pairs(self.text_pairs)

    def _printing(self, label: str) -> Callable[[int, int], None]:
        return printing(f"{self.upgrade.name} {label}")

    def _printing_stages(self, label: str) -> Callable[[str, int, int], None]:
        printers: dict[str, Callable[[int, int], None]] = {}

        def advance(stage: str, done: int, total: int) -> None:
            printers.setdefault(stage, self._printing(f"{label}: {stage}"))(done, total)

        return advance


def _first_dimensions(X: FloatMatrix, dimension: int) -> FloatMatrix:
    """What a naive swap between dimensions would compare: the first ones, zeros where there are too few."""
    return np.pad(X, ((0, 0), (0, max(0, dimension - X.shape[1]))))[:, :dimension]


def read_upgrade(name: str, settings: Sequence[str], quick: bool) -> tuple[Upgrade, tuple[str, ...]]:
    """An upgrade of recipes/xbt, and settings for the models that it trains."""
    upgrade = Upgrade.read(RECIPES / f"{name}.yaml", (*(QUICK_UPGRADE if quick else ()), *settings))
    if quick and upgrade.generate:
        upgrade = replace(upgrade, generate=QUICK_SCENES)
    return upgrade, QUICK_CLIP if quick else ()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("upgrade", nargs="+", help="names in recipes/xbt")
    parser.add_argument("--data", type=Path, default=os.environ.get("CROSSFADE_DATA"), help="the data folder")
    parser.add_argument("--work", type=Path, default=Path("runs/xbt"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the upgrade")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="a few steps on little data; no result")
    options = parser.parse_args(arguments)
    for name in options.upgrade:
        upgrade, clip = read_upgrade(name, options.set, options.quick)
        if options.data is None and not upgrade.generate:
            parser.error("give --data DIR, or set CROSSFADE_DATA")
        work = options.work / (f"{name}-quick" if options.quick else name)
        report = Bench(upgrade, Path(options.data or work), work, clip=clip, device=options.device).run()
        print(write(report, options.out, "quick-" if options.quick else ""))


if __name__ == "__main__":
    main()
