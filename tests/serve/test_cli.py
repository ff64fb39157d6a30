"""`crossray serve` and `crossray keys`: flags, refusals, and what is said."""

from __future__ import annotations

import math
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import ray.serve
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

import serve.cli
from pipelines.calibration import CALIBRATION
from pipelines.model_files import EMBEDDED_DIRECTORIES
from serve.auth import ApiKeys, new_key
from serve.cli import PANELS, USAGE, Server, command, keys, run, welcome
from serve.private_ray import reserve_port
from serve.settings import ServeArgs
from tests.checkpoints import read_weights, write_qwen, write_weights

ROOT = Path(__file__).parents[2]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """The servers that would have been started."""
    starts: list[Server] = []
    monkeypatch.setattr(serve.cli, "start", lambda server, console, num_cpus: starts.append(server))
    for variable in ("RAY_ADDRESS", "CROSSRAY_API_KEYS"):
        monkeypatch.delenv(variable, raising=False)
    return starts


@pytest.fixture
def port() -> int:
    """One that nothing listens on."""
    return reserve_port(18_000)


@pytest.fixture
def listening() -> Iterator[int]:
    """One that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def app() -> typer.Typer:
    """A command line with both plug-ins, as jobs/cli.py makes it."""
    plugged = typer.Typer()
    plugged.command("serve")(command)
    plugged.add_typer(keys, name="keys")
    return plugged


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(app(), [str(one) for one in arguments], env={"COLUMNS": "200", "TERM": "dumb"})


def test_without_flags_everything_is_the_default_of_the_settings(started: list[Server], port: int) -> None:
    assert invoke("serve", "--port", port).exit_code == 0
    assert started == [Server(ServeArgs(), "127.0.0.1", port, None, address=None)]


def test_every_flag_reaches_the_settings(started: list[Server], port: int, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(new_key().line)
    settings: dict[str, Any] = {
        "served_model_name": "n",
        "revision": "r",
        "dtype": "float32",
        "max_length": 128,
        "max_query_length": 32,
        "overlap_tokens": 8,
        "max_chunks_per_doc": 4,
        "calibration": str(EMBEDDED_DIRECTORIES["embedded"] / CALIBRATION),
        "max_batch_tokens": 512,
        "num_cpus": 3,
        "num_threads": 2,
        "num_gpus": 0.5,
        "device": "cpu",
        "queued_tokens_per_replica": 9,
        "endpoints": 3,
        "max_documents": 7,
        "max_body_bytes": 4096,
        "max_wait_seconds": 2.5,
        "max_queued_tokens": 99,
        "deadline_seconds": 1.5,
        "api_keys_file": str(tmp_path / "keys.txt"),
        "cors_origins": "https://a.example,https://b.example",
    }
    flags = [word for name, value in settings.items() for word in ("--" + name.replace("_", "-"), value)]
    result = invoke(
        *("serve", "--port", port, "--model", "embedded", "--replicas", "2:5", "--host", "0.0.0.0", *flags),
        *("--strict-model", "--no-return-documents", "--allow-anonymous"),
    )
    assert result.exit_code == 0, result.output
    [start] = started
    switches = {"strict_model": True, "return_documents": False, "allow_anonymous": True}
    asked = {"min_replicas": 2, "max_replicas": 5} | switches | settings
    assert start.args == ServeArgs(**asked)
    assert set(asked) | {"model", "instruction"} == set(ServeArgs.model_fields)


def test_an_instruction_is_for_models_that_take_one(started: list[Server], port: int, tmp_path: Path) -> None:
    model = write_qwen(tmp_path / "model")
    assert invoke("serve", "--port", port, "--model", model, "--instruction", "find code").exit_code == 0
    assert started[0].args.instruction == "find code"
    refused = invoke("serve", "--port", port, "--instruction", "find code")
    assert (refused.exit_code, "take no instruction" in refused.output) == (2, True)


def test_every_setting_is_a_flag_of_the_help() -> None:
    text = invoke("serve", "--help").output
    fields = {name for panel in PANELS.values() for name in panel}
    assert fields == set(ServeArgs.model_fields) - {"min_replicas", "max_replicas", "num_cpus"}
    for name in fields | {"host", "port", "address", "replicas", "num_cpus"}:
        assert f"--{name.replace('_', '-')} " in text
    for panel in PANELS:
        assert f" {panel} " in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--replicas", "many"], "--replicas is 'many': Input should be a valid integer"),
        (["--replicas", "0"], "--replicas is '0': Input should be greater than or equal to 1"),
        (["--replicas", "4:2"], "max_replicas is 2, less than min_replicas (4)"),
        (["--max-documents", "0"], "--max-documents is 0: Input should be greater than or equal to 1"),
        (["--max-length", "3"], "max_length is 3; a pair needs at least 16 tokens"),
        (["--dtype", "int4"], "dtype is 'int4'; it is one of auto, float32, float16, bfloat16"),
        (["--model", "/no/model"], "there is no directory '/no/model' and it is no hub name"),
        (["--api-keys-file", "/no/keys"], "the API keys in /no/keys cannot be read"),
        (["--host", "192.0.2.1", "--allow-anonymous"], "cannot listen on 192.0.2.1"),
        (["--cors-origins", "a.example"], "cors_origins has 'a.example', and it has no scheme; an origin looks like"),
        (["--port", "70000"], "65535"),
        (["--no-such-flag"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_said_before_anything_starts(
    started: list[Server], port: int, flags: list[str], message: str
) -> None:
    result = invoke("serve", *(() if "--port" in flags else ("--port", port)), *flags)
    assert result.exit_code == 2
    assert message in result.output
    assert started == []


def test_a_port_in_use_is_said_before_anything_starts(started: list[Server], listening: int) -> None:
    result = invoke("serve", "--port", listening)
    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1, port {listening}: Address already in use" in result.output
    assert started == []


def test_a_port_is_not_asked_for_here_when_ray_is_elsewhere(started: list[Server], listening: int) -> None:
    assert invoke("serve", "--port", listening, "--address", "ray-head:6379").exit_code == 0
    assert (started[0].port, started[0].address) == (listening, "ray-head:6379")


def test_others_are_let_in_only_with_keys_or_on_purpose(
    started: list[Server], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = invoke("serve", "--port", port, "--host", "0.0.0.0")
    assert refused.exit_code == 2
    assert "host 0.0.0.0 lets others than this machine in, and there are no API keys" in refused.output
    assert started == []
    assert invoke("serve", "--port", port, "--host", "0.0.0.0", "--allow-anonymous").exit_code == 0
    made = new_key("page")
    monkeypatch.setenv("CROSSRAY_API_KEYS", made.line)
    assert invoke("serve", "--port", port, "--host", "0.0.0.0").exit_code == 0
    anonymous, with_keys = started
    assert anonymous.keys is None
    assert with_keys.keys is not None
    assert with_keys.keys.accepts(f"Bearer {made.key}")


def test_replicas_find_a_model_whose_path_was_relative(
    started: list[Server], port: int, bert_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bert_directory.parent)
    assert invoke("serve", "--port", port, "--model", "./bert").exit_code == 0
    assert started[0].args.model == str(bert_directory.resolve())
    assert started[0].args.name == "./bert"


@pytest.mark.parametrize(("model", "is_directory"), [("embedded", False), ("./embedded", True)])
def test_embedded_is_the_embedded_model_beside_a_directory_of_that_name(
    started: list[Server],
    port: int,
    bert_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    is_directory: bool,
) -> None:
    shutil.copytree(bert_directory, tmp_path / "embedded")
    monkeypatch.chdir(tmp_path)
    assert invoke("serve", "--port", port, "--model", model).exit_code == 0
    assert started[0].args.model == (str(tmp_path / "embedded") if is_directory else "embedded")


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:8000/"), ("::1", "http://[::1]:8000/"), ("0.0.0.0", "http://localhost:8000/")],
)
def test_the_command_says_where_everything_is(host: str, url: str) -> None:
    text = welcome(Server(ServeArgs(num_cpus=2, max_replicas=4), host, 8000, None, None))
    for said in (f"Page      {url}\n", f"{url}v1/rerank", f"{url}docs", f"{url}metrics", "none wanted", "1 to 4;"):
        assert said in text
    with_keys = welcome(Server(ServeArgs(), host, 8000, ApiKeys.parse(new_key().line, "test"), None))
    assert '-H "Authorization: Bearer $KEY"' in with_keys
    assert "1 accepted" in with_keys


def test_the_command_says_whether_scores_are_calibrated(started: list[Server], port: int, bert_directory: Path) -> None:
    for model in ("embedded", bert_directory):
        assert invoke("serve", "--port", port, "--model", model).exit_code == 0
    assert [one.is_calibrated for one in started] == [True, False]
    told = ["Scores    calibrated\n", "Scores    not calibrated, so score_threshold is refused by default\n"]
    assert [line in welcome(one) for line, one in zip(told, started, strict=True)] == [True, True]


def test_a_calibration_that_does_not_fit_is_refused_before_anything_starts(
    started: list[Server], port: int, bert_directory: Path, tmp_path: Path
) -> None:
    for file, told in (
        (EMBEDDED_DIRECTORIES["embedded"] / CALIBRATION, "the calibration was fitted for other files"),
        (tmp_path / "none.json", "cannot be read: No such file or directory"),
    ):
        ended = invoke("serve", "--port", port, "--model", bert_directory, "--calibration", file)
        assert (ended.exit_code, told in ended.output) == (2, True), ended.output
    assert started == []


def test_a_new_key_is_let_in_by_its_line_and_told_once() -> None:
    result = invoke("keys", "new", "--label", "search page")
    assert result.exit_code == 0
    key, line = result.stdout.splitlines()
    assert line.startswith("search page:")
    assert ApiKeys.parse(line, "test").accepts(f"Bearer {key}")
    assert key not in result.stderr
    assert "--api-keys-file" in result.stderr
    assert "a server that runs takes it within 5 s" in result.stderr
    assert invoke("keys", "new").stdout.splitlines()[0] != key


def test_a_label_that_no_line_can_hold_is_refused() -> None:
    result = invoke("keys", "new", "--label", "a:b")
    assert result.exit_code == 2
    assert "label 'a:b'" in result.output


def test_the_plug_ins_are_registered() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    plugins = project["entry-points"]["crossray.commands"]
    loaded = {name: EntryPoint(name, value, "crossray.commands").load() for name, value in plugins.items()}
    assert loaded == {"keys": keys, "serve": command}


def test_help_and_usage_errors_need_neither_torch_nor_ray() -> None:
    code = "import sys, serve.cli; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_requests_are_answered_too_when_the_end_comes_before_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port is open before Serve says that the app is up."""
    did: list[str] = []

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ray.serve, "start", lambda **_: did.append("start"))
    monkeypatch.setattr(ray.serve, "run", interrupt)
    monkeypatch.setattr(serve.cli, "drain", lambda app: did.append("drain"))
    run(Server(ServeArgs(), "127.0.0.1", 8000, None, None), Console(quiet=True))
    assert did == ["start", "drain"]


@pytest.mark.slow
def test_what_a_replica_refuses_is_said_without_a_traceback(bert_directory: Path, port: int, tmp_path: Path) -> None:
    """Damaged weights: they are found when the replica scores its first texts."""
    model = shutil.copytree(bert_directory, tmp_path / "model")
    tensors = read_weights(model)
    write_weights(model, {**tensors, "classifier.bias": torch.full_like(tensors["classifier.bias"], math.nan)})
    command = [sys.executable, "-m", "serve.cli", "--model", str(model), "--port", str(port)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert ended.returncode == USAGE
    said = " ".join((ended.stdout + ended.stderr).split())
    assert f"error: {model} gives nan for plain texts; its weights are damaged" in said
    assert "Traceback" not in said
