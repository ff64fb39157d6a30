"""The command line of labelling: flags -> LabelSettings, outcome -> exit code.

python -m jobs.label INPUT OUTPUT --teacher T [flags]      # the same as `crossray label`; through `ray job submit` too
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.endings import code_of, exit_code, resume_command
from jobs.flags import (
    CLUSTER_PANEL,
    COLUMNS,
    DENSE_LENGTH,
    DENSE_PANEL,
    MODEL,
    MODEL_PANEL,
    REUSE_PANEL,
    column,
    option,
)
from jobs.settings import SCORES_MEMORY, RerankSettings, parse_bytes, parse_replicas
from jobs.table.columns import ColumnMapping
from pipelines.config import RerankerConfig


def command(
    input: Annotated[str, typer.Argument(metavar="INPUT", help="Parquet file, directory or quoted glob; path or uri.")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="Directory for the result; resumes what it holds.")],
    teacher: Annotated[str, option(help="reranker:MODEL, dense:DIR, bm25, or fusion:T1,T2,... of these.")],
    name: Annotated[str, option("--column", help="The new column; several can stand in one table.")] = "teacher",
    overwrite: Annotated[
        bool, option("--overwrite", help="Replace what is in the way: a column of that name, another job's OUTPUT.")
    ] = False,
    max_errors: Annotated[int | None, option(help="More rows without scores make the exit code 1.")] = None,
    query: Annotated[str, column("query", "The query's text.")] = COLUMNS.query,
    documents: Annotated[str, column("documents", "List of texts or structs.")] = COLUMNS.documents,
    text_field: Annotated[str, column("text_field", "Text of a document struct.")] = COLUMNS.text_field,
    revision: Annotated[str | None, option(help="Revision of a hub model.", panel=MODEL_PANEL)] = MODEL.revision,
    token: Annotated[str | None, option(help="Access token.", panel=MODEL_PANEL, envvar="HF_TOKEN")] = MODEL.token,
    dtype: Annotated[str, option(help="float32, float16, bfloat16, auto.", panel=MODEL_PANEL)] = MODEL.dtype,
    max_length: Annotated[int, option(help="Tokens of a pair.", panel=MODEL_PANEL)] = MODEL.max_length,
    max_query_length: Annotated[int, option(help="Tokens of a query.", panel=MODEL_PANEL)] = MODEL.max_query_length,
    query_prefix: Annotated[str, option(help='"query: " for e5.', panel=DENSE_PANEL)] = "",
    passage_prefix: Annotated[str, option(help='"passage: " for e5.', panel=DENSE_PANEL)] = "",
    dense_length: Annotated[int, option(help="Tokens of a text.", panel=DENSE_PANEL)] = DENSE_LENGTH,
    scores: Annotated[
        str | None, option(help="Directory or uri of a reranker's scores that later runs reuse.", panel=REUSE_PANEL)
    ] = None,
    scores_memory: Annotated[str, option(help="Of them on each node.", panel=REUSE_PANEL)] = SCORES_MEMORY,
    replicas: Annotated[str | None, option(help="N or MIN:MAX; default: what fits.", panel=CLUSTER_PANEL)] = None,
    num_cpus: Annotated[int, option(help="CPUs and threads of a replica.", panel=CLUSTER_PANEL)] = 1,
    num_gpus: Annotated[float, option(help="GPUs of a replica.", panel=CLUSTER_PANEL)] = 0,
    address: Annotated[
        str | None, option(help="Ray cluster; default: a private one.", panel=CLUSTER_PANEL, envvar="RAY_ADDRESS")
    ] = None,
) -> None:
    """Give the lists of INPUT a teacher's scores, one for each document: what `crossray train` distils from.

    The same command again resumes what was stopped, or says that all is done.
    Exit codes: 0 done, 1 too many rows without scores or unreadable files, 2 usage, 3 refused, 4 stopped (resumable),
    130/143 stopped by a signal (resumable).
    """

    def work() -> int:
        from jobs.training.encoders import EncoderSettings
        from jobs.training.label.run import label
        from jobs.training.label.settings import LabelSettings
        from jobs.training.label.teachers import parse_teacher

        job = RerankSettings(
            input=input,
            output=output,
            reranker=RerankerConfig(
                revision=revision, token=token, dtype=dtype, max_length=max_length, max_query_length=max_query_length
            ),
            mapping=ColumnMapping(query=query, documents=documents, text_field=text_field),
            scores=scores,
            scores_memory=parse_bytes(scores_memory, "--scores-memory"),
            replicas=parse_replicas(replicas) if replicas else None,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            address=address,
            overwrite=overwrite,
            max_errors=max_errors,
        )
        encoder = EncoderSettings("", query_prefix, passage_prefix, dense_length)
        return code_of(label(LabelSettings(job, parse_teacher(teacher), name, encoder)), max_errors)

    raise typer.Exit(exit_code(work, resume_command("jobs.label")))


if __name__ == "__main__":
    typer.run(command)
