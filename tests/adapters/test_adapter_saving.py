from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from adapter_kit import new_space, old_space, planted

from crossfade.adapters import Adapter, chain, load_adapter, saving
from crossfade.adapters.procrustes import Procrustes
from crossfade.adapters.ridge import Ridge
from crossfade.errors import (
    CrossfadeError,
    MissingExtra,
    OutOfSpace,
    StoreError,
    UnknownSpace,
    UnreadableFile,
    UsageError,
)

EVALUATION = {
    "verdict": {"sentence": "Lift the gallery | now."},
    "tasks": [
        {
            "name": "labels",
            "ground_truth": "class labels",
            "n_queries": 5000,
            "n_gallery": 5000,
            "metrics": ["CMC@1", "mAP"],
            "rows": [
                {
                    "notation": "old/old",
                    "title": "keep",
                    "metrics": {"CMC@1": {"value": 0.276, "low": 0.26, "high": 0.29}},
                }
            ],
        }
    ],
}


@pytest.fixture
def ridge() -> Ridge:
    return Ridge().fit_pairs(planted(noise=0.1))


@pytest.fixture
def ridge_dir(ridge: Ridge, tmp_path: Path) -> Path:
    ridge.save_pretrained(tmp_path / "ridge")
    return tmp_path / "ridge"


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_card_shows_the_matrix_and_its_ground_truth(ridge: Ridge, tmp_path: Path) -> None:
    ridge.save_pretrained(tmp_path / "a", evaluation=EVALUATION)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "Ground truth: class labels; 5,000 queries, 5,000 items." in card
    assert "| query/gallery |  | CMC@1 | mAP |" in card
    assert "| old/old | keep | 0.276 [0.260, 0.290] | – |" in card
    assert "Lift the gallery \\| now." in card


def test_card_of_hostile_names_stays_one_table(tmp_path: Path) -> None:
    pairs = planted()
    from crossfade.spaces import Space

    source = Space("evil|name\n# heading\n<script>", 24)
    Procrustes().fit(pairs.X, pairs.Y, source=source, target=new_space()).save_pretrained(tmp_path / "a")
    card = (tmp_path / "a" / "README.md").read_text()
    assert "\n# heading" not in card
    assert "<script>" not in card


