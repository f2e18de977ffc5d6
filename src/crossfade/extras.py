"""Optional dependencies: imported where they are used, named with their pip line when absent."""

from __future__ import annotations

import importlib
from typing import Any

from crossfade.errors import MissingExtra


def load(module: str, extra: str) -> Any:
    """Import `module`, or say which extra brings it.

    Raises:
        MissingExtra: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingExtra(f"{module!r} is not installed; run: pip install 'crossfade[{extra}]'") from None


def installed(module: str) -> bool:
    """Whether `module` could be imported, without importing it."""
    from importlib.util import find_spec

    return find_spec(module) is not None
