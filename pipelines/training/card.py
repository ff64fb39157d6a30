"""What the model card reports: a fixed sample of every dev set, in BM25's order, the dense order and the model's.

    python -m pipelines.training.card --dev DIR --backbone DIR --model embedded --output scores.json

Prints the rows of the card's table. Resumes: a set that is in `--output` already is not scored again.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pyarrow.parquet as pq
import torch
from ir_measures import RR, R, nDCG
from pyarrow import csv

from ..records import CandidateList
from ..reranker import Reranker
from .dense import DenseEncoder

SAMPLE = (50, 30)
"""Queries drawn from a set, and candidates of each."""
SAMPLES = {"covidqa-long": (10, 20)}  # whole articles, some 20 chunks each
METRICS = {"recall@10": R @ 10, "recall@3": R @ 3, "MRR@10": RR @ 10, "nDCG@10": nDCG @ 10}
METRIC_OF_SET = {
    "afriqa-cross": "recall@10",
    "cosqa": "MRR@10",
    "csn-cloze": "MRR@10",
    "mkqa-faq": "recall@10",
    "multiqa": "recall@10",
    "spider-schema": "recall@3",
    "spider-table": "recall@3",
    "toolbench": "recall@3",
    "toollens": "recall@3",
}
"""The announcement's metric of each set; nDCG@10 for the others."""

Order = Callable[[str, list[str]], Sequence[float]]
"""(query, documents) -> a number per document, higher is better."""


def sampled_rows(folder: Path, queries: int, depth: int) -> list[dict[str, Any]]:
    """The same rows whenever they are drawn, each cut to its first `depth` candidates."""
    rows = pq.read_table(folder / "candidates.parquet").to_pylist()
    chosen = random.Random(0).sample(sorted(rows, key=lambda row: str(row["query_id"])), min(queries, len(rows)))
    return [row | {"documents": row["documents"][:depth]} for row in chosen]


def read_qrels(folder: Path, query_ids: set[str]) -> list[ir_measures.Qrel]:
    """The judgements of some queries."""
    table = csv.read_csv(
        folder / "qrels.tsv",
        parse_options=csv.ParseOptions(delimiter="\t"),
        convert_options=csv.ConvertOptions(column_types={"query-id": "string", "corpus-id": "string"}),
    )
    rows = (list(row.values())[:3] for row in table.to_pylist())
    return [ir_measures.Qrel(query, document, int(grade)) for query, document, grade in rows if query in query_ids]


def evaluate(
    folder: Path, orders: dict[str, Order], sample: tuple[int, int] | None = None
) -> dict[str, dict[str, float]]:
    """Every metric of every order on the set's sample."""
    rows = sampled_rows(folder, *(sample or SAMPLES.get(folder.name, SAMPLE)))
    qrels = read_qrels(folder, {row["query_id"] for row in rows})
    results = {}
    for name, order in orders.items():
        run = []
        for row in rows:
            scores = order(row["query"], [document["text"] for document in row["documents"]])
            ids = [document["id"] for document in row["documents"]]
            best_first = np.argsort(-np.asarray(scores), kind="stable")
            # The rank, not the score, so that ties keep the first stage's order in every metrics library.
            run += [ir_measures.ScoredDoc(row["query_id"], ids[i], -float(rank)) for rank, i in enumerate(best_first)]
        values = ir_measures.calc_aggregate(METRICS.values(), qrels, run)
        results[name] = {label: float(values[metric]) for label, metric in METRICS.items()}
    return results


def first_stage_order(_query: str, documents: list[str]) -> Sequence[float]:
    """BM25's order: that in which the candidates come."""
    return [-float(i) for i in range(len(documents))]


def dense_order(encoder: DenseEncoder) -> Order:
    """Cosine similarity of all-MiniLM-L6-v2."""
    return lambda query, documents: (encoder.encode(documents) @ encoder.encode([query])[0]).tolist()


def model_order(reranker: Reranker) -> Order:
    """The reranker's logits."""

    def order(query: str, documents: list[str]) -> Sequence[float]:
        [ranking] = reranker.rerank_lists([CandidateList(query, documents)])
        scores = [0.0] * len(documents)
        for rank, document in enumerate(ranking.documents):
            scores[document.index] = -float(rank)
        return scores

    return order


def table_row(name: str, results: dict[str, dict[str, float]]) -> str:
    """A row of the card: the set's own metric, the best order in bold."""
    metric = METRIC_OF_SET.get(name, "nDCG@10")
    values = [results[order][metric] for order in ("bm25", "dense", "model")]
    cells = [f"**{value:.3f}**" if value == max(values) else f"{value:.3f}" for value in values]
    return f"| {name} | {metric} | {' | '.join(cells)} |"


def main() -> None:
    """Runs the command line: scores all sets under `--dev` and prints their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dev", type=Path, required=True, help="folder of the dev sets")
    parser.add_argument("--backbone", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--output", type=Path, required=True, help="JSON of all metrics")
    args = parser.parse_args()
    torch.set_num_threads(2)
    orders = {
        "bm25": first_stage_order,
        "dense": dense_order(DenseEncoder(args.backbone, max_length=256)),
        "model": model_order(Reranker.load(args.model)),
    }
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for folder in sorted(path.parent for path in args.dev.glob("*/candidates.parquet")):
        if folder.name not in results:
            results[folder.name] = evaluate(folder, orders)
            args.output.write_text(json.dumps(results, indent=2) + "\n")
        print(table_row(folder.name, results[folder.name]), flush=True)


if __name__ == "__main__":
    main()
