"""The command line of the offline job: flags -> RerankSettings, outcome -> exit code.

python -m jobs.rerank INPUT OUTPUT [flags]      # the same as `crossray rerank`; through `ray job submit` as well
"""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import typer
from rich.console import Console

from jobs import endings, errors
from jobs.flags import CLUSTER_PANEL, COLUMN_PANEL, COLUMNS, MODEL, MODEL_PANEL, REUSE_PANEL, column, option
from jobs.input.conditions import parse_condition
from jobs.input.corpus import Corpus
from jobs.input.shards import parse_shard
from jobs.screen import say
from jobs.settings import POLL_SECONDS, RECENT_PAIRS, SCORES_MEMORY, RerankSettings, parse_bytes, parse_replicas
from jobs.table.columns import ColumnMapping, GroupBy, Layout
from pipelines.config import RerankerConfig
from pipelines.errors import ConfigError

CORPUS_PANEL, ROWS_PANEL = "Documents by id", "A part of the rows"
DRY_RUN_PANEL, FOLLOW_PANEL = "Dry run", "Files that come later"


def command(
    input: Annotated[str, typer.Argument(metavar="INPUT", help="Parquet file, directory or quoted glob; path or uri.")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="Directory for the result; resumes what it holds.")],
    model: Annotated[str, option(help="`embedded`, directory, uri or hub name.", panel=MODEL_PANEL)] = MODEL.model,
    revision: Annotated[str | None, option(help="Revision of a hub model.", panel=MODEL_PANEL)] = MODEL.revision,
    token: Annotated[str | None, option(help="Access token.", panel=MODEL_PANEL, envvar="HF_TOKEN")] = MODEL.token,
    dtype: Annotated[str, option(help="float32, float16, bfloat16, auto.", panel=MODEL_PANEL)] = MODEL.dtype,
    max_length: Annotated[int, option(help="Tokens of a pair.", panel=MODEL_PANEL)] = MODEL.max_length,
    max_query_length: Annotated[int, option(help="Tokens of a query.", panel=MODEL_PANEL)] = MODEL.max_query_length,
    overlap_tokens: Annotated[int, option(help="Shared by two chunks.", panel=MODEL_PANEL)] = MODEL.overlap_tokens,
    max_chunks_per_doc: Annotated[int | None, option(help="Default: all.", panel=MODEL_PANEL)] = None,
    max_batch_tokens: Annotated[int | None, option(help="Token budget of a pass.", panel=MODEL_PANEL)] = None,
    raw_scores: Annotated[bool, option(help="Logits instead of 0..1.", panel=MODEL_PANEL)] = MODEL.raw_scores,
    top_n: Annotated[int | None, option(help="Documents kept per ranking; default: all.")] = None,
    overwrite: Annotated[bool, option(help="Start anew where OUTPUT holds an earlier result.")] = False,
    max_errors: Annotated[int | None, option(help="More rows with errors make the exit code 1.")] = None,
    layout: Annotated[Layout | None, option(help="Default: by the columns.", panel=COLUMN_PANEL)] = None,
    query_id: Annotated[str, column("query_id", "Rides along.")] = COLUMNS.query_id,
    query: Annotated[str, column("query", "The query's text.")] = COLUMNS.query,
    documents: Annotated[str, column("documents", "List of texts or structs.")] = COLUMNS.documents,
    text_field: Annotated[str, column("text_field", "Text of a document struct.")] = COLUMNS.text_field,
    id_field: Annotated[str, column("id_field", "Id of a document struct.")] = COLUMNS.id_field,
    document_id: Annotated[str, column("document_id", "Pair rows: rides along.")] = COLUMNS.document_id,
    document: Annotated[str, column("document", "Pair rows: the text.")] = COLUMNS.document,
    output_prefix: Annotated[str, column("output_prefix", "Before the new columns' names.")] = COLUMNS.output_prefix,
    corpus: Annotated[
        str | None, option(help="Table with the texts, where documents are ids; path or uri.", panel=CORPUS_PANEL)
    ] = None,
    corpus_id: Annotated[str, option(help="Its column of ids.", panel=CORPUS_PANEL)] = "id",
    corpus_text: Annotated[str, option(help="Its column of texts.", panel=CORPUS_PANEL)] = "text",
    corpus_memory: Annotated[
        str | None,
        option(
            help="Up to which size (4GiB) each node holds all of it; default: half an object store.", panel=CORPUS_PANEL
        ),
    ] = None,
    group_by: Annotated[
        str | None, option(help="Pair rows: make lists of rows with the same value here.", panel=COLUMN_PANEL)
    ] = None,
    rank_column: Annotated[
        str | None, option(help="With --group-by: orders a list; default: `rank` if it is there.", panel=COLUMN_PANEL)
    ] = None,
    drop: Annotated[list[str] | None, column("drop", "Leave a column out; repeatable.")] = None,
    limit: Annotated[int | None, option(help="Only the first N rows, for a try.", panel=ROWS_PANEL)] = None,
    shard: Annotated[
        str | None, option(help="I/N, such as 2/8: this run's share; each run has its own OUTPUT.", panel=ROWS_PANEL)
    ] = None,
    where: Annotated[
        list[str] | None,
        option(help="'COLUMN OP VALUE', OP one of = != < <= > >= in; repeatable: all must hold.", panel=ROWS_PANEL),
    ] = None,
    follow: Annotated[bool, option("--follow", help="Rank new files as they come.", panel=FOLLOW_PANEL)] = False,
    poll_seconds: Annotated[
        float | None, option(help=f"Between two looks for files; default: {POLL_SECONDS:g}.", panel=FOLLOW_PANEL)
    ] = None,
    dry_run: Annotated[
        bool, option("--dry-run", help="Only estimate rows, pairs, time, cost.", panel=DRY_RUN_PANEL)
    ] = False,
    price: Annotated[float | None, option(help="Of a replica for an hour.", panel=DRY_RUN_PANEL)] = None,
    pairs_per_second: Annotated[
        float | None, option(help="Of a replica; default: measured here.", panel=DRY_RUN_PANEL)
    ] = None,
    recent_pairs: Annotated[
        int, option(help="Pairs whose score each replica remembers; 0: none.", panel=REUSE_PANEL)
    ] = RECENT_PAIRS,
    scores: Annotated[
        str | None, option(help="Directory or uri of scores that later runs reuse.", panel=REUSE_PANEL)
    ] = None,
    scores_memory: Annotated[
        str, option(help="Of them on each node; 1GB is 50 million pairs.", panel=REUSE_PANEL)
    ] = SCORES_MEMORY,
    replicas: Annotated[str | None, option(help="N or MIN:MAX; default: what fits.", panel=CLUSTER_PANEL)] = None,
    num_cpus: Annotated[int, option(help="CPUs and threads of a replica.", panel=CLUSTER_PANEL)] = 1,
    num_gpus: Annotated[float, option(help="GPUs of a replica.", panel=CLUSTER_PANEL)] = 0,
    address: Annotated[
        str | None, option(help="Ray cluster; default: a private one.", panel=CLUSTER_PANEL, envvar="RAY_ADDRESS")
    ] = None,
    app: Annotated[str | None, option(help="Score with the replicas of a running app.", panel=CLUSTER_PANEL)] = None,
) -> None:
    """Rerank the candidate lists of INPUT into OUTPUT: one row out for every row in.

    The same command again resumes what was stopped, or says that all is done.
    Exit codes: 0 done, 1 too many rows with errors or unreadable files, 2 usage, 3 refused, 4 stopped (resumable),
    130/143 stopped by a signal (resumable); with --follow 0 when all files that were taken are done.
    """
    try:
        settings = RerankSettings(
            input=input,
            output=output,
            reranker=RerankerConfig(
                model=model,
                revision=revision,
                token=token,
                dtype=dtype,
                max_batch_tokens=max_batch_tokens,
                max_length=max_length,
                max_query_length=max_query_length,
                overlap_tokens=overlap_tokens,
                max_chunks_per_doc=max_chunks_per_doc,
                raw_scores=raw_scores,
            ),
            mapping=ColumnMapping(
                query_id=query_id,
                query=query,
                documents=documents,
                text_field=text_field,
                id_field=id_field,
                document_id=document_id,
                document=document,
                output_prefix=output_prefix,
                drop=tuple(drop or ()),
            ),
            layout=layout,
            group_by=groups_of(group_by, rank_column),
            corpus=corpus_of(corpus, corpus_id, corpus_text, corpus_memory),
            top_n=top_n,
            limit=limit,
            shard=parse_shard(shard) if shard is not None else None,
            where=tuple(parse_condition(text) for text in where or ()),
            follow=follow,
            poll_seconds=poll_seconds,
            dry_run=dry_run,
            price=price,
            pairs_per_second=pairs_per_second,
            recent_pairs=recent_pairs,
            scores=scores,
            scores_memory=parse_bytes(scores_memory, "--scores-memory"),
            replicas=parse_replicas(replicas) if replicas else None,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            address=address,
            app=app,
            overwrite=overwrite,
            max_errors=max_errors,
        )
    except ConfigError as error:
        say(Console(stderr=True), str(error), "error: ")
        raise typer.Exit(errors.USAGE) from None
    raise typer.Exit(exit_code(settings))


