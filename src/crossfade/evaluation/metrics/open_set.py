"""Open-set measures of face recognition: verification of pairs (1:1), and identification (1:N)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossfade.errors import DataError, UsageError

Scores = NDArray[np.floating]
DEFAULT_RATES = (1e-4, 1e-3, 1e-2, 1e-1)


def tar_at_far(
    scores: Scores, genuine: NDArray[np.bool_], rates: tuple[float, ...] = DEFAULT_RATES
) -> dict[float, float]:
    """1:1 verification: share of genuine pairs accepted (TAR) where a share FAR of impostors is.

    A pair is accepted if its score reaches the threshold; for each FAR the lowest threshold is taken that
    accepts no larger share of the impostor pairs. A rate below one impostor pair in all of them accepts none.

    Args:
        scores: (n,) similarity of each pair, higher is more alike.
        genuine: (n,) whether both are of one identity.
        rates: false acceptance rates.

    Returns:
        TAR by FAR.

    Raises:
        DataError: no genuine pairs, or no impostor pairs.
    """
    scores, genuine = np.asarray(scores), np.asarray(genuine, dtype=bool)
    _require_rates(rates)
    if not genuine.any() or genuine.all():
        raise DataError(
            "verification needs pairs of one identity and pairs of two; "
            f"{int(genuine.sum())} of {len(genuine)} are genuine"
        )
    return {
        rate: _share_reaching(scores[genuine], threshold)
        for rate, threshold in zip(rates, _thresholds(scores[~genuine], rates), strict=True)
    }


def tpir_at_fpir(
    scores: Scores,
    probes: ArrayLike,
    gallery: ArrayLike,
    rates: tuple[float, ...] = (1e-2, 1e-1),
) -> dict[float, float]:
    """1:N open-set identification: share of enrolled probes found (TPIR) where FPIR of the strangers is.

    A probe of an identity that is enrolled is found if an item of its identity scores highest of the gallery,
    and that score reaches the threshold. A stranger, whose identity is not enrolled, is a false positive if
    any item reaches it. The threshold of an FPIR is the lowest that lets no larger share of them through.

    Args:
        scores: (probes, gallery) similarity.
        probes, gallery: identities.
        rates: false positive identification rates.

    Returns:
        TPIR by FPIR.

    Raises:
        DataError: no probe is enrolled, or all are.
    """
    scores, probes, gallery = np.asarray(scores), np.asarray(probes), np.asarray(gallery)
    _require_rates(rates)
    if scores.shape != (len(probes), len(gallery)):
        raise DataError(
            f"{len(probes)} probes and {len(gallery)} gallery items, but scores of {scores.shape}"
        )
    enrolled = np.isin(probes, gallery)
    if not enrolled.any() or enrolled.all():
        raise DataError(
            "open-set identification needs probes that are enrolled and strangers; "
            f"{int(enrolled.sum())} of {len(probes)} probes are enrolled"
        )
    best = scores.max(axis=1)
    # Of equal scores the stranger's counts: many items of one score must gain nothing by it.
    right = np.where(gallery[None, :] == probes[:, None], scores, -np.inf).max(axis=1)
    wrong = np.where(gallery[None, :] == probes[:, None], -np.inf, scores).max(axis=1)
    found = np.where(right > wrong, right, -np.inf)[enrolled]
    return {
        rate: _share_reaching(found, threshold)
        for rate, threshold in zip(rates, _thresholds(best[~enrolled], rates), strict=True)
    }


def verification_pairs(scores: Scores, labels: ArrayLike) -> tuple[Scores, NDArray[np.bool_]]:
    """All pairs of one set: (n (n - 1) / 2,) scores and whether both are of one identity.

    Args:
        scores: (n, n) similarity of every item to every other.
        labels: (n,) identities.
    """
    labels = np.asarray(labels)
    first, second = np.triu_indices(len(labels), 1)
    return np.asarray(scores)[first, second], labels[first] == labels[second]


def _thresholds(negatives: Scores, rates: tuple[float, ...]) -> list[float]:
    """For each rate, the lowest threshold that no larger share of the negatives reaches."""
    falling = np.sort(negatives)[::-1]
    # 0.29 * 100 is 28.999…: a rate that is a whole number of negatives means that number
    allowed = [int(np.floor(rate * len(falling) + 1e-9)) for rate in rates]
    return [
        float(np.nextafter(falling[count], np.inf)) if count < len(falling) else -np.inf for count in allowed
    ]


def _share_reaching(scores: Scores, threshold: float) -> float:
    return float(np.mean((scores >= threshold) & np.isfinite(scores)))


def _require_rates(rates: tuple[float, ...]) -> None:
    if any(not 0 <= rate <= 1 for rate in rates):
        raise UsageError(f"false acceptance rates are shares between 0 and 1, got {rates}")
