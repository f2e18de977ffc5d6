"""Which part of a labelled set a model is trained on: some classes, or some items of each class."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfade.datasets.labels import ClassLabels
from crossfade.errors import DataError, UsageError


@dataclass(frozen=True, slots=True)
class Part:
    """Some items of a labelled set.

    Attributes:
        rows: (m,) rows of the set, ascending.
        codes: (m,) class codes, indices into `names`.
        names: the classes of the part, in the order of the whole set.
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    names: tuple[int | str, ...]

    def __len__(self) -> int:
        return len(self.rows)


def choose_part(labels: ClassLabels, *, classes: str = "all", fraction: float = 1.0, seed: int = 0) -> Part:
    """The items of the first classes, or a share of every class.

    Args:
        classes: ``all``, ``first half``, ``first N``, ``last N``, or names separated by commas.
        fraction: share of each class, drawn under `seed`; at least one item each.

    Raises:
        UsageError: classes in another form or more than there are; a fraction outside (0, 1].
    """
    chosen = _class_codes(labels.names, classes)
    if not 0 < fraction <= 1:
        raise UsageError(f"a fraction of the data is in (0, 1], got {fraction}")
    rows = np.flatnonzero(np.isin(labels.codes, chosen))
    if fraction < 1:
        rows = _share_of_each_class(labels.codes, rows, fraction, seed)
    codes = np.searchsorted(chosen, labels.codes[rows])
    return Part(rows, codes.astype(np.int64), tuple(labels.names[code] for code in chosen))


def require_several_per_class(part: Part, fewest: int, what: str) -> None:
    """Refuse classes that are too small for pairs.

    Raises:
        DataError: a class has fewer items; the message has the count and the first names.
    """
    counts = np.bincount(part.codes, minlength=len(part.names))
    small = np.flatnonzero(counts < fewest)
    if len(small):
        shown = ", ".join(f"{part.names[code]!r} ({counts[code]})" for code in small[:5])
        raise DataError(
            f"{what}: {len(small)} of {len(part.names)} classes have fewer than {fewest} images: {shown}; "
            "add images, or leave these classes out with --set data.small_classes=skip"
        )


def without_small_classes(part: Part, fewest: int) -> Part:
    """The part without classes of fewer than `fewest` items."""
    counts = np.bincount(part.codes, minlength=len(part.names))
    kept = np.flatnonzero(counts >= fewest)
    inside = np.isin(part.codes, kept)
    codes = np.searchsorted(kept, part.codes[inside]).astype(np.int64)
    return Part(part.rows[inside], codes, tuple(part.names[code] for code in kept))


def _class_codes(names: tuple[int | str, ...], classes: str) -> NDArray[np.int64]:
    total = len(names)
    match = re.fullmatch(r"(first|last) (half|\d+)", classes.strip())
    if classes.strip() == "all":
        return np.arange(total)
    if match:
        count = total // 2 if match[2] == "half" else int(match[2])
        if not 1 <= count <= total:
            raise UsageError(f"classes {classes!r}: there are {total} classes; ask for 1 to {total}")
        return np.arange(count) if match[1] == "first" else np.arange(total - count, total)
    wanted = [name.strip() for name in classes.split(",")]
    position = {str(name): code for code, name in enumerate(names)}
    unknown = [name for name in wanted if name not in position]
    if unknown:
        raise UsageError(
            f"classes {classes!r}: no class {unknown[0]!r} among {total} ({names[0]!r} to {names[-1]!r}); "
            "write all, first half, first N, last N, or names separated by commas"
        )
    return np.array(sorted({position[name] for name in wanted}))


def _share_of_each_class(
    codes: NDArray[np.int64], rows: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.int64]:
    generator = np.random.default_rng(seed)
    kept = []
    for code in np.unique(codes[rows]):
        members = rows[codes[rows] == code]
        count = max(1, round(fraction * len(members)))
        kept.append(generator.permutation(members)[:count])
    return np.sort(np.concatenate(kept))
