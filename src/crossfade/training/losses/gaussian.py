"""The negative log-likelihood of an error whose variance is predicted, too."""

from __future__ import annotations

from torch import Tensor


def gaussian_nll(error: Tensor, log_variance: Tensor) -> Tensor:
    """Mean over the batch of ½ (error · exp(-s) + s), up to a constant.

    Kendall and Gal, NeurIPS 2017, equation 8; FastFill, ICLR 2023, section 4.2.

    Args:
        error: (b,) squared errors per degree of freedom.
        log_variance: (b,) s, the log of the variance that each error is expected to have.
    """
    return 0.5 * (error * (-log_variance).exp() + log_variance).mean()
