"""Run the benchmarks and write their results: ``python -m benchmarks``.

Each is told where results go (``--out``), and those that generate vectors where to put them (``--work``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PLAIN = ("search.py", "fct_speed.py")
GENERATING = ("fit.py", "lift.py", "apply.py", "apply_pgvector.py", "faults.py", "load.py")
ON_DATA = ("matrix.py",)


def main() -> None:
    """One script after the other; the first that fails stops everything."""
    for script in PLAIN:
        run(script)
    for script in GENERATING:
        with tempfile.TemporaryDirectory() as folder:
            run(script, "--work", folder)
    data = os.environ.get("CROSSFADE_DATA")
    for script in ON_DATA:
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
