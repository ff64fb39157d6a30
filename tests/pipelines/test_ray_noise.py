"""What Ray's C++ side prints while it starts."""

from __future__ import annotations

import subprocess
import sys

from pipelines.ray_noise import quiet_ray

CODE = """
import os, subprocess, sys
from pipelines.ray_noise import while_ray_starts
try:
    with while_ray_starts():
        os.write(2, b"[I] logging.cc:303: Set ray log level from environment variable RAY_BACKEND_LOG_LEVEL to 3\\n")
        print("from Python", file=sys.stderr)
        subprocess.run(["sh", "-c", "echo from a child >&2"])
        raise RuntimeError("as it was")
except RuntimeError as error:
    print(error, file=sys.stderr)
print("after", file=sys.stderr)
"""


def test_the_line_about_the_level_is_left_out_and_all_else_comes() -> None:
    command = [sys.executable, "-c", CODE]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert sorted(said.splitlines()) == sorted(["from Python", "from a child", "as it was", "after"])


def test_a_process_without_stderr_starts_too() -> None:
    code = "import os; os.close(2)\nfrom pipelines.ray_noise import while_ray_starts\nwith while_ray_starts(): print(1)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"


def test_who_sets_a_level_keeps_it() -> None:
    environment = {"RAY_BACKEND_LOG_LEVEL": "debug"}
    quiet_ray(environment)
    assert environment == {"RAY_BACKEND_LOG_LEVEL": "debug"}
