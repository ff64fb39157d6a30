"""docs/recipes.md as it stands: its blocks are run, and what it says comes out of them.

A block of `bash`, `python` or `sql` is run, one of `sh` is not: its syntax and the flags of `crossray` are checked.
Each line of a `text` block must be in what the blocks before it printed, where `...` stands for anything.
"""

from __future__ import annotations

import configparser
import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
import yaml
from pyarrow import parquet
from typer.testing import CliRunner

import jobs.calibration.run
import serve.cli
from jobs import rerank
from jobs.cli import app
from serve.auth import ApiKeys, new_key
from serve.environment import SERVE_ENVIRONMENT
from serve.settings import ServeArgs
from tests.jobs.stubs import no_ray_session
from tests.jobs.training.here import stay_here
from tests.serve.conftest import run_server
from tests.serve.test_clients import ENVIRONMENT, PYTHON

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
RECIPE = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SERVER = "http://127.0.0.1:8000"


def command_of(function: Callable[..., None]) -> Any:
    """What parses the flags of a command."""
    alone = typer.Typer()
    alone.command()(function)
    return typer.main.get_command(alone)


Blocks = list[tuple[str, str]]
FLAGS_OF: dict[str, Any] = {"rerank": command_of(rerank.command), "serve": command_of(serve.cli.command)}
RECIPES: dict[str, Blocks] = {heading: BLOCK.findall(text) for heading, text in RECIPE.findall(PAGE)}
TEXTS = {
    11: "sorted() returns a new sorted list.",
    12: "Bananas are yellow when they are ripe.",
    13: "list.sort() sorts a list in place.",
    21: "open() opens a file and returns a file object.",
    22: "A file cabinet holds paper.",
}
LISTS = {"q1": ("sort a list", [12, 11, 13]), "q2": ("open a file", [22, 21])}
"""By query id: the query, and the ids of its documents."""
RELEVANT = {
    "sort a list": {11, 13},
    "open a file": {21},
    "what colour is a ripe banana": {12},
    "read a file": {21},
    "sort in place": {11, 13},
}
"""By query, the texts that somebody judged to be relevant; the others are not."""


def with_blocks(*languages: str) -> list[str]:
    """The headings of the recipes that have such blocks."""
    return [heading for heading, blocks in RECIPES.items() if {*languages} & {language for language, _ in blocks}]


def asks_a_server(heading: str) -> bool:
    return any(language == "python" and SERVER in block for language, block in RECIPES[heading])


def of(program: str) -> str:
    """The one block of the page that has this in it."""
    [block] = [block for blocks in RECIPES.values() for _, block in blocks if program in block]
    return block


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the files that the page names."""
    write_files(tmp_path)
    for name in ("cluster", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "heading", [heading for heading in with_blocks("bash", "python") if not asks_a_server(heading)]
)
def test_what_a_recipe_says_comes_out_of_its_lines(
    heading: str, here: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Ray where texts come from another table, which Ray takes to the nodes; else in this process."""
    if "--corpus" in str(RECIPES[heading]):
        request.getfixturevalue("cluster")
    else:
        without_ray(monkeypatch)
    printed = ""
    for language, block in RECIPES[heading]:
        if language == "text":
            check_lines(block, printed)
        elif language in RUN:
            printed += RUN[language](block)


@pytest.mark.parametrize("heading", with_blocks("sql"))
def test_sql_finds_the_same(heading: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb", reason="the group `test` of pyproject.toml brings it")
    without_ray(monkeypatch)
    printed = ""
    for language, block in RECIPES[heading]:
        if language == "bash":
            run_commands(block)
        elif language == "sql":
            with duckdb.connect() as connection:
                rows = connection.execute(block).fetchall()
            printed += "".join(" ".join(map(shown, row)) + "\n" for row in rows)
        elif language == "text":
            assert printed == block
            printed = ""


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason=f"{PYTHON} is missing: `make test-slow` builds it")
@pytest.mark.parametrize("heading", [heading for heading in RECIPES if asks_a_server(heading)])
def test_client_libraries_rank_with_the_lines_of_the_page(heading: str) -> None:
    with run_server(ServeArgs(), keys=False, scorers={}) as server:
        for language, block in RECIPES[heading]:
            if language == "python":
                program = block.replace(SERVER, server.base_url)
                command = [str(PYTHON), "-I", "-c", program]
                printed = subprocess.run(
                    command, env=os.environ | ENVIRONMENT, check=True, capture_output=True, text=True, timeout=120
                ).stdout
            else:
                check_lines(block, printed)


