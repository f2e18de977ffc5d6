"""Files that survive a crash: written whole, brought to disk, exchanged in one step."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from crossfade.vectors.writing import full_disk_as_error, sync

_HERE = -100
_EXCHANGE = 2


def bring_to_disk(path: Path) -> dict[str, Any]:
    """Flush a written file and read it back; returns its size and SHA-256."""
    sync(path)
    return {"bytes": path.stat().st_size, "checksum": checksum(path)}


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    digest, buffer = hashlib.sha256(), bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def write_json(path: Path, values: Any) -> None:
    """Replace a small file of facts, so that a reader sees it before or after, never in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    with full_disk_as_error(str(path), 0):
        draft.write_text(json.dumps(values))
        sync(draft)
        draft.replace(path)
        sync(path.parent)


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None where there is no file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def exchange(one: Path, other: Path, spare: Path) -> None:
    """Let two files change places: at once where the system can, else through `spare`.

    Without the system's help a reader of `other` still finds either file at any time; after a crash
    in between, `restore_exchange` puts the file back that lay under `other`.
    """
    if _exchange_at_once(one, other):
        return
    spare.unlink(missing_ok=True)
    spare.hardlink_to(other)
    one.replace(other)
    spare.replace(one)


def restore_exchange(one: Path, spare: Path) -> None:
    """Finish an `exchange` that a crash cut short."""
    if not spare.exists():
        return
    if one.exists():
        spare.unlink()
    else:
        spare.replace(one)


def _exchange_at_once(one: Path, other: Path) -> bool:
    rename = _renameat2()
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(rename(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0)


@lru_cache(maxsize=1)
def _renameat2() -> Any:
    """Linux's call that exchanges two names, or None."""
    try:
        return ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return None
