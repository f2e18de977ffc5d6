"""How queries are answered in every state."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from upgrade_kit import NEW, OLD, Kit, NewEncoder, OldEncoder, new_vectors, old_vectors

from crossfade.errors import DimensionMismatch, SpaceMismatch, UsageError
from crossfade.spaces import Space
from crossfade.stores import open_store
from crossfade.upgrade import Searcher, Upgrade

QUERIES = ["item 3", "item 77", "item 210"]
IDS = [3, 77, 210]


def bring(kit: Kit, strategy: str, **options: object) -> Upgrade:
    upgrade = kit.upgrade(strategy, **options)
    upgrade.apply()
    upgrade.verify()
    upgrade.cutover()
    return upgrade


def firsts(searcher: Searcher, **options: object) -> list[int]:
    return [hits.ids[0].as_py() for hits in searcher.search(QUERIES, 5, **options)]  # type: ignore[arg-type]


def test_before_any_upgrade_the_old_model_serves(kit: Kit) -> None:
    searcher = Searcher(kit.uri, old=OldEncoder(), space=OLD)
    assert searcher.mode == "keep"
    assert firsts(searcher) == IDS
    hits = searcher.search(old=old_vectors([3]), k=4, columns=["text"])[0]
    assert len(hits) == 4
    assert hits.columns["text"][0].as_py() == "item 3"


@pytest.mark.parametrize(
    ("strategy", "options", "roles"),
    [
        ("query", {}, {"new"}),
        ("interpolate", {"weight": 0.5}, {"old", "new"}),
        ("gallery", {}, {"new"}),
        ("cascade", {"depth": 20, "items": "text"}, {"new"}),
        (
            "cascade",
            {"depth": 20, "items": "text", "first_stage": "interpolate", "weight": 0.3},
            {"old", "new"},
        ),
        (
            "backfill",
            {
                "items": "text",
                "encoder": NewEncoder(),
                "encoders": {"items": "python:upgrade_kit:NewEncoder"},
            },
            {"new"},
        ),
    ],
)
def test_after_the_cutover_each_strategy_answers(
    kit: Kit, strategy: str, options: dict[str, object], roles: set[str]
) -> None:
    upgrade = bring(kit, strategy, **options)
    searcher = Searcher(kit.uri, old=OldEncoder(), new=NewEncoder(), items=NewEncoder())
    assert searcher.mode == strategy
    assert firsts(searcher) == IDS
    vectors = {"old": old_vectors(IDS), "new": new_vectors(IDS)}
    ready = Searcher(kit.uri, items=NewEncoder()).search(k=1, **{role: vectors[role] for role in roles})
    assert [hits.ids[0].as_py() for hits in ready] == IDS
    for role in roles:
        others = {one: vectors[one] for one in roles - {role}} or {"old": old_vectors(IDS)}
        with pytest.raises(UsageError, match=f"needs queries of the {role} model"):
            Searcher(kit.uri).search(k=1, **others)
    upgrade.rollback()
    assert searcher.mode == "keep"
    assert firsts(searcher) == IDS
    with pytest.raises(UsageError, match="needs queries of the old model"):
        Searcher(kit.uri, new=NewEncoder()).search(QUERIES)


def test_interpolation_uses_the_weight(kit: Kit) -> None:
    """Old and new query of different items: the weight decides whose neighbourhood is found."""
    for weight, expected in ((0.0, 3), (1.0, 77)):
        upgrade = bring(kit, "interpolate", weight=weight)
        hits = Searcher(kit.uri).search(old=old_vectors([3]), new=new_vectors([77]), k=1)[0]
        assert hits.ids[0].as_py() == expected
        upgrade.rollback()


def test_a_cascade_reranks_by_the_new_model_and_embeds_each_item_once(kit: Kit) -> None:
    bring(kit, "cascade", depth=30, items="text")
    encoder = NewEncoder()
    searcher = Searcher(kit.uri, items=encoder, exact=True)
    query = new_vectors([500])
    first = searcher.search(new=query, k=5)[0]
    assert len(encoder.embedded) == 30
    candidates = [int(one.split()[1]) for one in encoder.embedded]
    scores = new_vectors(candidates) @ query[0]
    order = np.argsort(-scores)[:5]
    assert first.ids.to_pylist() == [candidates[one] for one in order]
    np.testing.assert_allclose(first.scores, scores[order], atol=1e-5)
    again = Searcher(kit.uri, items=encoder, exact=True).search(new=query, k=5)[0]
    assert len(encoder.embedded) == 30
    assert again.ids == first.ids
    searcher.search(new=new_vectors([501, 502]), k=5)
    assert len(set(encoder.embedded)) == len(encoder.embedded)


def test_a_cascade_without_encoder_says_what_is_missing(kit: Kit) -> None:
    bring(kit, "cascade", depth=30, items="text")
    with pytest.raises(UsageError, match=r"embeds 30 candidates .*new-model.*column 'text' \(items=\)"):
        Searcher(kit.uri).search(new=new_vectors([3]))


def test_a_retired_bridge_goes_on_answering(kit: Kit) -> None:
    upgrade = bring(kit, "query")
    upgrade.retire(confirm=True)
    searcher = Searcher(kit.uri, new=NewEncoder(), old=OldEncoder())
    assert (searcher.mode, firsts(searcher)) == ("query", IDS)
    later = kit.upgrade("gallery")
    later.apply()
    assert (searcher.mode, firsts(searcher)) == ("query", IDS)
    later.verify()
    later.cutover()
    assert (searcher.mode, firsts(searcher)) == ("gallery", IDS)
    later.rollback()
    assert (searcher.mode, firsts(searcher)) == ("query", IDS)


def test_queries_of_another_space_are_refused(kit: Kit) -> None:
    bring(kit, "gallery")

    class Impostor(NewEncoder):
        @property
        def space(self) -> Space:
            return Space("impostor", NEW.dimension)

    with pytest.raises(SpaceMismatch, match=r"encoder of the new model: same dimension.*impostor"):
        Searcher(kit.uri, new=Impostor()).search(QUERIES)
    with pytest.raises(DimensionMismatch, match=r"\(n, 24\), got \(1, 16\)"):
        Searcher(kit.uri).search(new=old_vectors([3]))
    with pytest.raises(UsageError, match="nothing to search for"):
        Searcher(kit.uri).search()


def test_searches_go_on_while_it_is_switched_back_and_forth(kit: Kit) -> None:
    upgrade = bring(kit, "gallery")
    ended = threading.Event()
    failures: list[object] = []
    modes: set[str] = set()

    def search() -> None:
        searcher = Searcher(open_store(kit.uri), old=OldEncoder(), new=NewEncoder(), exact=True)
        while not ended.is_set():
            modes.add(searcher.mode)
            try:
                found = firsts(searcher)
            except Exception as error:
                failures.append(error)
                return
            if found != IDS:
                failures.append(found)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        for _ in range(6):
            upgrade.rollback()
            upgrade.cutover()
    finally:
        ended.set()
        thread.join()
    assert failures == []
    assert modes == {"keep", "gallery"}
