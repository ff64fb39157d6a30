"""Asks a server through other people's client libraries. Runs in their environment (requirements.txt), not in ours.

    python -I ask.py haystack < calls.json

A call is `{"client", "base_url", "key", "query", "documents", "top_n"}`; its outcome is `{"ranking": [[text, score]]}`
or `{"error": name of the class, "message": what its user would see}`; lists of both, as JSON. The texts are those that
the client hands its user: from the server's echo where it reads that, else by index.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

MODEL = "jina-reranker-v1-base-en"  # the default of the three Jina classes

Pairs = list[tuple[str, float]]
Rank = Callable[[str, str, str, list[str], int | None], Pairs]


def langchain() -> dict[str, Rank]:
    from langchain_community.document_compressors import jina_rerank
    from langchain_core.documents import Document

    def rank(base_url: str, key: str, query: str, documents: list[str], top_n: int | None) -> Pairs:
        jina_rerank.JINA_API_URL = f"{base_url}/v1/rerank"  # the class has no option for it
        compressor = jina_rerank.JinaRerank(jina_api_key=key, top_n=top_n)
        ranked = compressor.compress_documents([Document(text) for text in documents], query)
        return [(one.page_content, one.metadata["relevance_score"]) for one in ranked]

    return {"langchain": rank}


def llama_index() -> dict[str, Rank]:
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    def rank(base_url: str, key: str, query: str, documents: list[str], top_n: int | None) -> Pairs:
        reranker = JinaRerank(base_url=f"{base_url}/v1", api_key=key, top_n=top_n or len(documents))
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in documents]
        ranked = reranker.postprocess_nodes(nodes, query_bundle=QueryBundle(query))
        return [(one.text, one.score) for one in ranked]

    return {"llama_index": rank}


def haystack() -> dict[str, Rank]:
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    def rank(base_url: str, key: str, query: str, documents: list[str], top_n: int | None) -> Pairs:
        ranker = JinaRanker(base_url=f"{base_url}/v1/rerank", api_key=Secret.from_token(key))
        ranked = ranker.run(query, [Document(content=text) for text in documents], top_k=top_n)
        return [(one.content, one.score) for one in ranked["documents"]]

    return {"haystack": rank}


def cohere() -> dict[str, Rank]:
    from cohere import Client, ClientV2

    # Without retries: those are a test of their own.
    def rank_v1(base_url: str, key: str, query: str, documents: list[str], top_n: int | None) -> Pairs:
        answer = Client(key, base_url=base_url).rerank(
            model=MODEL,
            query=query,
            documents=documents,
            return_documents=True,
            request_options={"max_retries": 0},
            **some(top_n=top_n),
        )
        return [(one.document.text, one.relevance_score) for one in answer.results]

    def rank_v2(
        base_url: str, key: str, query: str, documents: list[str], top_n: int | None, max_retries: int = 0
    ) -> Pairs:
        answer = ClientV2(key, base_url=base_url).rerank(
            model=MODEL,
            query=query,
            documents=documents,
            request_options={"max_retries": max_retries},
            **some(top_n=top_n),
        )
        return [(documents[one.index], one.relevance_score) for one in answer.results]

    return {"cohere/v1": rank_v1, "cohere/v2": rank_v2, "cohere/v2 with retries": partial(rank_v2, max_retries=2)}


def litellm() -> dict[str, Rank]:
    import litellm

    litellm.suppress_debug_info = True  # it prints to stdout

    def rank(base_url: str, key: str, query: str, documents: list[str], top_n: int | None, provider: str = "") -> Pairs:
        answer = litellm.rerank(
            model=f"{provider}/{MODEL}",
            query=query,
            documents=documents,
            api_base=base_url,
            api_key=key,
            return_documents=True,
            **some(top_n=top_n),
        )
        return [(one["document"]["text"], one["relevance_score"]) for one in answer.results]

    providers = ["cohere", "hosted_vllm", "huggingface", "jina_ai"]
    return {f"litellm/{provider}": partial(rank, provider=provider) for provider in providers}


def some(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def outcome(rank: Rank, call: dict[str, Any]) -> dict[str, Any]:
    """What comes of one call."""
    try:
        ranking = rank(call["base_url"], call["key"], call["query"], call["documents"], call["top_n"])
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"ranking": ranking}


if __name__ == "__main__":
    clients = {one.__name__: one for one in (langchain, llama_index, haystack, cohere, litellm)}[sys.argv[1]]()
    json.dump([outcome(clients[call["client"]], call) for call in json.load(sys.stdin)], sys.stdout)
