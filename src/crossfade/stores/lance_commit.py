"""Commits to a Lance dataset: refused when others wrote in between, tried again, errors made ours."""

from __future__ import annotations

import errno
import random
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from crossfade.errors import OutOfSpace, StoreError
from crossfade.extras import load
from crossfade.vectors.metadata import SPACE_KEY

ATTEMPTS = 200
PAUSE = 0.02
Value = TypeVar("Value")


def committed(attempt: Callable[[], Value], uri: str) -> Value:
    """Run `attempt`, which opens the dataset anew and commits, until nobody else commits in between.

    Raises:
        StoreError: others always did.
    """
    conflict: type[BaseException] = load("lance.commit", "lance").CommitConflictError
    for _ in range(ATTEMPTS):
        try:
            with store_errors(uri, passing=conflict):
                return attempt()
        except conflict:
            time.sleep(random.uniform(0, PAUSE))
    raise StoreError(
        f"{uri}: others wrote between each of {ATTEMPTS} attempts to commit; nothing was changed: "
        "try again when there are fewer writers"
    )


def rename(dataset: Any, names: Mapping[str, str], scratch: Path) -> None:
    """Rename columns in one commit, which is refused if rows were added or changed since `dataset`.

    `alter_columns` would rename them whatever others have written meanwhile, and what others began before it
    could be committed after it, under the earlier names. A commit that says that it may not preserve
    nullability conflicts with both. Its schema comes from a clone without data, since field ids cannot be
    set otherwise.

    Args:
        scratch: folder that nobody else uses, for the clone; whatever a crash left there is deleted.
    """
    lance = load("lance", "lance")
    shutil.rmtree(scratch, ignore_errors=True)
    clone = scratch / uuid.uuid4().hex
    try:
        renamed = dataset.shallow_clone(str(clone.absolute()), reference=dataset.version)
        renamed.alter_columns(*({"path": old, "name": new} for old, new in names.items()))
        _drop_stale_spaces(renamed)
        operation = lance.LanceOperation.Project(renamed.lance_schema, preserves_nullability=False)
        lance.LanceDataset.commit(dataset, operation, read_version=dataset.version, max_retries=0)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _drop_stale_spaces(dataset: Any) -> None:
    """Spaces recorded by column name would be wrong after a renaming; the columns carry their own."""
    stale = [key for key in dataset.schema.metadata or {} if key.startswith(SPACE_KEY)]
    if stale:
        dataset.update_schema_metadata({key.decode(): None for key in stale})


@contextmanager
def store_errors(uri: str, passing: type[BaseException] = StoreError) -> Iterator[None]:
    """What Lance raises becomes one of our errors, except for `passing`."""
    try:
        yield
    except (passing, StoreError):
        raise
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise OutOfSpace(
                f"{uri}: no space left on the disk; nothing that readers see was changed: "
                "free some space and run the same command again"
            ) from None
        raise StoreError(f"{uri}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for one of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0]
