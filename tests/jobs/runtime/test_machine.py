"""What a process says of its machine and of its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jobs.runtime.machine import peak_gpu_memory, processor

ROOT = Path(__file__).parents[3]


def test_the_peak_is_the_most_there_was_and_not_what_there_is() -> None:
    code = (
        "from jobs.runtime.machine import peak_memory; before = peak_memory(); block = bytearray(200 << 20); del block;"
        "print(before, peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 195 << 20 < after - before < 300 << 20


def test_a_process_without_a_gpu_has_none_of_its_memory() -> None:
    assert peak_gpu_memory() == 0
    assert isinstance(processor(), str)
