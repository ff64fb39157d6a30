"""Hard negatives for query-positive rows: what BM25 and a dense bi-encoder rank high and the labels call wrong.

    python -m pipelines.training.mining --train SOURCES --backbone DIR --output groups.parquet

Reads Parquet sources (`query, positive, negatives, group`), mines inside each source and writes one table of groups
(`source, held_back, query, positive, bm25, dense, given, random`, and beside each text its cosine to the query, as the
dense bi-encoder sees it: the training script's teacher). The training script draws its lists from it.
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
    "nqg_squad": 5000,
    "nq_derived": 2200,
    "afriqa_translated": 1400,
    "medquad": 4000,
    "docs_microsoft": 3500,
    "docs_open": 4000,
    "docs_more": 3000,
    "docs_mdn_archive": 2500,
    "openstax": 4000,
    "code_permissive": 5000,
    "mconala_train": 2300,
    "mbxp": 1500,
    "tldr_commands": 1500,
    "acl_abstracts": 2500,
    "dc_law": 1000,
    "biomed_terms": 1500,
    "factbook": 700,
    "fn_metatool": 1500,
    "fn_apibench": 1500,
    "fn_sealtools": 2300,
    "fn_ultratool": 2000,
    "schema_spider": 1500,
    "table_spider": 3000,
    "table_wikisql": 1800,
    "table_wikitq": 2000,
}
POOL_SIZE = 4000  # documents a source's negatives come from, its sampled positives first
RANKS = 40  # depth of both rankings
KEPT = 8  # negatives kept of each kind
GIVEN_KEPT = 4  # but of those that come with the source, few of which are in the pool: each costs a pass of the encoder
DENSE_MARGIN = 0.05  # a document closer to the query than its positive by more than this cosine is taken for unlabelled
HELD_BACK_SHARE = 0.015  # of each source: never trained on, for calibration


class DenseEncoder:
    """all-MiniLM-L6-v2 as its card describes it: mean over tokens, unit length; texts cut at `max_length` tokens."""

    def __init__(self, backbone: Path, max_length: int = 128, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
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
            with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
                hidden = self.model(input_ids=input_ids, attention_mask=mask).last_hidden_state.float()
            pooled = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            vectors[rows] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
            start = end
        return vectors


def fastest_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies it (three times as fast on AVX-512 BF16), else float32; not for figures."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


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
    """One group per sampled row: its positive and the negatives of the four kinds, best ranked first."""
    rows, pool = sample_source(path, queries, rng)
    texts = [str(document["text"]) for document in pool]
    place = {text: j for j, text in enumerate(texts)}
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
    given = [given_negatives(row, positives[str(row["query"])], rng) for row in rows]
    place |= {
        text: len(place) + n
        for n, text in enumerate(dict.fromkeys(t for some in given for t in some if t not in place))
    }
    vectors = encoder.encode(list(place))
    cosines = encoder.encode(query_texts) @ vectors.T

    groups = []
    for i, row in enumerate(rows):
        known = positives[str(row["query"])]
        own = float(cosines[i, place[str(row["positive"])]])

        def is_negative(
            j: int, row: dict[str, Any] = row, known: set[str] = known, i: int = i, own: float = own
        ) -> bool:
            same_group = bool(row["group"]) and row["group"] == pool[j]["group"]  # sources write "" for no group
            return texts[j] not in known and not same_group and bool(cosines[i, j] <= own + DENSE_MARGIN)

        ranked = {
            "bm25": [int(j) for j in bm25_ranks[i]],
            "dense": [int(j) for j in np.argsort(-cosines[i, : len(texts)])[:depth]],
            "random": rng.sample(range(len(texts)), min(2 * KEPT, len(texts))),
        }
        group = {
            "source": path.stem,
            "held_back": i >= len(rows) * (1 - HELD_BACK_SHARE),
            "query": row["query"],
            "positive": row["positive"],
            "positive_cosine": own,
            "given": given[i],
            "given_cosines": [float(cosines[i, place[text]]) for text in given[i]],
        }
        for kind, order in ranked.items():
            kept = [j for j in order if is_negative(j)][:KEPT]
            group |= {kind: [texts[j] for j in kept], f"{kind}_cosines": [float(cosines[i, j]) for j in kept]}
        groups.append(group)
    return groups


def given_negatives(row: dict[str, Any], known: set[str], rng: random.Random) -> list[str]:
    """Some of the negatives that the source itself gives."""
    usable = [str(text) for text in row["negatives"] or [] if text and text not in known]
    return rng.sample(usable, min(GIVEN_KEPT, len(usable)))


def main() -> None:
    """Mines every source of QUERIES_PER_SOURCE."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder of the training sources")
    parser.add_argument("--backbone", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(2)
    encoder = DenseEncoder(args.backbone, dtype=fastest_dtype())
    groups: Rows = []
    for source, queries in QUERIES_PER_SOURCE.items():
        started = time.monotonic()
        rng = random.Random(f"{args.seed}/{source}")
        groups += mine_source(args.train / f"{source}.parquet", queries, encoder, rng)
        print(f"{source}: {len(groups)} groups so far, {time.monotonic() - started:.0f} s", flush=True)
    pq.write_table(pa.Table.from_pylist(groups), args.output)


if __name__ == "__main__":
    main()
