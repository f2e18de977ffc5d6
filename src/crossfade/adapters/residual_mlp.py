"""Residual MLP: the affine map plus a small network for what it misses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from crossfade.adapters.base import Adapter
from crossfade.adapters.linear import TINY, Affine, as_float32
from crossfade.adapters.prepared import PreparedPairs, RowSample, scale_to_unit, uses_unit_length
from crossfade.adapters.ridge import Ridge, Spectrum
from crossfade.adapters.statistics import Matrix, PairStatistics, gather
from crossfade.errors import TrainingDiverged, UsageError
from crossfade.extras import load
from crossfade.vectors import FloatMatrix

SHUFFLED_BLOCKS = 4
Arrays = dict[str, FloatMatrix]
Rows = list[tuple[FloatMatrix, FloatMatrix]]


class ResidualMLP(Adapter):
    """x @ skip + GELU(x @ hidden + hidden_bias) @ out + bias (Drift-Adapter, EMNLP 2025, section 3).

    The skip connection, which has to be a matrix between unequal dimensions, starts as the ridge map and
    `out` at zero: training starts from the closed form. Held-out pairs choose the number of epochs (none, if
    training only makes them worse), and the final network is trained anew on all pairs for that many. The
    loss is 1 - cosine where the target compares by cosine (or is normalised), else squared error. AdamW takes
    mini-batches from a shuffled window of some 32,000 pairs that moves over the stream. GELU is the tanh
    approximation (Hendrycks & Gimpel, arXiv 1606.08415), which numpy computes without torch: only `fit` needs
    the extra "train".

    Args:
        hidden: width of the hidden layer; 256 as in the paper.
        learning_rate: of AdamW, on components scaled to mean square 1.
        weight_decay: of AdamW, on the hidden layer and `out`.
        batch_rows: pairs per step.
        epochs: most passes over the pairs.
        patience: stop looking after so many epochs without a better held-out loss.
        bf16: compute products in bfloat16 (autocast); faster where the processor has it.
        seed: chooses the held-out pairs, the initial weights and the order of the mini-batches.
    """

    name: ClassVar[str] = "residual-mlp"
    complexity: ClassVar[int] = 5

    def __init__(
        self,
        *,
        hidden: int = 256,
        learning_rate: float = 3e-4,
        weight_decay: float = 0.01,
        batch_rows: int = 256,
        epochs: int = 60,
        patience: int = 4,
        bf16: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for option, value in {
            "hidden": hidden,
            "batch_rows": batch_rows,
            "epochs": epochs,
            "patience": patience,
        }.items():
            if value < 1:
                raise UsageError(f"{option} must be at least 1, got {value}")
        if not learning_rate > 0 or weight_decay < 0:
            raise UsageError(
                "learning_rate must be above 0 and weight_decay at least 0, "
                f"got {learning_rate} and {weight_decay}"
            )
        self.hidden, self.learning_rate, self.weight_decay = hidden, learning_rate, weight_decay
        self.batch_rows, self.epochs, self.patience = batch_rows, epochs, patience
        self.bf16, self.seed = bf16, seed

    def required_pairs(self, d_source: int, d_target: int) -> int:
        """Four per hidden unit, and at least what the ridge map that it starts from asks for."""
        return max(4 * self.hidden, Ridge().required_pairs(d_source, d_target))

    def shapes(self, d_source: int, d_target: int) -> dict[str, tuple[int, ...]]:
        return {
            "skip": (d_source, d_target),
            "bias": (d_target,),
            "hidden": (d_source, self.hidden),
            "hidden_bias": (self.hidden,),
            "out": (self.hidden, d_target),
        }

    def _map(self, X: FloatMatrix) -> FloatMatrix:
        return apply_network(self.arrays, X)

    # --- fitting ------------------------------------------------------------------------------

    def _learn(self, pairs: PreparedPairs) -> None:
        load("torch", "train")
        split, held_out = gather(pairs, self.seed), pairs.held_out(self.seed)
        rows = [(x[mask], y[mask]) for x, y, mask in pairs.split_blocks(held_out)]
        solution, strength = Ridge(seed=self.seed).solve_fitting(split)
        trainer = self._trainer(split.fitting, solution, pairs)
        best, epochs = self._choose_epochs(trainer, pairs, held_out, rows)
        self.chosen = {"strength": strength, "epochs": epochs}
        self._measure(best, rows, unit=uses_unit_length(pairs.target))
        final = self._trainer(split.whole, Spectrum.of(split.whole).solution(strength), pairs)
        for epoch in range(1, epochs + 1):
            self._run_epoch(final, pairs, RowSample.none(), epoch)
        self.arrays = final.network()

    def _trainer(self, statistics: PairStatistics, solution: Affine, pairs: PreparedPairs) -> _Trainer:
        """The network at its start: the closed form, and a hidden layer that adds nothing yet."""
        scaling = _Scaling.of(statistics)
        d_source, d_target = solution.weight.shape
        hidden = np.random.default_rng(self.seed).standard_normal((d_source, self.hidden)) / d_source**0.5
        start = {
            "skip": as_float32(solution.weight * (scaling.x_spread / scaling.y_spread)),
            "bias": np.zeros(d_target, dtype=np.float32),
            "hidden": as_float32(hidden),
            "hidden_bias": np.zeros(self.hidden, dtype=np.float32),
            "out": np.zeros((self.hidden, d_target), dtype=np.float32),
        }
        return _Trainer(self, start, scaling, cosine=uses_unit_length(pairs.target))

    def _choose_epochs(
        self, trainer: _Trainer, pairs: PreparedPairs, held_out: RowSample, rows: Rows
    ) -> tuple[Arrays, int]:
        best, best_loss, best_epoch = trainer.network(), trainer.loss_of(rows), 0
        self.held_out = {"loss of the ridge map": best_loss, "loss": best_loss}
        for epoch in range(1, self.epochs + 1):
            self._run_epoch(trainer, pairs, held_out, epoch)
            loss = trainer.loss_of(rows)
            if loss < best_loss:
                best, best_loss, best_epoch = trainer.network(), loss, epoch
            elif epoch - best_epoch >= self.patience:
                break
        self.held_out["loss"] = best_loss
        return best, best_epoch

    def _run_epoch(self, trainer: _Trainer, pairs: PreparedPairs, held_out: RowSample, epoch: int) -> None:
        rng = np.random.default_rng((self.seed, epoch))
        for x, y in _minibatches(pairs, held_out, self.batch_rows, rng):
            trainer.step(x, y, epoch)

    def _measure(self, network: Arrays, rows: Rows, *, unit: bool) -> None:
        X, Y = (np.concatenate(side) for side in zip(*rows, strict=True))
        mapped = apply_network(network, X)
        mapped = scale_to_unit(mapped) if unit else mapped
        error = float(np.square(mapped - Y, dtype=np.float64).sum())
        variance = float(np.square(Y - Y.mean(axis=0), dtype=np.float64).sum())
        self.held_out |= {
            "pairs": len(X),
            "squared error": error / len(X),
            "relative squared error": error / max(variance, TINY),
        }


def apply_network(arrays: Arrays, X: FloatMatrix) -> FloatMatrix:
    """X (n, d_source) through skip connection and hidden layer: (n, d_target)."""
    hidden = gelu(X @ arrays["hidden"] + arrays["hidden_bias"])
    mapped: FloatMatrix = np.matmul(X, arrays["skip"])
    mapped += hidden @ arrays["out"]
    mapped += arrays["bias"]
    return mapped


def gelu(x: FloatMatrix) -> FloatMatrix:
    """x Φ(x), Φ by the tanh approximation; in place of torch's ``gelu(approximate="tanh")``."""
    inner = x * x
    inner *= np.float32(0.044715)
    inner += 1
    inner *= x
    inner *= np.float32(np.sqrt(2 / np.pi))
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= np.float32(0.5)
    return inner


