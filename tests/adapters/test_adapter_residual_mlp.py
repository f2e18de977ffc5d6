from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from adapter_kit import Streamed, new_space, old_space, planted, unit

from crossfade import extras
from crossfade.adapters.prepared import PreparedPairs, RowSample
from crossfade.adapters.residual_mlp import ResidualMLP, _minibatches, gelu
from crossfade.adapters.ridge import Ridge
from crossfade.errors import MissingExtra, TrainingDiverged, UsageError
from crossfade.vectors import ArrayPairs


def bent(n: int = 3000) -> ArrayPairs:
    """Pairs that no affine map relates: the target holds products of the source's components."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 8))
    Y = np.hstack([X, X[:, :4] * X[:, 4:]]) @ np.linalg.qr(rng.standard_normal((12, 12)))[0]
    return ArrayPairs(X, Y)


def test_beats_the_affine_map_where_the_relation_is_not_affine() -> None:
    mlp = ResidualMLP(hidden=64, epochs=60, learning_rate=1e-2).fit_pairs(bent())
    ridge = Ridge().fit_pairs(bent())
    assert mlp.held_out["relative squared error"] < 0.5 * ridge.held_out["relative squared error"]
    assert mlp.chosen["epochs"] > 1


def test_never_ends_with_a_worse_held_out_loss_than_the_ridge_map() -> None:
    pairs = planted(n=300, noise=0.8)
    mlp = ResidualMLP(hidden=64, epochs=5, learning_rate=0.1).fit_pairs(pairs)
    assert mlp.held_out["loss"] <= mlp.held_out["loss of the ridge map"]


def test_without_a_useful_epoch_it_is_the_ridge_map_of_all_pairs() -> None:
    pairs = planted(n=300, noise=0.8)
    mlp = ResidualMLP(hidden=64, epochs=3, learning_rate=0.5).fit_pairs(pairs)
    assert mlp.chosen["epochs"] == 0
    ridge = Ridge().fit_pairs(pairs)
    assert mlp.chosen["strength"] == ridge.chosen["strength"]
    np.testing.assert_allclose(mlp.transform(pairs.X), ridge.transform(pairs.X), atol=1e-5)


def test_numpy_gelu_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x), approximate="tanh").numpy()
    np.testing.assert_allclose(gelu(x.copy()), expected, atol=1e-6)


def test_numpy_network_has_the_loss_that_torch_reports() -> None:
    mlp = ResidualMLP(hidden=16, epochs=3).fit_pairs(planted(noise=0.3))
    # Between unit vectors the squared distance is 2 - 2 cosine.
    assert mlp.held_out["squared error"] == pytest.approx(2 * mlp.held_out["loss"], abs=1e-5)


def test_minibatches_cover_the_fitting_rows_once_in_seeded_order() -> None:
    pairs = PreparedPairs(Streamed(ArrayPairs(np.arange(1, 901)[:, None], np.arange(1, 901)[:, None])))
    held_out = RowSample.choose(900, 0.2, 4096, seed=0)

    def order(seed: int) -> list[float]:
        batches = _minibatches(pairs, held_out, 64, np.random.default_rng(seed))
        return [float(value) for x, _ in batches for value in x[:, 0]]

    assert set(order(1)) == {float(row + 1) for row in range(900)} - {float(r + 1) for r in held_out.rows}
    assert len(order(1)) == 720
    assert order(1) == order(1) != order(2)


def test_diverging_training_says_what_to_do() -> None:
    with pytest.raises(TrainingDiverged, match=r"epoch 1 at learning rate 1e\+30; use a smaller"):
        ResidualMLP(hidden=16, learning_rate=1e30).fit_pairs(bent(600))


def test_bf16_trains_too() -> None:
    pairs = planted(noise=0.2)
    mlp = ResidualMLP(hidden=16, epochs=2, bf16=True).fit_pairs(pairs)
    assert (mlp.transform(pairs.X) * unit(pairs.Y)).sum(axis=1).mean() > 0.9


def test_only_the_fit_needs_torch(tmp_path: object) -> None:
    pairs = planted()
    ResidualMLP(hidden=16, epochs=1).fit_pairs(pairs).save_pretrained(f"{tmp_path}/adapter")
    script = (
        "import sys, numpy as np; from crossfade.adapters import load_adapter;"
        f"load_adapter({f'{tmp_path}/adapter'!r}).transform(np.ones((3, 24), dtype=np.float32));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_without_torch_the_fit_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(extras.importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'crossfade\[train\]'"):
        ResidualMLP(hidden=16).fit(planted().X, planted().Y, source=old_space(), target=new_space())


@pytest.mark.parametrize("option", ["hidden", "batch_rows", "epochs", "patience"])
def test_refuses_counts_below_one(option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} must be at least 1, got 0"):
        ResidualMLP(**{option: 0})  # type: ignore[arg-type]


def test_refuses_an_impossible_learning_rate() -> None:
    with pytest.raises(UsageError, match="learning_rate must be above 0"):
        ResidualMLP(learning_rate=0)
