"""Training configs are read strictly: what is wrong is named with file, key and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.training.train.config import read_config
from jobs.training.train.planning import default_name, with_definite_paths
from pipelines.errors import ConfigError

STAGES = Path(__file__).parents[4] / "jobs" / "training" / "stages"
CONFIG = """
base = "embedded"
output = "run"

[recipe]
learning_rate = 1e-4

[[sources]]
path = "rows.parquet"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rte = 1", "recipe.learning_rte is no key here; did you mean learning_rate?"),
        ("xyz = 1", "recipe.xyz is no key here; known are steps, lists_per_step"),
        ("steps = 1.5", "recipe.steps is 1.5; it is a whole number"),
        ("steps = true", "recipe.steps is True; it is a whole number"),
        ("max_lengths = 128", "recipe.max_lengths is 128; it is a list"),
        ('max_lengths = ["a"]', "recipe.max_lengths[0] is 'a'; it is a whole number"),
        ('label_loss = "hinge"', "recipe.label_loss is 'hinge'; it is one of softmax"),
        ("[validation]\nshare = 2", "validation.share is 2.0; it lies between 0 and 1"),
        ("[validation]\nevry = 2", "validation.evry is no key here; did you mean every?"),
        ('[validation]\nkeep = "first"', "validation.keep is 'first'; it is 'best' or 'last'"),
        ('[validation]\nkeep = "last"\npatience = 3', "keep is 'last' and patience 3"),
        ("[workers]\ncount = 0", "workers.count is 0; it is at least 1"),
        ('[[sources]]\npth = "x"', "sources[0].pth is no key here; did you mean path?"),
        ('[[sources]]\npath = "x"\nlists = 0', "lists is 0; give at least 1"),
        ('[[sources]]\npath = "x"\n[sources.columns]\nqery = "q"', "columns.qery is no key here; did you mean query?"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, message: str) -> None:
    text = CONFIG.replace("learning_rate = 1e-4\n", f"learning_rate = 1e-4\n{line}\n")
    with pytest.raises(ConfigError) as error:
        read_config(write(tmp_path, text), {})
    assert message in str(error.value).replace("[1]", "[0]")
    assert "train.toml" in str(error.value)


def test_a_missing_file_and_what_is_no_toml_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml cannot be read: No such file"):
        read_config(tmp_path / "no.toml", {})
    with pytest.raises(ConfigError, match=r"train\.toml is no TOML"):
        read_config(write(tmp_path, "base = "), {})
    with pytest.raises(ConfigError, match="output is missing"):
        read_config(write(tmp_path, 'base = "embedded"'), {})


def test_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, CONFIG), {"recipe.steps": 7, "workers.count": 2, "base": None})
    assert (config.recipe.steps, config.workers.count, config.base) == (7, 2, "embedded")
    assert config.recipe.learning_rate == 1e-4


def test_embedded_is_the_embedded_model_beside_a_directory_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "embedded").mkdir()
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, CONFIG)
    assert with_definite_paths(read_config(file, {}), file).base == "embedded"
    file = write(tmp_path, CONFIG.replace('"embedded"', '"./embedded"'))
    assert with_definite_paths(read_config(file, {}), file).base == str(tmp_path / "embedded")


def test_epochs_and_steps_exclude_each_other_and_the_flag_replaces_both(tmp_path: Path) -> None:
    path = write(tmp_path, "epochs = 2\n" + CONFIG.replace("[recipe]", "[recipe]\nsteps = 7"))
    with pytest.raises(ConfigError, match=r"epochs and recipe\.steps are both given"):
        read_config(path, {})
    config = read_config(path, {"recipe.steps": 9})
    assert (config.epochs, config.recipe.steps) == (None, 9)


def test_a_value_where_a_table_belongs_is_named_with_a_flag_too(tmp_path: Path) -> None:
    path = write(tmp_path, 'base = "a"\noutput = "b"\nrecipe = 3')
    for overrides in ({}, {"recipe.steps": 5}):
        with pytest.raises(ConfigError, match="recipe is 3; it is a table"):
            read_config(path, overrides)


@pytest.mark.parametrize(
    "line",
    ["warm_up = 5", "teacher_scale = 0", "clip_norm = -1", "weight_decay = nan", "seed = -1", "label_share = 2"],
)
def test_values_that_make_no_sense_are_refused(tmp_path: Path, line: str) -> None:
    text = CONFIG.replace("learning_rate = 1e-4\n", f"learning_rate = 1e-4\n{line}\n")
    with pytest.raises(ConfigError, match=rf"recipe\.{line.split(maxsplit=1)[0]} is "):
        read_config(write(tmp_path, text), {})
    for rate in ("0", "-1", "nan", "inf"):
        with pytest.raises(ConfigError, match=r"recipe\.learning_rate is .*; it is a number above 0"):
            read_config(write(tmp_path, CONFIG.replace("1e-4", rate)), {})


@pytest.mark.parametrize("stage", sorted(STAGES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_four_stages_are_configs_and_begin_from_one_another(stage: Path) -> None:
    config = read_config(stage, {})
    number = int(stage.stem[0])
    assert config.sources
    assert config.output == f"runs/{stage.stem}"
    if number > 1:
        before = next(STAGES.glob(f"{number - 1}-*.toml"))
        assert config.base == f"./{read_config(before, {}).output}"
    assert all("not stated" not in source.licence for source in config.sources)


def test_a_source_is_called_by_its_file_and_a_glob_for_all_files_by_their_folder() -> None:
    paths = ("/logs/clicks.parquet", "/logs/2026-*.parquet", "/logs/*.parquet", "/logs/*", "s3://bucket/logs/*.parquet")
    assert [default_name(path) for path in paths] == ["clicks", "2026-*", "logs", "logs", "logs"]
