"""Every foreseeable mistake: one clear line with both values and what to do, exit code 2, nothing written."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import NEW, OLD, ROWS, Finished, Models, Run, write

from crossfade.spaces import Space
from crossfade.vectors import Vectors


def _refused(done: Finished, *words: object) -> None:
    assert done.code == 2, (done.code, done.err)
    assert len(done.error_lines) == 1, done.err
    assert "Traceback" not in done.err
    missing = [str(word) for word in words if str(word) not in done.error_lines[0]]
    assert not missing, f"{missing} not in {done.error_lines[0]!r}"


def _contents(folder: Path) -> dict[str, str]:
    """Every file below a folder and what is in it, the journal's own files aside."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".crossfade" not in path.parts]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


@pytest.fixture
def adapter(files: tuple[Path, Path], tmp_path: Path, run: Run) -> Path:
    assert (
        run("fit", "--old", files[0], "--new", files[1], "--method", "ridge", "--out", tmp_path / "a").code
        == 0
    )
    return tmp_path / "a"


@pytest.fixture
def plan(store: str, adapter: Path, tmp_path: Path, run: Run) -> Path:
    path = tmp_path / "plan.json"
    assert run("plan", store, "--strategy", "gallery", "--adapter", adapter, "--out", path).code == 0
    return path


def _changed(models: Models, matrix: np.ndarray, space: Space = OLD, ids: object = None) -> Vectors:
    return Vectors(models.old.ids if ids is None else ids, matrix, space)


def test_wrong_dimension(models: Models, adapter: Path, tmp_path: Path, run: Run) -> None:
    short = write(
        tmp_path / "short.parquet", _changed(models, models.old.matrix[:, :8], Space("old-model", 8))
    )
    done = run("transform", "--adapter", adapter, "--input", short, "--output", tmp_path / "out.parquet")
    _refused(done, 12, 8)
    assert not (tmp_path / "out.parquet").exists()


def test_same_dimension_but_another_space(models: Models, adapter: Path, tmp_path: Path, run: Run) -> None:
    other = write(tmp_path / "other.parquet", _changed(models, models.old.matrix, Space("third-model", 12)))
    done = run("transform", "--adapter", adapter, "--input", other, "--output", tmp_path / "out.parquet")
    _refused(done, "third-model", "old-model", "crossfade fit")
    assert not (tmp_path / "out.parquet").exists()


def test_wrong_direction(files: tuple[Path, Path], adapter: Path, tmp_path: Path, run: Run) -> None:
    done = run("transform", "--adapter", adapter, "--input", files[1], "--output", tmp_path / "out.parquet")
    _refused(done, "new-model", "direction")
    assert not (tmp_path / "out.parquet").exists()


def test_adapter_of_the_wrong_direction_in_a_plan(
    store: str, adapter: Path, tmp_path: Path, run: Run
) -> None:
    done = run("plan", store, "--strategy", "query", "--adapter", adapter, "--out", tmp_path / "plan.json")
    _refused(done, "direction")
    assert not (tmp_path / "plan.json").exists()


def test_unknown_space(models: Models, tmp_path: Path, run: Run) -> None:
    bare = tmp_path / "bare.npy"
    np.save(bare, models.old.matrix)
    done = run("fit", "--old", bare, "--new", bare, "--id-column", "@row", "--out", tmp_path / "a")
    _refused(done, "bare.npy", "--old-space")


def test_ids_that_do_not_match(models: Models, files: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    ids = [f"other {row}" for row in range(ROWS)]
    new = write(tmp_path / "others.parquet", _changed(models, models.new.matrix, NEW, ids))
    done = run("fit", "--old", files[0], "--new", new, "--out", tmp_path / "a")
    _refused(done, ROWS, "other 0")
    assert not (tmp_path / "a").exists()


def test_duplicate_ids(models: Models, files: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    ids = ["item 1", *models.new.ids.to_pylist()[1:]]
    twice = write(tmp_path / "twice.parquet", _changed(models, models.new.matrix, NEW, ids))
    _refused(run("fit", "--old", files[0], "--new", twice, "--out", tmp_path / "a"), "item 1")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (0.0, "zero")])
def test_unusable_vectors(
    value: float, word: str, models: Models, adapter: Path, tmp_path: Path, run: Run
) -> None:
    matrix = models.old.matrix.copy()
    matrix[[3, 5]] = value
    bad, out = write(tmp_path / "bad.parquet", _changed(models, matrix)), tmp_path / "out.parquet"
    _refused(
        run("transform", "--adapter", adapter, "--input", bad, "--output", out), "2", word, "item 3", "skip"
    )
    assert not out.exists()
    skipped = run(
        "transform", "--adapter", adapter, "--input", bad, "--output", out, "--on-invalid", "skip", "--json"
    )
    assert [one["id"] for one in json.loads(skipped.out)["skipped"]] == ["item 3", "item 5"]


