"""Sets without candidates: who searches their corpus, what is found, and what a search that was stopped leaves."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import jobs.evaluation.vectors
from jobs.errors import RefusedError, StoppedError
from jobs.evaluation.first_stage import FirstStage, with_candidates
from jobs.evaluation.screen import print_found
from jobs.evaluation.settings import EvaluateSettings, parse_first_stage
from jobs.settings import RerankSettings
from jobs.training.encoders import EncoderSettings
from jobs.training.label.teachers import Kind, Teacher
from pipelines.errors import ConfigError
from pipelines.evaluation.sets import BenchmarkSet, read_set
from pipelines.training.dense import DenseEncoder
from tests.checkpoints import words
from tests.jobs.evaluation.test_evaluate import evaluate
from tests.jobs.training.here import on_replicas_here
from tests.pipelines.evaluation.test_sets import write_set
from tests.stores import Bucket


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray, and a corpus in parts of ten documents."""
    monkeypatch.setattr(jobs.evaluation.vectors, "run_stage_on_replicas", on_replicas_here)
    monkeypatch.setattr(jobs.evaluation.vectors, "PART_TEXTS", 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four queries, of which the last has no relevant document; 45 documents, and 2 lines that are none."""
    corpus: list[Any] = [{"id": f"d{i}", "text": words(8, seed=i)} for i in range(45)]
    corpus += [{"id": "d45"}, {"id": "d3", "text": "another d3"}]
    queries = [{"id": f"q{i}", "text": words(3, seed=100 + i)} for i in range(4)]
    qrels = "q0\td7\t1\nq1\td3\t2\nq1\td44\t1\nq2\td45\t1\nq2\td0\t1\nq3\td1\t0\n"
    folder = write_set(tmp_path / "small", queries=queries, corpus=corpus, qrels=qrels)
    (folder / "candidates.parquet").unlink()
    return folder


def settings_of(first_stage: str | None, **changes: Any) -> EvaluateSettings:
    """An evaluation that asks for this first stage, and ranks seven documents."""
    asked = None if first_stage is None else parse_first_stage(first_stage)
    job = RerankSettings("", "", replicas=(1, 1), overwrite=changes.pop("overwrite", False))
    return EvaluateSettings(
        ("small",), job, "out", baselines=(Teacher(Kind.BM25),), first_stage=asked, **{"top_k": 7, **changes}
    )


def searched(folder: Path, room: object, first_stage: str | None = None, **changes: Any) -> tuple[BenchmarkSet, Any]:
    one = read_set(folder, with_candidates=False)
    stage = FirstStage.of(settings_of(first_stage, **changes))
    return with_candidates(one, sorted(one.grades), stage, str(room), Console(file=io.StringIO()))


def found_ids(one: BenchmarkSet) -> list[list[str]]:
    return [[document["id"] for document in row["documents"]] for row in one.candidates.to_pylist()]


def corpus_of(folder: Path) -> dict[str, str]:
    """The 45 documents that count."""
    lines = map(json.loads, (folder / "corpus.jsonl").read_text().splitlines()[:45])
    return {line["id"]: line["text"] for line in lines}


def by_cosine(folder: Path, directory: Path, count: int) -> list[list[str]]:
    """The best documents of q0 to q2 by all cosines, with the prefixes of e5."""
    encoder = DenseEncoder(directory)
    corpus = corpus_of(folder)
    queries = [json.loads(line)["text"] for line in (folder / "queries.jsonl").read_text().splitlines()][:3]
    vectors = encoder.encode([f"passage: {text}" for text in corpus.values()])
    cosines = encoder.encode([f"query: {text}" for text in queries]) @ vectors.T
    names = np.array(list(corpus))
    return [names[order].tolist() for order in np.argsort(-cosines, axis=1, kind="stable")[:, :count]]


E5 = EncoderSettings("", "query: ", "passage: ")


def test_a_dense_encoder_finds_what_all_cosines_rank_highest(
    folder: Path, tmp_path: Path, here: None, bert_directory: Path
) -> None:
    one, told = searched(folder, tmp_path / "room", f"dense:{bert_directory}", encoder=E5)
    assert found_ids(one) == by_cosine(folder, bert_directory, 7)
    texts = corpus_of(folder)
    documents = [document for row in one.candidates.to_pylist() for document in row["documents"]]
    assert all(document["text"] == texts[document["id"]] for document in documents)
    assert told["name"] == f"first stage (dense:{bert_directory})"
    assert told["encoders"][f"dense:{bert_directory}"]["query_prefix"] == "query: "
    assert "analyzer" not in told
    assert sorted(path.name for path in (tmp_path / "room" / "first-stage").iterdir()) == [
        "candidates.parquet",
        "settings.json",
    ]


def test_a_search_that_was_stopped_embeds_only_what_is_missing(
    folder: Path, tmp_path: Path, here: None, bert_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds what one finds that was not stopped; once it is done, nothing is searched again."""
    asked: list[list[str]] = []

    def stops_after(most: int) -> None:
        def run(stage: Any, argument: Any, items: Sequence[dict[str, Any]], *rest: Any, **more: Any) -> None:
            asked.append([item["part"] for item in items])
            on_replicas_here(stage, argument, items[:most], *rest, **more)
            if len(items) > most:
                raise StoppedError("the power went")

        monkeypatch.setattr(jobs.evaluation.vectors, "run_stage_on_replicas", run)

    first_stage = f"fusion:bm25,dense:{bert_directory}"
    whole, told = searched(folder, tmp_path / "whole", first_stage)
    assert told["analyzer"] == "stems-and-bigrams-2"
    stops_after(3)
    with pytest.raises(StoppedError):
        searched(folder, tmp_path / "room", first_stage)
    stops_after(9)
    again, _ = searched(folder, tmp_path / "room", first_stage)
    assert asked == [["queries", *(f"00000{i}" for i in range(5))], ["000002", "000003", "000004"]]
    assert again.candidates.equals(whole.candidates)
    stops_after(0)
    third, _ = searched(folder, tmp_path / "room", first_stage)
    assert third.candidates.equals(whole.candidates)
    assert len(asked) == 2


def test_a_search_leaves_what_it_found_in_an_object_store(
    folder: Path, tmp_path: Path, here: None, bert_directory: Path, s3_bucket: Bucket
) -> None:
    first_stage = f"fusion:bm25,dense:{bert_directory}"
    whole, _ = searched(folder, tmp_path / "whole", first_stage)
    there, _ = searched(folder, f"{s3_bucket.uri}/out/small", first_stage)
    assert there.candidates.equals(whole.candidates)
    assert sorted(s3_bucket.names()) == [
        "out/small/first-stage/candidates.parquet",
        "out/small/first-stage/settings.json",
    ]
    again, _ = searched(folder, f"{s3_bucket.uri}/out/small", first_stage)
    assert again.candidates.equals(whole.candidates)


def test_another_search_is_refused_and_may_replace_the_one_before(folder: Path, tmp_path: Path) -> None:
    before, _ = searched(folder, tmp_path / "room")
    with pytest.raises(RefusedError, match=r"holds what another search found \(other top_k\)"):
        searched(folder, tmp_path / "room", top_k=3)
    shorter, _ = searched(folder, tmp_path / "room", top_k=3, overwrite=True)
    assert found_ids(shorter) == [names[:3] for names in found_ids(before)]
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"id": "d99", "text": "one more"}\n')
    with pytest.raises(RefusedError, match=r"\(other corpus\)"):
        searched(folder, tmp_path / "room", top_k=3)