@dataclass(frozen=True)
class _Scaling:
    """Components of mean square 1 on both sides while training, so that one learning rate suits all."""

    x_mean: Matrix
    x_spread: float
    y_mean: Matrix
    y_spread: float

    @classmethod
    def of(cls, statistics: PairStatistics) -> _Scaling:
        moments = statistics.about(statistics.x_mean, statistics.y_mean)
        x_spread = np.sqrt(max(float(np.trace(moments.xx)) / len(statistics.x_mean) / moments.n, TINY))
        y_spread = np.sqrt(max(moments.yy / len(statistics.y_mean) / moments.n, TINY))
        return cls(statistics.x_mean, float(x_spread), statistics.y_mean, float(y_spread))

    def apply(self, x: FloatMatrix, y: FloatMatrix) -> tuple[FloatMatrix, FloatMatrix]:
        """X about its mean and scaled; Y only scaled, since its angles count from the origin."""
        scaled_x = (x - self.x_mean.astype(np.float32)) * np.float32(1 / self.x_spread)
        return scaled_x, y * np.float32(1 / self.y_spread)

    def undo(self, arrays: Arrays) -> Arrays:
        """The same network for vectors as they come."""
        skip = arrays["skip"].astype(np.float64) * (self.y_spread / self.x_spread)
        hidden = arrays["hidden"].astype(np.float64) / self.x_spread
        return {
            "skip": as_float32(skip),
            "bias": as_float32(self.y_mean + arrays["bias"] * self.y_spread - self.x_mean @ skip),
            "hidden": as_float32(hidden),
            "hidden_bias": as_float32(arrays["hidden_bias"] - self.x_mean @ hidden),
            "out": as_float32(arrays["out"].astype(np.float64) * self.y_spread),
        }


