"""Where the files of an upgrade lie when the store is a server."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

HOME = "CROSSFADE_HOME"


def server_folder(*names: str) -> Path:
    """Folder for the upgrades of one table: in ``$CROSSFADE_HOME``, else in ``.crossfade`` here.

    Args:
        names: what tells the table from others (server, database, schema, table), without credentials.
    """
    home = Path(os.environ.get(HOME) or ".crossfade")
    return home.absolute().joinpath(*(safe_name(name) for name in names))


def safe_name(name: str) -> str:
    """A name as part of a file name, without dots, so that two parts stay apart."""
    return quote(name, safe=" ").replace(".", "%2E") or "_"
