"""What an embedding space is.

Two vectors may be compared only if their spaces are equal. A space travels with every artefact
that leaves memory: vector files, adapters, plans and store tables.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, cast, get_args

from crossfade.errors import DimensionMismatch, SpaceMismatch, UsageError

Metric = Literal["cosine", "dot", "l2"]


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space: the model that made the vectors and how they are compared.

    Attributes:
        model: name of the model, e.g. ``openai/clip-vit-base-patch32``.
        dimension: number of components of a vector.
        metric: how two vectors are compared; ``cosine``, ``dot`` or ``l2``.
        normalized: whether every vector has unit length by contract.
        revision: commit, tag or version of the model; empty if it has none.
        prompt: prefix that was put before every text, e.g. ``"query: "``; empty if none.

    Raises:
        UsageError: no model name, a dimension below 1, or a metric that is not known.
    """

    model: str
    dimension: int
    metric: Metric = "cosine"
    normalized: bool = False
    revision: str = ""
    prompt: str = ""

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("a space needs the name of the model that made its vectors")
        if self.dimension < 1:
            raise UsageError(f"space {self.model!r}: dimension must be at least 1, got {self.dimension}")
        if self.metric not in get_args(Metric):
            known = ", ".join(get_args(Metric))
            raise UsageError(f"space {self.model!r}: metric {self.metric!r} is not one of {known}")

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        prompt = f", prompt {self.prompt!r}" if self.prompt else ""
        length = ", normalized" if self.normalized else ""
        return f"{self.model}{revision} ({self.dimension}-d, {self.metric}{length}{prompt})"

    def to_dict(self) -> dict[str, Any]:
        """The space as JSON-ready values; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Space:
        """Read what `to_dict` wrote; an unknown key is an error, not a guess."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise UsageError(f"space has unknown keys {sorted(unknown)}; written by a newer version?")
        return cls(**values)

    @classmethod
    def parse(cls, text: str, dimension: int) -> Space:
        """Read ``NAME[@REVISION][,metric=dot][,normalized][,prompt=TEXT]`` from the command line.

        Raises:
            UsageError: an option other than these.
        """
        name, *options = text.split(",")
        model, _, revision = name.partition("@")
        values: dict[str, Any] = {}
        for option in options:
            key, has_value, value = option.partition("=")
            if key == "normalized" and value.lower() in ("", "true", "false"):
                values[key] = value.lower() != "false"
            elif key in ("metric", "prompt") and has_value:
                values[key] = value
            else:
                raise UsageError(
                    f"space option {option!r} is not known; "
                    "write NAME[@REVISION][,metric=cosine|dot|l2][,normalized][,prompt=TEXT]"
                )
        return cls(model=model, dimension=dimension, revision=revision, **values)

    def with_metric(self, metric: str) -> Space:
        """The same vectors compared in another way (the papers report cosine, dot and L2)."""
        return replace(self, metric=cast(Metric, metric))

    def require_same(self, other: Space, what: str) -> None:
        """Refuse to compare `what` of another space with vectors of this one.

        Raises:
            DimensionMismatch: the dimensions differ.
            SpaceMismatch: same dimension, but another model, revision, metric or prompt.
        """
        if self == other:
            return
        if self.dimension != other.dimension:
            raise DimensionMismatch(
                f"{what}: expected {self.dimension} dimensions of {self}, got {other.dimension} of {other}; "
                "map them with an adapter first (crossfade fit, crossfade transform)"
            )
        raise SpaceMismatch(
            f"{what}: same dimension but another space: expected {self}, got {other}; "
            "vectors of two spaces cannot be compared; map them first (crossfade fit, crossfade transform)"
        )
