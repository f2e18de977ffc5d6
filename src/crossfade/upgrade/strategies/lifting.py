"""New vectors made from the stored ones, with the side-information that stands beside them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from crossfade.adapters import Adapter
from crossfade.errors import UsageError
from crossfade.stores import Produced, Rows
from crossfade.upgrade.plans import Plan
from crossfade.upgrade.producing import select
from crossfade.vectors import FloatMatrix
from crossfade.vectors.checks import find_invalid
from crossfade.vectors.columns import to_matrix


def check_side(plan: Plan, adapter: Adapter) -> None:
    """Refuse a plan whose column of side-information is missing, or not made use of.

    Raises:
        UsageError: the adapter needs a column, takes none, or there is no such column.
    """
    if adapter.side_dimension and not plan.side:
        adapter.require_side(None, plan.store)
    if not plan.side:
        return
    if not adapter.side_dimension:
        raise UsageError(
            f"{plan.store}: column {plan.side!r} is to be side-information, but this {adapter.name} adapter "
            "takes none; leave --side out, or fit an adapter with it"
        )
    if plan.side not in plan.found.payload:
        raise UsageError(
            f"{plan.store}: no column {plan.side!r} with side-information; "
            f"it has {', '.join(plan.found.payload) or 'no other columns'}"
        )


def lift(adapter: Adapter, rows: Rows, plan: Plan) -> Produced:
    """The rows' old vectors, mapped; rows whose side-information is null or unusable get none."""
    if not plan.side:
        return Produced(adapter.transform(rows.vectors), np.ones(len(rows), dtype=bool))
    side, valid = read_side(rows, plan, adapter.side_dimension)
    vectors = np.zeros((len(rows), plan.new.dimension), dtype=np.float32)
    if valid.any():
        vectors[valid] = adapter.transform(rows.vectors[valid], side)
    return Produced(vectors, valid)


def expected_error(adapter: Adapter, rows: Rows, plan: Plan) -> np.ndarray:
    """(n,) uncertainty of the rows' lifted vectors; -inf where nothing can be lifted."""
    found = np.full(len(rows), -np.inf, dtype=np.float32)
    usable = ~rows.null
    usable[list(find_invalid(np.where(rows.null[:, None], 1, rows.vectors)))] = False
    if plan.side:
        chosen = select(rows, np.flatnonzero(usable))
        side, valid = read_side(chosen, plan, adapter.side_dimension)
        usable[np.flatnonzero(usable)[~valid]] = False
        given: tuple[FloatMatrix, ...] = (side,)
    else:
        given = ()
    if usable.any():
        found[usable] = adapter.uncertainty(rows.vectors[usable], *given)
    return found


def read_side(rows: Rows, plan: Plan, dimension: int) -> tuple[FloatMatrix, np.ndarray]:
    """Side-information (v, d_side) of the rows that have some, and which these are, (n,).

    Raises:
        DimensionMismatch: it is of another dimension.
        DataError: the column holds no vectors.
    """
    column: pa.Array = rows.columns[plan.side]
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    matrix = to_matrix(column.filter(pa.array(valid)), dimension, f"{plan.store}, column {plan.side!r}")
    sound = np.ones(len(matrix), dtype=bool)
    sound[list(find_invalid(matrix))] = False
    valid = valid.copy()
    valid[np.flatnonzero(valid)[~sound]] = False
    return matrix[sound], valid
