"""The rules of the verdict on planted results: a difference of 0.02 or more is significant there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planted import result

from crossfade.evaluation import OLD_ENCODER, RAW_ITEMS, decide


def test_the_cheapest_of_equally_good_ways_is_taken() -> None:
    verdict = decide(
        [result(old=0.30, query=0.39, gallery=0.40, interpolate=0.40, cascade100=0.40, new=0.40)]
    )
    assert (verdict.strategy, verdict.row, verdict.method) == ("query", "query:a", "a")
    assert verdict.sentence == (
        "Map new queries back with a and leave the gallery as it is: t M from 0.300 to 0.390 "
        "(+0.090 [+0.075, +0.105]), by human judgements; "
        "these queries show nothing that a full backfill would add."
    )


def test_a_cheaper_cascade_that_keeps_nearly_all_of_the_gain_is_as_good() -> None:
    verdict = decide([result(old=0.10, query=0.10, gallery=0.12, cascade20=0.88, cascade100=0.90, new=0.90)])
    assert verdict.row == "cascade:query@20", "0.02 behind is significant, but 2.5 % of a gain of 0.8"
    assert decide([result(old=0.10, query=0.10, cascade20=0.80, cascade100=0.90, new=0.90)]).depth == 100


def test_of_the_methods_of_one_cost_the_better_one_is_taken() -> None:
    measured = result(old=0.20, gallery=0.382, gallery_b=0.395, cascade20=0.398, cascade100=0.398, new=0.40)
    behind = measured.pairwise
    row, column = behind.keys.index("gallery:a"), behind.keys.index("gallery:b")
    high = [list(values) for values in behind.high]
    high[row][column] = -0.001
    pairwise = replace(behind, high=tuple(map(tuple, high)))
    assert decide([measured]).row == "gallery:a", "0.016 behind the best of all is not significant"
    assert decide([replace(measured, pairwise=pairwise)]).row == "gallery:b", (
        "it is, behind its equal in cost"
    )


def test_a_dearer_way_is_taken_where_it_is_significantly_better() -> None:
    measured = result(
        old=0.30, query=0.33, gallery=0.34, interpolate=0.35, cascade20=0.39, cascade100=0.40, new=0.45
    )
    verdict = decide([measured])
    assert (verdict.strategy, verdict.row, verdict.depth, verdict.first_stage) == (
        "cascade", "cascade:query@20", 20, "query",
    )  # fmt: skip
    assert "re-rank 20 candidates that the mapped query (a) fetches" in verdict.sentence
    assert "a full backfill would add +0.060" in verdict.sentence
    assert verdict.remaining["t"].value == pytest.approx(0.06)
    assert any("measures highest" in reason for reason in verdict.reasons)


def test_without_what_a_way_needs_another_is_taken() -> None:
    measured = result(
        old=0.30, query=0.30, gallery=0.31, interpolate=0.35, cascade20=0.40, cascade100=0.40, new=0.40
    )
    verdict = decide([measured])
    assert verdict.row == "cascade:query@20"
    raw, encoder = verdict.alternatives
    assert (raw.without, raw.row) == (RAW_ITEMS, "interpolate")
    assert raw.sentence.startswith("Without raw items: Interpolate old queries and new queries mapped by a")
    assert (encoder.without, encoder.row) == (OLD_ENCODER, "cascade:query@20")
    assert encoder.sentence == "Without old encoder the verdict is the same."
    assert decide([measured], have=[OLD_ENCODER]).row == "interpolate"
    assert decide([measured], have=[]).row == "old/old"


def test_nothing_better_means_keep() -> None:
    verdict = decide([result(old=0.40, query=0.20, gallery=0.30, interpolate=0.41, cascade20=0.30, new=0.41)])
    assert (verdict.strategy, verdict.row) == ("keep", "old/old")
    assert verdict.sentence.startswith("Keep the old model: nothing is significantly better")
    assert "M from 0.400 to 0.410" in verdict.sentence


def test_only_the_new_model_better_means_backfill_where_the_items_are_at_hand() -> None:
    measured = result(old=0.30, query=0.20, gallery=0.30, interpolate=0.31, cascade20=0.31, new=0.50)
    verdict = decide([measured])
    assert (verdict.strategy, verdict.row) == ("backfill", "new/new")
    assert verdict.sentence.startswith(
        "Do the full backfill, no bridge is better than the old model: t M from 0.300 to 0.500"
    )
    assert verdict.alternatives[0].strategy == "keep"
    without = decide([measured], have=[OLD_ENCODER])
    assert without.strategy == "keep"
    assert "only a full backfill would be" in without.sentence


def test_a_loss_in_one_direction_rules_a_way_out() -> None:
    there = result(
        "text→image", old=0.30, query=0.40, gallery=0.35, cascade20=0.36, cascade100=0.38, new=0.45
    )
    back = result("image→text", old=0.40, query=0.37, gallery=0.41, cascade20=0.41, cascade100=0.42, new=0.45)
    verdict = decide([there, back])
    assert verdict.row != "query:a"
    assert verdict.row == "gallery:a" or verdict.strategy == "cascade"
    assert "query:a: better on text→image (M) but significantly worse on image→text (M)." in verdict.reasons
    assert "text→image M" in verdict.sentence
    assert "image→text M" in verdict.sentence


def test_a_way_that_is_behind_the_best_in_one_task_is_not_taken() -> None:
    there = result("a", old=0.30, query=0.40, gallery=0.40, cascade20=0.41, new=0.41)
    back = result("b", old=0.30, query=0.33, gallery=0.40, cascade20=0.41, new=0.41)
    assert decide([there, back]).row == "gallery:a"


def test_a_new_model_that_is_worse_in_one_task_is_not_backfilled() -> None:
    there = result("a", old=0.30, query=0.20, new=0.50)
    back = result("b", old=0.30, query=0.20, new=0.20)
    assert decide([there, back]).strategy == "keep"


def test_label_free_figures_decide_only_where_there_are_no_others_and_say_what_they_are_not() -> None:
    free = result("free", kind="neighbours", old=0.30, query=0.60, new=1.0)
    judged = result("judged", old=0.40, query=0.30, new=0.41)
    assert decide([free, judged]).strategy == "keep"
    alone = decide([free])
    assert (alone.strategy, alone.judged) == ("query", False)
    assert "by the new model's own neighbours" in alone.sentence
    assert "not whether search gets better" in alone.sentence


def test_a_significant_loss_on_any_metric_rules_a_way_out() -> None:
    from planted import difference

    measured = result(old=0.30, query=0.40, gallery=0.38, new=0.45)
    rows = tuple(
        replace(row, against_old={**row.against_old, "other": difference(-0.03)})
        if row.key == "query:a"
        else row
        for row in measured.rows
    )
    assert decide([measured]).row == "query:a"
    assert decide([replace(measured, rows=rows)]).row == "gallery:a"


def test_queries_among_the_pairs_are_reported() -> None:
    from dataclasses import replace

    verdict = decide([replace(result(old=0.3, query=0.4, new=0.4), queries_in_pairs=7)])
    assert any("7 of the 1000 queries of t have exactly the vector" in reason for reason in verdict.reasons)
