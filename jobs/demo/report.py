"""`python -m jobs.demo`: builds the demo's log, and shows what reranking it changed.

The reranking between the two is `jobs.rerank`; documents and questions come from `jobs.demo.log`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.demo.log import MISSING_PACKAGES, NUM_CANDIDATES, DemoError, build_log

MEASURES = {"nDCG@10": "nDCG@10", "MRR@10": "RR@10", "recall@10": "R@10"}
"""Name on the screen and name in ir-measures, whose RR averages to MRR."""
NUM_GAINS, NUM_LOSSES, NUM_SHOWN_DOCUMENTS = 3, 2, 3

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The demo: build a retrieval log, compare rankings.")


@dataclass(frozen=True, slots=True)
class ComparedQuery:
    """One question with the document ids of its candidates in both orders, best first."""

    query: str
    relevant: frozenset[str]
    before: tuple[str, ...]
    after: tuple[str, ...]
    """Empty where the row carries an error."""

    @property
    def ceiling(self) -> tuple[str, ...]:
        """The candidates in the best order there is; what the first stage missed stays missed."""
        return tuple(sorted(self.before, key=lambda document_id: document_id not in self.relevant))


@app.command()
def build(output: Annotated[Path, typer.Argument(help="Directory to write log.parquet into.")]) -> None:
    """Search this machine's Python documentation with BM25 and keep the results as a log to rerank."""
    console = Console()
    console.print("Reading the documentation strings of this Python and searching them with BM25 ...", soft_wrap=True)
    started = time.perf_counter()
    try:
        log = build_log()
    except DemoError as error:
        _fail(error)
    path = output / "log.parquet"
    state = "written" if write_if_changed(log, path) else "unchanged"
    num_pairs = sum(len(documents) for documents in log["documents"].to_pylist())
    console.print(
        f"{log.num_rows} questions, {num_pairs:,} candidates (at most {NUM_CANDIDATES} each): "
        f"{path} {state} in {time.perf_counter() - started:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    _print_commands(
        console,
        "Next",
        (f"python -m jobs.rerank {path} {output / 'ranked'}", "reorder the candidates"),
        (f"python -m jobs.demo report {output / 'ranked'}", "see what changed"),
    )


@app.command()
def report(ranked: Annotated[Path, typer.Argument(help="Output directory of the job that reranked the log.")]) -> None:
    """Show the largest gains and losses, and the figures before and after over all questions."""
    console = Console()
    try:
        queries = read_queries(ranked)
        before, after, ceiling = (measure(queries, order) for order in ("before", "after", "ceiling"))
    except DemoError as error:
        _fail(error)
    console.print(
        f"The {NUM_GAINS} largest gains, then the {NUM_LOSSES} largest losses in nDCG@10 (of equal ones the first in "
        "the log). Right answers are marked.\n",
        highlight=False,
    )
    for position in largest_changes(before["nDCG@10"], after["nDCG@10"]):
        console.print(_example(queries[position], before["nDCG@10"][position], after["nDCG@10"][position], console))
    console.print(_figures({"BM25": before, "reranked": after, "best order of these candidates": ceiling}))
    console.print(_caveats(queries), highlight=False)
    _print_commands(
        console,
        "Try next",
        ("crossray rerank INPUT OUTPUT", "your own Parquet: one row per query, columns `query` and `documents`"),
        ("python -m jobs.rerank --help", "models, replicas, columns, resuming"),
        ("make bench", "the speed of the engine and of the job on this machine"),
    )


def write_if_changed(log: pa.Table, path: Path) -> bool:
    """Whether the file had to be written. One that says the same keeps its time, so that a job on it can resume."""
    try:
        if pq.read_table(path).equals(log):
            return False
    except (FileNotFoundError, pa.ArrowInvalid):
        path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(log, unfinished)
    unfinished.replace(path)
    return True


