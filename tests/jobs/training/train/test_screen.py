"""What a training says of its data before it begins, and of its figures at the end."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from jobs.training.train.config import Source, TrainConfig, Validation
from jobs.training.train.data import check_data, check_labels
from jobs.training.train.paths import RunFiles
from jobs.training.train.screen import FEW_LISTS, print_data, print_end
from jobs.training.train.shards import ShardReport
from pipelines.errors import ConfigError
from pipelines.training.recipe import Recipe

CONFIG = TrainConfig("embedded", "run", sources=(Source("clicks.parquet", "clicks"),), validation=Validation(0.03))


@pytest.mark.parametrize(
    ("labelled", "taught", "said"),
    [
        (0, 0, ["nor two different scores of a teacher, so this run is neither validated nor calibrated"]),
        (FEW_LISTS - 1, 900, [f"only {FEW_LISTS - 1} held-back list(s) can be measured"]),
        (FEW_LISTS, 0, []),
        (0, FEW_LISTS, ["the teacher's (Kendall's tau), and the scores are not calibrated"]),
        (0, 1, ["the teacher's (Kendall's tau)", "only 1 held-back list(s) can be measured"]),
    ],
)
def test_too_few_lists_to_measure_by_are_named_before_the_training(labelled: int, taught: int, said: list[str]) -> None:
    """Lists count that have labels, of all sources together; those of a teacher where there are no labels."""
    reports = [ShardReport(0, "a", 900, 900, 90, labelled, taught, 810), ShardReport(0, "b", 900, 900, 90)]
    written = io.StringIO()
    print_data(Console(file=written, width=400), CONFIG, reports)
    assert written.getvalue().count("note: ") == len(said)
    assert all(words in written.getvalue() for words in said)


@pytest.mark.parametrize(("lists", "said"), [(0, "not validated"), (1200, "validation on 1,200 lists")])
def test_the_end_says_on_how_many_lists_the_figures_are(lists: int, said: str) -> None:
    values = {"clicks": 0.5} if lists else {}
    summary = {"steps": 4, "planned_steps": 4, "pairs": 3072, "best_step": 4, "validation_lists": lists}
    figures = {"measure": "nDCG@10", "before": values, "after": values, "calibration_error": {}}
    written = io.StringIO()
    print_end(Console(file=written, width=200), RunFiles("run"), summary | figures)
    assert f"4 steps, 3,072 pairs; {said}" in written.getvalue()
    assert ("nDCG@10 before" in written.getvalue()) == bool(lists)
    assert "the weights of its base" not in written.getvalue()
    print_end(Console(file=written, width=400), RunFiles("run"), summary | figures | {"best_step": 0})
    assert "the model has the weights of its base" in written.getvalue()


def test_files_of_which_none_can_be_read_end_the_run_with_the_way_out() -> None:
    unreadable = [ShardReport(0, path, unreadable="there is no column 'query'") for path in "ab"]
    written = io.StringIO()
    print_data(Console(file=written, width=400), CONFIG, unreadable)
    assert "note: " not in written.getvalue()
    with pytest.raises(ConfigError, match=r"no file of any source could be read.*\[sources\.columns\]"):
        check_data(unreadable, None)
    with pytest.raises(ConfigError, match="no row of any source can be trained on"):
        check_data([*unreadable, ShardReport(0, "c", rows=5)], None)


def test_grades_above_1_cannot_be_learnt_as_probabilities() -> None:
    """The loss would have no least value: the logit of a grade 3 grows for ever."""
    reports = [ShardReport(0, "a.parquet", highest_label=1.0), ShardReport(0, "b.parquet", highest_label=3.0)]
    check_labels(CONFIG, reports)
    bce = replace(CONFIG, recipe=Recipe(steps=1, label_loss="bce"))
    check_labels(bce, reports[:1])
    with pytest.raises(ConfigError, match=r"b\.parquet has the label 3, and recipe\.label_loss is 'bce'"):
        check_labels(bce, reports)
