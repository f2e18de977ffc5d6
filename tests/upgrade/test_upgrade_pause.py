"""What a cutover asks of those who write is said before it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_upgrade_pgvector import PgKit
from typer.testing import CliRunner
from upgrade_kit import OLD, Kit, adapter, old_vectors, rows

from crossfade.cli.app import app
from crossfade.upgrade import Plan, Upgrade, plan


def test_lancedb_asks_for_nothing(kit: Kit) -> None:
    made = kit.plan()
    assert made.estimates.pause == ""
    assert Upgrade.create(made).pause() is None


def test_postgresql_lets_writers_wait_for_the_last_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSFADE_HOME", str(tmp_path))
    pg = PgKit()
    made = plan(pg.uri, strategy="gallery", adapter=adapter("forward"), old=OLD)
    assert (
        "writers wait while the last rows are written, at most 100"
        in dict(made.summary())["pause at cutover"]
    )
    upgrade = Upgrade.create(made, store=pg.open())
    planned = upgrade.pause()
    upgrade.apply()
    measured = upgrade.pause()
    assert planned is not None
    assert measured is not None
    assert measured.seconds > 0.05  # two locks may have to be waited for, and nobody writes here


def test_writers_of_a_file_stand_still_themselves(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pq.write_table(rows(range(200), old_vectors(range(200))), path)
    uri = f"parquet://{path}#vector"
    made = plan(uri, strategy="gallery", adapter=adapter("forward"), old=OLD)
    said = "about 0.1 s: let writers stand still; "
    assert made.estimates.pause.startswith(said)
    assert Plan.from_json(made.to_json(), "a plan").estimates == made.estimates
    upgrade = Upgrade.create(made)
    upgrade.apply()
    upgrade.verify()
    done = CliRunner().invoke(app, ["cutover", uri])
    assert done.exit_code == 0, done.output
    assert f"pause {said}" in done.stderr