def test_a_search_does_not_go_on_with_files_of_which_nobody_says_whose_they_are(folder: Path, tmp_path: Path) -> None:
    """Such as those that an --overwrite left which was killed while it removed the search before."""
    before, _ = searched(folder, tmp_path / "room")
    place = tmp_path / "room" / "first-stage"
    for content in (None, "[]", "no JSON"):
        (place / "settings.json").unlink()
        if content is not None:
            (place / "settings.json").write_text(content)
        with pytest.raises(RefusedError, match=r"does not say by which search its files were made; .* --overwrite"):
            searched(folder, tmp_path / "room", top_k=3)
        assert (place / "candidates.parquet").exists()
        shorter, _ = searched(folder, tmp_path / "room", top_k=3, overwrite=True)
        assert found_ids(shorter) == [names[:3] for names in found_ids(before)]


def test_a_document_with_the_id_of_its_query_takes_no_place_among_the_candidates(folder: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.writelines(f"{json.dumps({'id': line['id'], 'text': line['text']})}\n" for line in lines[:2])
    all_found, _ = searched(folder, tmp_path / "all", top_k=8)
    (folder / "meta.json").write_text('{"ignores_identical_ids": true}')
    one, _ = searched(folder, tmp_path / "room")
    queries = one.candidates["query_id"].to_pylist()
    without = [
        [name for name in names if name != query] for query, names in zip(queries, found_ids(all_found), strict=True)
    ]
    assert found_ids(one) == [names[:7] for names in without]
    with pytest.raises(RefusedError, match=r"\(other ignores_identical_ids\)"):
        searched(folder, tmp_path / "all", top_k=8)


def test_questions_count_where_answers_are_the_judges(folder: Path, tmp_path: Path) -> None:
    """Of documents that are no candidates nobody knows whether they have an answer."""
    (folder / "qrels.tsv").unlink()
    texts = corpus_of(folder)
    rows = [{"id": "q0", "answers": [texts["d0"]]}, {"id": "q1", "answers": ["no such answer"]}]
    (folder / "answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    one, told = searched(folder, tmp_path / "room", top_k=45)
    answered = "d0" in found_ids(one)[0]
    assert told["found"] == {"recall": answered / 2, "queries_without": 2 - answered}
    said = io.StringIO()
    results = {"judged_by": one.judged_by, "queries": 2, "first_stage": told}
    print_found(Console(file=said, width=200), results)
    assert said.getvalue() == (
        f"first stage (bm25): {int(answered)} of 2 questions have an answer among the candidates; no order finds the "
        "others\n"
    )


def test_what_the_first_stage_never_found_is_told(folder: Path, tmp_path: Path) -> None:
    """d45 has no text: it is named, and a judgement of it is one of a document that is not there."""
    one, told = searched(folder, tmp_path / "room")
    assert [problem.what for problem in one.problems] == [
        "document 'd45' has no `text`",
        "has the id 'd3', which stands above already",
        "there is no document 'd45'",
    ]
    found, relevant = found_ids(one), [{"d7"}, {"d3", "d44"}, {"d0"}]
    hits = [len(some & set(names)) for some, names in zip(relevant, found, strict=True)]
    assert told["found"] == {
        "recall": pytest.approx(np.mean([hits[0], hits[1] / 2, hits[2]])),
        "relevant": 4,
        "relevant_found": sum(hits),
        "queries_without": hits.count(0),
    }
    given = write_set(tmp_path / "given")
    one, told = with_candidates(read_set(given), ["q1", "q2"], None, str(tmp_path), Console())
    assert told == {
        "name": "first stage",
        "found": {"recall": 1.0, "relevant": 2, "relevant_found": 2, "queries_without": 0},
    }


def test_texts_without_spaces_are_found_by_the_command(tmp_path: Path, cluster: str, bert_directory: Path) -> None:
    """A query without hits counts 0. Candidates that the set gets later are others than those that were found."""
    corpus = [
        {"id": "tokyo", "text": "東京の人口は約千四百万人である。"},
        {"id": "osaka", "text": "大阪は日本の都市である。"},
        {"id": "bangkok", "text": "กรุงเทพเป็นเมืองหลวงของประเทศไทย"},
    ]
    queries = [
        {"id": "ja", "text": "東京の人口は?", "lang": "ja"},
        {"id": "th", "text": "เมืองหลวงของไทย", "lang": "th"},
        {"id": "none", "text": "zebra", "lang": "en"},
    ]
    qrels = "ja\ttokyo\t1\nth\tbangkok\t1\nnone\tosaka\t1\n"
    written = {
        "queries": queries,
        "corpus": corpus,
        "qrels": qrels,
        "candidates": [{"query_id": "ja", "documents": []}],
    }
    folder = write_set(tmp_path / "cities", **written)
    (folder / "candidates.parquet").unlink()
    baselines = ("--baseline", f"dense:{bert_directory}", "--baseline", "bm25")
    arguments = (folder, *baselines, "--measure", "MRR@10", "--address", cluster)
    done = evaluate(*arguments, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "out" / "results.json").read_text())["sets"]["cities"]
    assert results["first_stage"] == {
        "name": "first stage (bm25)",
        "by": "bm25",
        "top_k": 100,
        "analyzer": "stems-and-bigrams-2",
        "found": {"recall": pytest.approx(2 / 3), "relevant": 3, "relevant_found": 2, "queries_without": 1},
    }
    assert results["rows"]["first stage"]["MRR@10"]["mean"] == pytest.approx(2 / 3)
    assert results["rows"]["bm25"] == results["rows"]["first stage"]  # by the same counts: those of the corpus
    assert results["unanswered"] == {f"dense:{bert_directory}": 0, "bm25": 0}
    assert results["without_list"] == 1
    assert "cities: 1 of 3 queries have no candidates; they count 0" in done.output
    assert "│ first stage (bm25) " in done.output
    assert "first stage (bm25): has 2 of the 3 relevant documents (recall 0.667); no order finds" in done.output
    lists = pq.read_table(tmp_path / "out" / "cities" / "lists.parquet")
    assert lists.column("query_id").to_pylist() == ["ja", "none", "th"]
    assert lists.column("documents")[1].as_py() == []

    assert evaluate(*arguments, "--output", tmp_path / "out").exit_code == 0
    pq.write_table(pa.Table.from_pylist(written["candidates"]), folder / "candidates.parquet")
    refused = evaluate(*arguments, "--output", tmp_path / "out")
    assert refused.exit_code == 3
    assert "lists.parquet holds other candidates" in refused.output


@pytest.mark.parametrize("text", ["bm26", "reranker:embedded", "fusion:bm25,reranker:embedded", "dense:"])
def test_who_cannot_search_is_no_first_stage(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--first-stage is '.*'; give bm25, dense:DIR, or fusion"):
        parse_first_stage(text)


def test_a_directory_that_is_not_there_is_told_before_anything_is_read(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--first-stage dense is 'nowhere', which is no directory"):
        FirstStage.of(settings_of("dense:nowhere"))
