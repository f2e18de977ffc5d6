"""Dual encoders of transformers (CLIP, SigLIP, ...): a folder or a name on the Hugging Face Hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossfade.encoders.base import as_vectors
from crossfade.encoders.dual import TowerOwner
from crossfade.encoders.hub import CONFIG, NOTES, WEIGHTS, ModelFolder, find_model, read_json, weights_hash
from crossfade.encoders.picture_settings import FILE, PictureSettings, read_picture_settings
from crossfade.encoders.quiet import quiet_transformers
from crossfade.encoders.tokenizing import TextReader, open_tokenizer
from crossfade.errors import DataError, NotSupported, UnreadableFile, UsageError
from crossfade.extras import load
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix

if TYPE_CHECKING:
    from crossfade.encoders.dual_network import DualNetwork, Tokens

FORMAT = 1
BATCH_ITEMS = 64


class HuggingFaceDual(TowerOwner):
    """Pictures and texts embedded by a transformers model; vectors of unit length, compared by cosine.

    Args:
        network: the network; it is put into evaluation mode.
        tokenizer: of transformers.
        settings: what its pictures look like.
        space: the space that both towers embed into.
        batch: items per run of the network.
        device: as in torch; None chooses.

    Raises:
        UsageError: a batch below 1.
        UnreadableFile: the tokenizer is of another model.
    """

    def __init__(
        self,
        network: DualNetwork,
        tokenizer: Any,
        settings: PictureSettings,
        space: Space,
        *,
        batch: int = BATCH_ITEMS,
        device: str | None = None,
    ) -> None:
        super().__init__()
        torch = load("torch", "hf")
        if batch < 1:
            raise UsageError(f"batch must be at least 1, got {batch}")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.to(self.device).eval()
        self.tokenizer, self.settings, self.batch = tokenizer, settings, batch
        self._reader = TextReader(tokenizer, network.model.config, network.context_length)
        self._space = space

    @classmethod
    def load(
        cls,
        name_or_dir: str | Path,
        *,
        revision: str | None = None,
        batch: int = BATCH_ITEMS,
        device: str | None = None,
    ) -> HuggingFaceDual:
        """Open a folder, or a model of the Hub (its configuration, safetensors, tokenizer and settings).

        Args:
            revision: branch, tag or commit on the Hub; of a folder, the start of its weights' SHA-256.

        Raises:
            UnreadableFile: no such folder, no tokenizer, no settings of pictures, no safetensors, or weights
                that are not the configuration's.
            EncoderError: the Hub does not give it, or a folder is of another revision.
            NotSupported: no dual encoder.
            MissingExtra: torch, transformers or Pillow is not installed.
        """
        load("torch", "hf")
        found = find_model(name_or_dir, revision)
        from crossfade.encoders.dual_network import DualNetwork

        model_class = _model_class(found.path)
        settings, tokenizer = read_picture_settings(found.path), open_tokenizer(found.path)
        network = DualNetwork(_load_model(model_class, found.path), settings)
        _require_size(network, found)
        space = Space(found.name, network.dimension, normalized=True, revision=found.revision)
        try:
            return cls(network, tokenizer, settings, space, batch=batch, device=device)
        except UnreadableFile as error:
            raise UnreadableFile(f"{found.path}: {error}") from None

    def __repr__(self) -> str:
        return f"HuggingFaceDual({self._space})"

    @property
    def space(self) -> Space:
        return self._space

    @property
    def context_length(self) -> int:
        """Most tokens of a text, the special ones included."""
        return self._reader.context_length

    def decode(self, items: Sequence[Any], start: int = 0) -> NDArray[np.uint8]:
        """The bytes of n pictures as (n, s, s, 3) uint8, as `encode_pictures` takes them.

        Args:
            start: index of the first, for messages.

        Raises:
            DataError: an item is not a readable picture.
        """
        pictures = [self.settings.decode(item, f"item {start + row}") for row, item in enumerate(items)]
        side = self.settings.side
        return np.stack(pictures) if pictures else np.empty((0, side, side, 3), dtype=np.uint8)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """n texts as (n, L) tokens; `Tokens.truncated` counts those that were cut.

        Raises:
            UsageError: an item is no string.
        """
        return self._reader.tokenize(texts)

    def encode_pictures(self, pictures: NDArray[np.uint8]) -> FloatMatrix:
        """Embed decoded pictures, (n, s, s, 3) uint8 → (n, dimension) float32.

        Raises:
            DataError: pictures of another shape.
            InvalidVectors: NaN, infinite or zero vectors.
        """
        torch = load("torch", "hf")
        side = self.settings.side
        if pictures.ndim != 4 or pictures.shape[1:] != (side, side, 3) or pictures.dtype != np.uint8:
            raise DataError(
                f"{self._space.model} takes pictures (n, {side}, {side}, 3) uint8, "
                f"got {pictures.shape} {pictures.dtype}; decode them with its settings"
            )
        features = np.empty((len(pictures), self._space.dimension), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(pictures), self.batch):
                chunk = torch.from_numpy(np.array(pictures[start : start + self.batch])).to(self.device)
                pixels = chunk.permute(0, 3, 1, 2).float() / 255
                features[start : start + self.batch] = self.network.image_features(pixels).cpu().numpy()
        return as_vectors(features, len(pictures), self._space)

    def encode_tokens(self, tokens: Tokens) -> FloatMatrix:
        """Embed tokenized texts, → (n, dimension) float32.

        Raises:
            InvalidVectors: NaN, infinite or zero vectors.
        """
        torch = load("torch", "hf")
        features = np.empty((len(tokens), self._space.dimension), dtype=np.float32)
        # Texts of similar length together: little padding is computed.
        order = torch.argsort(tokens.attention_mask.sum(dim=1), stable=True)
        with torch.inference_mode():
            for start in range(0, len(tokens), self.batch):
                rows = order[start : start + self.batch]
                chunk = tokens.rows(rows).to(self.device)
                features[rows.numpy()] = self.network.text_features(chunk).cpu().numpy()
        return as_vectors(features, len(tokens), self._space)

    def embed_pictures(self, items: Sequence[Any]) -> FloatMatrix:
        parts = [np.empty((0, self._space.dimension), dtype=np.float32)]
        for start in range(0, len(items), self.batch):
            parts.append(self.encode_pictures(self.decode(items[start : start + self.batch], start)))
        return np.concatenate(parts)

    def embed_texts(self, items: Sequence[Any]) -> tuple[FloatMatrix, int]:
        tokens = self.tokenize(items)
        return self.encode_tokens(tokens), tokens.truncated

    def save(
        self, directory: str | Path, *, name: str | None = None, notes: Mapping[str, Any] | None = None
    ) -> Space:
        """Write it as transformers does, so that `load` (and transformers) opens it.

        config.json, model.safetensors, the tokenizer's files, preprocessor_config.json, and crossfade.json
        with the model's name. Files of these names are replaced, others are left alone.

        Args:
            name: name of the model, for its space; None keeps the present one.
            notes: further JSON-ready entries of crossfade.json (recipe, data).

        Returns:
            The space that `load` will say; its revision is the hash of the weights.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        name = name or self._space.model
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as partial:
            written = Path(partial)
            with quiet_transformers():
                self.network.model.save_pretrained(written)
                self.tokenizer.save_pretrained(written)
            _write_json(written / FILE, self.settings.to_config())
            _write_json(written / NOTES, {**(notes or {}), "format": FORMAT, "model": name})
            revision = weights_hash(written)
            # config.json last: without it nothing here is taken for a model.
            for path in sorted(written.iterdir(), key=lambda path: path.name == CONFIG):
                path.chmod(0o644)  # safetensors makes it private
                shutil.move(path, folder / path.name)
        return Space(name, self._space.dimension, normalized=True, revision=revision)


