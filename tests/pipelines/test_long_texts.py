"""A long text has the same tokens in pieces as in one, or is not cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.normalizers import NFKC, Prepend, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import ByteLevel, Metaspace, Split, WhitespaceSplit
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

from pipelines.long_texts import cuts_at_spaces, pieces_of
from pipelines.tokens import PairTemplate, PairTokenizer
from tests.checkpoints import unigram_tokenizer, wordpiece_tokenizer

BERT = PairTemplate((2,), (3,), (3,), has_segments=True)
XLM_ROBERTA = PairTemplate((0,), (2, 2), (2,), has_segments=False)


def unigram_of_words() -> Tokenizer:
    """As bge-reranker's: white space goes away before the pieces are marked."""
    tokenizer = unigram_tokenizer()
    tokenizer.pre_tokenizer = PreTokenizers([WhitespaceSplit(), Metaspace(prepend_scheme="always")])
    return tokenizer


TOKENIZERS = {
    "wordpiece": (wordpiece_tokenizer(), BERT),
    "unigram": (unigram_tokenizer(), XLM_ROBERTA),
    "unigram of words": (unigram_of_words(), XLM_ROBERTA),
}
WHOLE = {name: PairTokenizer(*one) for name, one in TOKENIZERS.items()}
IN_PIECES = {name: PairTokenizer(*one, characters_per_call=40) for name, one in TOKENIZERS.items()}

WORDS = [
    "apple",
    "bread",
    "Apple,",
    "é",
    "e\u0301",
    "\u0301",
    "中文",
    "한",
    "ﾊﾟ",
    "ﾟ",
    "ﬁ",
    "İ",
    "🙂",
    "1",
    "2.5",
    "_",
    "-",
]
OTHERS = [" ", "  ", "\n", "\t ", "\u00a0", "\u3000", "\u200b", "▁", "[SEP]", "<mask>", "</s>"]
fragments = st.sampled_from([*WORDS, *OTHERS])
words = st.lists(fragments | st.text(max_size=3), max_size=60).map(" ".join)
texts = words | st.lists(fragments, max_size=80).map("".join)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=texts)
def test_the_tokens_of_the_pieces_are_those_of_the_text(name: str, text: str) -> None:
    [expected], [actual] = (tokenizers[name].token_ids([text]) for tokenizers in (WHOLE, IN_PIECES))
    assert actual.tolist() == expected.tolist()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_long_text_is_cut_into_short_pieces(name: str) -> None:
    text = "apple bread " * 1_000
    pieces = IN_PIECES[name].pieces(text)
    assert " ".join(pieces) == text
    assert max(map(len, pieces)) <= 20


def test_a_text_is_cut_between_words_only() -> None:
    assert pieces_of("ab cd ef", 1) == ["ab", "cd", "ef"]
    assert pieces_of("ab  cd, ef <mask> gh\nij _k", 1) == ["ab  cd, ef <mask> gh\nij _k"]
    assert pieces_of("", 1) == [""]


def changed(**parts: object) -> Tokenizer:
    tokenizer = unigram_tokenizer()
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def with_token(content: str) -> Tokenizer:
    tokenizer = unigram_tokenizer()
    tokenizer.add_tokens([AddedToken(content)])
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        changed(pre_tokenizer=ByteLevel()),
        changed(pre_tokenizer=Metaspace(prepend_scheme="first")),
        changed(pre_tokenizer=Metaspace(prepend_scheme="always", split=False)),
        changed(pre_tokenizer=PreTokenizers([Metaspace(prepend_scheme="always"), Split(Regex("a"), "isolated")])),
        changed(normalizer=Prepend("▁")),
        changed(normalizer=Normalizers([NFKC(), Replace(" ", "▁")])),
        with_token("New York"),
    ],
)
def test_of_a_tokenizer_that_is_not_known_to_allow_it_no_text_is_cut(tokenizer: Tokenizer) -> None:
    assert not cuts_at_spaces(tokenizer)
