"""Hard negatives for query-positive rows: what BM25 and a dense bi-encoder rank high and the labels call wrong.

    python -m pipelines.training.mining --train SOURCES --backbone DIR --output groups.parquet

Reads Parquet sources (`query, positive, negatives, group`), mines inside each source and writes one table of groups
(`source, query, positive, bm25: list, dense: list, given: list`). The training script draws its lists from it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer
from transformers import BertModel

# Queries drawn per source. Only sources whose licences allow weights to ship; large weakly supervised ones are capped.
QUERIES_PER_SOURCE = {
    "nqg_squad": 1500,
    "nq_derived": 1500,
    "afriqa_translated": 900,
    "medquad": 1300,
    "docs_microsoft": 1200,
    "docs_open": 1300,
    "docs_more": 1000,
    "docs_mdn_archive": 800,
    "openstax": 1300,
    "code_permissive": 1500,
    "mconala_train": 800,
    "mbxp": 600,
    "tldr_commands": 500,
    "acl_abstracts": 900,
    "dc_law": 400,
    "biomed_terms": 500,
    "factbook": 300,
    "fn_metatool": 500,
    "fn_apibench": 500,
    "fn_sealtools": 700,
    "fn_ultratool": 700,
    "schema_spider": 500,
    "table_spider": 900,
    "table_wikisql": 600,
    "table_wikitq": 700,
}
POOL_SIZE = 1500  # documents a source's negatives come from, its sampled positives first
RANKS = 40  # depth of both rankings
KEPT = 8  # negatives kept of each ranking
DENSE_MARGIN = 0.05  # a document closer to the query than its positive by more than this cosine is taken for unlabelled


class DenseEncoder:
    """all-MiniLM-L6-v2 as its card describes it: mean over tokens, unit length; texts cut at `max_length` tokens."""

    def __init__(self, backbone: Path, max_length: int = 128) -> None:
        self.model = BertModel.from_pretrained(backbone).eval()
        self.tokenizer = Tokenizer.from_file(str(backbone / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch_tokens: int = 4096) -> np.ndarray:
        """Unit vectors, float32 [len(texts), 384], in the order given."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        vectors = np.zeros((len(ids), self.model.config.hidden_size), dtype=np.float32)
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * len(ids[order[end]]) <= batch_tokens:
                end += 1
            rows = order[start:end]
            width = len(ids[rows[-1]])
            input_ids = torch.tensor([ids[i] + [0] * (width - len(ids[i])) for i in rows])
            mask = torch.tensor([[1] * len(ids[i]) + [0] * (width - len(ids[i])) for i in rows])
            hidden = self.model(input_ids=input_ids, attention_mask=mask).last_hidden_state
            pooled = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            vectors[rows] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
            start = end
        return vectors


Rows = list[dict[str, Any]]


def sample_source(path: Path, queries: int, rng: random.Random) -> tuple[Rows, Rows]:
    """The rows to train on and the documents (`text`, `group`) their negatives are mined from."""
    rows = pq.read_table(path, columns=["query", "positive", "negatives", "group"]).to_pylist()
    rng.shuffle(rows)
    chosen = rows[:queries]
    pool: dict[str, dict[str, Any]] = {}
    for row in rows:
        if len(pool) >= max(POOL_SIZE, queries):
            break
        pool.setdefault(str(row["positive"]), {"text": row["positive"], "group": row["group"]})
    return chosen, list(pool.values())


def mine_source(path: Path, queries: int, encoder: DenseEncoder, rng: random.Random) -> Rows:
    """One group per sampled row: its positive and the negatives of the three kinds, best ranked first."""
    rows, pool = sample_source(path, queries, rng)
    texts = [str(document["text"]) for document in pool]
    positives: dict[str, set[str]] = {}
    for row in rows:
        positives.setdefault(str(row["query"]), set()).add(str(row["positive"]))

    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    depth = min(RANKS, len(texts))
    query_texts = [str(row["query"]) for row in rows]
    bm25_ranks, _ = index.retrieve(
        bm25s.tokenize(query_texts, stopwords="en", show_progress=False), k=depth, show_progress=False
    )
    cosines = encoder.encode(query_texts) @ encoder.encode(texts).T
    positive_cosines = (encoder.encode(query_texts) * encoder.encode([str(row["positive"]) for row in rows])).sum(-1)

    groups = []
    for i, row in enumerate(rows):
        known = positives[str(row["query"])]

        def is_negative(j: int, row: dict[str, Any] = row, known: set[str] = known, i: int = i) -> bool:
            same_group = row["group"] is not None and row["group"] == pool[j]["group"]
            unlabelled = cosines[i, j] > positive_cosines[i] + DENSE_MARGIN
            return texts[j] not in known and not same_group and not unlabelled

        dense_ranks = np.argsort(-cosines[i])[:depth]
        given = [text for text in (row["negatives"] or []) if text not in known]
        groups.append(
            {
                "source": path.stem,
                "query": row["query"],
                "positive": row["positive"],
                "bm25": [texts[j] for j in bm25_ranks[i] if is_negative(int(j))][:KEPT],
                "dense": [texts[j] for j in dense_ranks if is_negative(int(j))][:KEPT],
                "given": given[:KEPT],
            }
        )
    return groups


def main() -> None:
    """Mines every source of QUERIES_PER_SOURCE."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder of the training sources")
    parser.add_argument("--backbone", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(2)
    encoder = DenseEncoder(args.backbone)
    groups: Rows = []
    for source, queries in QUERIES_PER_SOURCE.items():
        started = time.monotonic()
        rng = random.Random(f"{args.seed}/{source}")
        groups += mine_source(args.train / f"{source}.parquet", queries, encoder, rng)
        print(f"{source}: {len(groups)} groups so far, {time.monotonic() - started:.0f} s", flush=True)
    pq.write_table(pa.Table.from_pylist(groups), args.output)


if __name__ == "__main__":
    main()
