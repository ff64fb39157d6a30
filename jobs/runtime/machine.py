"""What this machine is, and how much memory this process has taken of it."""

from __future__ import annotations

import platform
import resource
import sys
from pathlib import Path

STATUS, PROCESSORS = Path("/proc/self/status"), Path("/proc/cpuinfo")


def processor() -> str:
    """The name of the processor."""
    lines = PROCESSORS.read_text().splitlines() if PROCESSORS.is_file() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def peak_memory() -> int:
    """The most bytes that this process has had in memory at once so far, with pages that it shares with others."""
    lines = STATUS.read_text().splitlines() if STATUS.is_file() else []
    for line in lines:
        if line.startswith("VmHWM:"):  # in kB; unlike getrusage it does not begin with what the parent process had
            return 1024 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def peak_gpu_memory() -> int:
    """The most bytes of a GPU's memory that torch has held for this process; 0 where it computes on none."""
    torch = sys.modules.get("torch")  # who has not loaded it has no memory of a GPU
    return int(torch.cuda.max_memory_reserved()) if torch is not None and torch.cuda.is_initialized() else 0
