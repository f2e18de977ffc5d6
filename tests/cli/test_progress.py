"""A step that is refused before it has done anything shows no progress."""

from __future__ import annotations

import pytest

from crossfade.cli.console import progress_bar


def test_nothing_is_shown_before_the_first_rows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="refused"), progress_bar("write vectors"):
        raise ValueError("refused")
    assert "write vectors" not in capsys.readouterr().err


def test_rows_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("write vectors") as advance:
        advance(0, 2000)
        advance(1500, 2000)
    shown = capsys.readouterr().err
    assert "write vectors" in shown
    assert "1,500/2,000 rows" in shown
