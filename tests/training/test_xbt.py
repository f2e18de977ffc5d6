"""Stage 2 of XBT on random tiny models: what changes, what must not, what is refused."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from colour_words import ColourWords
from safetensors import safe_open
from tiny_duals import KINDS, save_tiny_dual, tiny_captions, tiny_pictures
from typer.testing import CliRunner

from crossfade import encoders
from crossfade.adapters import Adapter
from crossfade.adapters.procrustes import Procrustes
from crossfade.adapters.projection import Projection
from crossfade.adapters.residual_mlp import ResidualMLP
from crossfade.cli.train import app
from crossfade.encoders import hub, hugging_face, open_encoder
from crossfade.encoders.hugging_face import HuggingFaceDual
from crossfade.encoders.tuned import TunedDual
from crossfade.encoders.tuned_network import TunedNetwork
from crossfade.errors import (
    DataError,
    NotSupported,
    SpaceMismatch,
    TrainingDiverged,
    UsageError,
    WrongDirection,
)
from crossfade.spaces import Space
from crossfade.training.losses.info_nce import info_nce
from crossfade.training.losses.xbt import align_loss, anchor_loss, preserve_loss
from crossfade.training.xbt import TrainedXbt, split_model, train_xbt
from crossfade.training.xbt_learner import OWN, XbtLearner, projection_network
from crossfade.training.xbt_recipe import XbtObjective, XbtRecipe

OLD = Space("the-old-model", 16, normalized=True)
PICTURES, TEXTS = tiny_pictures(5), tiny_captions(7)
VALUES: dict[str, Any] = {
    "low_rank": {"rank": 2, "dropout": 0.1},
    "prompts": {"image": 2, "text": 2},
    "optimizer": {"learning_rate": 0.01},
    "schedule": {"epochs": 2},
    "batch": 30,
}


def recipe(**changes: Any) -> XbtRecipe:
    return XbtRecipe.from_dict(VALUES | changes)


def make_projection(source: Space, target: Space = OLD, method: type[Adapter] = Projection) -> Adapter:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, source.dimension)).astype(np.float32)
    Y = np.tanh(X[:, : target.dimension])
    if method is Projection:
        made: Adapter = Projection(hidden=16, epochs=2, batch_rows=100, sigma=0.5, device="cpu")
    else:
        made = method()
    return made.fit(X, Y, source=source, target=target)


class World:
    """A new model, φ, pairs, and a cache; there is no old model."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.images = folder, ColourWords(copies=2)
        self.new = save_tiny_dual(folder / "new-model", kind)
        self.projection = folder / "phi"
        make_projection(HuggingFaceDual.load(self.new, device="cpu").space).save_pretrained(self.projection)

    def train(self, out: str, settings: XbtRecipe | None = None, **options: Any) -> TrainedXbt:
        chosen = settings or recipe()
        options = {"cache": self.folder / "cache", "device": "cpu", **options}
        return train_xbt(chosen, self.new, self.projection, self.images, self.folder / out, **options)

    def base(self) -> HuggingFaceDual:
        return HuggingFaceDual.load(self.new, device="cpu")


@pytest.fixture(scope="module", params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("clip"), "clip")


def embedded(dual: Any) -> tuple[np.ndarray, np.ndarray]:
    return dual.image.encode(PICTURES), dual.text.encode(TEXTS)


