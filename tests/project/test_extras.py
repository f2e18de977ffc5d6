"""Optional dependencies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crossfade.errors import CrossfadeError, MissingExtra
from crossfade.extras import installed, load


def test_load() -> None:
    assert load("json.decoder", "any") is sys.modules["json.decoder"]


def test_an_absent_module_names_its_extra() -> None:
    with pytest.raises(
        MissingExtra, match=r"'no_such_module' is not installed; run: pip install 'crossfade\[lance\]'"
    ):
        load("no_such_module", "lance")
    with pytest.raises(ImportError):
        load("no_such_module.part", "lance")
    assert issubclass(MissingExtra, CrossfadeError)


def test_a_module_that_is_broken_inside_is_not_called_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_needs") as caught:
        load("broken_module", "lance")
    assert not isinstance(caught.value, CrossfadeError)


def test_installed_does_not_import() -> None:
    sys.modules.pop("this", None)
    assert installed("this")
    assert "this" not in sys.modules
    assert not installed("no_such_module")
