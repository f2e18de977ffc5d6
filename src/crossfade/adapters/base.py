"""What every map between two embedding spaces can do."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.prepared import PreparedPairs, require_valid, scale_to_unit, uses_unit_length
from crossfade.errors import (
    DataError,
    DimensionMismatch,
    NotFittedError,
    NotSupported,
    TooFewPairs,
    UsageError,
    WrongDirection,
)
from crossfade.spaces import Space
from crossfade.vectors import BATCH_ROWS, ArrayPairs, FloatMatrix, Pairs

if TYPE_CHECKING:
    from typing_extensions import Self


class Adapter(ABC):
    """A map from the vectors of one model to the space of another, fitted on pairs.

    Length of vectors: where a space compares by cosine (or is normalised by contract) only the direction
    of its vectors means anything, so source vectors are scaled to unit length before the map, target vectors
    before the fit, and mapped vectors after it. Vectors of dot-product and L2 spaces keep their length. Plain
    arrays, fitted without spaces, are taken and returned as they are, the way scikit-learn would.

    Attributes:
        name: what the method is called in tables and on the command line.
        complexity: order from simple to complex; the simplest of equally good methods is taken.
        source, target: the two spaces; None after a fit on plain arrays.
        dimensions: (d_source, d_target).
        n_pairs: number of pairs that it was fitted on.
        chosen: values that the fit chose (strength of the regularisation, rank, epochs).
        held_out: figures on pairs that were held out while these were chosen.
    """

    name: ClassVar[str]
    complexity: ClassVar[int]

    source: Space | None = None
    target: Space | None = None
    dimensions: tuple[int, int] = (0, 0)
    n_pairs: int = 0

    def __init__(self) -> None:
        self.arrays: dict[str, FloatMatrix] = {}
        self.chosen: dict[str, float] = {}
        self.held_out: dict[str, float] = {}

    # --- fitting ------------------------------------------------------------------------------

    def fit(
        self,
        X: NDArray[np.floating],
        Y: NDArray[np.floating],
        *,
        source: Space | None = None,
        target: Space | None = None,
    ) -> Self:
        """Fit on X (n, d_source) and Y (n, d_target), the same items embedded by both models.

        Raises:
            DataError: no matrices, or different numbers of rows.
            DimensionMismatch: the vectors' length is not their space's dimension.
            TooFewPairs: fewer than `required_pairs`.
            InvalidVectors: NaN, infinite or zero vectors.
        """
        return self.fit_pairs(ArrayPairs(X, Y, source=source, target=target))

    def fit_pairs(self, pairs: Pairs) -> Self:
        """Fit on streamed pairs; memory holds a few blocks, not the pairs. Raises what `fit` raises."""
        return self.fit_prepared(PreparedPairs(pairs))

    def fit_prepared(self, pairs: PreparedPairs) -> Self:
        """Fit on pairs that are checked and scaled already. Raises what `fit` raises."""
        self.require_pairs(len(pairs), *pairs.dimensions)
        self._learn(pairs)
        self._take_over(pairs)
        return self

    def fit_transform(
        self,
        X: NDArray[np.floating],
        Y: NDArray[np.floating],
        *,
        source: Space | None = None,
        target: Space | None = None,
    ) -> FloatMatrix:
        """`fit`, then map the same X: (n, d_target)."""
        return self.fit(X, Y, source=source, target=target).transform(X)

    @abstractmethod
    def required_pairs(self, d_source: int, d_target: int) -> int:
        """Smallest number of pairs that the method can be fitted on."""

    def require_pairs(self, n: int, d_source: int, d_target: int) -> None:
        """Refuse a fit on too few pairs.

        Raises:
            TooFewPairs: with both numbers, and a method that would do with `n`.
        """
        needed = self.required_pairs(d_source, d_target)
        if n < needed:
            from crossfade.adapters.registry import simplest_for

            other = simplest_for(n, d_source, d_target)
            remedy = f"or use {other!r} (--method {other}), for which {n} are enough"
            raise TooFewPairs(
                f"{self.name} from {d_source} to {d_target} dimensions needs at least {needed} pairs, "
                f"got {n}; embed {needed - n} more items with both models{', ' + remedy if other else ''}"
            )

    @abstractmethod
    def _learn(self, pairs: PreparedPairs) -> None:
        """Set `arrays`, `chosen` and `held_out`."""

    def _take_over(self, pairs: PreparedPairs) -> None:
        self.source, self.target = pairs.source, pairs.target
        self.dimensions = pairs.dimensions
        self.n_pairs = len(pairs)

    # --- using --------------------------------------------------------------------------------

    def transform(self, X: NDArray[np.floating]) -> FloatMatrix:
        """Map X (n, d_source) to (n, d_target) float32, of unit length where the target compares by cosine.

        Raises:
            NotFittedError: before `fit`.
            DimensionMismatch: X has another number of dimensions than the source.
            InvalidVectors: NaN, infinite or zero vectors.
        """
        X = self._checked(X)
        mapped = np.empty((len(X), self.dimensions[1]), dtype=np.float32)
        for start in range(0, len(X), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            mapped[rows] = self._map_block(X[rows])
        return mapped

    def uncertainty(self, X: NDArray[np.floating]) -> FloatMatrix:
        """Expected squared error of each mapped vector, (n,) float32; larger means less to be trusted.

        Raises:
            NotSupported: the method has no notion of it.
        """
        raise NotSupported(
            f"{self.name} has no uncertainty; fit 'ridge' or 'local-experts' to order items by it"
        )

    def require_source(self, space: Space, what: str) -> None:
        """Refuse to map `what`, which lives in `space`, unless that is the source; costs no I/O.

        Raises:
            WrongDirection: `space` is the target.
            DimensionMismatch, SpaceMismatch: it is neither.
        """
        if self.source is None:
            self._require_columns(space.dimension)
        elif space == self.target:
            raise WrongDirection(
                f"{what}: already in {self.target}, which this {self.name} adapter maps into "
                f"from {self.source}; fit one in the other direction (crossfade fit --direction)"
            )
        else:
            self.source.require_same(space, what)

    @abstractmethod
    def _map(self, X: FloatMatrix) -> FloatMatrix:
        """Map one block (b, d_source), lengths already taken care of, to (b, d_target)."""

    def _map_block(self, X: FloatMatrix) -> FloatMatrix:
        mapped = self._map(self._scaled(X))
        return scale_to_unit(mapped) if uses_unit_length(self.target) else mapped

    def _scaled(self, X: FloatMatrix) -> FloatMatrix:
        return scale_to_unit(X) if uses_unit_length(self.source) else X

    def _checked(self, X: NDArray[np.floating]) -> FloatMatrix:
        if not self.fitted:
            raise NotFittedError(f"this {self.name} adapter is not fitted yet; call fit first, or load one")
        matrix = np.ascontiguousarray(X, dtype=np.float32)
        if matrix.ndim != 2:
            raise DataError(f"vectors must be a matrix (n, {self.dimensions[0]}), got shape {matrix.shape}")
        self._require_columns(matrix.shape[1])
        require_valid(matrix, "cannot be mapped")
        return matrix

    def _require_columns(self, dimension: int) -> None:
        if dimension == self.dimensions[0]:
            return
        backwards = dimension == self.dimensions[1]
        hint = "; that is the target's: is the direction right?" if backwards else "; pass the source model's"
        raise DimensionMismatch(
            f"this {self.name} adapter maps {self.dimensions[0]} dimensions "
            f"({self.source or 'plain arrays'}), got vectors of {dimension}{hint}"
        )

    @property
    def fitted(self) -> bool:
        """Whether it can map vectors."""
        return bool(self.arrays)

    # --- parameters and saving ----------------------------------------------------------------

    def get_params(self) -> dict[str, Any]:
        """The hyper-parameters, as `__init__` takes them."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({values})"

    @abstractmethod
    def shapes(self, d_source: int, d_target: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array that a fitted adapter of these parameters holds."""

    def describe(self) -> dict[str, Any]:
        """Everything but the arrays, JSON-ready; `restore` reads it back."""
        return {
            "method": self.name,
            "parameters": self.get_params(),
            "source": self.source.to_dict() if self.source else None,
            "target": self.target.to_dict() if self.target else None,
            "dimensions": list(self.dimensions),
            "pairs": self.n_pairs,
            "chosen": self.chosen,
            "held_out": self.held_out,
        }

    def restore(self, description: Mapping[str, Any], arrays: Mapping[str, FloatMatrix]) -> None:
        """Take over what `describe` wrote and the arrays, already checked against `shapes`."""
        self.source, self.target = (
            Space.from_dict(description[side]) if description[side] else None for side in ("source", "target")
        )
        d_source, d_target = description["dimensions"]
        self.dimensions = d_source, d_target
        self.n_pairs = description["pairs"]
        self.chosen, self.held_out = dict(description["chosen"]), dict(description["held_out"])
        self.arrays = dict(arrays)

    def save_pretrained(self, directory: str | Path, *, evaluation: Mapping[str, Any] | None = None) -> None:
        """Write config.json, model.safetensors and README.md (a model card) into `directory`, all or nothing.

        Args:
            evaluation: `Evaluation.to_dict()`; its matrix and ground truth go into the card.

        Raises:
            NotFittedError: before `fit`.
            UnknownSpace: fitted on plain arrays, so that nobody could tell later what it maps.
            UsageError: `directory` holds other files.
            OutOfSpace: the disk is full; nothing is left behind.
        """
        from crossfade.adapters.saving import save

        save(self, Path(directory), evaluation)

    @classmethod
    def from_pretrained(cls, path_or_repo: str | Path) -> Self:
        """Load what `save_pretrained` wrote, from a directory or (extra "hf") a Hub repository.

        Raises:
            UnreadableFile: a file is missing, cut short, changed, or written by a newer version.
            UsageError: the adapter there is of another class than the one asked.
        """
        from crossfade.adapters.saving import load_adapter

        adapter = load_adapter(path_or_repo)
        if not isinstance(adapter, cls):
            raise UsageError(
                f"{path_or_repo} holds a {adapter.name} adapter, not {cls.name}; "
                "use load_adapter for any method"
            )
        return adapter

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        revision: str | None = None,
        evaluation: Mapping[str, Any] | None = None,
    ) -> None:
        """Upload what `save_pretrained` writes to the repository `repo_id` on the Hugging Face Hub.

        Raises:
            MissingExtra: huggingface_hub is not installed.
        """
        from crossfade.adapters.saving import push

        push(self, repo_id, private=private, revision=revision, evaluation=evaluation)
