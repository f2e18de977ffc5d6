"""Adapters on disk: config.json, model.safetensors and a model card; never a pickle."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.adapters.base import Adapter
from crossfade.adapters.card import model_card
from crossfade.errors import (
    CrossfadeError,
    NotFittedError,
    OutOfSpace,
    StoreError,
    UnknownSpace,
    UnreadableFile,
    UsageError,
)
from crossfade.extras import load
from crossfade.vectors import FloatMatrix

FORMAT = "crossfade-adapter"
VERSION = 1
CONFIG, MODEL, CARD = "config.json", "model.safetensors", "README.md"
LARGEST_CONFIG = 1 << 20
LARGEST_HEADER = 1 << 20
LARGEST_DIMENSION = 1 << 16


# --- writing ----------------------------------------------------------------------------------


def save(adapter: Adapter, directory: Path, evaluation: Mapping[str, Any] | None = None) -> None:
    """Write `adapter` into `directory`, all or nothing; see `Adapter.save_pretrained`."""
    _require_saveable(adapter)
    _require_replaceable(directory)
    with _disk_errors(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        written = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            _write_files(adapter, written, evaluation)
            _put_in_place(written, directory)
        finally:
            shutil.rmtree(written, ignore_errors=True)


def _require_saveable(adapter: Adapter) -> None:
    if not adapter.fitted:
        raise NotFittedError(f"this {adapter.name} adapter is not fitted yet; call fit before saving it")
    if adapter.source is None or adapter.target is None:
        raise UnknownSpace(
            f"this {adapter.name} adapter was fitted on plain arrays, so nothing says which models it maps "
            "between; pass source= and target= spaces to fit before saving it"
        )
    if adapter.side_dimension and adapter.side is None:
        raise UnknownSpace(
            f"this {adapter.name} adapter was fitted with side-information, and nothing says which model "
            "made it; pass side_space= to fit before saving it"
        )


def _require_replaceable(directory: Path) -> None:
    if directory.is_file():
        raise UsageError(f"{directory} is a file; name a directory for the adapter")
    others = (
        {entry.name for entry in directory.iterdir()} - {CONFIG, MODEL, CARD} if directory.exists() else set()
    )
    if others:
        raise UsageError(
            f"{directory} holds other files ({', '.join(sorted(others)[:3])}); "
            "an adapter needs a directory of its own: name another one"
        )


def _write_files(adapter: Adapter, directory: Path, evaluation: Mapping[str, Any] | None) -> None:
    from safetensors.numpy import save as to_bytes

    model = to_bytes(adapter.arrays, metadata={"format": "np"})
    config = {
        "format": FORMAT,
        "version": VERSION,
        **adapter.describe(),
        "sha256": hashlib.sha256(model).hexdigest(),
    }
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    _write(directory / MODEL, model)
    _write(directory / CARD, model_card(adapter, evaluation).encode())
    _write(directory / CONFIG, text.encode())
    directory.chmod(0o755)  # mkdtemp makes it private


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(written: Path, directory: Path) -> None:
    if not directory.exists():
        written.rename(directory)
        return
    # A directory cannot be replaced in one step: the old one steps aside and comes back on failure.
    aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent)) / "previous"
    directory.rename(aside)
    try:
        written.rename(directory)
    except OSError:
        aside.rename(directory)
        raise
    finally:
        if directory.exists():
            shutil.rmtree(aside.parent, ignore_errors=True)


@contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except CrossfadeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(
                f"no space left on the disk while saving the adapter to {directory}; "
                "nothing was left behind: free some space, or name another directory"
            ) from None
        raise StoreError(
            f"cannot save the adapter to {directory}: {error.strerror}; name a directory that can be written"
        ) from None


# --- reading ----------------------------------------------------------------------------------


def load_adapter(path_or_repo: str | Path) -> Adapter:
    """Load what `save_pretrained` wrote, from a directory or (extra "hf") a repository on the Hub.

    Raises:
        UnreadableFile: a file is missing, cut short, changed, or written by a newer version.
        MissingExtra: it is no directory but could be a repository, and huggingface_hub is not installed.
    """
    directory = _local(path_or_repo)
    config = _read_config(directory)
    try:
        adapter = build(config)
        shapes = adapter.shapes(*_dimensions(config))
        arrays = _read_arrays(directory / MODEL, config, shapes)
        adapter.restore(config, arrays)
        _require_spaces(adapter)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, UnreadableFile):
            raise
        raise UnreadableFile(
            f"{directory / CONFIG} does not describe an adapter ({type(error).__name__}: {error}); "
            "save it again with save_pretrained, or fit anew"
        ) from None
    return adapter


def build(description: Mapping[str, Any]) -> Adapter:
    """An adapter of the described method and parameters, without its arrays."""
    from crossfade.adapters.composition import Chain
    from crossfade.adapters.registry import method_class

    if description["method"] == Chain.name:
        return Chain([build(link) for link in description["links"]])
    adapter = method_class(description["method"])(**description["parameters"])
    adapter.dimensions = _dimensions(description)
    adapter.side_dimension = _side_dimension(description)
    return adapter


def _dimensions(description: Mapping[str, Any]) -> tuple[int, int]:
    d_source, d_target = description["dimensions"]
    for dimension in (d_source, d_target):
        if not isinstance(dimension, int) or not 1 <= dimension <= LARGEST_DIMENSION:
            raise ValueError(f"dimension {dimension!r} is not between 1 and {LARGEST_DIMENSION}")
    return d_source, d_target


def _side_dimension(description: Mapping[str, Any]) -> int:
    dimension = description.get("side_dimension", 0)
    if not isinstance(dimension, int) or not 0 <= dimension <= LARGEST_DIMENSION:
        raise ValueError(f"side dimension {dimension!r} is not between 0 and {LARGEST_DIMENSION}")
    return dimension


def _require_spaces(adapter: Adapter) -> None:
    for side, space, dimension in zip(
        ("source", "target"), (adapter.source, adapter.target), adapter.dimensions, strict=True
    ):
        if space is None:
            raise ValueError(f"{side} space is missing")
        if space.dimension != dimension:
            raise ValueError(f"{side} space has {space.dimension} dimensions, the arrays {dimension}")
    if adapter.side_dimension != (adapter.side.dimension if adapter.side else 0):
        raise ValueError(f"side-information of {adapter.side} is said to have {adapter.side_dimension}")


def _local(path_or_repo: str | Path) -> Path:
    path = Path(path_or_repo)
    if path.is_dir():
        return path
    name = str(path_or_repo)
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UnreadableFile(f"{name} is no directory with an adapter; name one that save_pretrained wrote")
    return _download(name)


def _download(repo_id: str) -> Path:
    hub = load("huggingface_hub", "hf")
    try:
        return Path(hub.snapshot_download(repo_id, allow_patterns=[CONFIG, MODEL, CARD]))
    except Exception as error:  # the Hub client raises errors of several libraries
        raise UnreadableFile(
            f"{repo_id} is neither a directory nor a repository that could be fetched from the Hub "
            f"({type(error).__name__}); check the name and the connection"
        ) from None


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG
    config = _parse(path, _read(path, LARGEST_CONFIG))
    if config.get("format") != FORMAT:
        raise UnreadableFile(
            f"{path} is not the configuration of a Crossfade adapter; name another directory"
        )
    if config.get("version") != VERSION:
        raise UnreadableFile(
            f"{path} has format version {config.get('version')!r}, this Crossfade reads {VERSION}; "
            "upgrade it: pip install --upgrade crossfade"
        )
    return config


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(
            f"{path} is not readable as JSON ({error}); was it cut short? Fetch it again"
        ) from None
    return config if isinstance(config, dict) else {}


def _read(path: Path, largest: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > largest:
            raise UnreadableFile(
                f"{path} has {size:,} bytes, more than the {largest:,} that this adapter could need; "
                "it was not written by save_pretrained"
            )
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(
            f"{path} cannot be read: {error.strerror}; name a directory that save_pretrained wrote"
        ) from None


def _read_arrays(
    path: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, FloatMatrix]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    content = _read(path, 4 * sum(int(np.prod(shape)) for shape in shapes.values()) + LARGEST_HEADER)
    digest = hashlib.sha256(content).hexdigest()
    if digest != config["sha256"]:
        raise UnreadableFile(
            f"{path} is not the file that {CONFIG} was written with (sha256 {digest[:12]}…, expected "
            f"{str(config['sha256'])[:12]}…); was it cut short? Fetch or save it again"
        )
    try:
        arrays = from_bytes(content)
    except SafetensorError as error:
        raise UnreadableFile(f"{path} is not readable as safetensors ({error}); fetch it again") from None
    _require_shapes(path, arrays, shapes)
    return dict(arrays)


def _require_shapes(
    path: Path, arrays: Mapping[str, FloatMatrix], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    found = {name: array.shape for name, array in arrays.items()}
    if found != dict(shapes):
        raise UnreadableFile(
            f"{path} holds arrays {found}, its spaces and parameters ask for {dict(shapes)}; save it again"
        )
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise UnreadableFile(f"{path}: {name!r} is not finite float32 but {array.dtype}; save it again")


# --- the Hub ----------------------------------------------------------------------------------


def push(
    adapter: Adapter,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> None:
    """Upload `adapter` to the Hub; see `Adapter.push_to_hub`."""
    hub = load("huggingface_hub", "hf")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "adapter"
        save(adapter, directory, evaluation)
        api = hub.HfApi()
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo_id,
                folder_path=str(directory),
                revision=revision,
                commit_message=f"Add {adapter.name} adapter",
            )
        except Exception as error:  # the Hub client raises errors of several libraries
            raise StoreError(
                f"could not upload the adapter to {repo_id} ({type(error).__name__}: "
                f"{str(error).partition(chr(10))[0]}); check the name and log in: hf auth login"
            ) from None
