"""The private Ray of a job lets in those who have its token, and nobody else."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve.private_ray import reserve_port

ROOT = Path(__file__).parents[3]
JOB = """
import os, subprocess, sys
import ray, ray._private.worker
from rich.console import Console
from jobs.runtime.session import ray_session

ray._private.worker.enable_token_auth_by_default = lambda: False  # what Ray 2.60 does by itself, and another may not
with ray_session(None, Console(quiet=True)):
    print("own task:", ray.get(ray.remote(lambda: 17).remote()))
    other = [sys.executable, "-c", sys.argv[1], ray.get_runtime_context().gcs_address]
    for name, mode in (("with the token", "token"), ("without it", "disabled")):
        ended = subprocess.run(other, env=os.environ | {"RAY_AUTH_MODE": mode}, capture_output=True, text=True)
        print(name, ended.returncode, ended.stderr)
"""
OTHER = """
import sys
from ray._raylet import GcsClient  # what ray.init asks first, which tries for 20 seconds

GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None)
"""


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [("jobs.rerank", ["in", "out"], 4), ("serve.cli", ["--port", str(reserve_port(18_000))], 1)],
)
def test_a_ray_that_does_not_start_is_no_traceback(
    tmp_path: Path, module: str, arguments: list[str], code: int
) -> None:
    pq.write_table(pa.table({"query": ["apple"], "documents": [["bread"]]}), tmp_path / "in")
    too_long = tmp_path / ("x" * 100)  # for the path of a socket
    too_long.mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=tmp_path,
        check=False,
        env=os.environ | {"RAY_TMPDIR": str(too_long), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == code
    assert "Ray did not start on this machine: validate_socket_filename failed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_private_ray_wants_a_token(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    ended = subprocess.run(
        [sys.executable, "-c", JOB, OTHER],
        cwd=ROOT,
        check=False,
        env=environment | {"HOME": str(tmp_path)},  # where Ray keeps the token
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert "own task: 17\n" in ended.stdout, ended.stderr
    assert "with the token 0 " in ended.stdout
    assert "without it 1 " in ended.stdout
    assert "InvalidAuthToken" in ended.stdout
    token = (tmp_path / ".ray" / "auth_token").stat()
    assert token.st_size > 0
    assert stat.S_IMODE(token.st_mode) == 0o600, "others on this machine can read it"
