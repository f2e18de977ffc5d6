"""Every loss against a naive loop, or against an independent implementation."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning import losses as independent

from crossfade.errors import DataError, UsageError
from crossfade.training.losses.cross_entropy import cross_entropy, require_labels_within
from crossfade.training.losses.influence import influence_loss, old_labels_of
from crossfade.training.losses.metric import make_metric_loss, make_miner
from crossfade.training.losses.nt_xent import nt_xent


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_cross_entropy_is_the_smoothed_sum() -> None:
    logits = torch.randn(5, 4, generator=_generator(), dtype=torch.float64)
    labels, epsilon = [0, 3, 1, 1, 2], 0.1
    total = 0.0
    for row, label in zip(logits.tolist(), labels, strict=True):
        normalizer = math.log(sum(math.exp(value) for value in row))
        for number, value in enumerate(row):
            wanted = epsilon / 4 + (1 - epsilon) * (number == label)
            total -= wanted * (value - normalizer)
    assert float(cross_entropy(logits, torch.tensor(labels), epsilon)) == pytest.approx(total / 5, rel=1e-12)


def test_influence_counts_only_classes_that_the_old_classifier_knows() -> None:
    logits = torch.randn(6, 3, generator=_generator(), dtype=torch.float64)
    labels = [0, -1, 2, 2, -1, 1]
    total, known = 0.0, 0
    for row, label in zip(logits.tolist(), labels, strict=True):
        if label >= 0:
            total -= row[label] - math.log(sum(math.exp(value) for value in row))
            known += 1
    assert float(influence_loss(logits, torch.tensor(labels))) == pytest.approx(total / known, rel=1e-12)


def test_influence_of_a_batch_without_known_classes_is_zero_and_has_a_gradient() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = influence_loss(logits, torch.full((4,), -1))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_new_class_codes_become_the_old_classifiers() -> None:
    positions = torch.tensor([2, -1, 0])
    assert old_labels_of(torch.tensor([0, 1, 2, 2]), positions).tolist() == [2, -1, 0, 0]


def _naive_nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    views = [row / row.norm() for row in [*first, *second]]
    count, total = len(first), 0.0
    for i, view in enumerate(views):
        partner = i + count if i < count else i - count
        others = [math.exp(float(view @ views[k]) / temperature) for k in range(2 * count) if k != i]
        total -= math.log(math.exp(float(view @ views[partner]) / temperature) / sum(others))
    return total / (2 * count)


def test_nt_xent_is_the_naive_loop() -> None:
    first, second = torch.randn(2, 7, 5, generator=_generator(), dtype=torch.float64)
    expected = _naive_nt_xent(first, second, 0.2)
    assert float(nt_xent(first, second, 0.2)) == pytest.approx(expected, rel=1e-10)


def test_nt_xent_agrees_with_pytorch_metric_learning() -> None:
    first, second = torch.randn(2, 16, 8, generator=_generator(), dtype=torch.float64)
    labels = torch.arange(16).repeat(2)
    expected = independent.NTXentLoss(temperature=0.3)(torch.cat([first, second]), labels)
    assert float(nt_xent(first, second, 0.3)) == pytest.approx(float(expected), rel=1e-6)


def test_a_loss_with_proxies_is_told_the_sizes() -> None:
    loss = make_metric_loss("ProxyAnchorLoss", {"alpha": 16}, classes=7, dimension=12)
    assert tuple(loss.proxies.shape) == (7, 12)
    assert loss.alpha == 16


def test_a_loss_on_pairs_takes_no_sizes() -> None:
    loss = make_metric_loss("SupConLoss", {"temperature": 0.2}, classes=7, dimension=12)
    assert loss.temperature == 0.2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ProxyAnchorLos", {}, "has no 'ProxyAnchorLos' among its losses; did you mean 'ProxyAnchorLoss'"),
        ("SupConLoss", {"temprature": 1}, "SupConLoss cannot be made with {'temprature': 1}"),
    ],
)
def test_a_wrong_loss_is_an_error(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_metric_loss(name, options, 2, 3)


def test_a_wrong_miner_is_an_error() -> None:
    with pytest.raises(UsageError, match="did you mean 'MultiSimilarityMiner'"):
        make_miner("MultiSimilarityMine", {})


def test_a_label_outside_the_classifier_names_both_numbers() -> None:
    with pytest.raises(DataError, match=r"label 7 is outside the classifier, which has 5 classes \(0 to 4\)"):
        require_labels_within(7, 5, "validation")
    require_labels_within(4, 5, "validation")
