"""Which published models are known to load, and what their cards say of licences: `crossray models` prints it.

What the cards said in November 2026; the card of the revision that is loaded decides.
"""

from __future__ import annotations

from dataclasses import dataclass

COLUMNS = ("family", "models", "tokens", "licence of the weights", "commercial use")
MS_MARCO = "yes; trained on MS MARCO, whose own terms are for research"


@dataclass(frozen=True, slots=True)
class Published:
    """Models of one family with the same limit and licence."""

    layout: str
    """Of their family, as in fingerprints."""
    family: str
    models: tuple[str, ...]
    """Names on Hugging Face's hub, or of the embedded models."""
    tokens: int
    """Of the longest pair."""
    licence: str
    commercial_use: str = "yes"

    def cells(self) -> tuple[str, ...]:
        """A row under COLUMNS."""
        return self.family, ", ".join(self.models), f"{self.tokens:,}", self.licence, self.commercial_use


PUBLISHED = (
    Published("bert", "BERT", ("embedded",), 256, "Apache-2.0"),
    Published("bert", "BERT", ("embedded-multilingual",), 512, "MIT"),
    Published("bert", "BERT", ("cross-encoder/ms-marco-MiniLM-L6-v2",), 512, "Apache-2.0", MS_MARCO),
    Published("xlm-roberta", "XLM-RoBERTa", ("BAAI/bge-reranker-base", "BAAI/bge-reranker-large"), 512, "MIT"),
    Published("xlm-roberta", "XLM-RoBERTa", ("BAAI/bge-reranker-v2-m3",), 8192, "Apache-2.0"),
    Published(
        "xlm-roberta", "XLM-RoBERTa", ("cross-encoder/mmarco-mMiniLMv2-L12-H384-v1",), 512, "Apache-2.0", MS_MARCO
    ),
    Published("roberta", "RoBERTa", ("cross-encoder/quora-roberta-base",), 512, "Apache-2.0"),
    Published("camembert", "CamemBERT", ("antoinelouis/crossencoder-camembert-base-mmarcoFR",), 512, "MIT", MS_MARCO),
    Published("electra", "ELECTRA", ("cross-encoder/ms-marco-electra-base",), 512, "Apache-2.0", MS_MARCO),
    Published(
        "modernbert",
        "ModernBERT",
        ("Alibaba-NLP/gte-reranker-modernbert-base", "ibm-granite/granite-embedding-reranker-english-r2"),
        8192,
        "Apache-2.0",
    ),
    Published(
        "modernbert",
        "ettin: a ModernBERT with modules of sentence-transformers",
        ("cross-encoder/ettin-reranker-17m-v1", "cross-encoder/ettin-reranker-1b-v1"),
        7999,
        "Apache-2.0",
    ),
    Published("gte", "gte-multilingual", ("Alibaba-NLP/gte-multilingual-reranker-base",), 8192, "Apache-2.0"),
    Published(
        "deberta-v2",
        "DeBERTa-v2",
        (
            "mixedbread-ai/mxbai-rerank-xsmall-v1",
            "mixedbread-ai/mxbai-rerank-base-v1",
            "mixedbread-ai/mxbai-rerank-large-v1",
        ),
        512,
        "Apache-2.0",
    ),
    Published(
        "jina-bert",
        "jina-reranker-v1",
        ("jinaai/jina-reranker-v1-turbo-en", "jinaai/jina-reranker-v1-tiny-en"),
        8192,
        "Apache-2.0",
    ),
    Published(
        "flash-xlm-roberta",
        "jina-reranker-v2",
        ("jinaai/jina-reranker-v2-base-multilingual",),
        1024,
        "CC-BY-NC-4.0",
        "only with Jina's licence",
    ),
    Published(
        "qwen3-reranker",
        "Qwen3-Reranker",
        ("Qwen/Qwen3-Reranker-0.6B", "Qwen/Qwen3-Reranker-4B", "Qwen/Qwen3-Reranker-8B"),
        40_960,
        "Apache-2.0",
    ),
    Published(
        "mxbai-rerank-v2",
        "mxbai-rerank-v2",
        ("mixedbread-ai/mxbai-rerank-base-v2", "mixedbread-ai/mxbai-rerank-large-v2"),
        32_768,
        "Apache-2.0",
    ),
    Published("gemma", "Gemma", ("BAAI/bge-reranker-v2-gemma",), 8192, "Gemma Terms of Use", "yes, within its terms"),
    Published(
        "llama-nemotron",
        "llama-nemotron",
        ("nvidia/llama-nemotron-rerank-1b-v2",),
        8192,
        "NVIDIA Open Model; Llama 3.2",
        "yes, within both",
    ),
)


def family_of(layout: str) -> str:
    """The name of a family by its layout: "XLM-RoBERTa"; the layout itself where no published model has it."""
    return next((one.family.partition(":")[0] for one in PUBLISHED if one.layout == layout), layout)


def licence_of(model: str) -> str | None:
    """The licence of a published model's weights, by its name; None for a model that is not listed, or of one's own."""
    return next((one.licence for one in PUBLISHED if model in one.models), None)


def as_markdown() -> str:
    """The table of all, with the names as links to their cards."""

    def linked(name: str) -> str:
        return f"[{name}](https://huggingface.co/{name})" if "/" in name else f"`{name}`"

    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    lines += [(one.family, ", ".join(map(linked, one.models)), *one.cells()[2:]) for one in PUBLISHED]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
