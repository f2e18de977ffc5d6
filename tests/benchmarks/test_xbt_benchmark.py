"""Tables, curve and stages of benchmarks/xbt.py: on planted vectors, and in the quick size end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from xbt import RECIPES, read_upgrade
from xbt_measure import Embedded, Searched, claims, measured
from xbt_report import Report, picture, to_dict, write
from xbt_upgrade import DIRECT, STAGE_1, XBT, Upgrade, phi_of, variants

from crossfade.datasets.captions import captions_from_table
from crossfade.spaces import Space
from crossfade.vectors import FloatMatrix

OLD, NEW = Space("old", 24), Space("new", 32)
IMAGES = 150
STAGE = {
    "seconds": 30.0,
    "processor_seconds": 50.0,
    "processor": "a processor",
    "cores": 2,
    "threads": 2,
    "load": 0.5,
    "torch": "2",
    "python": "3",
}
STRENGTH = {XBT: 0.8, STAGE_1: 1.8, DIRECT: 1.8, "direct-phi": 1.8, "procrustes": 1.8, "xbt-40": 0.9}
"""Noise of planted models; all others have more than the old one."""


def unit(matrix: np.ndarray) -> FloatMatrix:
    found: FloatMatrix = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)
    return found


def planted() -> tuple[Searched, Upgrade]:
    """Images, each with a caption of its own and one that it shares with the next image."""
    rng = np.random.default_rng(0)
    captions = [[f"picture {row}", f"pair {row // 2}"] for row in range(IMAGES)]
    table = pa.table({"id": pa.array(range(IMAGES)), "caption": pa.array(captions)})
    belongs = captions_from_table(table)
    items = unit(rng.standard_normal((IMAGES, 24)))
    means = np.zeros((len(belongs.texts), 24))
    np.add.at(means, belongs.captions, items[belongs.images])

    def model(noise: float, dimension: int = 24) -> Embedded:
        images, texts = (
            X + noise * unit(rng.standard_normal(X.shape)) for X in (items, unit(means).astype(np.float64))
        )
        if dimension != 24:
            turn = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0][:24]
            images, texts = images @ turn, texts @ turn
        return Embedded(unit(images), unit(texts))

    upgrade, _ = read_upgrade("scenes", ("counts=[40]", "samples=200"), quick=False)
    compatible = {"naive": model(9.0)} | {
        key: model(STRENGTH.get(key, 2.0)) for key in ["procrustes", *(one.key for one in variants(upgrade))]
    }
    return Searched(belongs, model(1.4), model(0.5, 32), OLD, NEW, compatible), upgrade


@pytest.fixture(scope="module")
def report() -> Report:
    test, upgrade = planted()
    return Report(upgrade, [measured("planted", test, upgrade)], {"train-old": STAGE, "train-new": STAGE})


def test_identical_captions_are_one_and_figures_are_those_of_a_plain_search(report: Report) -> None:
    test, _ = planted()
    assert report.results[0].sizes == (IMAGES, IMAGES + IMAGES // 2)
    right = np.zeros((len(test.captions.texts), IMAGES), dtype=bool)
    right[test.captions.captions, test.captions.images] = True
    for direction, queries, gallery, truth in (
        ("text→image", test.compatible[XBT].texts, test.old.images, right),
        ("image→text", test.compatible[XBT].images, test.old.texts, right.T),
    ):
        order = np.argsort(-queries @ gallery.T, axis=1)
        studied = report.results[0].studied[direction]
        for k in (1, 5, 10):
            expected = np.take_along_axis(truth, order[:, :k], axis=1).any(axis=1).mean()
            found = studied.paired[f"Recall@{k}"].estimate(XBT)
            assert found.value == pytest.approx(expected)
            assert found.low <= found.value <= found.high
            assert found.low < found.high or k > 1
            row = report.results[0].evaluation.task(direction).row("native:XBT")
            assert row.metrics[f"Recall@{k}"].value == pytest.approx(expected)


def test_what_was_planted_is_claimed(report: Report) -> None:
    found = {
        (one["direction"], one["row"], one["other"]): one["metrics"]["Recall@1"]
        for one in claims(report.results[0], report.upgrade.counts)
    }
    for direction in ("text→image", "image→text"):
        assert found[direction, XBT, "old/old"]["low"] > 0
        assert found[direction, "xbt-40", DIRECT]["low"] > 0
        assert found[direction, XBT, "procrustes"]["low"] > 0
    assert report.results[0].evaluation.verdict.method == "XBT"


def test_the_page_the_curve_and_the_figures(report: Report, tmp_path: Path) -> None:
    page = write(report, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "xbt-scenes.json",
        "xbt-scenes.md",
        "xbt-scenes-planted-text-to-image.svg",
        "xbt-scenes-planted-image-to-text.svg",
    }
    for said in (
        "| new/old | naive swap, the first dimensions |",
        "XBT + SLERP with the old query, weight",
        "| old/new | gallery embedded by XBT, old queries |",
        "| 40 |",
        "| all |",
        "without the contrastive term in stage 1",
        "M(new→old) > M(old→old), image→text Recall@1: XBT",
        "Highest R@1 without the old model at query time: XBT.",
        "1 minutes in all on a processor, 2 cores",
        "(xbt-scenes-planted-text-to-image.svg)",
    ):
        assert said in page
    drawn = ElementTree.parse(tmp_path / "xbt-scenes-planted-text-to-image.svg").getroot()
    lines = drawn.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.get("points", "").split()) for line in lines] == [3, 2]
    read = json.loads((tmp_path / "xbt-scenes.json").read_text())
    whole = to_dict(report)["tests"]["planted"]["variants"]["text→image"][XBT]["Recall@10"]
    assert read["tests"]["planted"]["variants"]["text→image"][XBT]["Recall@10"] == pytest.approx(
        whole, abs=1e-6
    )


def test_a_test_without_studies_has_main_rows_only(tmp_path: Path) -> None:
    test, upgrade = planted()
    upgrade = replace(upgrade, studies=False)
    keys = {"naive", "procrustes", *(one.key for one in variants(upgrade))}
    few = replace(test, compatible={key: test.compatible[key] for key in keys})
    page = write(Report(upgrade, [measured("planted", few, upgrade)], {"train-old": STAGE}), tmp_path)
    assert "### Ablations" not in page
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md"}


def test_a_curve_is_drawn_of_the_last_metric(report: Report) -> None:
    drawn = picture(report.results[0].studied["text→image"], "R@10", report.upgrade.counts)
    value = report.results[0].studied["text→image"].paired["Recall@10"].estimate(XBT).value
    assert f"<title>{100 * value:.1f} [" in drawn


def test_first_stages_by_name() -> None:
    assert phi_of("direct-250").pairs == 250
    assert phi_of(DIRECT).pairs == -1
    assert phi_of("no-noise").options == {"sigma": 0.0}
    for path in RECIPES.glob("*.yaml"):
        if "pairs:" in path.read_text():
            for variant in variants(Upgrade.read(path)):
                assert phi_of(variant.phi) is not None
