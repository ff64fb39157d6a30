"""`python -m jobs.benchmark load`: from a cold start to a loaded model."""

from __future__ import annotations

import statistics
import subprocess
import sys

from jobs.benchmark.report import Model, Output, Rounds, report


def load(model: Model = "embedded", rounds: Rounds = 5, output: Output = None) -> None:
    """Seconds from the start of a fresh Python to a loaded model, imports included."""
    code = (
        "import time; began = time.perf_counter(); from pipelines import Reranker; import torch; "
        f"imported = time.perf_counter(); Reranker.load({model!r}); "
        "print(imported - began, time.perf_counter() - imported)"
    )
    lines = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(rounds)
    ]
    imports, loads = zip(*(map(float, line.stdout.split()) for line in lines), strict=True)
    report(
        f"median of {rounds} fresh processes",
        {
            "import": {"seconds": statistics.median(imports)},
            "load": {"seconds": statistics.median(loads)},
            "together": {"seconds": statistics.median(map(sum, zip(imports, loads, strict=True)))},
        },
        {},
        output,
    )
