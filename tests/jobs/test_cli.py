"""The command line: flags, exit codes, and what it says. As subprocesses only where the process is the point."""

from __future__ import annotations

import importlib.metadata
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import jobs.driver.dry_run
import jobs.driver.run
import jobs.runtime.signals
from jobs import convert, errors, importing, inspection, label, mine, pairs, rerank, scores, train
from jobs.cli import app
from jobs.errors import RefusedError, StoppedError
from jobs.input.conditions import Condition
from jobs.input.corpus import Corpus
from jobs.input.shards import Shard
from jobs.rerank import exit_code
from jobs.settings import RerankSettings
from jobs.table.columns import FLAG_OF_COLUMN, ColumnMapping, GroupBy, Layout
from pipelines.config import RerankerConfig
from pipelines.errors import ConfigError, ModelNotFoundError
from tests.jobs.tables import assert_summary_adds_up, lists_table, read_json, write_input

DONE: dict[str, Any] = {"rows_with_errors": 0, "unreadable": {}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RerankSettings]:
    """The settings of each job that would have run."""
    settings_asked: list[RerankSettings] = []

    def remember(settings: RerankSettings, **_: Any) -> dict[str, Any]:
        settings_asked.append(settings)
        return DONE

    monkeypatch.setattr(jobs.driver.run, "run", remember)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return settings_asked


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["rerank", *arguments], env={"COLUMNS": "200", "TERM": "dumb"})


def test_without_flags_everything_is_the_default_of_the_settings(asked: list[RerankSettings]) -> None:
    assert invoke("in", "out").exit_code == 0
    assert asked == [RerankSettings("in", "out")]


def test_every_flag_reaches_the_settings(asked: list[RerankSettings]) -> None:
    model = "--model m --revision r --token t --dtype float32 --max-length 128 --max-query-length 32"
    chunks = "--overlap-tokens 8 --max-chunks-per-doc 4 --max-batch-tokens 512 --raw-scores"
    columns = "--query-id-column a --query-column b --documents-column c --text-field d --id-field e"
    more_columns = "--document-id-column f --document-column g --output-prefix h --drop i --drop j --layout lists"
    cluster = "--replicas 2:5 --num-cpus 3 --num-gpus 0.5 --address auto"
    job = "--top-n 7 --overwrite --max-errors 9 --limit 5 --shard 2/8 --where day>=2 --where lang=de"
    result = invoke("in", "out", *" ".join([model, chunks, columns, more_columns, cluster, job]).split())
    assert result.exit_code == 0, result.output
    reranker = RerankerConfig(
        model="m",
        revision="r",
        token="t",
        dtype="float32",
        max_length=128,
        max_query_length=32,
        overlap_tokens=8,
        max_chunks_per_doc=4,
        max_batch_tokens=512,
        raw_scores=True,
    )
    mapping = ColumnMapping("a", "b", "c", "d", "e", "f", "g", "h", ("i", "j"))
    cluster_settings = {"replicas": (2, 5), "num_cpus": 3, "num_gpus": 0.5, "address": "auto"}
    expected = RerankSettings(
        "in",
        "out",
        reranker,
        mapping,
        Layout.LISTS,
        top_n=7,
        overwrite=True,
        max_errors=9,
        limit=5,
        shard=Shard(2, 8),
        where=(Condition("day", ">=", ("2",)), Condition("lang", "=", ("de",))),
        **cluster_settings,  # type: ignore[arg-type]
    )
    assert asked == [expected]


def test_groups_are_asked_for_with_their_flags(asked: list[RerankSettings]) -> None:
    result = invoke("in", "out", *["--group-by", "topic", "--rank-column", "place"])
    assert result.exit_code == 0, result.output
    assert asked == [RerankSettings("in", "out", group_by=GroupBy("topic", "place"))]
    result = invoke("in", "out", "--rank-column", "place")
    assert result.exit_code == errors.USAGE
    assert "--rank-column is 'place'; it orders the lists that --group-by makes: give that, too" in result.output


