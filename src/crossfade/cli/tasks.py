"""From files of vectors to retrieval tasks: labels, judged text, captions, or no ground truth at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from crossfade.cli.reading import Reading, Sides
from crossfade.errors import IdMismatch, UnknownSpace, UsageError
from crossfade.evaluation import (
    Compatible,
    Judgements,
    Labels,
    RetrievalTask,
    label_free_task,
    labelled_task,
    pairs_of,
)
from crossfade.spaces import Space
from crossfade.vectors import Pairs, Vectors


def from_labels(
    gallery: Sides, column: str, n_pairs: int | None, seed: int
) -> tuple[list[RetrievalTask], Pairs]:
    """One labelled set: some items to fit on, the others are queries and gallery at once."""
    labels = np.asarray(gallery.new.columns[column].to_pylist())
    count = n_pairs if n_pairs is not None else len(labels) * 3 // 5
    task, pairs = labelled_task(gallery.old, gallery.new, labels, count, seed=seed, side=gallery.side)
    return [task], pairs


def from_labelled_queries(
    queries: Sides, gallery: Sides, column: str, n_pairs: int | None, seed: int
) -> tuple[list[RetrievalTask], Pairs]:
    """Labelled queries of their own against a labelled gallery, which is what maps are fitted on."""
    truth = Labels(
        np.asarray(queries.new.columns[column].to_pylist()),
        np.asarray(gallery.new.columns[column].to_pylist()),
    )
    return [_task("labels", queries, gallery, truth)], gallery_pairs(gallery, n_pairs, seed)


def from_judgements(
    queries: Sides, gallery: Sides, qrels: Path, n_pairs: int | None, seed: int
) -> tuple[list[RetrievalTask], Pairs]:
    """Judged text: a TSV file of judgements, or a folder in the BEIR layout."""
    from crossfade.datasets.beir import Beir, judged_rows, locate, read_judgements

    judgements = Beir.open(qrels).judgements() if qrels.is_dir() else read_judgements(qrels)
    judged = queries.take(judged_rows(judgements, queries.old.ids))
    truth = Judgements.from_relevance(locate(judgements, judged.old.ids, gallery.old.ids))
    return [_task("judged text", judged, gallery, truth)], gallery_pairs(gallery, n_pairs, seed)


def from_captions(
    captions: Sides, images: Sides, image_column: str, caption_column: str, n_pairs: int | None, seed: int
) -> tuple[list[RetrievalTask], Pairs]:
    """Captions that name their image: text→image and image→text; equal captions count as one."""
    import pyarrow as pa

    from crossfade.datasets.captions import captions_from_table

    columns = captions.new.columns
    table = pa.table({"id": columns[image_column], "caption": columns[caption_column]})
    groups = captions_from_table(table)
    texts = captions.take(groups.first_rows)
    shown = images.take(_rows_of(groups.image_ids.to_pylist(), images.old.ids.to_pylist()))
    to_image = Judgements.from_relevance(groups.text_to_image, captions=True)
    to_text = Judgements.from_relevance(groups.image_to_text, captions=True)
    tasks = [_task("text→image", texts, shown, to_image), _task("image→text", shown, texts, to_text)]
    return tasks, gallery_pairs(images, n_pairs, seed)


def without_ground_truth(
    queries: Sides | None, gallery: Sides, n_pairs: int | None, seed: int
) -> tuple[list[RetrievalTask], Pairs]:
    """Tells only how closely the new model is imitated; held-out items search unless there are queries."""
    if queries is not None:
        task = label_free_task(queries.old, queries.new, gallery.old, gallery.new)
        task = replace(task, gallery_side=gallery.side)
        return [task], gallery_pairs(gallery, n_pairs, seed)
    count = n_pairs if n_pairs is not None else len(gallery.old) * 3 // 5
    fitted, held_out = _split(len(gallery.old), count, seed)
    rest = gallery.take(held_out)
    positions = np.arange(len(held_out))
    task = label_free_task(rest.old, rest.new, rest.old, rest.new, query_positions=positions)
    task = replace(task, gallery_side=rest.side)
    return [task], pairs_of(gallery.old, gallery.new, fitted, side=gallery.side)


@dataclass(frozen=True)
class Claimed:
    """A model that claims to search the old gallery: its name, and its vectors by id, in any order."""

    name: str
    queries: Vectors
    gallery: Vectors | None = None

    @classmethod
    def read(cls, text: str, reading: Reading, old: Space) -> Claimed:
        """Read ``NAME=QUERIES[,GALLERY]``; a file that does not say its space is of NAME, compared as `old`.

        Raises:
            UsageError: it is not of this form.
        """
        name, _, files = text.partition("=")
        locations = files.split(",")
        if not name or not all(locations) or len(locations) > 2:
            raise UsageError(f"--compatible {text!r} is not of the form NAME=QUERIES or NAME=QUERIES,GALLERY")
        found = [_of_claimed(location, name, reading, old) for location in locations]
        return cls(name, found[0], found[1] if len(found) == 2 else None)

    def of(self, task: RetrievalTask, queries: Vectors, gallery: Vectors | None) -> Compatible:
        """The model's vectors of the task's queries and items, row for row."""
        items = None if gallery is None else self._rows(gallery, task.gallery_old)
        return Compatible(self._rows(queries, task.queries_old), items)

    def _rows(self, own: Vectors, wanted: Vectors) -> Vectors:
        rows = pc.index_in(wanted.ids, value_set=own.ids) if own.ids.type == wanted.ids.type else None
        if rows is None or rows.null_count:
            missing = len(wanted) if rows is None else rows.null_count
            raise IdMismatch(
                f"--compatible {self.name}: {own.name} lacks {missing} of {len(wanted)} ids, which are "
                f"{wanted.ids.type} (its own are {own.ids.type}); embed the same queries and items with it"
            )
        return own.take(rows.to_numpy(zero_copy_only=False))


def _of_claimed(location: str, name: str, reading: Reading, old: Space) -> Vectors:
    try:
        return reading.one(location, None, "--compatible").read()
    except UnknownSpace:
        return reading.one(location, f"{name},metric={old.metric}", "--compatible").read()


def with_compatible(
    tasks: list[RetrievalTask], claimed: list[Claimed], *, own: bool, captions: bool
) -> list[RetrievalTask]:
    """The tasks with the vectors of models that claim to search their old galleries.

    Args:
        own: the gallery's own items are the queries: one file holds both.
        captions: the tasks are text→image and image→text: queries and gallery change places.

    Raises:
        UsageError: a file too many or too few for these tasks, or a name given twice.
        IdMismatch: an id of the task is missing.
    """
    names = [one.name for one in claimed]
    if len(set(names)) < len(names):
        raise UsageError(f"--compatible: every model needs a name of its own, got {', '.join(names)}")
    for one in claimed:
        if own and one.gallery is not None:
            raise UsageError(
                f"--compatible {one.name}: the items are queries and gallery at once; one file holds both"
            )
        if captions and one.gallery is None:
            raise UsageError(
                f"--compatible {one.name}: captions and images both ask and answer; give NAME=CAPTIONS,IMAGES"
            )
    return [
        replace(
            task, compatible={one.name: _claim(one, task, own, captions and place == 1) for one in claimed}
        )
        for place, task in enumerate(tasks)
    ]


def _claim(one: Claimed, task: RetrievalTask, own: bool, reversed_: bool) -> Compatible:
    if reversed_:
        assert one.gallery is not None
        return one.of(task, one.gallery, one.queries)
    return one.of(task, one.queries, one.queries if own else one.gallery)


def gallery_pairs(gallery: Sides, n_pairs: int | None, seed: int) -> Pairs:
    """Gallery items as pairs: all of them, or `n_pairs` drawn at random."""
    count = len(gallery.old) if n_pairs is None else n_pairs
    rows = _split(len(gallery.old), count, seed)[0]
    return pairs_of(gallery.old, gallery.new, rows, side=gallery.side)


def _task(name: str, queries: Sides, gallery: Sides, truth: Judgements | Labels) -> RetrievalTask:
    return RetrievalTask(
        name, queries.old, queries.new, gallery.old, gallery.new, truth, gallery_side=gallery.side
    )


def _split(n: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if not 0 < count <= n:
        raise UsageError(f"--pairs {count}: there are {n} items embedded by both models; ask for 1 to {n}")
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[:count]), np.sort(order[count:])


def _rows_of(wanted: list[object], ids: list[object]) -> np.ndarray:
    place = {identifier: row for row, identifier in enumerate(ids)}
    missing = [identifier for identifier in wanted if identifier not in place]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(wanted)} captioned images are not in the gallery of {len(ids)}, "
            f"e.g. {missing[:3]}; pass the gallery that the captions belong to"
        )
    return np.asarray([place[identifier] for identifier in wanted], dtype=np.intp)