def groups_of(column: str | None, rank_column: str | None) -> GroupBy | None:
    """What the flags say of groups; raises ConfigError."""
    if column is not None:
        return GroupBy(column, rank_column)
    if rank_column is not None:
        raise ConfigError(
            f"--rank-column is {rank_column!r}; it orders the lists that --group-by makes: give that, too"
        )
    return None


def corpus_of(path: str | None, id_column: str, text_column: str, memory: str | None) -> Corpus | None:
    """What the flags say of a corpus; raises ConfigError."""
    if path is not None:
        size = None if memory is None else parse_bytes(memory, "--corpus-memory")
        return Corpus(path, id_column, text_column, size)
    given = {"--corpus-id": id_column != "id", "--corpus-text": text_column != "text", "--corpus-memory": memory}
    flags = [flag for flag, is_given in given.items() if is_given]
    if flags:
        raise ConfigError(f"{', '.join(flags)} without --corpus: give the table, too")
    return None


def exit_code(settings: RerankSettings) -> int:
    """Runs the job, says how it ended, and returns the code for it."""
    resume = endings.resume_command("jobs.rerank", without="--overwrite")
    return endings.exit_code(lambda: rerank(settings, resume), resume)


def rerank(settings: RerankSettings, resume: str) -> int:
    """Runs the job that is asked for, and returns the code of one that came to its end; raises what the job raises."""
    if settings.follow:  # read when ray is imported: a thread of the pool must not start a Ray anew while one ends
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    from jobs.driver.dry_run import dry_run
    from jobs.driver.resolution import JOB_ENVIRONMENT
    from jobs.driver.run import run  # ray: a second, spared to --help
    from jobs.follow.run import follow

    if settings.dry_run:
        dry_run(settings)
        return errors.DONE
    # In a submitted job the directory is a cache, and the paths are absolute.
    where = "" if JOB_ENVIRONMENT in os.environ else f"cd {shlex.quote(os.getcwd())} && "
    if settings.follow:
        follow(settings, command=where + resume)
        return errors.DONE
    return endings.code_of(run(settings, command=where + resume), settings.max_errors)


if __name__ == "__main__":
    typer.run(command)
