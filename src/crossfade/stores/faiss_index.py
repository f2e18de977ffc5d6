"""FAISS index files: the new index is written beside the old one and takes its name."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.errors import InvalidVectors, UsageError
from crossfade.evaluation.search import search
from crossfade.extras import load
from crossfade.stores.durable import read_json, write_json
from crossfade.stores.faiss_content import FaissContent
from crossfade.stores.faiss_kinds import TYPES, IndexMaker, decoded, is_compressed, unit, unwrapped
from crossfade.stores.file_assembly import Form, Vectors, unknown
from crossfade.stores.file_content import Content, identity
from crossfade.stores.files import FileStore
from crossfade.stores.records import Capabilities, IndexInfo, Staged
from crossfade.vectors import FloatMatrix

LOSS_ROWS, LOSS_QUERIES, LOSS_K = 5000, 200, 10


class FaissIndex(FileStore):
    """A FAISS index, ``faiss://FILE#NAME``: flat, HNSW, IVF-Flat or IVF-PQ, with an id map or without.

    A Parquet file of the same name beside it (``items.parquet`` for ``items.faiss``) may hold ids and
    payload: matched by id if the index has ids, else row by row. Without one, rows are known by the
    index's ids, or by their numbers.

    Raises:
        StoreError: no such file, or it cannot be read.
        NotSupported: an index of another kind.
        MissingExtra: faiss is not installed.
    """

    capabilities = Capabilities(
        beside="file",
        switch="exchange of two file names",
        catches_up=(
            "whole file: a part whose vectors differ is written again; who replaces the file last, before "
            "the switch, wins, and no replaced file is lost"
        ),
        index=TYPES,
        cannot=(
            "be read or written in pieces: FAISS holds the old and the new index in memory",
            "wait for writers: one that read the file before the switch and replaces it afterwards undoes "
            "the switch, so let writers pause for the cutover (milliseconds)",
            "hold rows without a vector, unless a table beside the index names them",
            "keep the batches of a part when a row in it is deleted: those after it are embedded again",
            "give back exact vectors from codes: those of IVF-PQ are decoded, mapped and encoded again, and "
            "verify says how much that loses",
            "go on in the middle of a lift, unless the index is trained (IVF): one that is killed starts "
            "over (an embedding goes on from its last part)",
            "be rebuilt with another coarse quantiser than a flat one, or behind a transformation (OPQ, PCA)",
        ),
        lacks=("steady batches",),
    )

    def _open_file(self, path: Path, live: Path) -> FaissContent:
        table = live.with_suffix(".parquet")
        return FaissContent(path, table if table.exists() else None, self._chosen_id, self.uri)

    def _version_of(self, path: Path) -> str:
        table = self._live.with_suffix(".parquet")
        return f"{identity(path)} {identity(table)}" if table.exists() else identity(path)

    def stored(self, vectors: FloatMatrix, staged: Staged) -> FloatMatrix:
        content = self._content(self.columns_of(staged)[1])
        assert isinstance(content, FaissContent)
        return decoded(content.whole, self._form(content, staged)(vectors))

    def _form(self, content: Content, staged: Staged) -> Form:
        """Vectors are as an index compares them; what codes lose is not counted in."""
        return partial(unit, metric=staged.new.metric)

    def writes_once(self, staged: Staged) -> bool:
        """An index that is trained reads its vectors several times."""
        like = self._like(staged)
        return like is None or like.type == "HNSW"

    def remarks(self, staged: Staged) -> list[str]:
        loss = read_json(self._loss_file(staged))
        if not loss:
            return []
        return [
            f"the index holds codes ({loss['index']}): decoding gives vectors back with a relative error of "
            f"{loss['error']:.1%}, and {loss['overlap']:.0%} of the {loss['k']} nearest of {loss['rows']:,} "
            "rows stay the same; the old vectors had been through codes before they were mapped"
        ]

    def build_index(self, staged: Staged, like: IndexInfo) -> None:
        """The index is the file: it is written anew, from its own vectors, only to be of another kind."""
        content, made = self._content(staged.name), self._assembly(staged.name)
        if made is not None and not _follows(content.index(), like):
            write_json(self._kind_file(staged), asdict(like))
            target = self._versions.place(staged.name)
            self._write_file(target, content, partial(_vectors_of, content), staged, like)
            self._note(staged, made.version, str(like), unknown(made.parts))

    def _like(self, staged: Staged) -> IndexInfo | None:
        chosen = read_json(self._kind_file(staged))
        return IndexInfo(**chosen) if chosen else super()._like(staged)

    def _write_file(
        self,
        target: Path,
        content: Content,
        vectors: Vectors,
        staged: Staged,
        like: IndexInfo | None,
    ) -> None:
        assert isinstance(content, FaissContent)

        def batches() -> Generator[tuple[NDArray[np.int64], FloatMatrix], None, None]:
            with closing(vectors()) as ahead:
                yield from _with_ids(ahead, content, self.uri)

        maker = IndexMaker(like, content.whole, staged.new.dimension, staged.new.metric)
        if maker.training_rows:
            maker.train(_sample(batches(), content.rows, maker.training_rows))
        index = maker.fill(batches())
        with self._versions.draft(target, self.uri, int(index.ntotal)) as draft:
            load("faiss", "faiss").write_index(index, str(draft))
        self._note_loss(index, batches, content.rows, staged)

    def _note_loss(self, index: Any, batches: Callable[[], Iterator[Any]], rows: int, staged: Staged) -> None:
        """Measure on a sample what encoding loses, if the index encodes."""
        if not is_compressed(unwrapped(index)[0]):
            self._loss_file(staged).unlink(missing_ok=True)
            return
        exact = _sample(batches(), rows, LOSS_ROWS)
        write_json(self._loss_file(staged), {**loss(index, exact, staged.new.metric), "index": "IVF-PQ"})

    def _loss_file(self, staged: Staged) -> Path:
        return self._versions.folder / f"{staged.upgrade}.loss.json"

    def _kind_file(self, staged: Staged) -> Path:
        return self._versions.folder / f"{staged.upgrade}.index.json"

    def _forget(self, staged: Staged) -> None:
        for file in (self._loss_file(staged), self._kind_file(staged)):
            file.unlink(missing_ok=True)
        super()._forget(staged)


def loss(index: Any, exact: FloatMatrix, metric: Any) -> dict[str, float]:
    """What the index's codes lose of `exact` (n, d): relative error, and neighbours that stay the same."""
    back = decoded(index, exact)
    error = np.linalg.norm(back - exact) / np.linalg.norm(exact)
    k = min(LOSS_K, len(exact))
    queries = exact[: min(LOSS_QUERIES, len(exact))]
    before = search(queries, exact, k, metric, engine="numpy")[1]
    after = search(queries, back, k, metric, engine="numpy")[1]
    same = [len(np.intersect1d(one, other)) for one, other in zip(before, after, strict=True)]
    return {"error": float(error), "overlap": float(np.mean(same) / k), "k": k, "rows": len(exact)}


