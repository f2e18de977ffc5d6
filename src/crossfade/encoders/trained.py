"""Image encoders that Crossfade trained: a folder with config.json and model.safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossfade.encoders.architecture import Architecture
from crossfade.encoders.base import Encoder, as_vectors
from crossfade.encoders.pictures import decode_picture
from crossfade.errors import UnreadableFile, UsageError
from crossfade.extras import load
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix

if TYPE_CHECKING:
    from crossfade.encoders.network import EmbeddingNetwork

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
BATCH_ITEMS = 256


class TrainedEncoder(Encoder):
    """Embeds the bytes of pictures with a network trained by ``crossfade train``.

    Args:
        network: the network; it is put into evaluation mode.
        space: the space that it embeds into.
        batch: pictures per run of the network.
        device: as in torch; None chooses.
    """

    def __init__(
        self,
        network: EmbeddingNetwork,
        space: Space,
        *,
        batch: int = BATCH_ITEMS,
        device: str | None = None,
    ) -> None:
        torch = load("torch", "train")
        if batch < 1:
            raise UsageError(f"batch must be at least 1, got {batch}")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.to(self.device).eval()
        self._space, self._batch = space, batch

    @classmethod
    def load(
        cls, directory: str | Path, *, batch: int = BATCH_ITEMS, device: str | None = None
    ) -> TrainedEncoder:
        """Open what `save` wrote.

        Raises:
            UnreadableFile: a file is missing, or not what `save` writes.
            MissingExtra: torch or transformers is not installed.
        """
        load("torch", "train")
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from crossfade.encoders.network import EmbeddingNetwork

        folder = Path(directory)
        space, architecture = _read_config(folder)
        network = EmbeddingNetwork(architecture)
        try:
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UnreadableFile(
                f"{folder / WEIGHTS}: not the weights that {CONFIG} describes ({reason}); "
                "train or copy it again"
            ) from None
        return cls(network, space, batch=batch, device=device)

    def __repr__(self) -> str:
        return f"TrainedEncoder({self._space})"

    @property
    def space(self) -> Space:
        return self._space

    def encode(self, items: Sequence[Any]) -> FloatMatrix:
        """Embed pictures given as bytes.

        Raises:
            DataError: an item is not a readable picture; the message has its index.
            InvalidVectors: the network returned NaN, infinite or zero vectors.
        """
        side = self.network.architecture.picture_size
        parts = [np.empty((0, self._space.dimension), dtype=np.float32)]
        for start in range(0, len(items), self._batch):
            chunk = items[start : start + self._batch]
            pictures = [decode_picture(item, side, f"item {start + row}") for row, item in enumerate(chunk)]
            parts.append(self.encode_pictures(np.stack(pictures)))
        return np.concatenate(parts)

    def encode_pictures(self, pictures: NDArray[np.uint8]) -> FloatMatrix:
        """Embed decoded pictures, (n, picture_size, picture_size, 3) uint8."""
        torch = load("torch", "train")
        parts = [np.empty((0, self._space.dimension), dtype=np.float32)]
        for start in range(0, len(pictures), self._batch):
            chunk = torch.from_numpy(np.array(pictures[start : start + self._batch])).to(self.device)
            parts.append(self.network.embed(chunk).cpu().numpy())
        return as_vectors(np.concatenate(parts), len(pictures), self._space)


def save_trained(
    network: EmbeddingNetwork,
    directory: str | Path,
    *,
    name: str,
    metric: str,
    notes: Mapping[str, Any] | None = None,
) -> Space:
    """Write a network as a folder that `TrainedEncoder.load` opens.

    The revision of its space is a hash of the content.

    Args:
        name: name of the model, for its space.
        metric: how its vectors are compared.
        notes: further JSON-ready entries of config.json (classes, recipe).

    Returns:
        The space that the encoder embeds into.
    """
    from safetensors.torch import save

    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    content = save({key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()})
    architecture = network.architecture
    revision = hashlib.sha256(
        content + json.dumps(asdict(architecture), sort_keys=True).encode()
    ).hexdigest()[:12]
    space = Space(
        name, architecture.dimension, normalized=architecture.normalized, revision=revision
    ).with_metric(metric)
    config = {
        "format": FORMAT,
        "space": space.to_dict(),
        "architecture": asdict(architecture),
        **(notes or {}),
    }
    _replace(folder / WEIGHTS, content)
    _replace(folder / CONFIG, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    return space


def read_notes(directory: str | Path) -> dict[str, Any]:
    """All of a trained encoder's config.json.

    Raises:
        UnreadableFile: no folder of a trained encoder.
    """
    path = Path(directory) / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableFile(
            f"{path}: cannot be read ({error}); give the --out folder of crossfade train"
        ) from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UnreadableFile(f"{path}: not written by this version of crossfade train (format {FORMAT})")
    return values


def _read_config(folder: Path) -> tuple[Space, Architecture]:
    values = read_notes(folder)
    try:
        described = dict(values["architecture"])
        for name in ("mean", "std"):
            described[name] = tuple(described[name])
        return Space.from_dict(values["space"]), Architecture(**described)
    except (KeyError, TypeError, UsageError) as error:
        raise UnreadableFile(f"{folder / CONFIG}: not a trained encoder's ({error}); copy it again") from None


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
