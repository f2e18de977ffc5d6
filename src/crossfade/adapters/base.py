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
from crossfade.vectors import BATCH_ROWS, ArrayPairs, FloatMatrix, Pairs, no_side

if TYPE_CHECKING:
    from typing_extensions import Self

MAP_ROWS = 1024  # a block and its image stay in the cache between the product and the scaling


class Adapter(ABC):
    """A map from the vectors of one model to the space of another, fitted on pairs.

    Length of vectors: where a space compares by cosine (or is normalised by contract) only the direction
    of its vectors means anything, so source vectors are scaled to unit length before the map, target vectors
    before the fit, and mapped vectors after it. Vectors of dot-product and L2 spaces keep their length. Plain
    arrays, fitted without spaces, are taken and returned as they are, the way scikit-learn would.

    Side-information ψ(x), a second vector stored beside each source vector (FCT, CVPR 2022), is taken by the
    methods that know it if they were fitted on pairs that have it, and refused by all others.

    Attributes:
        name: what the method is called in tables and on the command line.
        complexity: order from simple to complex; the simplest of equally good methods is taken.
        source, target: the two spaces; None after a fit on plain arrays.
        dimensions: (d_source, d_target).
        side: space of the side-information that it takes; None if it takes none, or after plain arrays.
        side_dimension: its dimension; 0 if it takes none.
        n_pairs: number of pairs that it was fitted on.
        chosen: values that the fit chose (strength of the regularisation, rank, epochs).
        held_out: figures on pairs that were held out while these were chosen.
    """

    name: ClassVar[str]
    complexity: ClassVar[int]

    source: Space | None = None
    target: Space | None = None
    dimensions: tuple[int, int] = (0, 0)
    side: Space | None = None
    side_dimension: int = 0
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
        side: NDArray[np.floating] | None = None,
        side_space: Space | None = None,
    ) -> Self:
        """Fit on X (n, d_source) and Y (n, d_target), the same items embedded by both models.

        Args:
            side: (n, d_side) side-information of these items; only some methods make use of it.
            side_space: its space.

        Raises:
            DataError: no matrices, or different numbers of rows.
            DimensionMismatch: the vectors' length is not their space's dimension.
            TooFewPairs: fewer than `required_pairs`.
            InvalidVectors: NaN, infinite or zero vectors.
        """
        pairs = ArrayPairs(X, Y, source=source, target=target, side=side, side_space=side_space)
        return self.fit_pairs(pairs)

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
        side: NDArray[np.floating] | None = None,
        side_space: Space | None = None,
    ) -> FloatMatrix:
        """`fit`, then map the same X: (n, d_target)."""
        self.fit(X, Y, source=source, target=target, side=side, side_space=side_space)
        return self.transform(X, side if self.side_dimension else None)

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
        taken = self.takes_side and pairs.side_dimension > 0
        self.side, self.side_dimension = (pairs.side, pairs.side_dimension) if taken else (None, 0)
        self.n_pairs = len(pairs)

    # --- using --------------------------------------------------------------------------------

    def transform(self, X: NDArray[np.floating], side: NDArray[np.floating] | None = None) -> FloatMatrix:
        """Map X (n, d_source) to (n, d_target) float32, of unit length where the target compares by cosine.

        Args:
            side: (n, d_side) side-information of the same items, for an adapter that takes it.

        Raises:
            NotFittedError: before `fit`.
            DimensionMismatch: X or side has another number of dimensions than what was fitted on.
            UsageError: side-information is missing, or given to an adapter that takes none.
            InvalidVectors: NaN, infinite or zero vectors.
        """
        X, side = self._checked(X), self._checked_side(side, len(X))
        mapped = np.empty((len(X), self.dimensions[1]), dtype=np.float32)
        for start in range(0, len(X), MAP_ROWS):
            rows = slice(start, start + MAP_ROWS)
            mapped[rows] = self._map_block(X[rows], side[rows])
        return mapped

    def uncertainty(self, X: NDArray[np.floating], side: NDArray[np.floating] | None = None) -> FloatMatrix:
        """Expected squared error of each mapped vector, (n,) float32; larger means less to be trusted.

        Raises:
            NotSupported: the method has no notion of it; see `has_uncertainty`.
            NotFittedError, DimensionMismatch, UsageError, InvalidVectors: see `transform`.
        """
        if not self.has_uncertainty:
            raise NotSupported(
                f"{self.name} has no uncertainty; fit 'ridge' or 'local-experts' to order items by it"
            )
        X, side = self._checked(X), self._checked_side(side, len(X))
        expected = np.empty(len(X), dtype=np.float32)
        for start in range(0, len(X), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            expected[rows] = self._expected_error(self._scaled(X[rows]), self._scaled_side(side[rows]))
        return expected

    @property
    def has_uncertainty(self) -> bool:
        """Whether the method predicts how far off each of its vectors is."""
        return type(self)._expected_error is not Adapter._expected_error

    def _expected_error(self, X: FloatMatrix, side: FloatMatrix) -> FloatMatrix:
        """(b,) expected squared error of one block, lengths already taken care of."""
        raise NotImplementedError

    @property
    def takes_side(self) -> bool:
        """Whether a fit makes use of side-information, where the pairs have it."""
        return False

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

    def require_side(self, space: Space | None, what: str) -> None:
        """Refuse to map `what`, whose side-information is in `space` (None: it has none); costs no I/O.

        Raises:
            UsageError: side-information is missing, or not taken.
            DimensionMismatch, SpaceMismatch: it is of another space than the adapter was fitted with.
        """
        if bool(self.side_dimension) != (space is not None):
            raise UsageError(f"{what}: {self._side_wanted(space is not None)}")
        if self.side is not None and space is not None:
            self.side.require_same(space, f"side-information of {what}")

    def _side_wanted(self, given: bool) -> str:
        if given:
            return f"this {self.name} adapter takes no side-information; leave it out, or fit one with it"
        named = self.side or "plain arrays"
        return (
            f"this {self.name} adapter needs the side-information of every item, {self.side_dimension} "
            f"dimensions ({named}), which is missing; pass it as side= (--side on the command line)"
        )

    @abstractmethod
    def _map(self, X: FloatMatrix) -> FloatMatrix:
        """Map one block (b, d_source), lengths already taken care of, to (b, d_target)."""

    def _map_with_side(self, X: FloatMatrix, side: FloatMatrix) -> FloatMatrix:
        """`_map` with the side-information (b, d_side) of the block, for methods that take it."""
        return self._map(X)

    def _map_block(self, X: FloatMatrix, side: FloatMatrix) -> FloatMatrix:
        mapped = self._map_with_side(self._scaled(X), self._scaled_side(side))
        return scale_to_unit(mapped, in_place=True) if uses_unit_length(self.target) else mapped

    def _scaled(self, X: FloatMatrix) -> FloatMatrix:
        return scale_to_unit(X) if uses_unit_length(self.source) else X

    def _scaled_side(self, side: FloatMatrix) -> FloatMatrix:
        return scale_to_unit(side) if uses_unit_length(self.side) else side

    def _checked(self, X: NDArray[np.floating]) -> FloatMatrix:
        if not self.fitted:
            raise NotFittedError(f"this {self.name} adapter is not fitted yet; call fit first, or load one")
        matrix = np.ascontiguousarray(X, dtype=np.float32)
        if matrix.ndim != 2:
            raise DataError(f"vectors must be a matrix (n, {self.dimensions[0]}), got shape {matrix.shape}")
        self._require_columns(matrix.shape[1])
        require_valid(matrix, "cannot be mapped")
        return matrix

    def _checked_side(self, side: NDArray[np.floating] | None, rows: int) -> FloatMatrix:
        """The side-information (rows, d_side), d_side 0 where the adapter takes none."""
        if (side is None) != (self.side_dimension == 0):
            raise UsageError(self._side_wanted(side is not None))
        if side is None:
            return no_side(rows)
        matrix = np.ascontiguousarray(side, dtype=np.float32)
        if matrix.ndim != 2 or len(matrix) != rows:
            raise DataError(
                f"side-information must be a matrix ({rows}, {self.side_dimension}), one row per vector "
                f"in the same order, got shape {matrix.shape}"
            )
        if matrix.shape[1] != self.side_dimension:
            raise DimensionMismatch(
                f"this {self.name} adapter takes side-information of {self.side_dimension} dimensions "
                f"({self.side or 'plain arrays'}), got {matrix.shape[1]}; pass that of the same encoder"
            )
        require_valid(matrix, "side-information cannot be used")
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
            "side": self.side.to_dict() if self.side else None,
            "side_dimension": self.side_dimension,
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
        side = description.get("side")  # files written before side-information was known have none
        self.side = Space.from_dict(side) if side else None
        self.side_dimension = description.get("side_dimension", 0)
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
