"""From Parquet sources to a model directory, with the commands that a user types."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pipelines import Reranker
from pipelines.calibration import CALIBRATION
from pipelines.training import export, kit, make_kit
from pipelines.training.base import load_base
from pipelines.training.teaching import TaughtList
from pipelines.training.token_lists import TokenList, TokenLists

WORDS = ["read", "write", "file", "list", "sort", "open"]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """One source of 240 rows whose positives repeat the query's word."""
    folder = tmp_path / "sources"
    folder.mkdir()
    rows = [
        {"query": f"{WORDS[i % 6]} {i}", "positive": f"{WORDS[i % 6]} {i % 40}", "negatives": [], "group": None}
        for i in range(240)
    ]
    types = {"query": pa.string(), "positive": pa.string(), "negatives": pa.list_(pa.string()), "group": pa.string()}
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(types.items()))), folder / "mbxp.parquet")
    (tmp_path / "stage.toml").write_text('[[sources]]\npath = "mbxp.parquet"\nlists = 1500\n')
    return folder


def run(main: Callable[..., None], *arguments: object, **options: Any) -> None:
    """Calls a module's `main` with a command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, arguments)])
        main(**options)


def test_sources_become_a_kit_and_a_kit_becomes_a_model(sources: Path, backbone: Path, tmp_path: Path) -> None:
    """The model has the weights that training left, up to Platt's scale, and `Reranker` loads it."""
    threads = torch.get_num_threads()
    longest = 30  # what the tiny model reads
    recipe = kit.Recipe(steps=9, lists_per_step=4, passages_per_list=4, max_query_length=8)
    folder, trained, model = tmp_path / "kit", tmp_path / "trained", tmp_path / "model"
    run(make_kit.main, tmp_path / "stage.toml", "--data", sources, "--base", backbone, "--dense", backbone,
        "--output", folder, "--depth", 6, "--scale", 0.1, "--unlabelled", 0.1, "--max-lengths", longest,
        recipe=recipe, held_back_share=0.2)  # fmt: skip
    lists = TokenLists.load(folder / "lists.npz")
    assert len(lists) == 150
    assert 0 < lists.held_back.sum() < 75
    assert kit.Kit.load(folder).recipe.max_lengths == (longest,)

    run(kit.main, "train", folder, trained, "--minutes", 1 / 60, "--device", "cpu")
    run(export.main, folder, trained, "--base", backbone, "--output", model)

    reranker = Reranker.load(str(model))
    [score] = reranker.compute_score([("read", "read 3")])
    assert 0 < score < 1
    theirs = load_file(model / "model.safetensors")["bert.encoder.layer.0.attention.output.dense.weight"].float()
    torch.testing.assert_close(theirs, kit.load_weights(trained)["layers.0.attention_out.weight"])
    assert {path.name for path in model.iterdir()} >= {"SHA256SUMS", "config.json", "model.safetensors"}
    calibration = reranker.calibration
    assert calibration is not None
    assert calibration.is_identity
    assert f"  {CALIBRATION}\n" in (model / "SHA256SUMS").read_text()

    with pytest.raises(ValueError, match="has no classification head"):
        export.export(folder, [str(trained), str(backbone)], str(backbone), tmp_path / "headless")

    run(export.main, folder, trained, folder, model, "--base", backbone, "--output", tmp_path / "mean")
    name, ours = "bert.encoder.layer.0.attention.output.dense.weight", "layers.0.attention_out.weight"
    begun = kit.load_weights(folder)[ours]
    assert not torch.equal(begun, theirs)
    mean = load_file(tmp_path / "mean" / "model.safetensors")[name].float()
    torch.testing.assert_close(mean, (theirs + begun + theirs) / 3, atol=1e-3, rtol=0)
    torch.set_num_threads(threads)


