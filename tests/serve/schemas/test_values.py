"""Texts and whatever is sent along with them come back as they were, or are refused."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serve.schemas import MAX_DEPTH, parse_json
from tests.serve.schemas.dialects import answer, body, errors, jina

clean_text = st.text(max_size=8)  # no surrogates
clean_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | clean_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(clean_text, inner, max_size=4),
    max_leaves=12,
)
document_objects = st.builds(
    lambda text, rest: rest | {"text": text}, clean_text, st.dictionaries(clean_text, clean_json)
)


def test_what_comes_back_is_nested_to_a_limit() -> None:
    def document(levels: int) -> dict[str, Any]:
        nested: Any = []
        for _ in range(levels - 1):
            nested = [nested]
        return {"text": "a", "nested": nested}

    sent = body(documents=[document(MAX_DEPTH - 1)])
    assert answer("/v1/rerank", sent, [0.5])["results"][0]["document"] == sent["documents"][0]
    for too_deep in (MAX_DEPTH + 1, 10_000):
        assert errors("/v1/rerank", body(documents=[document(too_deep)])) == [(("documents", 0, "nested"), "too_deep")]
    assert jina(ignored=document(10_000)) == jina()


@given(st.lists(clean_text | document_objects, max_size=5))
def test_what_comes_back_is_what_was_sent(documents: list[Any]) -> None:
    results = answer("/v1/rerank", parse_json(json.dumps(body(documents=documents)).encode()), [0.5] * len(documents))
    echoed = [result["document"] for result in results["results"]]
    sent = [{"text": one} if isinstance(one, str) else one for one in documents]
    assert json.dumps(echoed, sort_keys=True) == json.dumps(sent, sort_keys=True)  # == would take 1 for True and 1.0
