"""transformers without its progress bars and warnings; what matters of them becomes our errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from crossfade.extras import load


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within it transformers logs nothing but errors, and draws no bars."""
    logging = load("transformers.utils.logging", "hf")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
