"""Layers import only from the layers before them (docs/design.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "crossfade"

LEVEL = {
    "errors": 0,
    "extras": 1,
    "spaces": 1,
    "files": 1,
    "vectors": 2,
    "adapters": 3,
    "encoders": 4,
    "datasets": 4,
    "training": 5,
    "evaluation": 6,
    "stores": 7,
    "upgrade": 8,
    "serving": 9,
    "report": 9,
    "demo": 10,
    "cli": 11,
}
FILES = sorted(SOURCE.rglob("*.py"))


def _layer(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def _imported(path: Path) -> set[str]:
    """Layers that the file imports, wherever in the file it does so; the package root is no layer."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("crossfade.")}
    return found & set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_downward(path: Path) -> None:
    layer = _layer(path)
    if layer.startswith("__"):
        return
    upward = {other for other in _imported(path) if other != layer and LEVEL[other] >= LEVEL[layer] > 1}
    assert not upward, f"{layer} imports {sorted(upward)}, which must not stand below it"


def test_every_file_has_a_layer() -> None:
    assert {_layer(path) for path in FILES} - {"__init__", "__main__"} <= set(LEVEL)


def test_no_file_unpickles() -> None:
    offenders = [path for path in FILES if "import pickle" in path.read_text(encoding="utf-8")]
    assert offenders == []
