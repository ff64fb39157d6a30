"""Texts to ids, ids to pairs, and what a text counts for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from pipelines.errors import InvalidInputError, ModelRefusedError
from pipelines.tokens import PairTemplate, PairTokenizer, check_text, count_tokens, slices_by_characters
from tests.checkpoints import unigram_tokenizer, wordpiece_tokenizer, words

BERT_TEMPLATE = PairTemplate((2,), (3,), (3,), has_segments=True)
XLM_ROBERTA_TEMPLATE = PairTemplate((0,), (2, 2), (2,), has_segments=False)


@pytest.mark.parametrize(
    ("query_tokens", "document_tokens", "published"),
    [
        (27, [114, 145, 89], 383),
        (12, [41, 40, 85, 65], 253),
        (7, [82, 77, 88, 93, 85, 78, 65, 66, 72, 80], 815),
    ],
    ids=["functions", "sql_tables", "skincare"],
)
def test_counts_are_those_that_jina_published(query_tokens: int, document_tokens: list[int], published: int) -> None:
    """`usage.total_tokens` of three published answers, from the token counts of their texts."""
    assert count_tokens(np.zeros(query_tokens), [np.zeros(count) for count in document_tokens]) == published


def test_no_documents_count_as_the_query_alone() -> None:
    assert count_tokens(np.zeros(5), []) == 7


def test_bert_pairs_have_one_separator_between_and_two_segments() -> None:
    pair = BERT_TEMPLATE.join(np.array([10, 11]), np.array([20]))

    assert list(pair.input_ids) == [2, 10, 11, 3, 20, 3]
    assert pair.token_type_ids is not None
    assert list(pair.token_type_ids) == [0, 0, 0, 0, 1, 1]
    assert BERT_TEMPLATE.size == 3


def test_xlm_roberta_pairs_have_two_separators_between_and_no_segments() -> None:
    pair = XLM_ROBERTA_TEMPLATE.join(np.array([10, 11]), np.array([20]))

    assert list(pair.input_ids) == [0, 10, 11, 2, 2, 20, 2]
    assert pair.token_type_ids is None
    assert XLM_ROBERTA_TEMPLATE.size == 4


@pytest.mark.parametrize(
    ("build", "template"),
    [(wordpiece_tokenizer, BERT_TEMPLATE), (unigram_tokenizer, XLM_ROBERTA_TEMPLATE)],
    ids=["bert", "xlm-roberta"],
)
@given(query=st.text(max_size=30), document=st.text(max_size=30))
@settings(max_examples=40)
def test_pairs_are_those_that_the_tokenizer_builds(
    build: Callable[[], Tokenizer], template: PairTemplate, query: str, document: str
) -> None:
    tokenizer = PairTokenizer(build(), template)

    pair = template.join(*tokenizer.token_ids([query, document]))

    expected = build().encode(query, document)
    assert list(pair.input_ids) == expected.ids
    assert pair.token_type_ids is None or list(pair.token_type_ids) == expected.type_ids


@pytest.mark.parametrize(
    ("build", "template"),
    [
        (wordpiece_tokenizer, PairTemplate((2,), (3, 3), (3,), has_segments=True)),
        (unigram_tokenizer, PairTemplate((0,), (2,), (2,), has_segments=False)),
        (unigram_tokenizer, PairTemplate((0,), (2, 2), (2,), has_segments=True)),
    ],
    ids=["two separators for bert", "one separator for xlm-roberta", "segments where there are none"],
)
def test_a_tokenizer_that_joins_pairs_otherwise_is_refused(
    build: Callable[[], Tokenizer], template: PairTemplate
) -> None:
    with pytest.raises(ModelRefusedError, match="scores would be wrong"):
        PairTokenizer(build(), template)


def test_a_tokenizer_without_a_pair_template_is_refused() -> None:
    tokenizer = unigram_tokenizer()
    tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])

    with pytest.raises(ModelRefusedError, match=r"tokenizer\.json joins a pair as .* the model's family as \[0, \d+, "):
        PairTokenizer(tokenizer, XLM_ROBERTA_TEMPLATE)


def test_truncation_and_padding_of_the_file_are_switched_off() -> None:
    """Published tokenizer.json files often carry both from training."""
    tokenizer = wordpiece_tokenizer()
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16)

    long, short = PairTokenizer(tokenizer, BERT_TEMPLATE).token_ids([words(30), words(2)])

    assert (len(long), len(short)) == (30, 2)


def test_ids_do_not_depend_on_how_texts_are_sliced() -> None:
    texts = [words(count, seed=count) for count in range(12)]
    whole, sliced = (PairTokenizer(wordpiece_tokenizer(), BERT_TEMPLATE, limit) for limit in (1_000_000, 50))

    assert [ids.tolist() for ids in sliced.token_ids(texts)] == [ids.tolist() for ids in whole.token_ids(texts)]


@given(texts=st.lists(st.text(max_size=20), max_size=20), limit=st.integers(1, 40))
def test_slices_hold_every_text_once_and_keep_the_limit(texts: list[str], limit: int) -> None:
    slices = slices_by_characters(texts, limit)

    assert [i for start, end in slices for i in range(start, end)] == list(range(len(texts)))
    for start, end in slices:
        assert end - start == 1 or sum(map(len, texts[start:end])) <= limit
    for (start, end), (_, next_end) in pairwise(slices):
        assert sum(map(len, texts[start : end + 1])) > limit or next_end == end


@pytest.mark.parametrize("text", ["", " ", "apple", "äpfel 中文 🙂", "\x00", "\ufffe"])
def test_any_unicode_text_is_accepted(text: str) -> None:
    assert check_text(text, "query") is text


@pytest.mark.parametrize("text", ["\ud800", "apple \udfff", "🙂\ud83d"])
def test_a_lone_surrogate_is_refused_with_its_place(text: str) -> None:
    place = next(i for i, character in enumerate(text) if "\ud800" <= character <= "\udfff")

    with pytest.raises(InvalidInputError, match=rf"^invalid_unicode: documents\[3\] .* at character {place};"):
        check_text(text, "documents[3]")


@pytest.mark.parametrize("value", [None, 3, b"apple", ["apple"], float("nan")])
def test_what_is_no_string_is_refused_by_its_type(value: object) -> None:
    with pytest.raises(InvalidInputError, match=rf"^not_text: query is {type(value).__name__}"):
        check_text(value, "query")
