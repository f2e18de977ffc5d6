"""A Qdrant server, or its client's local mode, and what it says when it refuses."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from crossfade.errors import CrossfadeError, UsageError
from crossfade.extras import load
from crossfade.stores.address import redact
from crossfade.stores.refused import Refused

MEMORY = ":memory:"
FURTHER_VECTORS = (1, 18)
"""Server and client from here on give a collection that there is a further named vector."""
NOT_FOUND = 404


class QdrantServer:
    """Has the methods of `client`; each raises `Refused` where the server refuses or does not answer.

    Args:
        what: the store, for messages.
    """

    def __init__(self, client: Any, what: str) -> None:
        self._client, self._what = client, what

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*values: Any, **options: Any) -> Any:
            try:
                return method(*values, **options)
            except Exception as error:
                if not _is_foreign(error):
                    raise
                line = (str(error).splitlines() or [""])[0] or type(error).__name__
                raise Refused(self._what, "Qdrant", line, missing=_is_missing(error)) from None

        return call

    def why_no_further_vector(self) -> str:
        """Why no further named vector can be given to a collection here; empty if one can."""
        said = str(self.info().version)
        numbers = tuple(int(one) for one in re.findall(r"\d+", said)[:2])
        if not hasattr(self._client, "create_vector_name"):
            return "this qdrant-client adds no named vector to a collection that there is, 1.18 does"
        if numbers < FURTHER_VECTORS:
            return f"server {said} adds no named vector to a collection that there is, 1.18 does"
        return ""


def _is_foreign(error: Exception) -> bool:
    """Whether the library raised it; its local mode raises plain errors."""
    if isinstance(error, CrossfadeError):
        return False
    known = isinstance(error, ValueError | KeyError)
    return known or type(error).__module__.startswith(("qdrant_client", "httpx", "grpc"))


def _is_missing(error: Any) -> bool:
    said = str(error).lower()
    told = "not found" in said or "doesn't exist" in said
    return told or isinstance(error, KeyError) or getattr(error, "status_code", 0) == NOT_FOUND


def client_for(place: str) -> Any:
    """The client of a server; local mode is one per name and process, as a server would be."""
    scheme, _, rest = place.partition("://")
    return _client(scheme, rest)


@lru_cache(maxsize=16)
def _client(scheme: str, rest: str) -> Any:
    make = load("qdrant_client", "qdrant").QdrantClient
    if rest.startswith(MEMORY):
        return make(MEMORY)
    key, _, host = rest.rpartition("@")
    match = re.fullmatch(r"(?P<name>[^:/]+)(?::(?P<port>\d+))?/?", host)
    if match is None:
        raise UsageError(f"{redact(f'{scheme}://{rest}')!r}: write qdrant://[KEY@]HOST:PORT#NAME.VECTOR")
    return make(
        host=match["name"],
        port=int(match["port"] or 6333),
        https=scheme == "qdrants",
        api_key=unquote(key.removeprefix(":")) or None,
        timeout=60,
        check_compatibility=False,
    )
