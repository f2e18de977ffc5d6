from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A run in a shell's background ignores Ctrl-C, and so would the commands that tests interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
