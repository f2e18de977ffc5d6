"""A Milvus server, or a file of Milvus Lite, and what it says when it refuses."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from crossfade.errors import StoreError, UsageError
from crossfade.extras import load
from crossfade.stores.address import redact
from crossfade.stores.refused import Refused

FORM = "write milvus://[USER:PASSWORD@]HOST:PORT[/DATABASE]#ALIAS.FIELD or milvus:///PATH/FILE.db#ALIAS.FIELD"
SECONDS = 120
CONNECT_SECONDS = 10
PERMISSION_DENIED = "PERMISSION_DENIED"
LITE = "milvus_lite"

_SERVER = re.compile(r"(?:(?P<token>[^/]*)@)?(?P<host>[^:/@]+)(?::(?P<port>\d+))?(?:/(?P<database>[^/]*))?")


class MilvusServer:
    """Calls of a client, each of which ends in time and with an error of Crossfade's.

    Args:
        scheme, place: of the address.
    """

    def __init__(self, scheme: str, place: str) -> None:
        self._what = redact(f"{scheme}://{place}")
        try:
            self._client = _client(scheme, place)
        except Exception as error:
            self._raise(error)
        self.version = str(self.call("get_server_version"))
        self.is_lite = self.version.startswith(LITE)

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the client.

        Raises:
            Refused: the server refused or did not answer.
        """
        try:
            return getattr(self._client, name)(*arguments, timeout=SECONDS, **options)
        except Exception as error:
            self._raise(error)

    def _raise(self, error: Exception) -> Any:
        """Turn what the library raises into one line."""
        if isinstance(error, StoreError | UsageError) or not _is_foreign(error):
            raise error
        code, said = _said(error)
        raise Refused(self._what, "Milvus", said, denied=code == PERMISSION_DENIED) from None


def _is_foreign(error: Exception) -> bool:
    return type(error).__module__.startswith(("pymilvus", "grpc"))


def _said(error: Any) -> tuple[str, str]:
    """Code and first line of an error of the library, or of gRPC, whose errors have methods for them."""
    code, text = getattr(error, "code", ""), getattr(error, "message", "") or getattr(error, "details", "")
    code, text = (one() if callable(one) else one for one in (code, text))
    line = (str(text or error).splitlines() or [type(error).__name__])[0]
    return str(getattr(code, "name", code)), line


def file_of(place: str) -> Path | None:
    """The file of Milvus Lite that an address names, if it names one."""
    return Path(place) if place.startswith(("/", "./", "../")) else None


@lru_cache(maxsize=16)
def _client(scheme: str, place: str) -> Any:
    make = load("pymilvus", "milvus").MilvusClient
    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they print every error that they raise as well
    file = file_of(place)
    if file is not None:
        return _lite(make, file, f"{scheme}://{place}")
    match = _SERVER.fullmatch(place)
    if match is None:
        raise UsageError(f"{redact(f'{scheme}://{place}')!r}: {FORM}")
    protocol = "https" if scheme == "milvuss" else "http"
    return make(
        f"{protocol}://{match['host']}:{match['port'] or 19530}",
        token=unquote((match["token"] or "").removeprefix(":")),
        db_name=unquote(match["database"] or ""),
        timeout=CONNECT_SECONDS,
    )


def _lite(make: Any, file: Path, place: str) -> Any:
    if file.suffix != ".db":
        raise UsageError(f"{place!r}: a file of Milvus Lite ends in .db; {FORM}")
    if not file.exists():
        raise StoreError(f"{place}: no such file; check its name")
    load("milvus_lite", "milvus-lite")
    try:
        return make(str(file))
    except Exception as error:
        if not _is_foreign(error):
            raise
        raise StoreError(
            f"{place}: Milvus Lite did not open it; is it open in another process? One at a time may use it: "
            "stop that, or run milvus-lite server on the folder and address the server"
        ) from None
