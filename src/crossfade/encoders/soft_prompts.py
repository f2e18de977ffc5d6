"""Soft prompts: learnable tokens that a frozen transformer reads beside a picture's or a text's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from crossfade.encoders.tuning import Prompts
from crossfade.errors import NotSupported

AFTER_BEGIN = 1  # a causal tower's later tokens see what stands here
HIDDEN = ("inputs_embeds", "hidden_states")


class SoftPrompts(nn.Module):
    """Tokens inserted by hooks in front of both towers' layers; the model itself is not changed.

    Pictures: behind the patches (visual prompt tuning, Jia et al., ECCV 2022, VPT-shallow). Texts: behind the
    first token (CoOp, Zhou et al., IJCV 2022). They come in after positions were added, have none themselves
    and are taken out again behind the last layer: the other tokens keep their positions, no text gets shorter
    and whatever a model pools is where it was.

    Args:
        model: a transformers dual encoder with ``vision_model`` and ``text_model``.
        settings: how many tokens.

    Raises:
        NotSupported: a tower that is to have prompts is no transformer.

    Attributes:
        image, text: (count, width) the tokens; None without any.
    """

    def __init__(self, model: Any, settings: Prompts) -> None:
        super().__init__()
        self._on = True
        self._handles: list[Any] = []
        counts = {"image": settings.image, "text": settings.text}
        self._layers = {name: tower_layers(model, name) for name, count in counts.items() if count}
        for name, count in counts.items():
            width = tower_width(model, name) if count else 0
            value = nn.Parameter(torch.randn(count, width) * settings.std) if count else None
            self.register_parameter(name, value)
        self.attach()

    def attach(self) -> None:
        """Insert the tokens from now on."""
        self.remove()
        for name, layers in self._layers.items():
            tower = _Tower(self, name)
            self._handles += [
                layers.register_forward_pre_hook(tower.insert, with_kwargs=True),
                layers.register_forward_hook(tower.take_out),
            ]

    def remove(self) -> None:
        """Leave the model without a trace; `attach` puts the tokens back."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def active(self) -> bool:
        """Whether they are inserted."""
        return self._on

    @contextmanager
    def off(self) -> Iterator[None]:
        """The model's own outputs, to the bit, within the block."""
        before, self._on = self._on, False
        try:
            yield
        finally:
            self._on = before


class _Tower:
    """The two hooks of one tower."""

    def __init__(self, prompts: SoftPrompts, name: str) -> None:
        self._prompts, self._name = prompts, name
        self._at: int | None = AFTER_BEGIN if name == "text" else None
        self._inserted: tuple[int, int] | None = None

    def insert(self, layers: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the first layer; a hook that returns None leaves everything as it is."""
        self._inserted = None
        if not self._prompts.active:
            return None
        tokens: Tensor = getattr(self._prompts, self._name)
        hidden, args, kwargs = _taken(args, dict(kwargs))
        length = hidden.shape[1]
        at = length if self._at is None else min(self._at, length)
        self._inserted = at, len(tokens)
        given = tokens.to(hidden.dtype).expand(len(hidden), -1, -1)
        causal = bool(kwargs.get("is_causal"))
        for name, value in kwargs.items():
            if name.endswith("attention_mask") and value is not None:
                kwargs[name] = widened(value, at, len(tokens), causal=causal)
        return (torch.cat([hidden[:, :at], given, hidden[:, at:]], dim=1), *args), kwargs

    def take_out(self, layers: Any, args: Any, output: Any) -> Any:
        """Behind the last layer."""
        if self._inserted is None:
            return None
        at, count = self._inserted
        hidden = output[0]
        rest = torch.cat([hidden[:, :at], hidden[:, at + count :]], dim=1)
        if isinstance(output, tuple):
            return (rest, *output[1:])
        output.last_hidden_state = rest
        return output


def tower_layers(model: Any, tower: str) -> nn.Module:
    """The module that runs the transformer layers of a tower, from embedded tokens to hidden states.

    Raises:
        NotSupported: it has none, e.g. a convolutional network.
    """
    found = getattr(_tower(model, tower), "encoder", None)
    if not any(isinstance(part, nn.ModuleList) for part in getattr(found, "children", list)()):
        raise NotSupported(
            f"the {tower} tower of {type(model).__name__} is no transformer with an encoder of layers, so it "
            f"takes no soft prompts; leave them out with --set prompts.{tower}=0"
        )
    return found


def tower_width(model: Any, tower: str) -> int:
    """Components of a token of a tower."""
    config = model.config.vision_config if tower == "image" else model.config.text_config
    return int(config.hidden_size)


def widened(mask: Tensor, at: int, count: int, *, causal: bool) -> Tensor:
    """An attention mask with `count` tokens inserted at `at`, which are seen wherever the first token is.

    Args:
        mask: (n, L), or (n, heads, L, L) as booleans (True is seen) or numbers to be added.
        causal: no token sees a later one.

    Raises:
        NotSupported: another form, as of flex attention.
    """
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 4):
        raise NotSupported(
            f"soft prompts cannot widen an attention mask of type {type(mask).__name__}; "
            "load the model with attn_implementation sdpa or eager, or set prompts.text=0"
        )
    old = torch.arange(mask.shape[-1], device=mask.device)
    source = torch.cat([old[:at], old.new_zeros(count), old[at:]])
    wider = mask.index_select(-1, source)
    if mask.ndim == 2:
        return wider
    wider = wider.index_select(-2, source)
    if not causal:
        return wider
    later = torch.ones(wider.shape[-2:], dtype=torch.bool, device=mask.device).triu(1)
    return wider.masked_fill(later, _unseen(mask.dtype))


def _unseen(dtype: torch.dtype) -> bool | float:
    return False if dtype == torch.bool else float(torch.finfo(dtype).min)


def _tower(model: Any, tower: str) -> Any:
    return getattr(model, "vision_model" if tower == "image" else "text_model", None)


def _taken(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """The embedded tokens, and the other arguments without them."""
    if args:
        return args[0], args[1:], kwargs
    name = next(name for name in HIDDEN if name in kwargs)
    return kwargs.pop(name), args, kwargs
