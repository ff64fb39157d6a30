"""Runs the tests in two lanes beside each other: most of them wait for processes to start, to die or to answer.

    python -m tests [what pytest takes]

With paths it is plain pytest. What the second lane prints comes when the first is done.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

PYTEST = [sys.executable, "-m", "pytest"]
SERVER = ["tests/serve"]
REPLICAS = ["tests/jobs/follow", "tests/jobs/scoring", "tests/jobs/workers"]
OTHERS = [f"--ignore={place}" for place in SERVER + REPLICAS]
PASSED, FAILED, NO_TESTS = 0, 1, 5
"""pytest's exit codes; it finds no tests where some options leave a part of them without any."""


def main(arguments: list[str]) -> int:
    """The exit code: that of the first part that failed, else 0."""
    if any(Path(one.partition("::")[0]).exists() for one in arguments):
        return subprocess.run([*PYTEST, *arguments], check=False).returncode
    print(f"{' '.join(SERVER + REPLICAS)} run beside the others; their output follows", flush=True)
    with tempfile.TemporaryFile() as said:
        with ThreadPoolExecutor(1) as beside:
            second = beside.submit(run_lane, [SERVER, REPLICAS], arguments, said)
            codes = run_lane([OTHERS], arguments) + second.result()
        said.seek(0)
        sys.stdout.buffer.write(said.read())
        sys.stdout.flush()
    failed = [code for code in codes if code not in (PASSED, NO_TESTS)]
    return failed[0] if failed else min(codes)


def run_lane(parts: Sequence[Sequence[str]], arguments: Sequence[str], output: IO[bytes] | None = None) -> list[int]:
    """Runs parts of the tests one after the other, each with a Ray of its own; returns their exit codes.

    None follows one that was interrupted.
    """
    codes: list[int] = []
    for part in parts:
        run = subprocess.run([*PYTEST, *arguments, *part], stdout=output, stderr=output, check=False)
        codes.append(run.returncode)
        if run.returncode not in (PASSED, FAILED, NO_TESTS):
            break
    return codes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
