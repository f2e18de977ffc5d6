"""Servers in processes of their own, which can be killed and started again: Chroma's, and Milvus Lite's."""

from __future__ import annotations

import importlib
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

from faults_network import Proxy

START_SECONDS = 90


class ServerProcess(ABC):
    """A server that keeps its data in a folder, reached directly or through a proxy.

    Attributes:
        port: of the server.
        proxy: before it.
    """

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder / f"{self.name}-data"
        self.folder.mkdir()
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.proxy = Proxy(0, self.port)

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it."""

    @abstractmethod
    def client(self, port: int | None = None) -> Any:
        """The library's client, by default past the proxy."""

    def start(self) -> None:
        """Start it, unless it runs, and wait until it listens."""
        if self._process is not None and self._process.poll() is None:
            return
        log = self.folder / "server.log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                self.command(), stdout=file, stderr=subprocess.STDOUT, cwd=self.folder
            )
        until = time.monotonic() + START_SECONDS
        while not self._listens():
            said = log.read_text(errors="replace")[-500:]
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.name} did not start: {said}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        """Kill -9; what it had promised to keep is there when it is started again."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)

    def close(self) -> None:
        """Stop for good."""
        self.proxy.close()
        self.stop()


class ChromaProcess(ServerProcess):
    """``chroma run``."""

    name = "chroma"

    def command(self) -> list[str]:
        program = str(Path(sys.executable).parent / "chroma")
        return [program, "run", "--path", "data", "--host", "127.0.0.1", "--port", str(self.port)]

    def client(self, port: int | None = None) -> Any:
        chromadb = importlib.import_module("chromadb")
        settings = chromadb.Settings(anonymized_telemetry=False)
        return chromadb.HttpClient("127.0.0.1", port or self.port, settings=settings)


class MilvusProcess(ServerProcess):
    """``milvus-lite server``."""

    name = "milvus"

    def command(self) -> list[str]:
        program = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", "data"]
        return [*program, "--host", "127.0.0.1", "--port", str(self.port)]

    def client(self, port: int | None = None) -> Any:
        return importlib.import_module("pymilvus").MilvusClient(
            f"http://127.0.0.1:{port or self.port}", timeout=30
        )


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
