"""A new model that embeds into the old model's space: base, tuned parts, projection (XBT)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters import Adapter, load_adapter
from crossfade.encoders.dual import TowerOwner
from crossfade.encoders.hub import read_json
from crossfade.encoders.hugging_face import HuggingFaceDual
from crossfade.encoders.tuning import LowRank, Prompts, Tuning
from crossfade.errors import NotSupported, UnknownSpace, UnreadableFile
from crossfade.extras import load
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix

if TYPE_CHECKING:
    from crossfade.encoders.dual_network import Tokens
    from crossfade.encoders.tuned_network import TunedNetwork

FORMAT, VERSION = "crossfade-xbt", 1
CONFIG, PROJECTION, BASE = "config.json", "projection", "base"


class TunedDual(TowerOwner):
    """Pictures and texts of the new model in the space of the old one, through φ.

    Args:
        base: the new model; its network is part of `parts`, so it embeds as tuned from now on. Ask `off` for
            its own vectors.
        parts: the base's network with LoRA and soft prompts.
        projection: φ, from the base's space to the old model's.
        location: folder or Hub name that `base` was loaded from.
        merged: whether LoRA is part of the base's weights, which are then no longer the new model's.

    Raises:
        WrongDirection, SpaceMismatch, DimensionMismatch: φ is of another new model; with both spaces.
        UnknownSpace: φ was fitted on plain arrays.
    """

    def __init__(
        self,
        base: HuggingFaceDual,
        parts: TunedNetwork,
        projection: Adapter,
        *,
        location: str | Path,
        merged: bool = False,
    ) -> None:
        super().__init__()
        self._space = require_projection(projection, base.space)
        self._base, self.parts, self.projection = base, parts.to(base.device), projection
        self._location, self._merged = str(location), merged

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        base: str | Path | None = None,
        batch: int | None = None,
        device: str | None = None,
    ) -> TunedDual:
        """Open what `save` wrote.

        Args:
            base: where the new model is, if it is no longer where it was.
            batch, device: see `HuggingFaceDual`.

        Raises:
            UnreadableFile: a file is missing or damaged.
            SpaceMismatch: the base found there is another model, or its weights are others.
            MissingExtra: torch, transformers or peft is not installed.
        """
        load("peft", "train")
        from crossfade.encoders.tuned_network import TunedNetwork

        folder = Path(directory)
        config = read_config(folder)
        location = base if base is not None else _find_base(folder, config)
        options: dict[str, Any] = {"device": device} | ({} if batch is None else {"batch": batch})
        revision = None if Path(location).is_dir() else config["base"]["space"]["revision"]
        model = HuggingFaceDual.load(location, revision=revision, **options)
        if not config["merged"]:
            Space.from_dict(config["base"]["space"]).require_same(model.space, f"base model {location}")
        parts = TunedNetwork(model.network, _tuning(config), directory=folder)
        projection = load_adapter(folder / PROJECTION)
        if config["merged"]:
            model = _renamed(model, Space.from_dict(config["base"]["space"]))
        return cls(model, parts, projection, location=location, merged=config["merged"])

    def __repr__(self) -> str:
        return f"TunedDual({self._base.space} → {self._space})"

    @property
    def space(self) -> Space:
        """The old model's."""
        return self._space

    @property
    def base_space(self) -> Space:
        """The new model's own, which `off` embeds into."""
        return self._base.space

    def off(self) -> OffTheShelf:
        """The new model as it was before: its own vectors in its own space, bit for bit.

        Raises:
            NotSupported: LoRA was merged into its weights.
        """
        if self._merged:
            raise NotSupported(
                f"the base weights of this {self._base.space.model} hold merged updates, so its own vectors "
                "are gone; open the folder that was merged from"
            )
        return OffTheShelf(self._base, self.parts)

    def merge(self) -> TunedDual:
        """The same encoder with LoRA folded into a copy of the base: a little faster, no longer `off`."""
        from crossfade.encoders.dual_network import DualNetwork
        from crossfade.encoders.tuned_network import TunedNetwork

        settings, prompts = self._base.settings, self.parts.tuning.prompts
        network = DualNetwork(self.parts.merged(), settings)
        copied = HuggingFaceDual(
            network,
            self._base.tokenizer,
            settings,
            self._base.space,
            batch=self._base.batch,
            device=str(self._base.device),
        )
        parts = TunedNetwork(network, Tuning(LowRank(image=False, text=False), prompts))
        parts.prompts.load_state_dict(self.parts.prompts.state_dict())
        return TunedDual(copied, parts, self.projection, location=self._location, merged=True)

    # --- embedding ----------------------------------------------------------------------------

    def embed_pictures(self, items: Sequence[Any]) -> FloatMatrix:
        return self.projection.transform(self._base.embed_pictures(items))

    def embed_texts(self, items: Sequence[Any]) -> tuple[FloatMatrix, int]:
        vectors, truncated = self._base.embed_texts(items)
        return self.projection.transform(vectors), truncated

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """See `HuggingFaceDual.tokenize`."""
        return self._base.tokenize(texts)

    def encode_pictures(self, pictures: NDArray[np.uint8]) -> FloatMatrix:
        """Decoded pictures (n, s, s, 3) uint8 in the old space, as `HuggingFaceDual.encode_pictures`."""
        return self.projection.transform(self._base.encode_pictures(pictures))

    def encode_tokens(self, tokens: Tokens) -> FloatMatrix:
        """Tokenized texts in the old space, as `HuggingFaceDual.encode_tokens`."""
        return self.projection.transform(self._base.encode_tokens(tokens))

    # --- saving -------------------------------------------------------------------------------

    def save(self, directory: str | Path, *, notes: Mapping[str, Any] | None = None) -> None:
        """Write the tuned parts and φ; the base is named, and only written where it is merged.

        ``config.json`` (written last), ``adapter/`` (PEFT), ``prompts.safetensors``, ``projection/``, and
        ``base/`` for a merged one.

        Args:
            notes: further JSON-ready entries of config.json.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)
        self.parts.save(folder)
        self.projection.save_pretrained(folder / PROJECTION)
        if self._merged:
            self._base.save(folder / BASE)
        config = {
            **(notes or {}),
            "format": FORMAT,
            "version": VERSION,
            "base": {**self._where(folder), "space": self._base.space.to_dict()},
            "space": self._space.to_dict(),
            "tuning": asdict(self.parts.tuning),
            "merged": self._merged,
        }
        partial = folder / f"{CONFIG}.partial"
        partial.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.move(partial, folder / CONFIG)

    def _where(self, folder: Path) -> dict[str, str]:
        """Folders are noted twice, so that both may move together, or either stay."""
        if self._merged:
            return {"location": BASE, "relative": BASE}
        path = Path(self._location).expanduser()
        if not path.is_dir():
            return {"location": self._location}
        absolute = path.resolve()
        return {"location": str(absolute), "relative": os.path.relpath(absolute, folder.resolve())}


class OffTheShelf(TowerOwner):
    """The new model with its tuned parts switched off.

    Args:
        base: the new model.
        parts: its network with LoRA and soft prompts.
    """

    def __init__(self, base: HuggingFaceDual, parts: TunedNetwork | None) -> None:
        super().__init__()
        self._base, self._parts = base, parts

    def __repr__(self) -> str:
        return f"OffTheShelf({self._base.space})"

    @property
    def space(self) -> Space:
        """The new model's own."""
        return self._base.space

    def embed_pictures(self, items: Sequence[Any]) -> FloatMatrix:
        with self._off():
            return self._base.embed_pictures(items)

    def embed_texts(self, items: Sequence[Any]) -> tuple[FloatMatrix, int]:
        with self._off():
            return self._base.embed_texts(items)

    def encode_pictures(self, pictures: NDArray[np.uint8]) -> FloatMatrix:
        """Decoded pictures (n, s, s, 3) uint8 in the new space."""
        with self._off():
            return self._base.encode_pictures(pictures)

    def encode_tokens(self, tokens: Tokens) -> FloatMatrix:
        """Tokenized texts in the new space."""
        with self._off():
            return self._base.encode_tokens(tokens)

    def _off(self) -> Any:
        return nullcontext() if self._parts is None else self._parts.off()


