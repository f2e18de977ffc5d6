"""What the indexes of several stores have in common."""

from __future__ import annotations


def codes_per_vector(before: int, old: int, new: int) -> int:
    """Codes of a product quantiser for vectors of `new` dimensions, where `old` dimensions had `before`.

    As many components per code as before; the number of codes must divide the dimension.
    """
    wanted = max(1, round(before * new / old))
    return min((n for n in range(1, new + 1) if new % n == 0), key=lambda n: (abs(n - wanted), n))
