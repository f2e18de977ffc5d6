"""Embed a corpus of texts once, so that a map between two text encoders is trained from vectors alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from crossfade.datasets.distinct import text_keys
from crossfade.datasets.texts import TextCounts, Texts
from crossfade.encoders.base import Encoder
from crossfade.spaces import Space
from crossfade.vectors import ParquetVectorWriter, VectorBatch, VectorSource, open_vectors

CHUNK = 2048
Advance = Callable[[int], None]


@dataclass(frozen=True)
class EmbeddedTexts:
    """What was embedded.

    Attributes:
        path: the file of vectors.
        rows: vectors in it, one per distinct text.
        counts: what was read, and what was left out of it.
        truncated: texts longer than the model's context, which it cut; None for an encoder that does not say.
    """

    path: Path
    rows: int
    counts: TextCounts
    truncated: int | None

    def open(self) -> VectorSource:
        """The vectors."""
        return open_vectors(self.path)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "path": str(self.path),
            "rows": self.rows,
            **asdict(self.counts),
            "truncated": self.truncated,
        }


def embed_texts(
    encoder: Encoder, texts: Texts, path: str | Path, *, progress: Advance | None = None
) -> EmbeddedTexts:
    """Write ``id`` and ``vector`` of every distinct text, and the encoder's space, as Parquet; or nothing.

    The id is a 64-bit hash of the text, so that the vectors of two models belong together by it even where
    they were made from different, overlapping corpora.

    Args:
        encoder: any encoder of texts.
        progress: called with the number of texts done.

    Raises:
        DataError, UnreadableFile: see `Texts.blocks`.
        UsageError: there is a file already, or no folder.
        OutOfSpace: the disk is full.
    """
    before = getattr(encoder, "truncated", None)
    with ParquetVectorWriter(path, encoder.space) as writer:
        for block in texts.blocks(CHUNK):
            writer.write(VectorBatch(pa.array(text_keys(block)), encoder.encode(block)))
            if progress is not None:
                progress(writer.rows)
    after = getattr(encoder, "truncated", None)
    truncated = None if before is None or after is None else after - before
    return EmbeddedTexts(Path(path), writer.rows, texts.counts, truncated)


def cached_text_vectors(
    encoder: Encoder, texts: Texts, folder: str | Path, *, progress: Advance | None = None
) -> EmbeddedTexts:
    """`embed_texts` into a file of `folder`, or what an earlier call left there for these texts and space.

    Raises:
        DataError, UnreadableFile, OutOfSpace: see `embed_texts`.
    """
    directory = Path(folder)
    path = directory / f"{_key(texts.fingerprint(), encoder.space)}.parquet"
    record = path.with_suffix(".json")
    if path.exists() and record.exists():
        noted = json.loads(record.read_text(encoding="utf-8"))
        return EmbeddedTexts(path, noted["rows"], TextCounts(**noted["counts"]), noted["truncated"])
    directory.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # without its record it is the rest of a call that did not end
    done = embed_texts(encoder, texts, path, progress=progress)
    noted = {"rows": done.rows, "counts": asdict(done.counts), "truncated": done.truncated}
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps(noted), encoding="utf-8")
    partial.replace(record)
    return done


def _key(fingerprint: list[object], space: Space) -> str:
    described = json.dumps([fingerprint, space.to_dict()], default=str)
    return f"{space.model.rpartition('/')[2]}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