def read_queries(ranked: Path) -> list[ComparedQuery]:
    """The questions of a job's output directory, in the order of its parts. Raises DemoError where it is none."""
    parts = sorted(ranked.glob("part-*.parquet"))
    if not parts:
        raise DemoError(f"{ranked} has no part-*.parquet; give the output directory of `python -m jobs.rerank`")
    needed = ["query", "relevant", "documents", "ranking"]
    queries = []
    for part in parts:
        missing = set(needed) - set(pq.read_schema(part).names)
        if missing:
            raise DemoError(
                f"{part} has no column {', '.join(sorted(missing))}; "
                "give what came of reranking the log.parquet of `python -m jobs.demo build`"
            )
        for row in pq.read_table(part, columns=needed).to_pylist():
            before, after = (tuple(found["id"] for found in row[column] or ()) for column in ("documents", "ranking"))
            queries.append(ComparedQuery(row["query"], frozenset(row["relevant"]), before, after))
    return queries


def measure(queries: Sequence[ComparedQuery], order: str) -> dict[str, list[float]]:
    """Per measure one value per question for its `before`, `after` or `ceiling` order; 0 where nothing is ranked."""
    try:
        import ir_measures
    except ModuleNotFoundError as error:
        raise DemoError(MISSING_PACKAGES) from error
    qrels, run = [], []
    for position, query in enumerate(queries):
        document_ids = getattr(query, order)
        qrels += [ir_measures.Qrel(str(position), document_id, 1) for document_id in query.relevant]
        run += [
            ir_measures.ScoredDoc(str(position), document_id, float(len(document_ids) - rank))
            for rank, document_id in enumerate(document_ids)
        ]
    values = {name: [0.0] * len(queries) for name in MEASURES}
    shown = {ir_measures.parse_measure(theirs): ours for ours, theirs in MEASURES.items()}
    for metric in ir_measures.iter_calc(list(shown), qrels, run):
        values[shown[metric.measure]][int(metric.query_id)] = float(metric.value)
    return values


def largest_changes(before: Sequence[float], after: Sequence[float]) -> list[int]:
    """Positions of the NUM_GAINS largest gains, then of the NUM_LOSSES largest losses; equal ones in input order."""
    changes = [new - old for old, new in zip(before, after, strict=True)]
    ascending = sorted(range(len(changes)), key=lambda position: changes[position])
    descending = sorted(range(len(changes)), key=lambda position: -changes[position])
    gains = [position for position in descending if changes[position] > 0][:NUM_GAINS]
    losses = [position for position in ascending if changes[position] < 0][:NUM_LOSSES]
    return gains + losses


def _example(query: ComparedQuery, before: float, after: float, console: Console) -> Table:
    table = Table(title=Text(query.query), title_justify="left", width=min(78, console.width))
    table.add_column(f"BM25, nDCG@10 {before:.2f}", ratio=1)
    table.add_column(f"reranked, nDCG@10 {after:.2f}", ratio=1)
    mark = "✓" if console.encoding.startswith("utf") else "*"
    for rank in range(NUM_SHOWN_DOCUMENTS):
        table.add_row(*(_document(order, rank, query.relevant, mark) for order in (query.before, query.after)))
    return table


def _document(order: Sequence[str], rank: int, relevant: frozenset[str], mark: str) -> Text:
    if rank >= len(order):
        return Text("")
    right = order[rank] in relevant
    return Text(f"{mark if right else ' '} {order[rank]}", style="bold green" if right else "")


def _figures(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> Table:
    table = Table(title=Text("All questions"), title_justify="left")
    table.add_column("order")
    for name in MEASURES:
        table.add_column(name, justify="right")
    for order, values in rows.items():
        table.add_row(order, *(f"{sum(values[name]) / len(values[name]):.3f}" for name in MEASURES))
    return table


def _caveats(queries: Sequence[ComparedQuery]) -> str:
    hopeless = sum(query.relevant.isdisjoint(query.before) for query in queries)
    failed = sum(not query.after and bool(query.before) for query in queries)
    missed = (
        f"{len(queries)} questions. For {hopeless} of them BM25 found no right answer at all: "
        "they count 0 in every row, since reranking only reorders what was found."
    )
    return f"{missed} Rows that came back with an error, 0 as reranked: {failed}." if failed else missed


def _print_commands(console: Console, heading: str, *commands: tuple[str, str]) -> None:
    console.print(f"\n{heading}:")
    for command, purpose in commands:
        console.print(Text.assemble("  ", (command, "bold"), f"  # {purpose}"), soft_wrap=True)


def _fail(error: DemoError) -> NoReturn:
    Console(stderr=True).print(Text(str(error)), style="red")
    raise typer.Exit(2)
