"""What a list will weigh as pairs is known before they are made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lengths import Lengths
from pipelines.preparation import TokenizedList
from pipelines.tokens import PairTemplate

PLAIN = PairTemplate((1,), (2, 2), (3,), has_segments=True)
PROMPT = PairTemplate((1, 4), (2,), (3,), has_segments=False, before_later_chunk=(7,), after_cut_query=(8,))


@pytest.mark.parametrize("template", [PLAIN, PROMPT])
@given(
    query_tokens=st.integers(0, 60),
    documents=st.lists(st.integers(0, 300), max_size=4),
    lengths=st.builds(
        Lengths, st.integers(16, 100), st.integers(8, 50), st.integers(0, 40), st.none() | st.integers(1, 5)
    ),
    max_tokens_per_doc=st.none() | st.integers(1, 200),
)
def test_a_list_says_how_large_its_pairs_will_be(
    template: PairTemplate,
    query_tokens: int,
    documents: list[int],
    lengths: Lengths,
    max_tokens_per_doc: int | None,
) -> None:
    ids = [np.zeros(length, np.int32) for length in documents]
    tokenized = TokenizedList(np.zeros(query_tokens, np.int32), ids, template, lengths, max_tokens_per_doc)

    pairs = tokenized.prepared().pairs

    assert tokenized.size() == (len(pairs), sum(len(pair.input_ids) for pair in pairs))
