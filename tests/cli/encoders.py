"""Encoders that commands can name by ``python:tests.cli.encoders:NEW_ENCODER``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tests.cli.conftest import NEW, OLD

from crossfade.encoders.callable import CallableEncoder
from crossfade.vectors import FloatMatrix


def _embed(items: Sequence[str]) -> FloatMatrix:
    """A vector that depends on the text alone."""
    return np.stack([np.random.default_rng(len(item)).normal(size=NEW.dimension) for item in items]).astype(
        np.float32
    )


NEW_ENCODER = CallableEncoder(_embed, NEW)
OLD_ENCODER = CallableEncoder(lambda items: _embed(items)[:, : OLD.dimension], OLD)
