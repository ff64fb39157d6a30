"""Ranks with the classes of docs/frameworks.md, by the real packages of LangChain, LlamaIndex and Haystack.

    python rank.py PACKAGES haystack < calls.json

PACKAGES is the directory where the frameworks are installed. The input is `{"code": the class, as the page has it,
"calls": [...]}`. A call is `{"way", "query", "documents": [[text, metadata]], "top_n"}`; its outcome is `{"ranking":
[[text, metadata, score, place in the call]]}`, or `{"error": name of the class, "message"}`. The place is told by the
id that a document had before.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

Ranked = list[tuple[str, Any, float, int]]
Rank = Callable[[str, str, list[Any], int | None], Ranked]
MANY = 4
"""Calls at the same time."""


def langchain(page: Any) -> Rank:
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    class Found(BaseRetriever):
        documents: list[Document]

        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return self.documents

    reranker = page.Reranker.load("embedded")

    def rank(way: str, query: str, documents: list[Any], top_n: int | None) -> Ranked:
        compressor = page.CrossrayCompressor(reranker=reranker, top_n=top_n)
        sent = [Document(text, metadata=metadata, id=f"id {i}") for i, (text, metadata) in enumerate(documents)]
        before = copy.deepcopy(sent)
        match way:
            case "alone":
                found = compressor.compress_documents(sent, query)
            case "at once":
                found = same_of_many(lambda: compressor.acompress_documents(sent, query))
            case _:
                retriever = Found(documents=sent)
                chain = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=retriever)
                found = chain.invoke(query)
        assert sent == before
        ids = [one.id for one in sent]
        scores = [one.metadata["relevance_score"] for one in found]
        rest = [{key: value for key, value in one.metadata.items() if key != "relevance_score"} for one in found]
        places = [ids.index(one.id) for one in found]
        return list(zip([one.page_content for one in found], rest, scores, places, strict=True))

    return rank


def llama_index(page: Any) -> Rank:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.llms import MockLLM
    from llama_index.core.query_engine import RetrieverQueryEngine
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.core.settings import Settings

    Settings.llm = MockLLM()  # which a query engine wants even where it answers with the nodes themselves

    class Found(BaseRetriever):
        def __init__(self, nodes: list[NodeWithScore]) -> None:
            super().__init__()
            self.nodes = nodes

        def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            return self.nodes

    reranker = page.Reranker.load("embedded")

    def rank(way: str, query: str, documents: list[Any], top_n: int | None) -> Ranked:
        postprocessor = page.CrossrayRerank(reranker=reranker, top_n=top_n)
        nodes = [TextNode(text=text, metadata=metadata) for text, metadata in documents]
        sent = [NodeWithScore(node=node, score=0.5) for node in nodes]
        before = copy.deepcopy(sent)
        match way:
            case "alone":
                found = postprocessor.postprocess_nodes(sent, query_bundle=QueryBundle(query))
            case "at once":
                found = same_of_many(lambda: postprocessor.apostprocess_nodes(sent, query_str=query))
            case _:
                engine = RetrieverQueryEngine.from_args(
                    Found(sent), response_mode="no_text", node_postprocessors=[postprocessor]
                )
                found = engine.query(query).source_nodes
        assert sent == before
        ids = [node.node_id for node in nodes]
        return [(one.text, one.metadata, one.score, ids.index(one.node_id)) for one in found]

    return rank


def haystack(page: Any) -> Rank:
    from haystack import Document, Pipeline

    def rank(way: str, query: str, documents: list[Any], top_n: int | None) -> Ranked:
        sent = [Document(content=text, meta=meta, id=f"id {i}") for i, (text, meta) in enumerate(documents)]
        before = copy.deepcopy(sent)
        pipeline = Pipeline()
        pipeline.add_component("ranker", page.CrossrayRanker(top_k=top_n))
        inputs = {"ranker": {"query": query, "documents": sent}}
        match way:
            case "alone":
                found = page.CrossrayRanker().run(query, sent, top_k=top_n)
            case "at once":
                pipeline.warm_up()  # else each of them might load a model
                found = same_of_many(lambda: pipeline.run_async(inputs))["ranker"]
            case _:
                found = Pipeline.loads(pipeline.dumps(), allowed_modules=["page"]).run(inputs)["ranker"]
        assert sent == before
        ids = [one.id for one in sent]
        return [(one.content, one.meta, one.score, ids.index(one.id)) for one in found["documents"]]

    return rank


def same_of_many(ask: Callable[[], Any]) -> Any:
    """What comes of asking several times at once, which must be the same each time."""

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(ask() for _ in range(MANY)))

    first, *others = asyncio.run(ask_all())
    assert all(one == first for one in others)
    return first


def outcome(rank: Rank, call: dict[str, Any]) -> dict[str, Any]:
    """What comes of one call."""
    try:
        return {"ranking": rank(call["way"], call["query"], call["documents"], call["top_n"])}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    # At the end: where both have a package, ours wins. The frameworks run with the versions that we have of what they
    # share with us, and torch, which they do not want themselves, is not installed a second time.
    sys.path.append(sys.argv[1])
    asked = json.load(sys.stdin)
    page = sys.modules["page"] = ModuleType("page")  # a module, since Haystack finds a class by the name of its module
    exec(asked["code"], page.__dict__)
    rank = {one.__name__: one for one in (langchain, llama_index, haystack)}[sys.argv[2]](page)
    json.dump([outcome(rank, call) for call in asked["calls"]], sys.stdout)
