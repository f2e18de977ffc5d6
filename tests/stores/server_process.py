"""A server that lives as long as the tests."""

from __future__ import annotations

import atexit
import socket
import subprocess
import tempfile
import time
from pathlib import Path

START_SECONDS = 90


def folder_for(name: str) -> Path:
    """A folder that goes when the tests end, in memory where that is possible: servers wait for disks."""
    memory = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(prefix=f"crossfade-{name}-", dir=memory if memory.is_dir() else None)
    atexit.register(folder.cleanup)
    return Path(folder.name)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def started(command: list[str], port: int, folder: Path) -> None:
    """Run a server until the tests end, and wait until it listens."""
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def stop() -> None:
        server.terminate()
        server.wait(30)

    atexit.register(stop)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            said = (folder / "server.log").read_text(errors="replace")[-2000:]
            assert server.poll() is None, f"the server ended: {said}"
            assert time.monotonic() < deadline, f"the server does not listen: {said}"
            time.sleep(0.05)
