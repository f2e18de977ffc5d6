"""Start-up is light: no heavy library is imported, and help appears at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time

HEAVY = (
    "torch",
    "pandas",
    "lancedb",
    "lance",
    "matplotlib",
    "onnxruntime",
    "faiss",
    "sklearn",
    "transformers",
)


def _loaded_after(code: str) -> list[str]:
    script = f"{code}\nimport sys, json; print('LOADED', json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    modules = json.loads(output.rpartition("LOADED ")[2])
    return [module for module in HEAVY if module in modules]


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert _loaded_after("import crossfade") == []


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, crossfade.cli\n"
        "try: crossfade.cli.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code in (0, None)"
    )
    assert _loaded_after(code) == []


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    command = [sys.executable, "-m", "crossfade", "--help"]
    best = min(_seconds(command) for _ in range(7))
    assert best < 0.3, f"crossfade --help took {best:.2f} s at best"


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - start
