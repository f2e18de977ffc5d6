"""Run the commands that the documentation shows, and write what they print into its pages.

A page holds ``<!-- run: COMMAND -->`` before a fenced block, which receives the command's output, and
``<!-- include: FILE -->`` … ``<!-- end -->`` around a committed result, ``<!-- stores -->`` …
``<!-- end -->`` around the table of stores. ``--check`` writes nothing and fails
where a page is out of date; ``--only PREFIX`` limits it to commands that begin so.
Commands run in a folder of their own per page; ``$CROSSFADE_DATA`` names the benchmark data,
``$DOCS`` the folder of this file.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = re.compile(r"(<!-- run: (?P<command>.+?) -->\n```(?P<language>\w*)\n)(?P<output>.*?)(```)", re.DOTALL)
STORES = re.compile(r"(<!-- stores -->\n)(?P<text>.*?)(<!-- end -->)", re.DOTALL)
INCLUDE = re.compile(r"(<!-- include: (?P<file>\S+) -->\n)(?P<text>.*?)(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """README and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def empty_folder(page: Path) -> str:
    """A folder for a page's commands; always the same one, since some outputs show it."""
    folder = Path(tempfile.gettempdir()) / "crossfade-docs" / page.stem
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return str(folder)


def executed(text: str, page: Path, only: str) -> str:
    """The page's text with fresh output and fresh includes."""
    folders: list[str] = []

    def run(match: re.Match[str]) -> str:
        command = match["command"]
        if not command.startswith(only):
            return match[0]
        if not folders:
            folders.append(empty_folder(page))
        return f"{match[1]}{output_of(command, folders[0])}{match[5]}"

    def include(match: re.Match[str]) -> str:
        return f"{match[1]}{(ROOT / match['file']).read_text(encoding='utf-8').strip()}\n{match[4]}"

    def stores(match: re.Match[str]) -> str:
        from crossfade.stores.table import capability_table

        return f"{match[1]}{capability_table()}\n{match[3]}"

    return STORES.sub(stores, INCLUDE.sub(include, RUN.sub(run, text)))


def output_of(command: str, folder: str) -> str:
    """What a command prints on stdout, 100 columns wide, without colour; a failure stops everything."""
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb"}
    environment["DOCS"] = str(ROOT / "docs")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    expected = 2 if command.endswith("2>&1") else 0
    if done.returncode not in (0, expected):
        raise SystemExit(f"{command!r} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.strip("\n").splitlines())


def main() -> None:
    """Rewrite or check every page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a page is out of date"
    )
    parser.add_argument("--only", default="", metavar="PREFIX", help="only commands that begin so")
    parser.add_argument("pages", nargs="*", type=Path, help="pages to execute (default: all)")
    arguments = parser.parse_args()
    stale = []
    for page in [path.resolve() for path in arguments.pages] or pages():
        text = page.read_text(encoding="utf-8")
        fresh = executed(text, page, arguments.only)
        if fresh != text:
            stale.append(str(page.relative_to(ROOT)))
            if not arguments.check:
                page.write_text(fresh, encoding="utf-8")
    if arguments.check and stale:
        raise SystemExit(f"out of date: {', '.join(stale)}; run: make docs")


if __name__ == "__main__":
    main()
