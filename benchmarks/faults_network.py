"""A connection that can be cut: a proxy between sockets, and Qdrant's local mode behind a socket."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

Place = Path | int
"""A Unix socket, or a port of this machine."""


class Proxy:
    """Passes on what goes through a socket, until it is told to cut it.

    Args:
        here: that clients connect to; of port 0 becomes one that is free.
        there: of the server.

    Attributes:
        port: that it listens on; 0 for a Unix socket.
    """

    def __init__(self, here: Place, there: Place) -> None:
        self._there, self._pairs = there, list[tuple[socket.socket, socket.socket]]()
        self._lock, self._mute, self._closed_until = threading.Lock(), False, 0.0
        self._listener = _socket(here)
        self._listener.bind(_address(here))
        self._listener.listen(32)
        self.port = 0 if isinstance(here, Path) else int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cut everything, and take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self, *, closed: float = 0.0) -> None:
        """Cut every connection, and refuse further ones for so many seconds."""
        with self._lock:
            self._closed_until = time.monotonic() + closed
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _close(*pair)

    def lose_answers(self) -> None:
        """Cut each connection of now as soon as the server answers: what was asked for has been done."""
        with self._lock:
            self._mute = True

    def heal(self) -> None:
        """Let everything through again; connections whose answers were to be lost are cut."""
        with self._lock:
            muted, self._mute, self._closed_until = self._mute, False, 0.0
        if muted:
            self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:  # closed
                return
            if time.monotonic() < self._closed_until:
                _close(client)
                continue
            server = _socket(self._there)
            try:
                server.connect(_address(self._there))
            except OSError:
                _close(client, server)
                continue
            with self._lock:
                self._pairs.append((client, server))
            for source, target, answers in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass_on, args=(source, target, answers), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while content := source.recv(1 << 16):
                if answers and self._mute:
                    break
                target.sendall(content)
        _close(source, target)


def _socket(place: Place) -> socket.socket:
    if isinstance(place, Path):
        return socket.socket(socket.AF_UNIX)
    made = socket.socket(socket.AF_INET)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by what is accepted
    return made


def _address(place: Place) -> str | tuple[str, int]:
    return str(place) if isinstance(place, Path) else ("127.0.0.1", place)


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


class QdrantServer:
    """The client's local mode as a server of one process, which outlives those that use it."""

    def __init__(self, path: Path) -> None:
        from qdrant_client import QdrantClient

        self._client, self._lock = QdrantClient(":memory:"), threading.Lock()
        self._listener = Listener(str(path), "AF_UNIX", backlog=32)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept(),), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        with suppress(EOFError, OSError):
            while True:
                name, values, options = connection.recv()
                try:
                    with self._lock:
                        answer = (True, getattr(self._client, name)(*values, **options))
                except Exception as error:
                    answer = (False, error)
                connection.send(answer)
        connection.close()


class QdrantRemote:
    """Speaks to a `QdrantServer`; a lost connection is the error that Qdrant's own client raises."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._connection: Connection | None = None

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any, **options: Any) -> Any:
            with self._lock:
                good, answer = self._asked(name, values, options)
            if good:
                return answer
            raise answer

        return call

    def _asked(self, name: str, values: Any, options: Any) -> Any:
        from qdrant_client.http.exceptions import ResponseHandlingException

        try:
            if self._connection is None:
                self._connection = Client(str(self._path), "AF_UNIX")
            self._connection.send((name, values, options))
            return self._connection.recv()
        except (EOFError, OSError) as error:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            raise ResponseHandlingException(error) from None
