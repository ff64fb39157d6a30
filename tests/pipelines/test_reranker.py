"""Texts in, rankings out: what is cut where, what is counted, what is an error, and in which order documents come."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import RerankerConfig
from pipelines.engine import CrossEncoder
from pipelines.errors import ConfigError, InvalidInputError
from pipelines.packing import TokenPair
from pipelines.preparation import windows_by_characters
from pipelines.ranking import sigmoid
from pipelines.records import CandidateList, Ranking, ScoringTime, Usage
from pipelines.reranker import Reranker
from pipelines.tokens import PairTokenizer
from tests.checkpoints import WORDS, copy_model, read_weights, words, write_weights

TOLERANCE = 1e-4
POISON = "zebra"


class RecordingEngine(CrossEncoder):
    """The real engine, which also keeps the pairs it was given."""

    def __init__(self, engine: CrossEncoder) -> None:
        super().__init__(engine.encoder, engine.spec)
        self.pairs: list[TokenPair] = []

    def logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        self.pairs += pairs
        return super().logits(pairs)


def recording(reranker: Reranker, **settings: Any) -> tuple[Reranker, list[TokenPair]]:
    """The same reranker with other settings, and the pairs that will go through its model."""
    engine = RecordingEngine(reranker.engine)
    config = RerankerConfig(model=reranker.config.model, **settings)
    return Reranker(engine, reranker.tokenizer, config, reranker.files), engine.pairs


def with_settings(reranker: Reranker, **settings: Any) -> Reranker:
    return recording(reranker, **settings)[0]


def ids(reranker: Reranker, text: str) -> list[int]:
    return [int(token_id) for token_id in reranker.tokenizer.token_ids([text])[0]]


def as_read(pairs: Sequence[TokenPair]) -> list[list[int]]:
    return [[int(token_id) for token_id in pair.input_ids] for pair in pairs]


def scores(ranking: Ranking) -> dict[int, float]:
    """Score by index."""
    return {document.index: document.relevance_score for document in ranking.documents}


class TestChunks:
    """What `rerank` sends through the model."""

    def test_the_worked_example(self, jina_v2: Reranker) -> None:
        """A query of 20 tokens with its special ones, a document of 3,000: four chunks of 1,002 tokens."""
        reranker, pairs = recording(jina_v2)
        query, document = words(18), words(3000, seed=1)

        reranker.rerank(query, [document])

        q, d = ids(jina_v2, query), ids(jina_v2, document)
        windows = [(0, 1002), (922, 1924), (1844, 2846), (1998, 3000)]
        assert as_read(pairs) == [[0, *q, 2, 2, *d[start:end], 2] for start, end in windows]

    def test_bert_chunks_have_their_own_template_and_segments(self, bert: Reranker) -> None:
        """64 tokens less 10 of the query and 3 special ones leave 51; neighbours share a quarter, 12."""
        reranker, pairs = recording(bert, max_length=64)
        query, document = words(10), words(120, seed=1)

        reranker.rerank(query, [document])

        q, d = ids(bert, query), ids(bert, document)
        assert as_read(pairs) == [[2, *q, 3, *d[start:end], 3] for start, end in [(0, 51), (39, 90), (69, 120)]]
        assert [list(pair.token_type_ids or ()) for pair in map(as_lists, pairs)] == [[0] * 12 + [1] * 52] * 3

    @pytest.mark.parametrize("family", ["bert", "jina_v2"])
    @given(query_tokens=st.integers(1, 60), document_tokens=st.integers(0, 300), overlap=st.integers(0, 40))
    @settings(max_examples=25)
    def test_window_and_chunk_count(
        self, family: str, request: pytest.FixtureRequest, query_tokens: int, document_tokens: int, overlap: int
    ) -> None:
        """window = max_length - kept query - template; chunks = 1 + ceil((n - w) / (w - overlap))."""
        reranker, pairs = recording(
            request.getfixturevalue(family), max_length=64, max_query_length=24, overlap_tokens=overlap
        )
        window = 64 - min(query_tokens, 22) - reranker.tokenizer.template.size
        stride = window - min(overlap, window // 4)

        reranker.rerank(words(query_tokens), [words(document_tokens)])

        assert len(pairs) == 1 + max(0, math.ceil((document_tokens - window) / stride))
        assert max(len(pair.input_ids) for pair in pairs) <= 64
        assert len(pairs) == 1 or {len(pair.input_ids) for pair in pairs} == {64}

    def test_a_document_scores_as_its_best_chunk(self, reranker: Reranker) -> None:
        recorder, pairs = recording(reranker, max_length=48, raw_scores=True)

        [ranked] = recorder.rerank(words(5), [words(200, seed=2)])

        assert len(pairs) > 4
        assert ranked.relevance_score == pytest.approx(reranker.engine.logits(pairs).max(), abs=TOLERANCE)

    def test_chunks_beyond_the_limit_are_cut_and_counted(self, bert: Reranker) -> None:
        reranker, pairs = recording(bert, max_length=64, max_chunks_per_doc=2)
        query, long = words(10), words(120, seed=1)

        [ranking] = reranker.rerank_lists([CandidateList(query, [long, words(20), words(90)])])

        assert as_read(pairs)[:2] == [[2, *ids(bert, query), 3, *ids(bert, long)[s : s + 51], 3] for s in (0, 39)]
        assert (ranking.usage.chunks, ranking.usage.cut_documents) == (5, 1)

    def test_the_limit_of_chunks_can_be_given_per_call(self, bert: Reranker) -> None:
        [ranking] = bert.rerank_lists([CandidateList("apple", [words(2000)])], max_length=64, max_chunks_per_doc=1)

        assert (ranking.usage.chunks, ranking.usage.cut_documents) == (1, 1)

    def test_a_long_query_is_cut_and_counted(self, reranker: Reranker) -> None:
        """`max_query_length` counts the two special tokens of a query that stands alone."""
        recorder, pairs = recording(reranker, max_query_length=20)
        start, separator = recorder.tokenizer.template.first[0], recorder.tokenizer.template.last[0]

        long, short = recorder.rerank_lists([CandidateList(words(19), ["apple"]), CandidateList(words(18), ["apple"])])

        assert as_read(pairs)[0][:20] == [start, *ids(reranker, words(19))[:18], separator]
        assert (long.usage.cut_queries, short.usage.cut_queries) == (1, 0)

    def test_lengths_of_a_call_override_the_configured_ones(self, jina_v2: Reranker) -> None:
        recorder, pairs = recording(jina_v2)

        recorder.rerank(words(30), [words(100)], max_query_length=12, max_length=40, overlap_tokens=0)

        window = 40 - 10 - 4
        starts = [0, window, 2 * window, 100 - window]
        q, d = ids(jina_v2, words(30))[:10], ids(jina_v2, words(100))
        assert as_read(pairs) == [[0, *q, 2, 2, *d[s : s + window], 2] for s in starts]


def as_lists(pair: TokenPair) -> TokenPair:
    segments = pair.token_type_ids
    return TokenPair(list(pair.input_ids), None if segments is None else list(segments))


class TestComputeScore:
    """One pass per pair, no chunks."""

    @pytest.mark.parametrize(
        ("query_tokens", "document_tokens", "kept_query", "kept_document"),
        [
            pytest.param(5, 10, 5, 10, id="fits"),
            pytest.param(14, 14, 14, 14, id="just fits"),
            pytest.param(5, 100, 5, 23, id="passage cut"),
            pytest.param(40, 100, 14, 14, id="both cut"),
            pytest.param(40, 3, 14, 3, id="query cut alone"),
            pytest.param(1, 100, 1, 27, id="a query of one token"),
            pytest.param(3, 0, 3, 0, id="no passage"),
        ],
    )
    def test_the_passage_is_cut_and_the_query_only_beyond_half(
        self, jina_v2: Reranker, query_tokens: int, document_tokens: int, kept_query: int, kept_document: int
    ) -> None:
        """32 tokens: 4 special ones, at most 14 of the query (16 with its own two), the rest of the passage."""
        recorder, pairs = recording(jina_v2)
        query, document = words(query_tokens), words(document_tokens, seed=1)

        recorder.compute_score([(query, document)], max_length=32)

        q, d = ids(jina_v2, query)[:kept_query], ids(jina_v2, document)[:kept_document]
        assert as_read(pairs) == [[0, *q, 2, 2, *d, 2]]

    @given(query_tokens=st.integers(1, 80), document_tokens=st.integers(0, 80), max_length=st.integers(16, 100))
    @settings(max_examples=40)
    def test_a_pair_never_exceeds_its_length_and_uses_it(
        self, bert: Reranker, query_tokens: int, document_tokens: int, max_length: int
    ) -> None:
        recorder, pairs = recording(bert)

        recorder.compute_score([(words(query_tokens), words(document_tokens))], max_length=max_length)

        kept_query = min(query_tokens, max_length // 2 - 2)
        assert [len(pair.input_ids) for pair in pairs] == [min(kept_query + document_tokens + 3, max_length)]

    def test_scores_come_in_the_order_of_the_pairs(self, reranker: Reranker) -> None:
        pairs = [(words(3, seed=i), words(1 + 9 * (i % 4), seed=i)) for i in range(10)]

        together = reranker.compute_score(pairs)

        alone = [reranker.compute_score([pair])[0] for pair in pairs]
        assert together == pytest.approx(alone, abs=TOLERANCE)

    def test_it_agrees_with_rerank_where_nothing_is_cut(self, reranker: Reranker) -> None:
        documents = [words(2 + 5 * i, seed=i) for i in range(6)]

        ranked = reranker.rerank("apple bread", documents)

        expected = reranker.compute_score([("apple bread", document) for document in documents])
        by_index = sorted(ranked, key=lambda document: document.index)
        assert [document.relevance_score for document in by_index] == pytest.approx(expected, abs=TOLERANCE)

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_the_answer_is_always_a_list_of_floats(self, bert: Reranker, count: int) -> None:
        answer = bert.compute_score([("apple", "bread")] * count)

        assert isinstance(answer, list)
        assert [type(score) for score in answer] == [float] * count

    @pytest.mark.parametrize("max_length", [15, 3, 0, -1])
    def test_a_length_that_cannot_work_is_refused(self, bert: Reranker, max_length: int) -> None:
        with pytest.raises(ConfigError, match=f"max_length is {max_length}"):
            bert.compute_score([("apple", "bread")], max_length=max_length)

    @pytest.mark.parametrize(
        ("pair", "message"),
        [
            (("apple", "bre\ud800ad"), r"invalid_unicode: document of sentence_pairs\[1\]"),
            (("\ud800", "bread"), r"invalid_unicode: query of sentence_pairs\[1\]"),
            (("apple", None), r"not_text: document of sentence_pairs\[1\] is NoneType"),
            ((" ", "bread"), r"blank_query: query of sentence_pairs\[1\] has nothing but white space"),
            (("apple", POISON), r"non_finite_score: .* sentence_pairs\[1\]"),
        ],
        ids=["surrogate in the document", "surrogate in the query", "no text", "blank", "non-finite"],
    )
    def test_a_pair_that_cannot_be_scored_is_named(
        self, poisoned: Reranker, pair: tuple[str, Any], message: str
    ) -> None:
        with pytest.raises(InvalidInputError, match=message):
            poisoned.compute_score([("apple", "bread"), pair, ("apple", "candle")])

    @pytest.mark.parametrize(
        "pairs", [["apple", "bread"], ["ab", "cd"], [("apple", "bread", "candle")], [5], [None], [{"a", "b"}]], ids=str
    )
    def test_what_is_no_pair_is_refused(self, bert: Reranker, pairs: Any) -> None:
        """Two strings of two letters are not two pairs of letters."""
        with pytest.raises(InvalidInputError, match=r"not_a_pair: sentence_pairs\[0\]"):
            bert.compute_score(pairs)

    @pytest.mark.parametrize("pairs", [None, iter([("apple", "bread")])], ids=["null", "an iterator"])
    def test_pairs_without_an_order_or_a_length_are_refused(self, bert: Reranker, pairs: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"not_a_list: sentence_pairs is .*; give \[\(query, document\)"):
            bert.compute_score(pairs)


class TestSignatures:
    """What an editor completes."""

    def test_load_spells_out_the_settings_with_their_defaults(self) -> None:
        spelled = inspect.signature(Reranker.load).parameters
        assert {name: one.default for name, one in spelled.items()} == {
            field.name: field.default for field in fields(RerankerConfig)
        }
        assert [name for name, one in spelled.items() if one.kind is not inspect.Parameter.KEYWORD_ONLY] == ["model"]

    def test_lengths_and_top_n_are_given_by_name(self, bert: Reranker) -> None:
        with pytest.raises(TypeError, match="positional"):
            bert.rerank("apple", ["bread"], 10)  # type: ignore[misc]
        with pytest.raises(TypeError, match="positional"):
            bert.compute_score([("apple", "bread")], 10)  # type: ignore[misc]


class TestOrder:
    """Best first by logit, ties by input order, `top_n` of them."""

    def test_documents_come_best_first_with_index_and_text(self, reranker: Reranker) -> None:
        documents = [words(6, seed=i) for i in range(12)]

        ranked = reranker.rerank("apple bread", documents)

        assert sorted(document.index for document in ranked) == list(range(12))
        assert all(document.document == documents[document.index] for document in ranked)
        assert all(first.relevance_score >= second.relevance_score for first, second in pairwise(ranked))
        assert all(0 <= document.relevance_score <= 1 for document in ranked)

    def test_ties_keep_the_order_of_the_input(self, reranker: Reranker) -> None:
        documents = ["bread", "candle", "bread", "candle", "bread"]

        order = [document.index for document in reranker.rerank("apple", documents)]

        assert order in ([0, 2, 4, 1, 3], [1, 3, 0, 2, 4])

    def test_the_order_is_by_logit_where_the_sigmoid_is_one(self, xlm_roberta: Reranker, tmp_path: Path) -> None:
        directory = copy_model(xlm_roberta.files.directory, tmp_path / "sure")
        tensors = read_weights(directory)
        tensors["classifier.out_proj.bias"] += 40
        write_weights(directory, tensors)
        sure = Reranker.load(str(directory), device="cpu")
        documents = [words(5, seed=i) for i in range(10)]

        ranked = sure.rerank("apple", documents)

        assert {document.relevance_score for document in ranked} == {1.0}
        expected = [document.index for document in xlm_roberta.rerank("apple", documents)]
        assert [document.index for document in ranked] == expected != sorted(expected)

    def test_raw_scores_are_the_logits(self, reranker: Reranker) -> None:
        raw = with_settings(reranker, raw_scores=True)
        pairs = [("apple", words(4, seed=i)) for i in range(4)]

        logits = np.array(raw.compute_score(pairs))

        assert reranker.compute_score(pairs) == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)

    @pytest.mark.parametrize(("top_n", "expected"), [(None, 5), (1, 1), (3, 3), (5, 5), (50, 5)])
    def test_top_n(self, bert: Reranker, top_n: int | None, expected: int) -> None:
        documents = [words(3, seed=i) for i in range(5)]

        ranked = bert.rerank("apple", documents, top_n=top_n)

        assert ranked == bert.rerank("apple", documents)[:expected]

    @pytest.mark.parametrize("top_n", [0, -1])
    def test_top_n_below_one_is_refused(self, bert: Reranker, top_n: int) -> None:
        with pytest.raises(ConfigError, match=f"top_n is {top_n}"):
            bert.rerank("apple", ["bread"], top_n=top_n)


class TestLists:
    """Many lists at once: each as if it were alone."""

    LISTS = tuple(
        CandidateList(words(1 + i % 6, seed=i), [words((7 * i + 11 * j) % 40, seed=i + j) for j in range(i % 5)])
        for i in range(15)
    )

    def test_a_list_ranks_the_same_alone_and_among_others(self, reranker: Reranker) -> None:
        together = reranker.rerank_lists(self.LISTS)

        for one, ranking in zip(self.LISTS, together, strict=True):
            [alone] = reranker.rerank_lists([one])
            assert scores(ranking) == pytest.approx(scores(alone), abs=TOLERANCE)
            assert ranking.usage == alone.usage

    def test_a_tuple_is_a_list_too(self, bert: Reranker) -> None:
        tuples = [(one.query, one.documents) for one in self.LISTS]

        assert bert.rerank_lists(tuples) == bert.rerank_lists(self.LISTS)

    @pytest.mark.parametrize("given", ["apple", {"query": "apple"}, ("apple", ["bread"], 3)], ids=str)
    def test_what_is_no_list_is_refused_with_what_is_wanted(self, bert: Reranker, given: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"not_a_list: candidate_lists\[1\] is .*; give CandidateList\("):
            bert.rerank_lists([self.LISTS[0], given])

    @pytest.mark.parametrize("query", ["", " \n\u3000"])
    def test_a_blank_query_is_refused(self, bert: Reranker, query: str) -> None:
        """As by the job and the server."""
        with pytest.raises(InvalidInputError, match="blank_query: query has nothing but white space"):
            bert.rerank(query, ["bread"])

    def test_windows_of_texts_change_nothing(self, bert: Reranker) -> None:
        expected = bert.rerank_lists(self.LISTS)

        actual = Reranker(bert.engine, bert.tokenizer, bert.config, bert.files, window_characters=300).rerank_lists(
            self.LISTS
        )

        assert [ranking.usage for ranking in actual] == [ranking.usage for ranking in expected]
        for one, other in zip(actual, expected, strict=True):
            assert scores(one) == pytest.approx(scores(other), abs=TOLERANCE)

    def test_no_lists(self, bert: Reranker) -> None:
        assert bert.rerank_lists([]) == []

    def test_no_documents_is_an_empty_ranking_without_error(self, bert: Reranker) -> None:
        [ranking] = bert.rerank_lists([CandidateList("apple bread", [])])

        assert ranking == Ranking([], Usage(tokens=4))
        assert bert.rerank("apple", []) == []

    @pytest.mark.parametrize("document", ["", " ", "\n\t", "\u200b"], ids=ascii)
    def test_an_empty_or_blank_document_is_scored(self, reranker: Reranker, document: str) -> None:
        ranked = reranker.rerank("apple", ["bread", document])

        assert sorted(one.index for one in ranked) == [0, 1]
        assert all(math.isfinite(one.relevance_score) for one in ranked)

    @pytest.mark.parametrize(
        ("broken", "error"),
        [
            (CandidateList("apple", ["bread", "can\udfffdle"]), "invalid_unicode: documents[1] "),
            (CandidateList("\ud800", ["bread"]), "invalid_unicode: query "),
            (CandidateList("apple", ["bread", None]), "not_text: documents[1] is NoneType"),  # type: ignore[list-item]
            (CandidateList(None, ["bread"]), "not_text: query is NoneType"),  # type: ignore[arg-type]
            (CandidateList("apple", "bread"), "not_a_list: documents is one string"),
            (CandidateList("apple", None), "not_a_list: documents is of type NoneType; give a list"),  # type: ignore[arg-type]
            (CandidateList("apple", {"bread"}), "not_a_list: documents is of type set; give a list"),  # type: ignore[arg-type]
            (CandidateList("apple", ["bread", "candle", POISON]), "non_finite_score: the model gave nan"),
            (CandidateList(f"apple {POISON}", ["bread"]), "non_finite_score: the model gave nan for documents[0]"),
        ],
        ids=lambda value: value.split(" ")[0] if isinstance(value, str) else "",
    )
    def test_a_list_that_cannot_be_ranked_has_an_error_and_the_others_go_on(
        self, poisoned: Reranker, broken: CandidateList, error: str
    ) -> None:
        before, after = CandidateList("apple", ["bread", "candle"]), CandidateList("desert", [words(9), "", words(3)])

        first, second, third = poisoned.rerank_lists([before, broken, after])

        assert second.error is not None
        assert second.error.startswith(error)
        assert second.documents == []
        for ranking, one in ((first, before), (third, after)):
            assert ranking.error is None
            assert scores(ranking) == pytest.approx(scores(poisoned.rerank_lists([one])[0]), abs=TOLERANCE)

    def test_the_error_of_the_only_list_is_raised(self, bert: Reranker) -> None:
        with pytest.raises(InvalidInputError, match=r"invalid_unicode: documents\[0\]"):
            bert.rerank("apple", ["\ud800"])

    def test_one_bad_chunk_spoils_its_document(self, poisoned: Reranker) -> None:
        [ranking] = poisoned.rerank_lists([CandidateList("apple", [f"{words(100)} {POISON}"])], max_length=32)

        assert ranking.error is not None
        assert ranking.error.startswith("non_finite_score")

    @pytest.mark.parametrize(
        ("name", "value"),
        [("max_length", 4), ("max_query_length", 0), ("overlap_tokens", -1), ("max_chunks_per_doc", 0)],
    )
    def test_lengths_that_cannot_work_are_refused(self, bert: Reranker, name: str, value: int) -> None:
        with pytest.raises(ConfigError, match=f"{name} is {value}"):
            bert.rerank_lists([CandidateList("apple", ["bread"])], **{name: value})  # type: ignore[arg-type]

    @given(
        sizes=st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=12),
        limit=st.integers(1, 80),
    )
    def test_windows_hold_every_list_once_in_order(self, sizes: list[list[int]], limit: int) -> None:
        lists = [CandidateList(str(i), ["x" * size for size in documents]) for i, documents in enumerate(sizes)]

        windows = list(windows_by_characters(lists, limit))

        assert [one for window in windows for one in window] == lists
        assert all(windows)


@pytest.fixture(scope="module")
def poisoned(bert_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    """A BERT for which one word is not a number."""
    directory = copy_model(bert_directory, tmp_path_factory.mktemp("models") / "poisoned")
    tensors = read_weights(directory)
    healthy = Reranker.load(str(bert_directory), device="cpu")
    [row] = ids(healthy, POISON)
    tensors["bert.embeddings.word_embeddings.weight"][row] = float("nan")
    return Reranker.load(str(write_weights(directory, tensors)), device="cpu")


class TestUsage:
    def test_tokens_count_whole_texts_with_their_own_special_tokens(self, reranker: Reranker) -> None:
        """Query once, each document once, uncut and unchunked: Jina's rule."""
        lists = [CandidateList(words(30), [words(100), words(5), ""]), CandidateList(words(2), [words(3)])]

        first, second = (ranking.usage for ranking in reranker.rerank_lists(lists, max_length=32))

        assert first.tokens == 32 + 102 + 7 + 2
        assert second == Usage(tokens=9, pairs=1, chunks=1)

    def test_it_adds_up(self, reranker: Reranker) -> None:
        rankings = reranker.rerank_lists(TestLists.LISTS, max_length=32)

        total = sum((ranking.usage for ranking in rankings), Usage())
        assert total.pairs == sum(len(one.documents) for one in TestLists.LISTS)
        assert total.chunks > total.pairs
        texts = [text for one in TestLists.LISTS for text in (one.query, *one.documents)]
        assert total.tokens == sum(len(text.split()) + 2 for text in texts)


