"""How well vectors of a second model are found in a gallery, on real models and planted mixtures of them.

    python benchmarks/origin.py --data DIR [--out benchmarks/results]

Galleries of one model must not be called mixed; mixtures of two must be, with the right share. Models of
unequal dimension are brought to the smaller one by a random rotation that is cut off, which keeps cosines but
for noise. Mixtures draw each row's model at random (seed 0); 3,000 vectors are looked at (seed 1).
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from crossfade.evaluation.origin import find_origins
from crossfade.vectors import FloatMatrix

RESULTS = Path(__file__).parent / "results"
SETS = {
    "cisi": ("minilm-l6.corpus", "minilm-l3.corpus", "lsa-256.corpus"),
    "fashion": (),
    "tiny-imagenet-100": (),
}
SHARES = (0.01, 0.05, 0.2, 0.5)
SAMPLE = 3000


def galleries(data: Path, name: str) -> dict[str, FloatMatrix]:
    """The vectors of every model of a set."""
    folder = data / name / "embeddings"
    names = SETS[name] or tuple(sorted(path.stem for path in folder.glob("*.parquet")))
    return {one: _read(folder / f"{one}.parquet") for one in names}


def _read(path: Path) -> FloatMatrix:
    column = pq.read_table(path, columns=["vector"])["vector"].combine_chunks()
    values = column.flatten().to_numpy()
    matrix: FloatMatrix = values.reshape(len(column), -1)
    return matrix


def mixture(
    first: FloatMatrix, second: FloatMatrix, share: float
) -> tuple[FloatMatrix, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Rows of the first model, about `share` of them replaced by the second's; and which."""
    rng = np.random.default_rng(0)
    dimension = min(first.shape[1], second.shape[1])
    one, other = (_cut(vectors, dimension, rng) for vectors in (first, second))
    chosen = rng.random(len(one)) < share
    return np.where(chosen[:, None], other, one), chosen


def _cut(vectors: FloatMatrix, dimension: int, rng: np.random.Generator) -> FloatMatrix:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if unit.shape[1] == dimension:
        return np.asarray(unit, dtype=np.float32)
    rotation = np.linalg.qr(rng.standard_normal((unit.shape[1], dimension)))[0]
    return np.asarray(unit @ rotation, dtype=np.float32)


def examined(
    name: str, vectors: FloatMatrix, foreign: np.ndarray[Any, np.dtype[np.bool_]] | None = None
) -> dict[str, Any]:
    """What is found in a sample, beside the truth."""
    rows = np.random.default_rng(1).permutation(len(vectors))[:SAMPLE]
    found = find_origins(vectors[rows])
    result = {"gallery": name, **found.to_dict()}
    if foreign is not None:
        truth = foreign[rows]
        agreement = float(((found.groups > 0) == truth).mean())
        result |= {"planted": float(truth.mean()), "right rows": max(agreement, 1 - agreement)}
    return result


def measure(data: Path) -> list[dict[str, Any]]:
    """Every gallery, and every mixture of two models of one set."""
    results = []
    for name in SETS:
        models = galleries(data, name)
        results += [examined(f"{name}: {model}", vectors) for model, vectors in models.items()]
        for one, other in combinations(models, 2):
            for share in SHARES:
                mixed, chosen = mixture(models[one], models[other], share)
                results.append(examined(f"{name}: {one} + {other}", mixed, chosen))
        print(f"{name} done", flush=True)
    return results


def markdown(results: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        f"Looked at {SAMPLE:,} vectors of each gallery, or all where there are fewer. Likeness: mean cosine "
        "between the two origins that are most alike, as a share of that within them.",
        "",
        "| gallery | planted | verdict | share found (95 %) | likeness | rows assigned rightly |",
        "|---|---|---|---|---|---|",
    ]
    for one in results:
        planted = f"{one['planted']:.1%}" if "planted" in one else "none"
        right = f"{one['right rows']:.2%}" if "planted" in one else ""
        smaller = one["shares"][1] if one["verdict"] == "mixed" else None
        share = f"{smaller['value']:.1%} ({smaller['low']:.1%} to {smaller['high']:.1%})" if smaller else ""
        likeness = "" if one["likeness"] is None else f"{one['likeness']:.2f}"
        lines.append(f"| {one['gallery']} | {planted} | {one['verdict']} | {share} | {likeness} | {right} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("CROSSFADE_DATA"), help="the data folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.data is None:
        parser.error("give --data DIR, or set CROSSFADE_DATA")
    results = measure(Path(options.data))
    (options.out / "origin.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (options.out / "origin.md").write_text(markdown(results), encoding="utf-8")
    print(markdown(results))


if __name__ == "__main__":
    main()
