"""Files that together make a set, and which of them belong to a split."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crossfade.errors import UnreadableFile, UsageError


def choose_parts(
    path: Path, suffix: str, split: str | None, has_column: Callable[[Path], bool] | None = None
) -> tuple[list[Path], bool]:
    """The file itself, or the files of a folder by name; and whether a column of theirs tells the split.

    Args:
        has_column: whether a file says in itself which split its rows belong to.

    Raises:
        UnreadableFile: no such file.
        UsageError: a split that neither a column nor the names of files tell.
    """
    files = _all_parts(path, suffix)
    if split is None:
        return files, False
    if has_column is not None and all(has_column(file) for file in files):
        return files, True
    chosen = [file for file in files if file != path and _is_named(file.relative_to(path), split)]
    if not chosen:
        known = sorted({file.relative_to(path).as_posix() for file in files if file != path})[:5]
        raise UsageError(
            f"{path}: no split {split!r}: neither a column 'split' nor files named {split}*{suffix} "
            f"(there are {', '.join(known) or 'none'}); leave the split out or give its files"
        )
    return chosen, False


def _all_parts(path: Path, suffix: str) -> list[Path]:
    if path.is_dir():
        files = sorted(path.glob(f"*{suffix}")) or sorted(path.glob(f"*/*{suffix}"))
        if files:
            return files
        raise UnreadableFile(f"{path}: no {suffix} files in this folder; check the path")
    if not path.is_file():
        raise UnreadableFile(f"{path}: no such file; check the path")
    return [path]


def _is_named(relative: Path, split: str) -> bool:
    names = split_names(split)
    return any(re.match(rf"{re.escape(name)}(?![a-zA-Z])", part) for part in relative.parts for name in names)


def split_names(split: str) -> tuple[str, ...]:
    """The splits that are meant: ``train+restval`` are two."""
    return tuple(name.strip() for name in split.split("+") if name.strip())


def filter_split(column: pa.Array, split: str) -> NDArray[np.bool_]:
    """(n,) which rows are of the split."""
    same = pc.is_in(column.cast(pa.string()), value_set=pa.array(split_names(split), pa.string()))
    chosen: NDArray[np.bool_] = same.to_numpy(zero_copy_only=False)
    return chosen


def require_splits(split: str, known: Iterable[str], name: str) -> None:
    """Refuse a split that no image belongs to.

    Raises:
        UsageError: there is no such split.
    """
    found = sorted(set(known))
    missing = [one for one in split_names(split) or [split] if one not in found]
    if missing:
        raise UsageError(f"{name}: no split {missing[0]!r}; there are {', '.join(found) or 'none'}")
