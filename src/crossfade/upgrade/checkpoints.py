"""Vectors that cost an encoder's time, kept batch by batch until their part is written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from crossfade.stores import Part, Produced, Rows
from crossfade.upgrade.producing import Producer


class Checkpoints:
    """Wraps a `Producer`, so that what was embedded before a crash is not embedded again.

    Args:
        producer: embeds the rows.
        folder: where batches are kept; emptied as parts are finished.
    """

    def __init__(self, producer: Producer, folder: Path) -> None:
        self._producer, self._folder = producer, folder
        self._part: Part | None = None

    def begin(self, part: Part) -> None:
        """The batches that follow are of this part."""
        self._part = part

    def finish(self) -> None:
        """The part is written; its batches are no longer needed."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __call__(self, rows: Rows) -> Produced:
        path = self._folder / f"{self._key(rows)}.npz"
        if path.exists():
            return self._read(path)
        before = len(self._producer.skipped)
        made = self._producer(rows)
        self._write(path, made, self._producer.skipped[before:])
        return made

    def _key(self, rows: Rows) -> str:
        """Names a batch by its part, and by all that its vectors are made from."""
        assert self._part is not None
        digest, sink = hashlib.sha256(self._part.key.encode()), io.BytesIO()
        read = pa.record_batch([rows.ids, *rows.columns.values()], names=["", *rows.columns])
        with pa.ipc.new_stream(sink, read.schema) as stream:
            stream.write_batch(read)
        digest.update(sink.getbuffer())
        digest.update(np.ascontiguousarray(rows.vectors).data)
        return digest.hexdigest()[:32]

    def _write(self, path: Path, made: Produced, skipped: list[tuple[str, str]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        listed = np.frombuffer(json.dumps(skipped).encode(), dtype=np.uint8)
        with draft.open("wb") as file:
            np.savez(file, vectors=made.vectors, valid=made.valid, skipped=listed)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def _read(self, path: Path) -> Produced:
        with np.load(path, allow_pickle=False) as kept:
            self._producer.skipped += [tuple(one) for one in json.loads(kept["skipped"].tobytes())]
            return Produced(kept["vectors"], kept["valid"])