def test_a_training_that_is_told_to_end_saves_what_it_has(backbone: Path, tmp_path: Path) -> None:
    """Also where a shell made it ignore Ctrl-C, as shells do with what runs in the background."""
    write_kit(tmp_path / "kit", backbone, [1, 0])
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    command = [sys.executable, "-m", "pipelines.training.kit", "train", tmp_path / "kit", tmp_path / "trained"]
    for number in (signal.SIGTERM, signal.SIGINT):
        curve = tmp_path / "trained" / "curve.csv"
        before = curve.stat().st_size if curve.exists() else 0
        with subprocess.Popen(
            [*ignoring, *command, "--minutes", "5", "--of", "60", "--device", "cpu"],
            stdout=subprocess.PIPE,
            text=True,
        ) as training:
            while not curve.exists() or curve.stat().st_size == before:
                assert training.poll() is None
                time.sleep(0.05)
            training.send_signal(number)
            said, _ = training.communicate(timeout=60)
        assert training.returncode == kit.INTERRUPTED
        assert "the same command goes on from there" in said
    steps = [int(line.split(",")[0]) for line in curve.read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert json.loads((tmp_path / "trained" / "progress.json").read_text())["step"] >= steps[-1]


def write_kit(folder: Path, backbone: Path, labels: list[float]) -> Path:
    """Writes a kit of nine lists of two passages."""
    base = load_base(str(backbone))
    lists = TokenLists.of(TokenList([1], [[2], [3]], labels, [1, 0]) for _ in range(9))
    recipe = kit.Recipe(steps=9, lists_per_step=4, passages_per_list=2, max_lengths=(30,), max_query_length=8)
    kit.Kit(base.spec.shape, base.layout, recipe).save(folder, lists, base.encoder.state_dict())
    return folder


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `kit` says when it refuses a command line."""
    with pytest.raises(SystemExit):
        run(kit.main, *arguments, "--minutes", 0.001, "--device", "cpu")
    return capsys.readouterr().err


def test_a_training_does_not_go_on_with_another_kit(
    backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write_kit(tmp_path / "1", backbone, [1, 0]), write_kit(tmp_path / "2", backbone, [0, 1])
    run(kit.main, "train", first, tmp_path / "trained", "--minutes", 0.001, "--of", 9, "--device", "cpu")
    assert "was begun with another kit" in refusal(capsys, "train", second, tmp_path / "trained")
    run(kit.main, "train", first, tmp_path / "trained", "--minutes", 0.001, "--of", 9, "--device", "cpu")


@pytest.mark.parametrize(("name", "message"), [("lists.npz", "no token lists"), ("weights-0.bin", "are damaged")])
def test_half_a_file_of_a_kit_is_named(
    backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    folder = write_kit(tmp_path / "kit", backbone, [1, 0])
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert message in refusal(capsys, "train", folder, tmp_path / "trained")


def test_sources_of_several_stages_count_once(tmp_path: Path) -> None:
    (tmp_path / "1.toml").write_text('[[sources]]\npath = "a"\nlists = 5\n[[sources]]\npath = "b"\n')
    (tmp_path / "2.toml").write_text('[[sources]]\npath = "a"\nlists = 7\n')
    assert make_kit.sources_of([tmp_path / "1.toml", tmp_path / "2.toml"]) == {"a": 7, "b": make_kit.MOST_LISTS}
    (tmp_path / "2.toml").write_text('[[sources]]\npath = "a"\nheld_back = true\n')
    with pytest.raises(ValueError, match=r"2\.toml: source a has the key 'held_back'; a kit knows"):
        make_kit.sources_of([tmp_path / "2.toml"])


@pytest.fixture
def arguments(sources: Path, backbone: Path, tmp_path: Path) -> tuple[object, ...]:
    """The command line of a small kit of two sources, without its --output."""
    (tmp_path / "stage.toml").write_text('[[sources]]\npath = "mbxp.parquet"\n[[sources]]\npath = "late.parquet"\n')
    (sources / "late.parquet").write_bytes((sources / "mbxp.parquet").read_bytes())
    return (tmp_path / "stage.toml", "--data", sources, "--base", backbone, "--dense", backbone, "--scale", 0.002)


def test_a_kit_that_was_interrupted_goes_on_behind_the_sources_that_are_done(
    arguments: tuple[object, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, teach = tmp_path / "kit", make_kit.teach_source

    def interrupted(path: Path, *rest: Any, **more: Any) -> Any:
        if path.name == "late.parquet":
            raise KeyboardInterrupt
        return teach(path, *rest, **more)

    monkeypatch.setattr(make_kit, "teach_source", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(make_kit.main, *arguments, "--output", folder)
    monkeypatch.undo()
    assert "mbxp.parquet: 40 lists" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        run(make_kit.main, *arguments, "--output", folder, "--seed", 1)
    assert "was begun with other arguments or stages" in capsys.readouterr().err
    run(make_kit.main, *arguments, "--output", folder)
    assert "mbxp.parquet" not in capsys.readouterr().out
    run(make_kit.main, *arguments, "--output", tmp_path / "whole")
    for name in ("lists.npz", "kit.json", "settings.json"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {path.name for path in folder.iterdir()} == {"kit.json", "lists.npz", "settings.json", "weights-0.bin"}


def test_a_kit_that_is_complete_is_made_anew_only_when_told_so(
    arguments: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kit"
    run(make_kit.main, *arguments, "--output", folder)
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    capsys.readouterr()

    run(make_kit.main, *arguments, "--output", folder)
    assert capsys.readouterr().out == f"{folder} is complete; --overwrite makes it anew\n"
    with pytest.raises(SystemExit, match="2"):
        run(make_kit.main, *arguments, "--output", folder, "--seed", 1)
    assert "was begun with other arguments or stages" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made

    run(make_kit.main, *arguments, "--output", folder, "--seed", 1, "--overwrite")
    assert "late.parquet: 40 lists" in capsys.readouterr().out
    run(make_kit.main, *arguments, "--output", folder, "--seed", 1)
    assert "is complete" in capsys.readouterr().out

    (folder / "settings.json").unlink()  # a kit of an earlier version
    with pytest.raises(SystemExit, match="2"):
        run(make_kit.main, *arguments, "--output", folder)
    assert "does not say how it was made" in capsys.readouterr().err


def test_a_kit_is_refused_before_anything_is_made(
    arguments: tuple[object, ...], sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with other files (also with --overwrite), a source without its columns, and one that is missing."""

    def refused(*more: object) -> str:
        with pytest.raises(SystemExit, match="2"):
            run(make_kit.main, *arguments, *more)
        return capsys.readouterr().err

    assert "is there already and holds no kit" in refused("--output", sources, "--overwrite")
    pq.write_table(pa.table({"question": ["read"]}), sources / "late.parquet")
    assert "late.parquet has not the columns query and positive" in refused("--output", tmp_path / "kit")
    (sources / "late.parquet").unlink()
    assert "late.parquet" in refused("--output", tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


def test_a_kit_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(kit.main, "train", tmp_path / "absent", tmp_path / "trained", "--minutes", 1)
    assert "absent/kit.json" in capsys.readouterr().err


def test_a_kit_without_held_back_positives_cannot_be_calibrated(
    sources: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kit"
    run(make_kit.main, tmp_path / "stage.toml", "--data", sources, "--base", backbone, "--dense", backbone,
        "--output", folder, "--scale", 0.01, held_back_share=0.0)  # fmt: skip
    assert "0 of them are held back to calibrate on; `export` needs some" in capsys.readouterr().out
    (folder / "trained").mkdir()
    kit.save_weights(folder / "trained", kit.load_weights(folder))
    with pytest.raises(ValueError, match="no list is held back with a positive"):
        export.export(folder, [str(folder / "trained")], str(backbone), tmp_path / "model")


def test_a_model_that_orders_held_back_lists_backwards_is_not_exported(backbone: Path, tmp_path: Path) -> None:
    """A negative scale in its classifier would turn its order round. One of a head and its opposite is backwards."""
    base = load_base(str(backbone))
    lists = TokenLists.of(TokenList([1], [[2], [3, i]], [1, 0], [1, 0], held_back=True) for i in range(4, 20))
    recipe = kit.Recipe(steps=9, max_lengths=(30,), max_query_length=8)
    kit.Kit(base.spec.shape, base.layout, recipe).save(tmp_path / "kit", lists, base.encoder.state_dict())
    refused = []
    for name, sign in (("head", 1), ("opposite", -1)):
        (tmp_path / name).mkdir()
        head = {"head_out.weight": sign * base.encoder.head_out.weight.detach()}
        kit.save_weights(tmp_path / name, base.encoder.state_dict() | head)
        try:
            scale, _ = export.export(
                tmp_path / "kit", [str(tmp_path / name)], str(backbone), tmp_path / f"{name}-model"
            )
            assert scale > 0
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) == len(list(tmp_path.glob("*-model"))) == 1
    assert "have on average no higher logits than others (Platt's scale is -" in refused[0]


def test_a_kit_reads_texts_as_far_as_its_pairs_may_be_long(backbone: Path) -> None:
    taught = TaughtList("source", "zebra", ["zebra " * 2000], [1.0], [0.0])
    tokenizer = load_base(str(backbone)).tokenizer
    for length in (100, 1500):
        [one] = make_kit.token_lists([taught], tokenizer, random.Random(0), 0.0, length)
        assert len(one.passages[0]) == length


def test_a_kit_trains_where_there_is_nothing_but_torch_and_numpy() -> None:
    absent = ("tokenizers", "transformers", "safetensors", "pyarrow", "ray", "huggingface_hub", "bm25s", "tenacity")
    program = f"import sys; sys.modules |= dict.fromkeys({absent}); import pipelines.training.kit"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3])
