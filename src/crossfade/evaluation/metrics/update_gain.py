"""Update gain: what part of a free upgrade's improvement compatibility keeps."""

from __future__ import annotations

from crossfade.errors import UsageError


def update_gain(new_old: float, old_old: float, new_new: float) -> float:
    """(M(new/old) - M(old/old)) / (M(new*/new*) - M(old/old)) (Shen et al., CVPR 2020, section 4.1).

    Args:
        new_old: the compatible new model's queries on the old gallery, or on a lifted one.
        old_old: the status quo.
        new_new: the free new model on its own gallery, new*: the best that an upgrade could bring.

    Raises:
        UsageError: the free new model is no better than the old one: there is no gain to keep.
    """
    if not new_new > old_old:
        raise UsageError(
            f"the update gain compares with what the new model brings: it measures {new_new:.4f} on its own "
            f"gallery and the old model {old_old:.4f}; there is nothing to gain"
        )
    return (new_old - old_old) / (new_new - old_old)
