"""Runs the tests in two processes beside each other: those of the server mostly wait, the others compute.

    python -m tests [what pytest takes]

With paths it is plain pytest. What the server's tests print comes when the others are done.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PYTEST = [sys.executable, "-m", "pytest"]
SERVER = "tests/serve"
NO_TESTS = 5
"""pytest's exit code where it finds no test to run: some options leave one side without any."""


def main(arguments: list[str]) -> int:
    """The exit code: that of the first process that failed, else 0."""
    if any(Path(one.partition("::")[0]).exists() for one in arguments):
        return subprocess.run([*PYTEST, *arguments], check=False).returncode
    print(f"{SERVER} runs beside the others; its output follows theirs", flush=True)
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen([*PYTEST, *arguments, SERVER], stdout=said, stderr=subprocess.STDOUT) as server:
            try:
                others = subprocess.run([*PYTEST, *arguments, "--ignore", SERVER], check=False).returncode
                codes = [others, server.wait()]
            finally:
                server.terminate()  # on the way out of a signal; else it has ended
        said.seek(0)
        sys.stdout.buffer.write(said.read())
        sys.stdout.flush()
    failed = [code for code in codes if code not in (0, NO_TESTS)]
    return failed[0] if failed else min(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
