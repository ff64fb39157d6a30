"""Measures what the README claims, as ratios within one run, since machines are noisy. Wants an idle machine.

python -m jobs.benchmark engine     # scoring against sentence-transformers' CrossEncoder: same weights and threads
python -m jobs.benchmark job        # the whole job on Ray Data against the bare engine
python -m jobs.benchmark reuse      # a log that repeats its popular pairs: nothing remembered, a memory, a full store
python -m jobs.benchmark load       # from a cold start to a loaded model
python -m jobs.benchmark gpu        # the engine on a GPU against CrossEncoder, and against plain GEMM
python -m jobs.benchmark documents  # documents per 50 ms by length, in the sizes of published models; on a GPU or CPUs
python -m jobs.benchmark families   # ModernBERT and ettin against CrossEncoder: same weights and threads
python -m jobs.benchmark prefixes   # a language model: what pairs share runs once; against CrossEncoder
python -m jobs.benchmark words SET...  # how well BM25 finds, with its words of a text and with those of bm25s
python -m jobs.benchmark replicas | memory | skew     # how a job scales, with scorers that only wait
"""

from __future__ import annotations

import typer

from jobs.benchmark.documents import documents
from jobs.benchmark.engine import engine
from jobs.benchmark.families import families
from jobs.benchmark.gpu import gpu
from jobs.benchmark.job import job
from jobs.benchmark.load import load
from jobs.benchmark.prefixes import prefixes
from jobs.benchmark.reuse import reuse
from jobs.benchmark.scale import memory, replicas, skew
from jobs.benchmark.words import words_found

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
for command in (engine, job, reuse, load, gpu, documents, families, prefixes, replicas, memory, skew):
    app.command()(command)
app.command("words")(words_found)

if __name__ == "__main__":
    app()
