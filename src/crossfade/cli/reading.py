"""Opening the vectors that a command was given."""

from __future__ import annotations

from crossfade.vectors import Pairs, VectorSource


def open_pairs(
    old: str,
    new: str,
    old_space: str | None,
    new_space: str | None,
    id_column: str | None,
    vector_column: str | None,
) -> Pairs:
    """The same items embedded by both models, aligned by id."""
    from crossfade.vectors.align import align

    return align(
        open_side(old, "--old-space", old_space, id_column, vector_column),
        open_side(new, "--new-space", new_space, id_column, vector_column),
    )


def open_side(
    location: str, option: str, space: str | None, id_column: str | None, vector_column: str | None
) -> VectorSource:
    """Vectors of the old or the new model; an unknown space names the option that states it."""
    from crossfade.errors import UnknownSpace
    from crossfade.vectors import open_vectors

    try:
        return open_vectors(location, space=space, id_column=id_column, vector_column=vector_column)
    except UnknownSpace as error:
        raise UnknownSpace(f"{error} (here: {option} NAME)") from None