class TestClamping:
    """Lengths above the model's limit are clamped, shown and said once."""

    def test_the_default_is_clamped_quietly(self, bert_directory: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="pipelines"):
            reranker = Reranker.load(str(bert_directory), device="cpu")

        assert (reranker.lengths.max_length, reranker.lengths.max_query_length) == (512, 256)
        reranker.rerank("a query", ["a document"], max_length=256)  # halves the default max_query_length

        assert caplog.records == []

    def test_a_chosen_length_is_clamped_with_a_warning(self, bert: Reranker, caplog: pytest.LogCaptureFixture) -> None:
        reranker = with_settings(bert, max_length=2000, max_query_length=1000)
        for _ in range(3):
            reranker.rerank("apple", ["bread"])
            reranker.rerank("apple", ["bread"], max_length=2000, max_query_length=1000)

        assert (reranker.lengths.max_length, reranker.lengths.max_query_length) == (512, 256)
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    def test_half_of_the_length_is_the_most_a_query_gets(self, jina_v2: Reranker) -> None:
        assert with_settings(jina_v2, max_length=101, max_query_length=90).lengths.max_query_length == 50

    def test_lengths_within_the_limit_stay(self, jina_v2: Reranker, caplog: pytest.LogCaptureFixture) -> None:
        lengths = with_settings(jina_v2).lengths

        assert (lengths.max_length, lengths.max_query_length, lengths.overlap_tokens) == (1024, 512, 80)
        assert not caplog.records

    def test_a_length_above_the_limit_scores_as_the_limit(self, bert: Reranker) -> None:
        documents = [words(700, seed=1), words(20)]

        assert bert.rerank("apple", documents, max_length=5000) == bert.rerank("apple", documents, max_length=512)


