"""The documentation's commands and tables are what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXECUTE = ROOT / "docs" / "execute.py"
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks/README.md",
]


def test_command_page_shows_todays_help() -> None:
    page = ROOT / "docs" / "commands.md"
    done = subprocess.run([sys.executable, EXECUTE, "--check", page], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_included_results_are_the_committed_ones() -> None:
    command = [sys.executable, EXECUTE, "--check", "--only", "no command begins so"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