def test_too_few_pairs(models: Models, tmp_path: Path, run: Run) -> None:
    few = np.arange(3)
    old, new = (
        write(tmp_path / "o.parquet", models.old.take(few)),
        write(tmp_path / "n.parquet", models.new.take(few)),
    )
    done = run("fit", "--old", old, "--new", new, "--method", "low-rank", "--out", tmp_path / "a")
    _refused(done, "needs at least", "got 3")
    assert not (tmp_path / "a").exists()


def test_missing_extra_names_the_pip_line(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    files = [
        write(tmp_path / f"{space.model}.parquet", Vectors(range(1200), random.normal(size=(1200, d)), space))
        for space, d in ((OLD, 12), (NEW, 16))
    ]
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from crossfade.cli import main\n"
        f"main(['fit', '--old', {str(files[0])!r}, '--new', {str(files[1])!r},"
        f" '--method', 'residual-mlp', '--out', {str(tmp_path / 'a')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    _refused(Finished(done.returncode, done.stdout, done.stderr), "torch", "pip install 'crossfade[train]'")
    assert not (tmp_path / "a").exists()


def test_a_file_cut_short(files: tuple[Path, Path], adapter: Path, tmp_path: Path, run: Run) -> None:
    whole = files[0].read_bytes()
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole[: len(whole) // 2])
    done = run("transform", "--adapter", adapter, "--input", cut, "--output", tmp_path / "out.parquet")
    _refused(done, "cut.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_an_adapter_cut_short(files: tuple[Path, Path], adapter: Path, tmp_path: Path, run: Run) -> None:
    weights = adapter / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    done = run("transform", "--adapter", adapter, "--input", files[0], "--output", tmp_path / "out.parquet")
    _refused(done, "model.safetensors")


def test_a_store_changed_since_the_plan(plan: Path, store: str, models: Models, run: Run) -> None:
    import lancedb

    folder = Path(store.removeprefix("lancedb://").partition("#")[0])
    lancedb.connect(str(folder)).open_table("items").add(
        [{"id": "late", "vector": models.old.matrix[0].tolist()}]
    )
    before = _contents(folder)
    _refused(run("apply", plan), ROWS, ROWS + 1, "crossfade plan")
    assert _contents(folder) == before


def test_an_adapter_changed_since_the_plan(plan: Path, adapter: Path, run: Run) -> None:
    config = adapter / "config.json"
    config.write_text(config.read_text().replace('"pairs"', '"pairs" '))
    _refused(run("apply", plan), "crossfade plan")


def test_two_applies_at_once(plan: Path, store: str, run: Run) -> None:
    from crossfade.upgrade import Plan, Upgrade

    other = Upgrade.create(Plan.load(plan))
    with other._journal.lease("apply"):
        done = run("apply", plan)
    _refused(done, "apply")
    assert run("apply", plan).code == 0


def test_control_c_leaves_one_line_and_a_resumable_upgrade(plan: Path, store: str, run: Run) -> None:
    script = (
        "import sys, time\n"
        "from crossfade.adapters.linear import LinearAdapter\n"
        "transform = LinearAdapter.transform\n"
        "def slow(self, X):\n    print('mapping', flush=True); time.sleep(1); return transform(self, X)\n"
        "LinearAdapter.transform = slow\n"
        f"from crossfade.cli import main; main(['apply', {str(plan)!r}])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "mapping" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    _refused(Finished(process.returncode, out, err), "interrupted", "again")
    assert run("apply", plan).code == 0
    assert json.loads(run("status", store, "--json").out)["state"] == "built"


def test_a_plan_that_makes_search_worse_is_refused(
    files: tuple[Path, Path], store: str, models: Models, tmp_path: Path, run: Run
) -> None:
    random = np.random.default_rng(3)
    worse = Vectors(models.new.ids, random.normal(size=models.new.matrix.shape), NEW, models.new.columns)
    out, path = tmp_path / "evaluation", tmp_path / "plan.json"
    run(
        "evaluate",
        "--old",
        files[0],
        "--new",
        write(tmp_path / "worse.parquet", worse),
        "--label",
        "label",
        "--out",
        out,
    )
    verdict = json.loads((out / "report.json").read_text())["evaluation"]["verdict"]
    assert verdict["strategy"] == "keep"
    chosen = ("plan", store, "--evaluation", out, "--row", "gallery:ridge", "--out", path)
    _refused(run(*chosen), "--force")
    assert not path.exists()
    forced = run(*chosen, "--force", "the old model's licence ends", "--json")
    assert json.loads(forced.out)["forced"] == "the old model's licence ends"


def test_a_step_out_of_order(plan: Path, run: Run) -> None:
    _refused(run("cutover", plan), "verif")


def test_a_store_that_is_not_there(tmp_path: Path, run: Run) -> None:
    _refused(run("inspect", f"lancedb://{tmp_path}/none#items.vector"), "none")
    assert not (tmp_path / "none").exists()
