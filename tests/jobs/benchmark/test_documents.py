"""What `python -m jobs.benchmark documents` and `families` measure with; its figures are for idle machines, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.benchmark import prefixes
from jobs.benchmark.documents import LONGEST, PASSAGES, list_of
from jobs.benchmark.families import EQUAL, sides_of
from jobs.benchmark.lists import long_document, make_lists
from jobs.benchmark.random_models import Size, write_random_model, write_random_modernbert
from pipelines.reranker import Reranker

LISTS = make_lists(1, 6, long_document)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    directory = tmp_path_factory.mktemp("random")
    return Reranker.load(write_random_model(directory, Size(1, 32, 2, 48), LONGEST))


@pytest.mark.parametrize("length", [64, 512, LONGEST])
def test_pairs_have_the_tokens_that_a_row_says(random_model: Reranker, length: int) -> None:
    work = list_of(length, 2048)
    [prepared] = random_model.preparation.prepare([work], random_model.lengths)
    assert [len(pair.input_ids) for pair in prepared.pairs] == [length] * (2048 // length)


def test_a_random_model_tells_pairs_apart(random_model: Reranker) -> None:
    work = list_of(PASSAGES, 2048)
    scores = random_model.compute_score([(work.query, document) for document in work.documents])
    assert len(set(scores)) == len(work.documents)
    assert np.isfinite(scores).all()


def test_a_random_model_is_the_same_each_time(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
        write_random_model(folder, Size(1, 32, 2))
    one, other = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert one == other


def test_random_modernberts_score_alike_here_and_in_sentence_transformers(tmp_path: Path) -> None:
    """With their head in themselves and behind them; the benchmark of families compares these two."""
    for chained in (False, True):
        (folder := tmp_path / str(chained)).mkdir()
        sides, difference = sides_of(write_random_modernbert(folder, Size(4, 32, 2, 48), chained), LISTS, threads=1)
        assert difference < EQUAL
        assert len(sides["crossray"]()[0]) == len(LISTS[0].documents)


@pytest.mark.parametrize("model", prefixes.MODELS)
def test_a_language_model_gives_the_peers_logits_with_and_without_what_pairs_share(model: str, tmp_path: Path) -> None:
    write, prompt = prefixes.MODELS[model]
    sides, difference = prefixes.sides_of(write(tmp_path, layers=2, width=64), LISTS[0], 1, prompt)
    assert difference < prefixes.EQUAL
    assert len(sides[prefixes.OURS]()) == len(LISTS[0].documents)