class Clock:
    """Stands still, unless it is moved on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowTokenizer(PairTokenizer):
    """Takes a second for each call: one for the queries of a window, one for its documents."""

    def __init__(self, tokenizer: PairTokenizer, clock: Clock) -> None:
        self.clock = clock
        super().__init__(tokenizer.tokenizer, tokenizer.template)

    def token_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.clock.now += 1
        return super().token_ids(texts)


class SlowEngine(CrossEncoder):
    """Takes ten seconds for the pairs of a window."""

    def __init__(self, engine: CrossEncoder, clock: Clock) -> None:
        super().__init__(engine.encoder, engine.spec)
        self.clock = clock

    def logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        self.clock.now += 10
        return super().logits(pairs)


def test_the_seconds_of_tokenizer_and_model_are_told_apart_and_add_up(bert: Reranker) -> None:
    """Over the windows of a call, of which each list has one here, and over calls."""
    clock = Clock()
    tokenizer, engine = SlowTokenizer(bert.tokenizer, clock), SlowEngine(bert.engine, clock)
    reranker = Reranker(engine, tokenizer, bert.config, bert.files, window_characters=1, clock=clock)
    lists = [CandidateList("apple", [words(3)])] * 2
    spent = ScoringTime()

    assert reranker.rerank_lists(lists, spent=spent) == reranker.rerank_lists(lists)
    assert spent == ScoringTime(tokenize=4, forward=20)
    reranker.rerank_lists(lists, spent=spent)
    assert spent == ScoringTime(tokenize=8, forward=40)


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1))
def test_the_sigmoid_is_exact_and_never_overflows(logits: list[float]) -> None:
    actual = sigmoid(np.array(logits, dtype=np.float32))

    expected = [1 / (1 + math.exp(-x)) if x > -700 else 0.0 for x in logits]
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-45)


def test_every_word_is_one_token_of_both_tokenizers(bert: Reranker, jina_v2: Reranker) -> None:
    """What the arithmetic above relies on."""
    assert [len(ids(reranker, " ".join(WORDS))) for reranker in (bert, jina_v2)] == [len(WORDS)] * 2