def read_dual_notes(directory: str | Path) -> dict[str, Any]:
    """What `HuggingFaceDual.save` noted in crossfade.json.

    Raises:
        UnreadableFile: it is missing or broken.
    """
    return read_json(Path(directory) / NOTES)


def _model_class(folder: Path) -> Any:
    from crossfade.encoders.dual_network import require_towers

    transformers = load("transformers", "hf")
    try:
        with quiet_transformers():
            config = transformers.AutoConfig.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        model_class = transformers.MODEL_MAPPING[type(config)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise NotSupported(
            f"{folder / CONFIG}: not a model that transformers has ({reason}); take a CLIP, SigLIP, ..."
        ) from None
    try:
        require_towers(model_class)
    except NotSupported as error:
        raise NotSupported(f"{folder}: {error}") from None
    return model_class


def _load_model(model_class: Any, folder: Path) -> Any:
    torch = load("torch", "hf")
    from safetensors import SafetensorError

    try:
        # Without a type of its own choice, transformers would keep the half precision of some files.
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UnreadableFile(
            f"{folder / WEIGHTS}: not the weights that {CONFIG} describes ({reason}); copy it again"
        ) from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise UnreadableFile(
            f"{folder / WEIGHTS}: lacks {len(missing)} of the weights that {CONFIG} describes "
            f"(first: {missing[0]}); copy it again"
        )
    return model


def _require_size(network: DualNetwork, found: ModelFolder) -> None:
    vision = network.model.config.vision_config
    side = getattr(vision, "image_size", None)
    # A convolutional tower takes any size; one of patches has positions for just one.
    if getattr(vision, "patch_size", None) and side != network.image_size:
        raise UnreadableFile(
            f"{found.path}: {FILE} makes pictures of {network.image_size} pixels, the model takes {side}; "
            "correct it or copy it again"
        )


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