def test_a_corpus_is_asked_for_with_its_flags(asked: list[RerankSettings]) -> None:
    result = invoke(
        "in", "out", *["--corpus", "c", "--corpus-id", "a", "--corpus-text", "b", "--corpus-memory", "1.5GiB"]
    )
    assert result.exit_code == 0, result.output
    assert asked == [RerankSettings("in", "out", corpus=Corpus("c", "a", "b", 3 << 29))]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--corpus-text b", "--corpus-text without --corpus: give the table, too"),
        ("--corpus c --corpus-memory much", "--corpus-memory is 'much'; give bytes, such as 500MB or 4GiB"),
    ],
)
def test_flags_of_a_corpus_that_cannot_work_are_usage_errors(
    asked: list[RerankSettings], flags: str, message: str
) -> None:
    result = invoke("in", "out", *flags.split())
    assert result.exit_code == errors.USAGE
    assert message in result.output
    assert asked == []


def test_a_dry_run_is_asked_for_with_its_flags(asked: list[RerankSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.driver.dry_run, "dry_run", asked.append)
    result = invoke("in", "out", *["--dry-run", "--price", "0.5", "--pairs-per-second", "200"])
    assert result.exit_code == 0, result.output
    assert asked == [RerankSettings("in", "out", dry_run=True, price=0.5, pairs_per_second=200)]


def test_the_cluster_comes_from_the_environment(asked: list[RerankSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    assert invoke("in", "out").exit_code == 0
    assert asked[0].address == "ray-head:6379"


def test_help_lists_every_flag() -> None:
    text = invoke("--help").output
    others = ("--model", "--replicas", "--num-gpus", "--top-n", "--overwrite", "--max-errors", "--layout", "--address")
    others += ("--limit", "--shard", "--where", "--dry-run", "--price", "--pairs-per-second")
    for flag in (*FLAG_OF_COLUMN.values(), *others):
        assert flag in text
    assert "Exit codes: 0 done" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--top-n", "0"], "--top-n is 0; it is at least 1"),
        (["--replicas", "many"], "--replicas is 'many'; give a number, or MIN:MAX such as 1:8"),
        (["--replicas", "4:2"], "--replicas is 4:2; give MIN:MAX with 1 <= MIN <= MAX"),
        (["--replicas", "0"], "--replicas is 0:0; give MIN:MAX with 1 <= MIN <= MAX"),
        (["--num-cpus", "0"], "--num-cpus is 0; a replica needs at least 1"),
        (["--num-gpus", "-1"], "--num-gpus is -1.0; it cannot be negative"),
        (["--max-errors", "-1"], "--max-errors is -1; it is 0 or more"),
        (["--max-length", "3"], "max_length is 3; a pair needs at least 16 tokens"),
        (["--dtype", "int4"], "dtype is 'int4'; it is one of auto, float32, float16, bfloat16"),
        (["--limit", "0"], "--limit is 0; it is at least 1 row"),
        (["--shard", "3/2"], "--shard is '3/2'; give I/N with 1 <= I <= N, such as 2/8"),
        (["--where", "lang"], "--where is 'lang'; give COLUMN OPERATOR VALUE"),
        (["--price", "2"], "--price is 2; only a dry run makes use of it: give --dry-run too"),
        (["--no-such-flag"], "No such option"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else "",
)
def test_a_usage_error_says_what_is_wrong_and_exits_with_2(
    asked: list[RerankSettings], flags: list[str], message: str
) -> None:
    result = invoke("in", "out", *flags)
    assert result.exit_code == 2
    assert message in result.output
    assert asked == []


def test_missing_input_exits_with_2(tmp_path: Path) -> None:
    result = invoke(str(tmp_path / "absent[1].parquet"), str(tmp_path / "out"))
    assert result.exit_code == 2
    assert f"error: INPUT '{tmp_path}/absent[1].parquet' has no Parquet files" in result.output


def test_a_missing_model_exits_with_2(tmp_path: Path) -> None:
    source = write_input(tmp_path / "in", a=lists_table(1))
    result = invoke(str(source), str(tmp_path / "out"), "--model", str(tmp_path / "no-model"))
    assert result.exit_code == 2
    assert "no-model" in result.output
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_made_exits_with_2(tmp_path: Path, bert_directory: Path) -> None:
    source = write_input(tmp_path / "in", a=lists_table(1))
    (tmp_path / "file").touch()
    result = invoke(str(source), str(tmp_path / "file" / "out"), "--model", str(bert_directory))
    assert result.exit_code == 2
    assert (
        f"error: OUTPUT {tmp_path}/file/out cannot be made (Not a directory); give another directory" in result.output
    )


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_input_of_another_format_is_a_usage_error_with_the_way_out(
    tmp_path: Path, bert_directory: Path, name: str
) -> None:
    """Whatever its name says."""
    source = tmp_path / name
    source.write_text('{"query": "sort a list", "documents": ["bananas", "sorted() returns a list"]}\n')
    result = invoke(str(source), str(tmp_path / "out"), "--model", str(bert_directory))
    assert result.exit_code == 2
    assert f"only Parquet is read, and {source} is none; make a Parquet file of it first" in result.output
    assert f"COPY (FROM '{source}') TO 'log.parquet'" in result.output
    assert not (tmp_path / "out").exists()


def test_a_refusal_exits_with_3(tmp_path: Path, bert_directory: Path) -> None:
    source = write_input(tmp_path / "in", a=lists_table(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").touch()
    result = invoke(str(source), str(tmp_path / "out"), "--model", str(bert_directory))
    assert result.exit_code == 3
    assert f"refused: OUTPUT {tmp_path}/out is not empty" in result.output


def test_a_fault_of_ours_is_no_job_that_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's own exit code for it would say so."""

    def fail(settings: RerankSettings, **_: Any) -> None:
        raise KeyError("\x1b[2J")

    monkeypatch.setattr(jobs.driver.run, "run", fail)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/crossray", "rerank", "in", "out"])
    assert exit_code(RerankSettings("in", "out")) == 4
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "\x1b" not in said
    assert said.endswith(
        "stopped: this is a fault in Crossray; what is finished stays. To resume:\n  crossray rerank in out\n"
    )


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("the [red] thing"), 2, "error: the [red] thing\n"),
        (ModelNotFoundError("no model at /m[/x]"), 2, "error: no model at /m[/x]\n"),
        (RefusedError("a" * 500), 3, f"refused: {'a' * 500}\n"),
        (StoppedError("disk full"), 4, "stopped: disk full. To resume:\n  crossray rerank in out\n"),
        (
            jobs.runtime.signals.InterruptedBySignal(2),
            130,
            "stopped by SIGINT; what is finished stays. To resume:\n  crossray rerank in out\n",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_end_has_its_code_and_its_message_whole(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(settings: RerankSettings, **_: Any) -> None:
        raise error

    monkeypatch.setattr(jobs.driver.run, "run", fail)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/crossray", "rerank", "in", "out"])
    assert exit_code(RerankSettings("in", "out")) == code
    assert capsys.readouterr().err == said


PAGES: list[tuple[list[str], tuple[str, ...]]] = [
    (["rerank"], rerank.EXAMPLES),
    (["inspect"], inspection.EXAMPLES),
    (["pairs"], pairs.EXAMPLES),
    (["mine"], mine.EXAMPLES),
    (["label"], label.EXAMPLES),
    (["train"], train.EXAMPLES),
    (["convert"], convert.EXAMPLES),
    (["import"], importing.EXAMPLES),
    (["scores", "compact"], scores.EXAMPLES),
]


@pytest.mark.parametrize(("page", "examples"), PAGES, ids=lambda value: value[-1])
def test_a_help_page_ends_with_examples_that_are_commands(page: list[str], examples: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*page, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    assert [" ".join(line.split()) for line in lines[-len(examples) :]] == [" ".join(one.split()) for one in examples]
    for example in examples:
        program, *words = shlex.split(example.partition("#")[0].partition("|")[0])
        assert program == "crossray"
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("crossray", words)  # raises for a flag that there is not


def test_the_version_is_printed() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.output) == (0, f"crossray {importlib.metadata.version('crossray')}\n")


def test_help_and_usage_errors_need_neither_torch_nor_ray() -> None:
    code = "import sys, jobs.cli; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_console_script_reranks(tmp_path: Path, bert_directory: Path) -> None:
    """With a Ray of its own, as on a laptop; and again, when all is done."""
    source = write_input(tmp_path / "in", a=lists_table(6))
    script = str(Path(sys.executable).with_name("crossray"))
    command = [script, "rerank", str(source), str(tmp_path / "out"), "--model", str(bert_directory), "--replicas", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_summary_adds_up(tmp_path / "out", read_json(tmp_path / "out" / "_summary.json"), 6)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "is complete, and INPUT has nothing new" in again.stdout


def test_settings_are_checked_wherever_they_come_from(settings_of: Callable[..., RerankSettings]) -> None:
    with pytest.raises(ConfigError, match="--top-n is -1"):
        settings_of("in", "out", top_n=-1)
