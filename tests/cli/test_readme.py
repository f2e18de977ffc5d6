"""The README's Python runs as it stands, on files and a store of the names that it uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crossfade.upgrade import Upgrade

README = Path(__file__).parents[2] / "README.md"


def test_the_python_example_runs(
    files: tuple[Path, Path],
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    exec(compile(example[1], "README.md", "exec"), {})
    assert "labels mAP from" in capsys.readouterr().out
    assert Upgrade.open(store).status().state.value == "cut_over"
