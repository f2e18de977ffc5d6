"""Dual encoders as ONNX files: an image tower, a text tower, one space, no torch.

A model is a directory:

``config.json``
    ``{"space": {...}, "image": {"file": "image.onnx", "side": 48},
    "text": {"file": "text.onnx", "vocabulary": "vocabulary.json", "length": 24}}``;
    a model may have one tower only.
``image.onnx``
    (n, side, side, 3) uint8 RGB -> (n, dimension) float32.
``text.onnx``
    (n, length) int64 word ids -> (n, dimension) float32.
``vocabulary.json``
    word -> id; ``[pad]`` is 0 and ``[unknown]`` is 1.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crossfade.encoders.base import Encoder
from crossfade.errors import DataError, DimensionMismatch, InvalidVectors, UnreadableFile, UsageError
from crossfade.extras import load
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix

Modality = Literal["image", "text"]
Prepare = Callable[[Sequence[Any], int], NDArray[Any]]

BATCH_ITEMS = 64
MAX_IMAGE_BYTES = 64 * 2**20
MAX_IMAGE_PIXELS = 64 * 2**20
MAX_TEXT_CHARACTERS = 100_000  # of a longer text only the beginning is read
MAX_SIDE = 4096
MAX_LENGTH = 8192
_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


class OnnxEncoder(Encoder):
    """One tower of an ONNX dual encoder. Make it with `load`."""

    def __init__(self, session: Any, prepare: Prepare, space: Space, batch: int) -> None:
        self._session = session
        self._prepare = prepare
        self._space = space
        self._batch = batch
        self._input: str = session.get_inputs()[0].name

    @classmethod
    def load(
        cls, path: str | Path, modality: Modality, *, batch: int = BATCH_ITEMS, threads: int = 0
    ) -> OnnxEncoder:
        """Open the tower for `modality` of the model in directory `path`.

        Args:
            path: directory with ``config.json`` and the files that it names.
            modality: ``image`` (items are encoded pictures, e.g. PNG bytes) or ``text`` (strings).
            batch: items per run of the model.
            threads: processor threads; 0 takes all that this process may use.

        Raises:
            UsageError: an unknown modality, one without a tower here, or a number below its minimum.
            UnreadableFile: a file is missing or not what `config.json` says.
            MissingExtra: onnxruntime or Pillow is not installed.
        """
        _check_options(modality, batch, threads)
        folder = Path(path)
        config = _read_json(folder / "config.json")
        space = _read_space(config, folder / "config.json")
        tower = _read_tower(config, modality, folder / "config.json")
        prepare = _prepare_images(tower, folder) if modality == "image" else _prepare_texts(tower, folder)
        return cls(_open_session(_file(tower, "file", folder), threads), prepare, space, batch)

    @property
    def space(self) -> Space:
        return self._space

    def encode(self, items: Sequence[Any]) -> FloatMatrix:
        """Embed pictures (bytes) or texts (strings): (len(items), dimension) float32, in their order.

        Raises:
            DataError: an item is not a readable picture or not a text; the message has its index.
            DimensionMismatch: the model's vectors are not as long as `config.json` says.
            InvalidVectors: the model returned NaN or infinite values.
        """
        vectors = np.empty((len(items), self.space.dimension), dtype=np.float32)
        for start in range(0, len(items), self._batch):
            chunk = items[start : start + self._batch]
            vectors[start : start + len(chunk)] = self._run(self._prepare(chunk, start))
        if not np.isfinite(vectors).all():
            rows = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            raise InvalidVectors(
                f"{self.space.model} returned NaN or infinite values for {len(rows)} of {len(items)} items, "
                f"first item {rows[0]}; check the model file"
            )
        return _unit(vectors) if self.space.normalized else vectors

    def _run(self, inputs: NDArray[Any]) -> FloatMatrix:
        output: FloatMatrix = self._session.run(None, {self._input: inputs})[0]
        expected = (len(inputs), self.space.dimension)
        if output.shape != expected:
            raise DimensionMismatch(
                f"{self.space.model} returned vectors of shape {output.shape}, its config.json promises "
                f"{expected}; correct space.dimension or use the model's own files"
            )
        return output


def _check_options(modality: str, batch: int, threads: int) -> None:
    if modality not in get_args(Modality):
        raise UsageError(f"modality {modality!r} is not one of {', '.join(get_args(Modality))}")
    if batch < 1:
        raise UsageError(f"batch must be at least 1, got {batch}")
    if threads < 0:
        raise UsageError(f"threads must be at least 0 (0: all), got {threads}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableFile(
            f"{path}: cannot be read ({error.strerror}); give a directory with config.json and ONNX files"
        ) from None
    except ValueError as error:
        raise UnreadableFile(f"{path}: not valid JSON ({error}); export the model again") from None
    if not isinstance(values, dict):
        raise UnreadableFile(
            f"{path}: expected a JSON object, got {type(values).__name__}; export the model again"
        )
    return values


def _read_space(config: dict[str, Any], path: Path) -> Space:
    try:
        return Space.from_dict(config["space"])
    except KeyError:
        raise UnreadableFile(
            f"{path}: has no 'space' (model, dimension, metric, normalized); add it"
        ) from None
    except (TypeError, UsageError) as error:
        raise UnreadableFile(f"{path}: 'space' is not valid ({error}); correct it") from None


def _read_tower(config: dict[str, Any], modality: Modality, path: Path) -> dict[str, Any]:
    tower = config.get(modality)
    if tower is None:
        has = ", ".join(name for name in get_args(Modality) if name in config) or "none"
        raise UsageError(
            f"{path.parent}: no {modality} tower, only: {has}; load one of these or another model"
        )
    if not isinstance(tower, dict):
        raise UnreadableFile(
            f"{path}: {modality!r} must be an object, got {type(tower).__name__}; correct it"
        )
    return tower


def _file(tower: dict[str, Any], key: str, folder: Path) -> Path:
    name = tower.get(key)
    if not isinstance(name, str) or Path(name).name != name:
        raise UnreadableFile(
            f"{folder / 'config.json'}: {key!r} must name a file beside it, got {name!r}; correct it"
        )
    return folder / name


def _bounded(tower: dict[str, Any], key: str, limit: int, folder: Path) -> int:
    value = tower.get(key)
    if not isinstance(value, int) or not 1 <= value <= limit:
        raise UnreadableFile(
            f"{folder / 'config.json'}: {key!r} must be a whole number from 1 to {limit}, "
            f"got {value!r}; correct it"
        )
    return value


def _open_session(path: Path, threads: int) -> Any:
    runtime = load("onnxruntime", "onnx")
    if not path.is_file():
        raise UnreadableFile(
            f"{path}: no such file, but config.json names it; copy the whole model directory"
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or _available_threads()
    options.inter_op_num_threads = 1
    # Idle threads that spin starve whatever else runs on a small machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no public base class
        first_line = str(error).partition("\n")[0]
        raise UnreadableFile(
            f"{path}: not a model that onnxruntime can run ({first_line}); copy it again"
        ) from None


def _available_threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare_images(tower: dict[str, Any], folder: Path) -> Prepare:
    side = _bounded(tower, "side", MAX_SIDE, folder)
    load("PIL.Image", "onnx")

    def prepare(items: Sequence[Any], start: int) -> NDArray[Any]:
        return np.stack([_decode(item, side, start + row) for row, item in enumerate(items)])

    return prepare


def _decode(item: Any, side: int, index: int) -> NDArray[np.uint8]:
    """A picture as (side, side, 3) uint8 RGB, resized if it has another size."""
    if not isinstance(item, bytes | bytearray | memoryview):
        raise DataError(
            f"item {index} is {type(item).__name__}, expected the bytes of a picture (PNG, JPEG, ...)"
        )
    if len(item) > MAX_IMAGE_BYTES:
        raise DataError(
            f"item {index} has {len(item)} bytes, at most {MAX_IMAGE_BYTES} are read; shrink it first"
        )
    image_module = load("PIL.Image", "onnx")
    try:
        with image_module.open(io.BytesIO(item), formats=_IMAGE_FORMATS) as picture:
            width, height = picture.size
            if width * height <= MAX_IMAGE_PIXELS:
                rgb = picture.convert("RGB")
                return np.asarray(rgb if rgb.size == (side, side) else rgb.resize((side, side)))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error on broken files
        raise DataError(f"item {index} is not a readable picture ({error}); repair or leave it out") from None
    raise DataError(
        f"item {index} has {width} x {height} pixels, at most {MAX_IMAGE_PIXELS} are read; shrink it first"
    )


def _prepare_texts(tower: dict[str, Any], folder: Path) -> Prepare:
    length = _bounded(tower, "length", MAX_LENGTH, folder)
    vocabulary = _read_vocabulary(_file(tower, "vocabulary", folder))

    def prepare(items: Sequence[Any], start: int) -> NDArray[Any]:
        ids = np.zeros((len(items), length), dtype=np.int64)
        for row, item in enumerate(items):
            words = _words(item, start + row)[:length]
            ids[row, : len(words)] = [vocabulary.get(word, 1) for word in words]
        return ids

    return prepare


def _read_vocabulary(path: Path) -> dict[str, int]:
    vocabulary = _read_json(path)
    if vocabulary.get("[pad]") != 0 or vocabulary.get("[unknown]") != 1:
        raise UnreadableFile(f"{path}: must have '[pad]' as 0 and '[unknown]' as 1; export the model again")
    if sorted(map(str, vocabulary.values())) != sorted(map(str, range(len(vocabulary)))):
        raise UnreadableFile(
            f"{path}: ids must be 0 to {len(vocabulary) - 1}, each once; export the model again"
        )
    return vocabulary


def _words(item: Any, index: int) -> list[str]:
    if not isinstance(item, str):
        raise DataError(f"item {index} is {type(item).__name__}, expected a text")
    words = re.findall(r"\w+|,", item[:MAX_TEXT_CHARACTERS].lower())
    if not words:
        raise DataError(f"item {index} has no words: {item[:40]!r}; leave it out")
    return words


def _unit(vectors: FloatMatrix) -> FloatMatrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
