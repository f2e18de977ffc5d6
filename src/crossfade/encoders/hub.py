"""The folder of a Hugging Face model: a local one, or fetched from the Hub, and what it is called."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfade.errors import EncoderError, UnreadableFile
from crossfade.extras import load

CONFIG, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"
NOTES = "crossfade.json"
# Nothing else is fetched: no pickled weights, no code.
WANTED = (
    "config.json",
    "crossfade.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
HASH_DIGITS = 12
_READ_BYTES = 1 << 22


@dataclass(frozen=True)
class ModelFolder:
    """A model on the disk.

    Attributes:
        path: the folder.
        name: what its space is called.
        revision: the commit on the Hub; for other folders the first 12 digits of the weights' SHA-256.
    """

    path: Path
    name: str
    revision: str


def find_model(name_or_dir: str | Path, revision: str | None = None) -> ModelFolder:
    """A local folder, or a repository of the Hub by its name (fetched, or from the Hub's cache).

    Args:
        revision: branch, tag or commit on the Hub; of a local folder, what its weights' hash must start with.

    Raises:
        UnreadableFile: no such folder, no configuration, or no weights in safetensors.
        EncoderError: the Hub does not give the repository or the revision.
    """
    path = Path(name_or_dir).expanduser()
    if not path.is_dir():
        return _fetched(str(name_or_dir), revision)
    require_files(path)
    cached = _of_hub_cache(path)
    name = cached[0] if cached else _noted_name(path) or path.resolve().name
    found = cached[1] if cached else weights_hash(path)
    if revision and not found.startswith(revision):
        raise EncoderError(
            f"{path}: its revision is {found}, asked for {revision}; give the folder of that one"
        )
    return ModelFolder(path, name, found)


def weights_hash(folder: Path) -> str:
    """The first 12 digits of the SHA-256 over the weights (of several files: in the order of their names)."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    return digest.hexdigest()[:HASH_DIGITS]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder; a single one goes before several, as in transformers."""
    if (folder / WEIGHTS).is_file() or not (folder / SHARDS).is_file():
        return [folder / WEIGHTS]
    names = set(read_json(folder / SHARDS).get("weight_map", {}).values())
    return [folder / Path(str(name)).name for name in sorted(names)]


def require_files(folder: Path) -> None:
    """Refuse a folder without configuration, or without weights in safetensors.

    Raises:
        UnreadableFile: which file is missing.
    """
    if not (folder / CONFIG).is_file():
        raise UnreadableFile(f"{folder}: has no {CONFIG}; give the folder of a Hugging Face model")
    for path in weight_files(folder):
        if not path.is_file():
            raise UnreadableFile(
                f"{folder}: has no {path.name}; only safetensors are read, never pickled weights: "
                "save the model again with transformers, or take a revision that has them (NAME@refs/pr/N)"
            )


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        UnreadableFile: it cannot be read, or is no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{path}: cannot be read as JSON ({error}); copy it again") from None
    if not isinstance(values, dict):
        raise UnreadableFile(f"{path}: expected a JSON object, got {type(values).__name__}; copy it again")
    return values


def _fetched(name: str, revision: str | None) -> ModelFolder:
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise UnreadableFile(
            f"{name}: no such folder; give the folder of a Hugging Face model, or a Hub name"
        )
    hub = load("huggingface_hub", "hf")
    try:
        path = Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(WANTED)))
    except Exception as error:  # the Hub client raises errors of several libraries
        asked = f"{name}@{revision}" if revision else name
        raise EncoderError(
            f"{asked}: neither a folder nor a model that the Hugging Face Hub gave "
            f"({type(error).__name__}); check the name, the revision and the connection"
        ) from None
    require_files(path)
    return ModelFolder(path, name, path.name)


def _of_hub_cache(path: Path) -> tuple[str, str] | None:
    """Name and commit, if it is a snapshot in the cache of the Hub client."""
    path = path.absolute()
    repository = path.parent.parent.name
    if path.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/"), path.name


def _noted_name(folder: Path) -> str:
    path = folder / NOTES
    return str(read_json(path).get("model", "")) if path.is_file() else ""
