"""A Chroma server, or a folder of Chroma's, and what it says when it refuses."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from crossfade.errors import CrossfadeError, StoreError, UsageError
from crossfade.extras import load
from crossfade.stores.address import redact
from crossfade.stores.refused import Refused

FORM = (
    "write chroma://[TOKEN@]HOST:PORT[/TENANT/DATABASE]#COLLECTION, or chroma:///FOLDER#COLLECTION for a "
    "folder of this machine"
)
DATABASE_FILE = "chroma.sqlite3"
DENIED = ("ChromaAuthError", "AuthorizationError")
REFUSALS = ("forbidden", "unauthorized")
"""What proxies before a server say, which the library passes on as they say it."""

_SERVER = re.compile(
    r"(?:(?P<token>[^/]*)@)?(?P<host>[^:/@]+)(?::(?P<port>\d+))?(?:/(?P<tenant>[^/]+)/(?P<database>[^/]+))?/?"
)


class ChromaServer:
    """A client whose calls end with errors of Crossfade's.

    Args:
        scheme, place: of the address.
    """

    def __init__(self, scheme: str, place: str) -> None:
        self._what = redact(f"{scheme}://{place}")
        self.folder = folder_of(place)
        self.client: Any = self.ask(_client, scheme, place)

    def ask(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a function of the library.

        Raises:
            Refused: the server refused or did not answer.
        """
        try:
            return function(*arguments, **options)
        except Exception as error:
            if not _is_foreign(error):
                raise
            said = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise Refused(
                self._what,
                "Chroma",
                said,
                denied=type(error).__name__ in DENIED or any(one in said.lower() for one in REFUSALS),
                missing="does not exist" in said or "not found" in said.lower(),
            ) from None

    def find(self, name: str) -> Any:
        """The library's object of the collection that is called `name` now; None if there is none."""
        try:
            return self.ask(self.client.get_collection, name, embedding_function=None)
        except Refused as error:
            if error.missing:
                return None
            raise

    def names(self) -> list[str]:
        """Names of all collections."""
        return [str(one.name) for one in self.ask(self.client.list_collections)]


def _is_foreign(error: Exception) -> bool:
    """Whether the library raised it; what a server answers in other words comes as a plain exception."""
    if isinstance(error, CrossfadeError):
        return False
    known = isinstance(error, ValueError | OSError) or type(error) is Exception
    return known or type(error).__module__.startswith(("chromadb", "httpx", "httpcore"))


def folder_of(place: str) -> Path | None:
    """The folder that an address names, if it names one."""
    return Path(place) if place.startswith(("/", "./", "../")) else None


@lru_cache(maxsize=16)
def _client(scheme: str, place: str) -> Any:
    folder = folder_of(place)
    if folder is not None:
        if not (folder / DATABASE_FILE).exists():
            raise StoreError(f"{scheme}://{place}: the folder holds no {DATABASE_FILE}; check its name")
        load("chromadb_rust_bindings", "chroma-local")
        return load("chromadb", "chroma-local").PersistentClient(str(folder), settings=_settings())
    match = _SERVER.fullmatch(place)
    if match is None:
        raise UsageError(f"{redact(f'{scheme}://{place}')!r}: {FORM}")
    named = {"tenant": match["tenant"], "database": match["database"]} if match["tenant"] else {}
    return load("chromadb", "chroma").HttpClient(
        match["host"],
        int(match["port"] or 8000),
        ssl=scheme == "chromas",
        headers=_headers(unquote(match["token"] or "")),
        settings=_settings(),
        **named,
    )


def _settings() -> Any:
    return load("chromadb", "chroma").Settings(anonymized_telemetry=False)


def _headers(token: str) -> dict[str, str]:
    """A token as Chroma Cloud and proxies take it; USER:PASSWORD as HTTP's own."""
    user, _, password = token.partition(":")
    if user and password:
        return {"Authorization": f"Basic {b64encode(token.encode()).decode()}"}
    token = user or password
    return {"Authorization": f"Bearer {token}", "X-Chroma-Token": token} if token else {}