@pytest.mark.parametrize("heading", with_blocks("sh"))
def test_what_is_not_run_says_so_and_has_flags_that_there_are(heading: str) -> None:
    assert "not run**" in PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0].lower()
    for block in (block for language, block in RECIPES[heading] if language == "sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
        for words in (shlex.split(line, comments=True) for line in lines_of(block)):
            if words[0] == "crossray":
                FLAGS_OF[words[1]].make_context("crossray", words[2:])  # raises for a flag that there is not


def test_a_key_is_rotated(here: Path) -> None:
    old = new_key("web-1")
    (here / "keys.txt").write_text(old.line + "\n")
    for block in (block for _, block in RECIPES["How do I rotate API keys?"]):
        run_commands(block)
    new = (here / "new-key.txt").read_text().splitlines()[0]
    accepted = ApiKeys.from_file(here / "keys.txt")
    assert accepted.accepts(f"Bearer {new}")
    assert not accepted.accepts(f"Bearer {old.key}")


def test_the_environment_of_the_nodes_is_that_of_the_code(here: Path) -> None:
    run_commands(of("grep -o"))
    exported = [line.removeprefix("export ") for line in (here / "crossray-environment.sh").read_text().splitlines()]
    named = dict(shlex.split(line)[0].split("=", 1) for line in exported)
    assert named.items() >= SERVE_ENVIRONMENT.items()


def test_the_line_of_p99_is_in_the_dashboard() -> None:
    dashboard = json.loads((ROOT / "cluster" / "grafana-dashboard.json").read_text(encoding="utf-8"))
    [panel] = [panel for panel in dashboard["panels"] if panel["title"] == "Seconds of a request"]
    assert of("histogram_quantile").strip() in [target["expr"] for target in panel["targets"]]


def test_files_for_others_can_be_read() -> None:
    assert yaml.safe_load(of("scrape_configs"))["scrape_configs"][0]["static_configs"][0]["targets"] == [
        "127.0.0.1:8000"
    ]
    unit = configparser.ConfigParser()
    unit.optionxform = str
    unit.read_string(of("[Service]"))
    assert unit["Service"]["RestartPreventExitStatus"].split() == ["1", "2", "3"]
    rules = of("policy drop")
    assert rules.count("{") == rules.count("}")


def test_the_lines_that_print_nothing_have_tests_of_their_own() -> None:
    silent = [heading for heading in with_blocks("bash") if heading not in with_blocks("text")]
    assert [RECIPES[heading][0][1] for heading in silent] == [of("keys new"), of("grep -o")]


@pytest.mark.parametrize("heading", RECIPES)
def test_a_recipe_is_a_question_and_short(heading: str) -> None:
    text = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    assert heading.endswith("?")
    assert len([line for line in text.splitlines() if line and not line.startswith("```")]) < 18
    assert "](" in text  # where to read more
    assert {language for language, _ in RECIPES[heading]} <= {*RUN, "sql", "sh", "text", "yaml", "promql", "ini", "nft"}


def run_commands(block: str) -> str:
    """Runs shell commands one by one; `# exit code N` behind one says how it must end."""
    return "".join(run_command(line) for line in lines_of(block))


def run_command(line: str) -> str:
    expected = int((re.findall(r"# exit code (\d+)$", line) or ["0"])[0])
    words = shlex.split(line, comments=True)
    if words[:1] == ["crossray"] and words[1] in ("rerank", "inspect", "calibrate"):
        # In this process, which has Ray already.
        done = CliRunner().invoke(app, words[1:], env={"COLUMNS": "10000", "TERM": "dumb"})
        assert done.exit_code == expected, done.output
        return done.output
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == expected, finished.stderr
    return finished.stdout


def run_python(block: str) -> str:
    """What the lines print."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(block, {})
    return printed.getvalue()


RUN: dict[str, Callable[[str], str]] = {"bash": run_commands, "python": run_python}


def lines_of(block: str) -> list[str]:
    """The commands of a block, each whole."""
    return block.replace("\\\n", " ").splitlines()


def check_lines(block: str, printed: str) -> None:
    """Each line of the block is in what was printed, but for white space and the frames of tables."""
    there = plain(printed)
    for line in block.splitlines():
        assert re.search(re.escape(plain(line)).replace(r"\.\.\.", ".*?"), there), (line, printed)


def shown(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def plain(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job has one replica, in this process; all else is as it is."""
    stay_here(monkeypatch)
    monkeypatch.setattr(jobs.calibration.run, "ray_session", no_ray_session)


def write_files(directory: Path) -> None:
    """What the page's commands read: a log of two days in three files, and the others."""
    by_id = pa.list_(pa.struct([("doc_id", pa.int64()), ("bm25", pa.float64())]))
    with_text = pa.list_(pa.struct([("id", pa.int64()), ("text", pa.string())]))
    queries = [query for query, _ in LISTS.values()]
    hits = [[{"doc_id": one, "bm25": 9.0 - place} for place, one in enumerate(ids)] for _, ids in LISTS.values()]
    documents = [[{"id": one, "text": TEXTS[one]} for one in ids] for _, ids in LISTS.values()]
    pairs = [(key, query, one, rank) for key, (query, ids) in LISTS.items() for rank, one in enumerate(ids, start=1)]
    log = pa.table({"query": queries, "documents": pa.array(documents, with_text)})
    tables = {
        "texts": pa.table({"doc_id": list(TEXTS), "body": list(TEXTS.values())}),
        "clicks": pa.table({"query_id": list(LISTS), "query": queries, "hits": pa.array(hits, by_id)}),
        "click-pairs": pa.table(list(map(list, zip(*pairs, strict=True))), ["query_id", "query", "doc_id", "rank"]),
        "pairs": pa.table({"query": [one[1] for one in pairs], "document": [TEXTS[one[2]] for one in pairs]}),
        "nulls": pa.table(
            {
                "query_id": ["n1", "n2", "n3", "n4"],
                "query": ["open a file", None, "sort a list", "   "],
                "documents": [[None, TEXTS[21]], [TEXTS[21]], None, [TEXTS[11]]],
            }
        ),
        "judged": pa.table(
            {
                "query": [query for query in RELEVANT for _ in TEXTS],
                "document": [text for _ in RELEVANT for text in TEXTS.values()],
                "label": [int(one in ids) for ids in RELEVANT.values() for one in TEXTS],
            }
        ),
        "logs/morning": of_day(log.slice(0, 1), datetime(2026, 11, 27, 8)),
        "logs/night": of_day(log.slice(1), datetime(2026, 11, 27, 20)),
        "logs/tomorrow": of_day(log, datetime(2026, 11, 28, 8)),
    }
    for name, table in tables.items():
        path = directory / f"{name}.parquet" if "/" in name else directory / name / "part.parquet"
        path.parent.mkdir(exist_ok=True)
        parquet.write_table(table, path)


def of_day(table: pa.Table, time: datetime) -> pa.Table:
    return table.append_column("time", pa.array([time] * table.num_rows))