def same(first: Any, second: Any) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def tuned_bytes(folder: Path) -> dict[str, str]:
    files = [folder / "adapter" / "adapter_model.safetensors", folder / "prompts.safetensors"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- what training does -----------------------------------------------------------------------


def test_the_new_model_learns_and_its_own_vectors_stay(world: World) -> None:
    own = embedded(world.base())
    weights = {path: path.read_bytes() for path in world.new.iterdir()}
    trained = world.train("trained", recipe(schedule={"epochs": 4}))
    first, last = trained.epochs[0], trained.epochs[-1]
    assert last["align"] < first["align"] - 0.05
    assert {path: path.read_bytes() for path in world.new.iterdir()} == weights
    dual = TunedDual.load(trained.directory, device="cpu")
    assert same(embedded(dual.off()), own)
    assert trained.space == dual.space == OLD
    assert trained.new == dual.off().space
    phi = dual.projection
    for tuned, plain in zip(embedded(dual), own, strict=True):
        assert np.abs(tuned - phi.transform(plain)).max() > 0.01
    for tower, items, wanted in zip(("image", "text"), (PICTURES, TEXTS), embedded(dual), strict=True):
        encoder = open_encoder(f"xbt:{trained.directory}#{tower}", space=OLD)
        np.testing.assert_array_equal(encoder.encode(items), wanted)
    assert not (trained.directory / "checkpoint.safetensors").exists()


def test_no_weight_of_the_base_changes_in_memory(clip: World, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[HuggingFaceDual] = []
    load = HuggingFaceDual.load.__func__  # type: ignore[attr-defined]

    def keep(kind: Any, *arguments: Any, **options: Any) -> HuggingFaceDual:
        loaded.append(load(kind, *arguments, **options))
        return loaded[-1]

    monkeypatch.setattr(HuggingFaceDual, "load", classmethod(keep))
    clip.train("in-memory")
    after = {
        name.replace(".base_layer", ""): value.contiguous()
        for name, value in loaded[0].network.model.state_dict().items()
        if "lora_" not in name
    }
    before = load(HuggingFaceDual, clip.new).network.model.state_dict()
    assert set(after) == set(before)
    assert all(after[name].numpy().tobytes() == value.numpy().tobytes() for name, value in before.items())


@pytest.mark.parametrize(
    "left_out", [{"low_rank": {"image": False, "text": False}}, {"prompts": {"image": 0, "text": 0}}]
)
def test_low_rank_or_prompts_alone_are_trained_too(clip: World, left_out: dict[str, Any]) -> None:
    name = next(iter(left_out))
    trained = clip.train(f"without-{name}", recipe(**left_out))
    assert (trained.directory / "adapter").exists() == (name != "low_rank")
    assert (trained.directory / "prompts.safetensors").exists() == (name != "prompts")
    dual = TunedDual.load(trained.directory, device="cpu")
    assert same(embedded(dual.off()), embedded(clip.base()))
    assert not same(embedded(dual), [dual.projection.transform(one) for one in embedded(clip.base())])


def test_a_tower_that_is_left_out_keeps_its_vectors(clip: World) -> None:
    settings = recipe(low_rank={"image": False}, prompts={"image": 0})
    dual = TunedDual.load(clip.train("text-only", settings).directory, device="cpu")
    plain = [dual.projection.transform(one) for one in embedded(clip.base())]
    images, texts = embedded(dual)
    np.testing.assert_array_equal(images, plain[0])
    assert not np.array_equal(texts, plain[1])


def test_neither_the_old_model_nor_anything_but_new_and_phi_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On disk there are the new model and φ; the old model is a name in φ's target, and nowhere else."""
    alone = World(tmp_path, "clip")
    assert {path.parent for path in tmp_path.rglob("*.safetensors")} == {alone.new, alone.projection}
    located, read = [], []
    of_transformers = transformers.PreTrainedModel.from_pretrained.__func__

    def find(location: str | Path, revision: str | None = None) -> Any:
        located.append(Path(location))
        return hub.find_model(location, revision)

    def from_pretrained(kind: Any, location: str, *arguments: Any, **options: Any) -> Any:
        read.append(Path(location))
        return of_transformers(kind, location, *arguments, **options)

    monkeypatch.setattr(hugging_face, "find_model", find)
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", classmethod(from_pretrained))
    monkeypatch.setattr(encoders.open, "_open", lambda *arguments: pytest.fail(f"opened {arguments}"))
    trained = alone.train("xbt")
    assert trained.space == OLD
    assert (located, read) == ([alone.new], [alone.new])


def test_an_interrupted_training_ends_in_the_same_bytes(clip: World) -> None:
    settings = recipe(
        schedule={"epochs": 3, "checkpoint_steps": 2}, augmentation={"crop": "resized"}, accumulate=2
    )

    def stop(step: int, numbers: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt

    whole = clip.train("whole", settings)
    with pytest.raises(KeyboardInterrupt):
        clip.train("stopped", settings, log=stop)
    assert not (clip.folder / "stopped" / "config.json").exists()
    with safe_open(clip.folder / "stopped" / "checkpoint.safetensors", "pt") as file:
        held = [name for name in file.keys() if name.startswith("learner.")]  # noqa: SIM118 - no mapping
    assert held and all("lora_" in name or ".prompts." in name for name in held)  # noqa: PT018
    resumed = clip.train("stopped", settings)
    assert tuned_bytes(resumed.directory) == tuned_bytes(whole.directory)
    assert [epoch["loss"] for epoch in resumed.epochs] == [epoch["loss"] for epoch in whole.epochs]
    assert tuned_bytes(clip.train("other-seed", replace(settings, seed=1)).directory) != tuned_bytes(
        whole.directory
    )


def test_own_vectors_are_computed_once(clip: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clip.train("first")
    again = clip.train("first")
    assert again.epochs == clip.train("first").epochs

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("embedded again")

    monkeypatch.setattr(HuggingFaceDual, "encode_pictures", refuse)
    monkeypatch.setattr(HuggingFaceDual, "encode_tokens", refuse)
    clip.train("second", recipe(seed=4))
    with pytest.raises(AssertionError, match="embedded again"):
        clip.train("third", cache=clip.folder / "another-cache")


def test_a_part_of_the_pairs_is_part_of_a_larger_one(clip: World) -> None:
    few = clip.train("few", recipe(data={"images": 30}))
    assert (few.images, few.captions) == (30, 60)
    with pytest.raises(DataError, match=r"60 images, data\.images asks for 61"):
        clip.train("many", recipe(data={"images": 61}))
    with pytest.raises(DataError, match="fewer than a batch of 30"):
        clip.train("fewer", recipe(data={"images": 29}))


def test_captions_beyond_the_context_are_counted(clip: World) -> None:
    images = ColourWords(copies=1)
    images.captions[3] = ["red " * 40, "green above blue"]
    trained = train_xbt(recipe(), clip.new, clip.projection, images, clip.folder / "long", device="cpu")
    assert trained.truncated == 1
    assert trained.to_dict()["truncated"] == 1


def test_a_linear_phi_will_do(clip: World) -> None:
    folder = clip.folder / "procrustes"
    make_projection(clip.base().space, method=Procrustes).save_pretrained(folder)
    trained = train_xbt(
        recipe(), clip.new, folder, clip.images, clip.folder / "linear", cache=clip.folder / "cache"
    )
    assert trained.epochs[-1]["align"] < trained.epochs[0]["align"]


# --- losses and φ -----------------------------------------------------------------------------


def _cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def _naive_nce(a: np.ndarray, b: np.ndarray, tau: float, belongs: np.ndarray | None) -> float:
    total, n = 0.0, len(a)
    for i in range(n):
        for rows in ([(i, j) for j in range(n)], [(j, i) for j in range(n)]):
            kept = [(x, y) for x, y in rows if x == y or belongs is None or not belongs[x, y]]
            others = sum(math.exp(_cos(a[x], b[y]) / tau) for x, y in kept)
            total -= math.log(math.exp(_cos(a[i], b[i]) / tau) / others) / (2 * n)
    return total


def test_the_terms_equal_loops() -> None:
    rng = np.random.default_rng(0)
    image, text, before = rng.standard_normal((3, 6, 5))
    belongs = np.eye(6, dtype=bool)
    belongs[0, 3] = belongs[3, 0] = belongs[5, 1] = True
    tensors = [torch.from_numpy(one) for one in (image, text, before, belongs)]
    assert float(align_loss(tensors[0], tensors[1], tensors[3], 0.3)) == pytest.approx(
        _naive_nce(image, text, 0.3, belongs)
    )
    assert float(info_nce(tensors[0], tensors[1], 0.3)) == pytest.approx(_naive_nce(image, text, 0.3, None))
    away = np.mean([1 - _cos(a, b) for a, b in zip(text, before, strict=True)])
    assert float(anchor_loss(tensors[1], tensors[2])) == pytest.approx(away)
    assert float(preserve_loss(tensors[1], tensors[2])) == pytest.approx(away)
    assert float(preserve_loss(tensors[1], tensors[2], 0.2, tensors[3])) == pytest.approx(
        _naive_nce(text, before, 0.2, belongs)
    )


@pytest.mark.parametrize("method", [Projection, Procrustes])
def test_phi_in_torch_is_the_adapter_with_gradient(method: type[Adapter]) -> None:
    phi = make_projection(Space("new", 24, normalized=True), method=method)
    X = np.random.default_rng(1).standard_normal((9, 24)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    given = torch.from_numpy(X).requires_grad_()
    mapped = projection_network(phi)(given)
    unit = torch.nn.functional.normalize(mapped, dim=1)
    np.testing.assert_allclose(unit.detach().numpy(), phi.transform(X), atol=2e-6)
    mapped.sum().backward()
    assert given.grad is not None and given.grad.abs().min() > 0  # noqa: PT018


def test_phi_without_gradient_is_refused(clip: World) -> None:
    with pytest.raises(NotSupported, match=r"residual-mlp.*xbt-text"):
        projection_network(ResidualMLP())


@pytest.mark.parametrize("preserve_by", ["cosine", "contrastive"])
def test_the_learner_adds_the_terms_up_and_moves_the_tuned_parts_alone(clip: World, preserve_by: str) -> None:
    base, phi = clip.base(), make_projection(clip.base().space)
    pixels, tokens = base.decode(PICTURES), base.tokenize(TEXTS[:5])
    own = base.encode_pictures(pixels), base.encode_tokens(tokens)
    parts = TunedNetwork(base.network, recipe().tuning)
    objective = XbtObjective(align=2.0, anchor=3.0, preserve=4.0, preserve_by=preserve_by)  # type: ignore[arg-type]
    learner = XbtLearner(parts, phi, objective)
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    images, texts = ({OWN: torch.from_numpy(one)} for one in own)
    numbers = learner(pictures, tokens, torch.eye(5, dtype=torch.bool), images, texts)
    terms = [float(numbers[name]) for name in ("align", "anchor", "preserve")]
    assert float(numbers["loss"].detach()) == pytest.approx(2 * terms[0] + 3 * terms[1] + 4 * terms[2])
    assert min(terms) > 0
    numbers["loss"].backward()
    moved = {name for name, value in learner.named_parameters() if value.grad is not None}
    assert moved == {f"parts.{name}" for name in parts.tuned()}
    assert moved == {f"parts.{name}" for name in learner.state_dict()}


def test_switched_off_the_learner_starts_where_stage_one_ended(clip: World) -> None:
    """Without prompts nothing is added at first, so that nothing has moved."""
    base, phi = clip.base(), make_projection(clip.base().space)
    pixels, tokens = base.decode(PICTURES), base.tokenize(TEXTS[:5])
    own = base.encode_pictures(pixels), base.encode_tokens(tokens)
    parts = TunedNetwork(base.network, recipe(prompts={"image": 0, "text": 0}).tuning)
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    images, texts = ({OWN: torch.from_numpy(one)} for one in own)
    learner = XbtLearner(parts, phi, XbtObjective())
    numbers = learner(pictures, tokens, torch.eye(5, dtype=torch.bool), images, texts)
    assert float(numbers["anchor"]) == pytest.approx(0, abs=1e-6)
    assert float(numbers["preserve"]) == pytest.approx(0, abs=1e-6)


# --- what is refused --------------------------------------------------------------------------


def test_phi_of_another_new_model_is_refused_with_both_spaces(clip: World) -> None:
    folder = clip.folder / "other-phi"
    make_projection(Space("another-model", 24, normalized=True, revision="77")).save_pretrained(folder)
    options = {"cache": clip.folder / "cache", "device": "cpu"}
    with pytest.raises(SpaceMismatch, match=r"expected another-model@77.*got new-model@"):
        train_xbt(recipe(), clip.new, folder, clip.images, clip.folder / "x", **options)  # type: ignore[arg-type]
    backward = clip.folder / "backward-phi"
    new = clip.base().space
    make_projection(Space("old", 30), new, Procrustes).save_pretrained(backward)
    with pytest.raises(WrongDirection, match="maps into"):
        train_xbt(recipe(), clip.new, backward, clip.images, clip.folder / "x", **options)  # type: ignore[arg-type]
    assert not (clip.folder / "x").exists()


def test_another_run_in_the_same_folder_is_refused(clip: World) -> None:
    clip.train("taken")
    with pytest.raises(UsageError, match=r"schedule.epochs: 2 → 5"):
        clip.train("taken", recipe(schedule={"epochs": 5}))
    changed = clip.folder / "changed-phi"
    phi = make_projection(clip.base().space)
    phi.arrays["bias"] = phi.arrays["bias"] + 1
    phi.save_pretrained(changed)
    with pytest.raises(UsageError, match="projection: "):
        train_xbt(
            recipe(), clip.new, changed, clip.images, clip.folder / "taken", cache=clip.folder / "cache"
        )


def test_a_loss_that_is_no_number_stops(clip: World) -> None:
    with pytest.raises(TrainingDiverged, match="nan"):
        clip.train("diverged", recipe(optimizer={"learning_rate": 1e30, "gradient_clip": None}))


def test_recipes_read_and_refuse(tmp_path: Path) -> None:
    chosen = recipe(augmentation={"crop": "resized"})
    assert XbtRecipe.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen
    assert chosen.optimizer.name == "adamw"  # named in part, the rest is the recipe's own
    assert chosen.augmentation.flip == 0
    assert chosen.augments and not recipe().augments  # noqa: PT018
    path = tmp_path / "recipe.yaml"
    path.write_text("low_rank: {rank: 4}\nprompts: {image: 0}\n")
    read = XbtRecipe.read(path, ["schedule.epochs=3", "prompts.text=1"])
    assert (read.low_rank.rank, read.prompts.image, read.prompts.text, read.schedule.epochs) == (4, 0, 1, 3)
    for values, message in (
        ({"low_rank": {"ranks": 2}}, "did you mean 'rank'"),
        ({"objective": {"align": 0.0}}, "align must be above 0"),
        ({"objective": {"temperature": 0}}, "temperature"),
        ({"data": {"images": 0}}, "data.images"),
        ({"batch": 1}, "at least 2"),
        ({"prompt_learning_rate": 0}, "prompt_learning_rate"),
        ({"schedule": {"epochs": 0}}, "at least one epoch"),
        (
            {"low_rank": {"image": False, "text": False}, "prompts": {"image": 0, "text": 0}},
            "nothing to tune",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            XbtRecipe.from_dict(values)


def test_models_are_named_in_several_ways(tmp_path: Path) -> None:
    assert split_model("hf:openai/clip-vit-large-patch14@abc") == ("openai/clip-vit-large-patch14", "abc")
    assert split_model("openai/clip-vit-large-patch14") == ("openai/clip-vit-large-patch14", None)
    odd = tmp_path / "a@b"
    odd.mkdir()
    assert split_model(f"hf:{odd}") == (str(odd), None)
    with pytest.raises(UsageError, match="leave out #image"):
        split_model("hf:x#image")
    with pytest.raises(NotSupported, match="only models of transformers"):
        split_model("open_clip:ViT-B-32@openai")


def test_the_command_trains_and_says_how_to_use_it(clip: World) -> None:
    data = clip.images.write(clip.folder / "pairs.parquet")
    out = clip.folder / "by-command"
    arguments = ["xbt", "--model", str(clip.new), "--projection", str(clip.projection), "--data", str(data)]
    arguments += ["--out", str(out), "--device", "cpu", "--cache", str(clip.folder / "cache")]
    arguments += ["--set", "batch=30", "--set", "schedule.epochs=1", "--set", "schedule.warm_up_epochs=0"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "60 images with 120 captions" in said
    assert "the-old-model (16-d, cosine, normalized)" in said
    assert "".join(f"xbt:{out}#image".split()) in "".join(result.stdout.split())
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(again.stdout)["images"] == 60
