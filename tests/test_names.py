"""The names that Crossray takes up in a user's Python: `crossray`, and three packages with common names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import crossray
import pipelines
from pipelines.errors import ConfigError
from pipelines.own_packages import check_not_hidden, hint_for
from tests.jobs.tables import write_input

ROOT = Path(__file__).parents[1]


def test_the_module_at_the_root_has_the_public_names() -> None:
    assert crossray.__all__ == pipelines.__all__
    for name in crossray.__all__:
        assert getattr(crossray, name) is getattr(pipelines, name)
    with pytest.raises(AttributeError, match="module 'crossray' has no attribute 'rerank'"):
        _ = crossray.rerank


def test_torch_is_loaded_when_it_is_needed() -> None:
    code = "import sys, crossray; assert 'torch' not in sys.modules; crossray.Reranker; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("command", ["rerank", "serve"])
def test_a_folder_of_the_users_that_hides_ours_is_named(tmp_path: Path, command: str) -> None:
    """Ray's processes would take it for Crossray's."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").touch()
    write_input(tmp_path / "in", a=pa.table({"query": ["a"], "documents": [["b"]]}))
    arguments = {"rerank": ["in", "out"], "serve": []}[command]
    script = Path(sys.executable).with_name("crossray")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [script, command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    said = " ".join(done.stderr.split())
    assert f"error: {tmp_path}/jobs/__init__.py has the name of a package of Crossray's" in said
    assert "give the command in another directory" in said


def test_folders_of_python_that_hide_nothing_are_let_be(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()  # a folder that is no package is looked at last
    (tmp_path / "server.py").touch()
    check_not_hidden(tmp_path)
    check_not_hidden(ROOT)
    (tmp_path / "serve.py").touch()
    with pytest.raises(ConfigError, match=r"serve\.py has the name of a package"):
        check_not_hidden(tmp_path)


def test_a_node_without_crossray_is_told_from_other_faults() -> None:
    assert "a folder `jobs` in the search path" in hint_for("ModuleNotFoundError: No module named 'jobs.workers'")
    assert "Crossray is not installed" in hint_for("ModuleNotFoundError: No module named 'pipelines'")
    assert hint_for("ModuleNotFoundError: No module named 'jobsearch'") == ""
