"""Image backbones of transformers and timm, built from a configuration or from local weights."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossfade.encoders.architecture import Architecture
from crossfade.errors import MissingExtra, NotSupported, UnreadableFile, UsageError
from crossfade.extras import installed, load

TIMM = "timm:"


class Backbone(nn.Module):
    """Pixels (n, 3, side, side) to features (n, width).

    Attributes:
        width: number of features.
    """

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network = network
        self.width = width

    def forward(self, pixels: Tensor) -> Tensor:
        output = self.network(pixels)
        return _pooled(output).flatten(1)


def build_backbone(architecture: Architecture, weights: str | Path = "") -> Backbone:
    """The backbone that an architecture names.

    Args:
        weights: folder of local weights to start from; empty starts from random numbers. Nothing is
            fetched from a hub.

    Raises:
        UsageError: an unknown backbone, or an option that it does not have.
        UnreadableFile: no weights in that folder.
        NotSupported: a small stem on a backbone that has no such stem.
        MissingExtra: transformers, or timm, is not installed.
    """
    if architecture.backbone.startswith(TIMM):
        return _build_timm(architecture, weights)
    network = _load_weights(weights) if weights else _build_transformers(architecture)
    if architecture.stem == "small":
        _make_stem_small(network, architecture.backbone)
    return Backbone(network, _width(network.config))


def _build_transformers(architecture: Architecture) -> Any:
    transformers = load("transformers", "train")
    config = _configuration(transformers, architecture)
    # A vision transformer's pooling layer is for its pre-training task; unused weights would also stop DDP.
    options = {"add_pooling_layer": False} if config.model_type == "vit" else {}
    return transformers.AutoModel.from_config(config, **options)


def _configuration(transformers: Any, architecture: Architecture) -> Any:
    kind = architecture.backbone
    try:
        default = transformers.AutoConfig.for_model(kind)
    except ValueError:
        raise UsageError(
            f"backbone {kind!r} is no model type of transformers; "
            "write resnet, convnext, vit, dinov2 or timm:NAME"
        ) from None
    values = dict(architecture.config)
    known = set(default.to_dict()) | {"num_channels"}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"; did you mean {near[0]!r}" if near else ""
            raise UsageError(
                f"backbone {kind!r} has no option {name!r}{hint}? see its configuration in transformers"
            )
    if "image_size" in known:
        values.setdefault("image_size", architecture.input_size)
    return transformers.AutoConfig.for_model(kind, **values)


def _load_weights(weights: str | Path) -> Any:
    transformers = load("transformers", "train")
    if not (Path(weights) / "config.json").is_file():
        raise UnreadableFile(
            f"{weights}: no folder of weights (config.json, model.safetensors); give a local one"
        )
    return transformers.AutoModel.from_pretrained(
        os.fspath(weights), local_files_only=True, use_safetensors=True
    )


def _make_stem_small(network: Any, backbone: str) -> None:
    if backbone != "resnet":
        raise NotSupported(
            f"stem 'small' is for backbone 'resnet', got {backbone!r}; set its own options instead"
        )
    stem = network.embedder
    channels = stem.embedder.convolution.out_channels
    stem.embedder.convolution = nn.Conv2d(network.config.num_channels, channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.embedder.convolution.weight, mode="fan_out", nonlinearity="relu")
    stem.pooler = nn.Identity()


def _build_timm(architecture: Architecture, weights: str | Path) -> Backbone:
    if not installed("timm"):
        raise MissingExtra("'timm' is not installed; run: pip install timm (it needs torchvision)")
    timm = load("timm", "train")
    name = architecture.backbone.removeprefix(TIMM)
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, **architecture.config)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"timm cannot build {name!r}: {error}; see timm.list_models()") from None
    if weights:
        from safetensors.torch import load_file

        network.load_state_dict(load_file(weights))
    return Backbone(network, network.num_features)


def _pooled(output: Any) -> Tensor:
    if isinstance(output, torch.Tensor):
        return output
    pooled = output.get("pooler_output")
    return output.last_hidden_state[:, 0] if pooled is None else pooled


def _width(config: Any) -> int:
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1] if sizes else config.hidden_size)