class _Trainer:
    """The network in torch, and one optimizer step at a time."""

    def __init__(self, adapter: ResidualMLP, start: Arrays, scaling: _Scaling, *, cosine: bool) -> None:
        self._torch = load("torch", "train")
        self._cosine, self._bf16 = cosine, adapter.bf16
        self._parameters = {
            name: self._torch.from_numpy(array.copy()).requires_grad_() for name, array in start.items()
        }
        self._y_mean = self._torch.from_numpy((scaling.y_mean / scaling.y_spread).astype(np.float32))
        free = [self._parameters[name] for name in ("skip", "bias", "hidden_bias")]
        decayed = [self._parameters[name] for name in ("hidden", "out")]
        self._optimizer = self._torch.optim.AdamW(
            [
                {"params": free, "weight_decay": 0.0},
                {"params": decayed, "weight_decay": adapter.weight_decay},
            ],
            lr=adapter.learning_rate,
        )
        self._learning_rate = adapter.learning_rate
        self._scaling = scaling

    def step(self, x: FloatMatrix, y: FloatMatrix, epoch: int) -> None:
        """One mini-batch of unscaled pairs.

        Raises:
            TrainingDiverged: the loss is NaN or infinite.
        """
        loss = self._loss(*self._scaling.apply(x, y))
        if not self._torch.isfinite(loss):
            raise TrainingDiverged(
                f"residual-mlp: the loss became {loss.item()} in epoch {epoch} at learning rate "
                f"{self._learning_rate}; use a smaller learning_rate, or method 'ridge'"
            )
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def loss_of(self, batches: Rows) -> float:
        """Mean loss over batches of unscaled pairs, without a step."""
        with self._torch.no_grad():
            losses = [float(self._loss(*self._scaling.apply(x, y))) * len(x) for x, y in batches if len(x)]
        return sum(losses) / sum(len(x) for x, _ in batches)

    def network(self) -> Arrays:
        """The network as it is now, for vectors as they come."""
        return self._scaling.undo({name: value.detach().numpy() for name, value in self._parameters.items()})

    def _loss(self, x: FloatMatrix, y: FloatMatrix) -> Any:
        torch = self._torch
        target = torch.from_numpy(y)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bf16):
            mapped = self._forward(torch.from_numpy(x))
        mapped = mapped.float() + self._y_mean
        if self._cosine:
            return (1 - torch.nn.functional.cosine_similarity(mapped, target, dim=1)).mean()
        return (mapped - target).square().mean()

    def _forward(self, x: Any) -> Any:
        p = self._parameters
        hidden = self._torch.nn.functional.gelu(x @ p["hidden"] + p["hidden_bias"], approximate="tanh")
        return x @ p["skip"] + hidden @ p["out"] + p["bias"]


def _minibatches(
    pairs: PreparedPairs, held_out: RowSample, rows: int, rng: np.random.Generator
) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
    for x, y in _windows(pairs, held_out):
        order = rng.permutation(len(x))
        for start in range(0, len(x), rows):
            chosen = order[start : start + rows]
            yield x[chosen], y[chosen]


def _windows(pairs: PreparedPairs, held_out: RowSample) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
    """Some blocks at a time without their held-out rows: what mini-batches are shuffled within."""
    waiting: list[tuple[FloatMatrix, FloatMatrix]] = []
    for x, y, mask in pairs.split_blocks(held_out):
        waiting.append((x[~mask], y[~mask]))
        if len(waiting) == SHUFFLED_BLOCKS:
            yield np.concatenate([x for x, _ in waiting]), np.concatenate([y for _, y in waiting])
            waiting = []
    if waiting:
        yield np.concatenate([x for x, _ in waiting]), np.concatenate([y for _, y in waiting])