def require_projection(projection: Adapter, new: Space) -> Space:
    """The old space, if φ maps from the new model's into it.

    Raises:
        WrongDirection, SpaceMismatch, DimensionMismatch: it maps from elsewhere; with both spaces.
        UnknownSpace: it was fitted on plain arrays.
    """
    if projection.source is None or projection.target is None:
        raise UnknownSpace(
            f"this {projection.name} adapter was fitted on plain arrays, so nothing says between which "
            "models it maps; train it with crossfade train xbt-text"
        )
    projection.require_source(new, "the new model")
    projection.require_side(None, "the new model")
    return projection.target


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of a tuned model.

    Raises:
        UnreadableFile: it is missing, broken, or of something else.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise UnreadableFile(f"{path} is missing; name a folder that crossfade train xbt has finished")
    config = read_json(path)
    if config.get("format") != FORMAT or config.get("version") != VERSION:
        raise UnreadableFile(
            f"{path}: format {config.get('format')!r}, version {config.get('version')!r}; this version of "
            f"Crossfade reads {FORMAT!r}, version {VERSION}"
        )
    wanted = {"base", "space", "tuning", "merged"}
    if not wanted <= set(config):
        raise UnreadableFile(f"{path} lacks {sorted(wanted - set(config))}; copy the folder again")
    return config


def _tuning(config: Mapping[str, Any]) -> Tuning:
    values = config["tuning"]
    try:
        low_rank = LowRank(**values["low_rank"])
        return Tuning(replace(low_rank, modules=tuple(low_rank.modules)), Prompts(**values["prompts"]))
    except (KeyError, TypeError) as error:
        raise UnreadableFile(f"{CONFIG}: tuning is not readable ({error}); copy the folder again") from None


def _find_base(folder: Path, config: Mapping[str, Any]) -> str:
    base = config["base"]
    beside = folder / base["relative"] if "relative" in base else None
    if beside is not None and beside.is_dir():
        return str(beside.resolve())
    location = str(base["location"])
    if "relative" in base and not Path(location).is_dir():
        raise UnreadableFile(
            f"{folder}: its base model {base['space']['model']} is neither at {location} nor at {beside}; "
            "put it back, or give its place with TunedDual.load(..., base=...)"
        )
    return location


def _renamed(model: HuggingFaceDual, space: Space) -> HuggingFaceDual:
    """Merged weights have a hash of their own; φ knows the model that they come from."""
    return HuggingFaceDual(
        model.network, model.tokenizer, model.settings, space, batch=model.batch, device=str(model.device)
    )