def _with_ids(
    vectors: Iterator[FloatMatrix], content: FaissContent, what: str
) -> Iterator[tuple[NDArray[np.int64], FloatMatrix]]:
    """New vectors with the index's ids; rows without one are left out."""
    start, ended = 0, False
    by_id = content.keys is not None
    for batch in vectors:
        valid = ~np.isnan(batch[:, 0])
        numbers = np.arange(start, start + len(batch))
        start += len(batch)
        if not by_id:
            _require_no_gap(valid, ended, what)
            ended = ended or not valid.all()
        ids = content.ids.to_numpy()[numbers] if by_id else numbers
        if valid.all():
            yield ids.astype(np.int64), np.ascontiguousarray(batch)
        elif valid.any():
            yield ids[valid].astype(np.int64), batch[valid]


def _require_no_gap(valid: NDArray[np.bool_], ended: bool, what: str) -> None:
    """Rows known by their number cannot be left out, except at the end."""
    count = int(np.count_nonzero(valid))
    if not valid[:count].all() or (ended and count):
        raise InvalidVectors(
            f"{what}: a row cannot be left without a vector, since the index knows rows by their number and "
            "all after it would move; correct it, or give the index an id map (IndexIDMap2)"
        )


def _sample(batches: Iterator[tuple[NDArray[np.int64], FloatMatrix]], rows: int, count: int) -> FloatMatrix:
    """About `count` random rows, the same each time."""
    generator, taken = np.random.default_rng(0), []
    for _, vectors in batches:
        taken.append(vectors[generator.random(len(vectors)) < count / max(rows, 1)])
    if not taken:
        raise UsageError("an index cannot be trained without vectors")
    return np.concatenate(taken)


def _vectors_of(content: Content) -> Generator[FloatMatrix, None, None]:
    for batch in content.batches():
        yield batch.vectors


def _follows(made: IndexInfo | None, like: IndexInfo) -> bool:
    """Whether an index is like another, but for what another dimension or metric asks for."""
    if made is None or made.type != like.type:
        return False
    values = {name: value for name, value in like.parameters.items() if name != "num_sub_vectors"}
    return all(made.parameters.get(name) == value for name, value in values.items())
