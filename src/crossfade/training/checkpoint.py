"""Checkpoints: one safetensors file with weights and optimizer state, the rest as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from crossfade.errors import UnreadableFile, UsageError
from crossfade.training.reading import difference

NAME = "checkpoint.safetensors"
LEARNER, OPTIMIZER = "learner.", "optimizer."


def save_checkpoint(
    directory: Path,
    learner: nn.Module,
    optimizer: Any,
    progress: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> None:
    """Write everything that an exact continuation needs; the former checkpoint is replaced at the end.

    Args:
        progress: how far it is, JSON-ready.
        identity: what is trained on what, JSON-ready; `load_checkpoint` refuses another.
    """
    from safetensors.torch import save_file

    tensors = {LEARNER + name: _plain(value) for name, value in learner.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {
            f"{OPTIMIZER}{number}.{name}": _plain(value) for name, value in state.items() if value is not None
        }
    header = {"progress": json.dumps(progress), "identity": json.dumps(identity)}
    partial = directory / f"{NAME}.partial"
    save_file(tensors, partial, metadata=header)
    partial.replace(directory / NAME)


def load_checkpoint(
    directory: Path, learner: nn.Module, optimizer: Any, identity: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Put a checkpoint's state into `learner` and `optimizer`; returns its progress, None without one.

    Raises:
        UsageError: it belongs to another recipe, other data or another old model; the message shows the
            difference.
        UnreadableFile: the file is cut short or damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata()
            require_same_identity(json.loads(header["identity"]), identity, directory)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError) as error:
        raise UnreadableFile(
            f"{path}: not a readable checkpoint ({error}); delete it to start again"
        ) from None
    learner.load_state_dict(_under(tensors, LEARNER))
    _load_optimizer(optimizer, _under(tensors, OPTIMIZER))
    progress: dict[str, Any] = json.loads(header["progress"])
    return progress


def require_same_identity(found: Mapping[str, Any], wanted: Mapping[str, Any], directory: Path) -> None:
    """Refuse to go on with a run that was started differently.

    Raises:
        UsageError: with every difference.
    """
    lines = difference(found, json.loads(json.dumps(wanted)))
    if lines:
        raise UsageError(
            f"{directory} holds a run with other settings ({'; '.join(lines)}); "
            "give these settings again to continue it, or another --out to start anew"
        )


def _load_optimizer(optimizer: Any, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for place, value in tensors.items():
        number, _, name = place.partition(".")
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous()
