"""`crossray models`: its table stands in the README and the docs as it is, and names families that there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.families import spec_of
from pipelines.model_sources import find_model
from pipelines.published import PUBLISHED, as_markdown
from tests.checkpoints import (
    write_camembert,
    write_deberta,
    write_electra,
    write_gemma,
    write_gte,
    write_jina_v1,
    write_nemotron,
    write_qwen,
    write_roberta,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_pages_have_the_table_that_the_command_prints(page: str) -> None:
    printed = CliRunner().invoke(app, ["models", "--markdown"])
    assert printed.exit_code == 0
    assert printed.output == as_markdown()
    assert f"\n{printed.output}\n" in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_gets_every_name_whole(columns: int) -> None:
    printed = CliRunner().invoke(app, ["models"], env={"COLUMNS": str(columns)})
    assert printed.exit_code == 0
    assert [line[2:] for line in printed.output.splitlines() if line.startswith("  ")] == [
        name for one in PUBLISHED for name in one.models
    ]


def test_the_families_are_those_that_models_are_of(
    bert_directory: Path,
    modernbert_directory: Path,
    jina_v2_directory: Path,
    xlm_roberta_directory: Path,
    tmp_path: Path,
) -> None:
    directories = [bert_directory, modernbert_directory, jina_v2_directory, xlm_roberta_directory]
    writers = [write_camembert, write_deberta, write_electra, write_gemma, write_gte, write_jina_v1, write_nemotron]
    directories += [write(tmp_path / write.__name__) for write in (*writers, write_roberta)]
    directories += [write_qwen(tmp_path / kind, kind) for kind in ("qwen3", "qwen2")]
    assert {one.layout for one in PUBLISHED} == {spec_of(find_model(str(path))).layout for path in directories}
