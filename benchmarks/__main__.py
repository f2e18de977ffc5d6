"""Run every benchmark and write its result: ``python -m benchmarks``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = ("fit.py", "search.py", "lift.py", "fct_speed.py")
WITH_DATA = ("matrix.py",)


def main() -> None:
    """One script after the other; the first that fails stops everything."""
    for script in SCRIPTS:
        run(script)
    data = os.environ.get("CROSSFADE_DATA")
    for script in WITH_DATA:
        if data:
            run(script, "--data", data)
        else:
            print(f"{script} skipped: set CROSSFADE_DATA to the folder of the benchmark data")


def run(script: str, *arguments: str) -> None:
    """Run one script with results going to benchmarks/results."""
    command = [sys.executable, str(HERE / script), "--out", str(HERE / "results"), *arguments]
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
