"""From a recipe and cached vectors to a saved map: FCT, FastFill, λ-orthogonal, projection."""

from __future__ import annotations

import difflib
import inspect
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.registry import ON_REQUEST
from crossfade.adapters.trained import TrainedAdapter
from crossfade.errors import DataError, UsageError
from crossfade.training import fastfill, fct, lambda_orthogonal, projection
from crossfade.training.classifier import ClassName, ClassWeights
from crossfade.training.reading import build, override, read_yaml
from crossfade.training.vector_loop import Advance, Log, Watch
from crossfade.vectors import FloatMatrix, Pairs

Method = Literal["fct", "fastfill", "lambda-orthogonal", "projection"]
LEARN: dict[str, Callable[..., None]] = {
    "fct": fct.learn,
    "fastfill": fastfill.learn,
    "lambda-orthogonal": lambda_orthogonal.learn,
    "projection": projection.learn,
}


@dataclass(frozen=True, slots=True)
class TransformationRecipe:
    """How a map is trained from cached vectors.

    Attributes:
        method: fct, fastfill, lambda-orthogonal or projection.
        options: parameters of that method's adapter; what is not named keeps its default.
    """

    method: Method = "fct"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = list(inspect.signature(ON_REQUEST[self.method]).parameters)
        for name in self.options:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}"
                raise UsageError(f"{self.method} has no option {name!r}{hint}")

    @classmethod
    def read(cls, path: str | Path | None, method: str, settings: Sequence[str] = ()) -> TransformationRecipe:
        """A recipe from a YAML file (the method's defaults without one), with ``name=value`` settings on top.

        Raises:
            UnreadableFile: no YAML file.
            UsageError: an unknown option, or a recipe for another method.
        """
        values = read_yaml(path) if path is not None else {"method": method}
        changed = override(values, [f"options.{setting}" for setting in settings])
        recipe = build(cls, changed, "recipe")
        if recipe.method != method:
            raise UsageError(f"{path} is a recipe for {recipe.method!r}; this command trains {method}")
        return recipe

    def make(self, device: str = "auto") -> TrainedAdapter:
        """The adapter, not trained yet.

        Raises:
            UsageError: an option is outside of what the method accepts.
        """
        try:
            made = ON_REQUEST[self.method](**{"device": device, **self.options})
        except TypeError as error:
            raise UsageError(f"{self.method} cannot be made with {dict(self.options)}: {error}") from None
        assert isinstance(made, TrainedAdapter)
        return made

    def with_options(self, **options: Any) -> TransformationRecipe:
        """The same recipe with some options changed."""
        return replace(self, options={**self.options, **options})


@dataclass(frozen=True)
class TrainedTransformation:
    """A finished training.

    Attributes:
        directory: where the adapter is saved; `load_adapter` opens it.
        adapter: the map.
        epochs: the log, one entry per epoch.
        seconds: of the whole call; of the epochs alone, each entry has its own.
    """

    directory: Path
    adapter: TrainedAdapter
    epochs: list[dict[str, float]]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "directory": str(self.directory),
            "adapter": self.adapter.describe(),
            "epochs": self.epochs,
            "seconds": self.seconds,
        }


def train_transformation(
    recipe: TransformationRecipe,
    pairs: Pairs,
    out: str | Path,
    *,
    classifier: ClassWeights | None = None,
    gap: FloatMatrix | None = None,
    held_out: Mapping[str, float] | None = None,
    identity: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: Advance | None = None,
    log: Log | None = None,
) -> TrainedTransformation:
    """Train the map that a recipe describes and save it in `out`; stopped, it goes on at the last epoch.

    Args:
        pairs: old → new vectors of the same items (new → old for a backward map), with side-information
            and labels where there are any.
        out: folder of the adapter; the checkpoint stands beside it until the end.
        classifier: the new model's, for FastFill on labelled pairs.
        gap: (d_source,) mean image vector - mean text vector, for a projection on texts.
        held_out: figures that the caller chose options by; saved with the map.
        identity: what the pairs are made of, JSON-ready, where their number and spaces do not tell; a
            checkpoint of others is refused.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with (pairs done, pairs in all).
        log: called with the epoch and its numbers.

    Raises:
        UsageError: `out` is there already, its checkpoint belongs to a training with other settings, or a
            classifier or gap was given for another method.
        TrainingDiverged: the loss became NaN or infinite.
    """
    started, directory = time.perf_counter(), Path(out)
    if directory.exists():
        raise UsageError(f"{directory} is there already; name another --out, or remove it to train anew")
    adapter, epochs = recipe.make(device), []

    def note(epoch: int, numbers: Mapping[str, float]) -> None:
        epochs.append(dict(numbers))
        if log is not None:
            log(epoch, numbers)

    folder = directory.with_name(f"{directory.name}.checkpoint")
    trained_on = {**_identity(recipe, pairs, classifier), **(identity or {})}
    watch = Watch(folder, trained_on, progress, note)
    adapter.trainer = _trainer(recipe.method, watch, classifier, gap)
    adapter.fit_pairs(pairs)
    adapter.held_out |= held_out or {}
    adapter.save_pretrained(directory)
    shutil.rmtree(folder)
    return TrainedTransformation(directory, adapter, epochs, time.perf_counter() - started)


def label_codes(labels: Sequence[ClassName], classifier: ClassWeights | None) -> NDArray[np.int64]:
    """(n,) class codes: those of the classifier if there is one, else in the order of the names.

    Raises:
        DataError: labels that the classifier does not know.
    """
    names = list(classifier.names) if classifier is not None else sorted(set(labels), key=str)
    known = {name: code for code, name in enumerate(names)}
    codes = np.array([known.get(label, -1) for label in labels], dtype=np.int64)
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(labels)} items have a label outside of the classifier's {len(names)} "
            f"classes ({names[0]!r} to {names[-1]!r}), e.g. {unknown[0]!r}; give the classifier of the model "
            "that was trained on these classes, or leave it out"
        )
    return codes


def _trainer(method: Method, watch: Watch, classifier: ClassWeights | None, gap: FloatMatrix | None) -> Any:
    given: dict[str, Any] = {"watch": watch}
    for what, value, taker in (("classifier", classifier, "fastfill"), ("gap", gap, "projection")):
        if value is None:
            continue
        if method != taker:
            raise UsageError(f"{method} makes no use of a {what}; leave it out, or train {taker}")
        given[what] = value
    return partial(LEARN[method], **given)


def _identity(recipe: TransformationRecipe, pairs: Pairs, classifier: ClassWeights | None) -> dict[str, Any]:
    spaces = {"source": pairs.source, "target": pairs.target, "side": pairs.side}
    return {
        "method": recipe.method,
        "options": {name: value for name, value in recipe.options.items() if name != "device"},
        "pairs": len(pairs),
        **{name: str(space) for name, space in spaces.items()},
        "classes": None if classifier is None else len(classifier.names),
    }
