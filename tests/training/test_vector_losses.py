"""Losses on vectors against naive loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from crossfade.training.losses.gaussian import gaussian_nll
from crossfade.training.losses.lambda_orthogonality import lambda_orthogonality
from crossfade.training.losses.supervised_contrastive import supervised_contrastive

rng = np.random.default_rng(0)


def test_gaussian_nll_is_that_of_a_normal_distribution() -> None:
    error, log_variance = rng.random(7) * 3, rng.standard_normal(7)
    expected = 0.0
    for e, s in zip(error, log_variance, strict=True):
        density = math.exp(-0.5 * e / math.exp(s)) / math.sqrt(2 * math.pi * math.exp(s))
        expected += -math.log(density) - 0.5 * math.log(2 * math.pi)
    found = gaussian_nll(torch.from_numpy(error), torch.from_numpy(log_variance))
    assert float(found) == pytest.approx(expected / 7)


def test_the_best_variance_is_the_error_itself() -> None:
    error = torch.tensor([0.2, 3.0], dtype=torch.float64)
    guess = torch.log(error).requires_grad_()
    gaussian_nll(error, guess).backward()
    assert guess.grad is not None
    np.testing.assert_allclose(guess.grad.numpy(), 0, atol=1e-12)


def test_supervised_contrastive_equals_a_loop() -> None:
    anchors, others = rng.standard_normal((6, 4)), rng.standard_normal((6, 4))
    labels = np.array([0, 1, 0, -1, 1, 2])

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    known = [row for row in range(6) if labels[row] >= 0]
    expected = 0.0
    for i in known:
        total = sum(math.exp(cosine(anchors[i], others[j]) / 0.2) for j in known)
        same = [j for j in known if labels[j] == labels[i]]
        expected -= sum(math.log(math.exp(cosine(anchors[i], others[j]) / 0.2) / total) for j in same) / len(
            same
        )
    tensors = torch.from_numpy(anchors), torch.from_numpy(others), torch.from_numpy(labels)
    assert float(supervised_contrastive(*tensors, temperature=0.2)) == pytest.approx(expected / len(known))


def test_supervised_contrastive_of_unlabelled_items_costs_nothing() -> None:
    anchors = torch.ones(3, 2, requires_grad=True)
    loss = supervised_contrastive(anchors, torch.ones(3, 2), torch.full((3,), -1))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)], ids=["tall", "wide"])
def test_lambda_orthogonality_equals_a_loop(shape: tuple[int, int]) -> None:
    weight = rng.standard_normal(shape)
    short = weight if shape[0] < shape[1] else weight.T
    total = 0.0
    for i in range(3):
        for j in range(3):
            total += (sum(short[i] * short[j]) - (i == j)) ** 2
    beyond = lambda_orthogonality(torch.from_numpy(weight), 0.5)
    assert float(beyond) == pytest.approx(math.sqrt(total) - 0.5)
    assert float(lambda_orthogonality(torch.from_numpy(weight), math.sqrt(total) + 0.1)) == 0


def test_lambda_orthogonality_has_a_gradient_at_an_orthogonal_matrix() -> None:
    weight = torch.eye(4, requires_grad=True)
    lambda_orthogonality(weight, 0.0).backward()
    assert weight.grad is not None
    assert torch.isfinite(weight.grad).all()
