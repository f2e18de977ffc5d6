"""What stage 2 of XBT adds to a frozen model: low-rank updates of its attention, and soft prompts."""

from __future__ import annotations

from dataclasses import dataclass, field

from crossfade.errors import UsageError

TOWERS = ("image", "text")
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")  # as CLIP's and SigLIP's layers call them


@dataclass(frozen=True, slots=True)
class LowRank:
    """LoRA (Hu et al., ICLR 2022): W + alpha / rank · B A on the projections of attention.

    Attributes:
        image, text: whether that tower has them.
        rank: r, rows of A and columns of B.
        alpha: their weight is alpha / rank.
        dropout: share of A's inputs that are dropped while training.
        modules: which linear layers of every attention layer; other models name them otherwise.
    """

    image: bool = True
    text: bool = True
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    modules: tuple[str, ...] = ATTENTION

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.modules:
            raise UsageError(
                f"low_rank.rank must be at least 1 and low_rank.modules not empty, got {self.rank} and "
                f"{list(self.modules)}; switch it off with low_rank.image=false and low_rank.text=false"
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"low_rank.dropout is a share below 1, got {self.dropout}")

    @property
    def towers(self) -> tuple[str, ...]:
        """The towers that have them."""
        return tuple(name for name in TOWERS if getattr(self, name))


@dataclass(frozen=True, slots=True)
class Prompts:
    """Soft prompts: learnable tokens beside those of a picture or text.

    Attributes:
        image, text: how many tokens; 0 for none.
        std: standard deviation that they start with.
    """

    image: int = 4
    text: int = 4
    std: float = 0.02

    def __post_init__(self) -> None:
        if min(self.image, self.text) < 0 or self.std < 0:
            raise UsageError(
                "prompts.image, .text and .std must be at least 0, "
                f"got {self.image}, {self.text} and {self.std}"
            )


@dataclass(frozen=True, slots=True)
class Tuning:
    """Both; either can be left out, per tower."""

    low_rank: LowRank = field(default_factory=LowRank)
    prompts: Prompts = field(default_factory=Prompts)

    @property
    def nothing(self) -> bool:
        """Whether everything is left out."""
        return not self.low_rank.towers and not self.prompts.image and not self.prompts.text
