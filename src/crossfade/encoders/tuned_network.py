"""A frozen dual encoder with low-rank updates and soft prompts that can be switched off."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossfade.encoders.dual_network import DualNetwork, Tokens
from crossfade.encoders.soft_prompts import SoftPrompts, tower_layers
from crossfade.encoders.tuning import LowRank, Tuning
from crossfade.errors import NotSupported, UnreadableFile, UsageError
from crossfade.extras import load

ADAPTER, ADAPTER_WEIGHTS, PROMPTS = "adapter", "adapter_model.safetensors", "prompts.safetensors"


class TunedNetwork(nn.Module):
    """LoRA (as a PEFT adapter) and soft prompts on a network whose own weights never change.

    At first the LoRA adds nothing and the prompts are small random numbers.

    Args:
        network: is frozen, and computes with the tuned parts from now on, except within `off`.
        tuning: what is added, per tower.
        seed: of what is random at the start.
        directory: where `save` wrote these parts; None for new ones.

    Raises:
        NotSupported: no layer of the names in ``tuning.low_rank.modules``, or a tower without transformer.
        UnreadableFile: a file in `directory` is missing or damaged.
        MissingExtra: peft is not installed.
    """

    def __init__(
        self, network: DualNetwork, tuning: Tuning, *, seed: int = 0, directory: Path | None = None
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.tuning = tuning
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.prompts = SoftPrompts(network.model, tuning.prompts)
            # In a tuple, since as a part of this module it would name every weight a second time.
            self._peft = _low_rank(network.model, tuning.low_rank, directory)
        if directory is not None:
            _load_prompts(self.prompts, directory / PROMPTS)
        self.train(False)

    def image_features(self, pictures: Tensor) -> Tensor:
        """(n, 3, s, s) float in [0, 1] → (n, d), not of unit length."""
        return self.network.image_features(pictures)

    def text_features(self, tokens: Tokens) -> Tensor:
        """n texts → (n, d), not of unit length."""
        return self.network.text_features(tokens)

    @property
    def dimension(self) -> int:
        """d, components of a feature."""
        dimension: int = self.network.dimension
        return dimension

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within the block the network's own features, bit for bit."""
        with ExitStack() as stack:
            stack.enter_context(self.prompts.off())
            for model in self._peft:
                stack.enter_context(model.disable_adapter())
            yield

    def train(self, mode: bool = True) -> TunedNetwork:
        """Only LoRA has dropout in training: the frozen network must not wobble."""
        super().train(False)
        self.training = mode
        for name, module in self.named_modules():
            if "lora_dropout" in name:
                module.train(mode)
        return self

    def tuned(self) -> dict[str, nn.Parameter]:
        """What training changes, by name: nothing of the network itself."""
        own = {id(parameter) for parameter in self.prompts.parameters()}
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if id(parameter) in own or "lora_" in name
        }

    def save(self, directory: Path) -> None:
        """Write the PEFT adapter into ``adapter/`` and the prompts beside it, safetensors only."""
        from safetensors.torch import save_file

        for model in self._peft:
            model.save_pretrained(
                str(directory / ADAPTER), safe_serialization=True, save_embedding_layers=False
            )
        tokens = {name: value.detach().cpu() for name, value in self.prompts.named_parameters()}
        if tokens:
            save_file(tokens, directory / PROMPTS)

    def merged(self) -> Any:
        """A copy of the transformers model with W + alpha / rank · B A as its weights, without prompts."""
        self.prompts.remove()
        try:
            model = copy.deepcopy(self._peft[0] if self._peft else self.network.model)
        finally:
            self.prompts.attach()
        return model.merge_and_unload(safe_merge=True) if self._peft else model


def _low_rank(model: Any, settings: LowRank, directory: Path | None) -> tuple[Any, ...]:
    if not settings.towers:
        return ()
    peft = load("peft", "train")
    if directory is not None:
        with _quiet():
            return (_load_adapter(peft, model, directory / ADAPTER),)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_pattern(model, settings),
    )
    with _quiet():
        return (peft.get_peft_model(model, config),)


def _pattern(model: Any, settings: LowRank) -> str:
    """The layers' names as a regular expression.

    Only what lies within a tower's layers is meant: SigLIP pools by a torch.nn.MultiheadAttention, which also
    has an ``out_proj`` but reads its weight past any module that is put around it.
    """
    names = {id(module): name for name, module in model.named_modules()}
    towers = [re.escape(names[id(tower_layers(model, tower))]) for tower in settings.towers]
    pattern = rf"(?:{'|'.join(towers)})\..*\.(?:{'|'.join(map(re.escape, settings.modules))})"
    if not any(re.fullmatch(pattern, name) for name in names.values()):
        found = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if _linear(part)})
        raise NotSupported(
            f"{type(model).__name__} has no layers named {', '.join(settings.modules)}; set "
            f"low_rank.modules to those of its attention, among: {', '.join(found)}"
        )
    return pattern


@contextmanager
def _quiet() -> Iterator[None]:
    """PEFT asks transformers for an attribute that the latter has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _load_adapter(peft: Any, model: Any, directory: Path) -> Any:
    from safetensors import SafetensorError

    weights = directory / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise UnreadableFile(f"{weights} is missing; this folder is incomplete, train or copy it again")
    try:
        return peft.PeftModel.from_pretrained(model, str(directory), use_safetensors=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UnreadableFile(f"{directory}: not an adapter of this model ({reason})") from None


def _load_prompts(prompts: SoftPrompts, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    wanted = dict(prompts.named_parameters())
    if not wanted:
        return
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UnreadableFile(f"{path}: not readable prompts ({error}); copy the folder again") from None
    shapes = [{name: tuple(value.shape) for name, value in both.items()} for both in (found, wanted)]
    if shapes[0] != shapes[1]:
        raise UsageError(f"{path} holds prompts {shapes[0]}, its config.json and model ask for {shapes[1]}")
    prompts.load_state_dict(found)