def test_plain_arrays_cannot_be_saved(tmp_path: Path) -> None:
    adapter = Ridge().fit(planted().X, planted().Y)
    with pytest.raises(UnknownSpace, match=r"fitted on plain arrays.*pass source= and target="):
        adapter.save_pretrained(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_saving_again_replaces_the_adapter_whole(ridge_dir: Path) -> None:
    Procrustes().fit_pairs(planted()).save_pretrained(ridge_dir)
    assert load_adapter(ridge_dir).name == "procrustes"
    assert [path.name for path in ridge_dir.parent.iterdir()] == ["ridge"]


def test_directory_with_other_files_is_left_alone(ridge: Ridge, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds other files \(thesis.tex\)"):
        ridge.save_pretrained(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        ridge.save_pretrained(tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex", "file"}


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    ("code", "expected"), [(errno.ENOSPC, OutOfSpace), (errno.EDQUOT, OutOfSpace), (errno.EIO, StoreError)]
)
def test_failing_disk_leaves_what_was_there(
    ridge_dir: Path, monkeypatch: pytest.MonkeyPatch, exists: bool, code: int, expected: type[CrossfadeError]
) -> None:
    before = (ridge_dir / "model.safetensors").read_bytes()
    if not exists:
        shutil.move(ridge_dir, ridge_dir.parent / "elsewhere")

    def full(path: Path, content: bytes) -> None:
        if path.name == "config.json":
            raise OSError(code, "no")
        path.write_bytes(content)

    monkeypatch.setattr(saving, "_write", full)
    with pytest.raises(expected, match="sav"):
        Procrustes().fit_pairs(planted()).save_pretrained(ridge_dir)
    left = {path.name for path in ridge_dir.parent.iterdir()}
    assert left == ({"ridge"} if exists else {"elsewhere"})
    kept = ridge_dir if exists else ridge_dir.parent / "elsewhere"
    assert (kept / "model.safetensors").read_bytes() == before


def test_failed_swap_puts_the_old_adapter_back(ridge_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fail_on_the_way_in(self: Path, target: Path) -> Path:
        if Path(target) == ridge_dir and self.name != "previous":
            raise OSError(errno.EIO, "no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_way_in)
    with pytest.raises(StoreError):
        Procrustes().fit_pairs(planted()).save_pretrained(ridge_dir)
    assert load_adapter(ridge_dir).name == "ridge"
    assert [path.name for path in ridge_dir.parent.iterdir()] == ["ridge"]


# --- reading what is not right ----------------------------------------------------------------


def test_from_pretrained_of_a_class_refuses_another(ridge_dir: Path) -> None:
    assert isinstance(Ridge.from_pretrained(ridge_dir), Ridge)
    assert isinstance(Adapter.from_pretrained(ridge_dir), Ridge)
    with pytest.raises(UsageError, match="holds a ridge adapter, not procrustes"):
        Procrustes.from_pretrained(ridge_dir)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file(ridge_dir: Path, name: str) -> None:
    (ridge_dir / name).unlink()
    with pytest.raises(UnreadableFile, match=rf"{name} cannot be read: No such file"):
        load_adapter(ridge_dir)


def test_missing_card_does_not_matter(ridge_dir: Path) -> None:
    (ridge_dir / "README.md").unlink()
    assert load_adapter(ridge_dir).name == "ridge"


@pytest.mark.parametrize("kept", [0, 7, 300, -1])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_file_cut_short(ridge_dir: Path, name: str, kept: int) -> None:
    content = (ridge_dir / name).read_bytes()
    if name == "config.json" and kept == -1:
        kept = -2  # the last byte is a newline, which JSON does not need
    (ridge_dir / name).write_bytes(content[:kept])
    with pytest.raises(UnreadableFile, match="cut short"):
        load_adapter(ridge_dir)


def test_one_flipped_bit_is_noticed(ridge_dir: Path) -> None:
    path = ridge_dir / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UnreadableFile, match="sha256"):
        load_adapter(ridge_dir)


def test_file_larger_than_its_spaces_allow_is_not_read(ridge_dir: Path) -> None:
    path = ridge_dir / "model.safetensors"
    path.write_bytes(path.read_bytes() + bytes(2 << 20))
    with pytest.raises(UnreadableFile, match="more than the"):
        load_adapter(ridge_dir)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.update(version=2), "format version 2, this Crossfade reads 1; upgrade"),
        (lambda c: c.update(format="other"), "not the configuration of a Crossfade adapter"),
        (lambda c: c.update(method="magic"), "no method is called 'magic'"),
        (lambda c: c.update(parameters={"depth": 3}), "does not describe an adapter"),
        (lambda c: c.update(dimensions=[24, 25]), "holds arrays"),
        (lambda c: c.update(dimensions=[24, 10**9]), "dimension 1000000000 is not between"),
        (lambda c: c.update(dimensions="24"), "does not describe an adapter"),
        (lambda c: c.update(source=None), "source space is missing"),
        (lambda c: c["source"].update(dimension=30), "source space has 30 dimensions, the arrays 24"),
        (lambda c: c["source"].update(colour="red"), "unknown keys"),
        (lambda c: c.pop("chosen"), "KeyError: 'chosen'"),
    ],
)
def test_configuration_that_does_not_fit(
    ridge_dir: Path, change: Callable[[dict[str, Any]], object], match: str
) -> None:
    edit(ridge_dir, change)
    with pytest.raises(UnreadableFile, match=match):
        load_adapter(ridge_dir)


@pytest.mark.parametrize("text", ["[1]", "null", "{}", "[" * 100_000])
def test_configuration_that_is_no_object(ridge_dir: Path, text: str) -> None:
    (ridge_dir / "config.json").write_text(text)
    with pytest.raises(UnreadableFile):
        load_adapter(ridge_dir)


def test_arrays_that_are_not_finite(ridge: Ridge, tmp_path: Path) -> None:
    ridge.arrays["bias"] = np.full(24, np.nan, dtype=np.float32)
    ridge.save_pretrained(tmp_path / "a")
    with pytest.raises(UnreadableFile, match="'bias' is not finite float32"):
        load_adapter(tmp_path / "a")


@pytest.mark.parametrize("name", ["nowhere", "./a/b", "a/b/c", "/no/such"])
def test_what_is_no_directory(name: str) -> None:
    with pytest.raises(UnreadableFile, match="is no directory with an adapter"):
        load_adapter(name)


# --- the Hub ----------------------------------------------------------------------------------


class FakeHub:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.created: list[tuple[str, bool]] = []

    def HfApi(self) -> FakeHub:  # noqa: N802
        return self

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.created.append((repo_id, private))

    def upload_folder(
        self, *, repo_id: str, folder_path: str, revision: str | None, commit_message: str
    ) -> None:
        shutil.copytree(folder_path, self.folder / repo_id)
        self.message = commit_message

    def snapshot_download(self, repo_id: str, *, allow_patterns: list[str]) -> str:
        assert "config.json" in allow_patterns
        if not (self.folder / repo_id).exists():
            raise OSError("404")
        return str(self.folder / repo_id)


def test_push_and_load_again(ridge: Ridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub(tmp_path)
    monkeypatch.setattr(saving, "load", lambda module, extra: hub)
    ridge.push_to_hub("somebody/old-to-new", private=True, evaluation=EVALUATION)
    assert hub.created == [("somebody/old-to-new", True)]
    assert hub.message == "Add ridge adapter"
    assert "Ground truth" in (tmp_path / "somebody/old-to-new/README.md").read_text()
    loaded = load_adapter("somebody/old-to-new")
    assert loaded.arrays["weight"].tobytes() == ridge.arrays["weight"].tobytes()
    with pytest.raises(UnreadableFile, match=r"somebody/else .*OSError.*check the name"):
        load_adapter("somebody/else")


def test_failing_upload_is_one_line(ridge: Ridge, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("401 Unauthorized\nlots of headers")

    hub = SimpleNamespace(HfApi=lambda: SimpleNamespace(create_repo=refuse))
    monkeypatch.setattr(saving, "load", lambda module, extra: hub)
    with pytest.raises(StoreError, match=r"somebody/x \(RuntimeError: 401 Unauthorized\); .*hf auth login$"):
        ridge.push_to_hub("somebody/x")


def test_the_hub_needs_its_extra(ridge: Ridge, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> None:
        raise MissingExtra(f"pip install 'crossfade[{extra}]'")

    monkeypatch.setattr(saving, "load", absent)
    with pytest.raises(MissingExtra, match=r"crossfade\[hf\]"):
        ridge.push_to_hub("somebody/x")


def test_chain_round_trip(tmp_path: Path) -> None:
    there = Ridge().fit_pairs(planted(d_target=30))
    pairs = planted(d_source=30, d_target=12)
    onward = Procrustes().fit(pairs.X, pairs.Y, source=there.target, target=new_space(12))
    both = chain(there, onward)
    both.save_pretrained(tmp_path / "chain")
    loaded = load_adapter(tmp_path / "chain")
    X = planted().X
    assert loaded.transform(X).tobytes() == both.transform(X).tobytes()
    assert (loaded.source, loaded.target) == (old_space(), new_space(12))
    card = (tmp_path / "chain" / "README.md").read_text()
    assert "old-model" in card
    assert "ridge → procrustes" in card


def test_chain_with_links_that_do_not_meet_is_not_loaded(tmp_path: Path) -> None:
    there = Ridge().fit_pairs(planted())
    pairs = planted(seed=3)
    onward = Procrustes().fit(pairs.X, pairs.Y, source=there.target, target=old_space())
    chain(there, onward).save_pretrained(tmp_path / "chain")
    edit(tmp_path / "chain", lambda config: config["links"][1]["source"].update(model="stranger"))
    with pytest.raises(UnreadableFile, match="stranger"):
        load_adapter(tmp_path / "chain")
