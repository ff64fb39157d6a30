"""The command line of mining: flags -> MineSettings, outcome -> exit code.

python -m jobs.mine INPUT OUTPUT --model M [flags]      # the same as `crossray mine`; through `ray job submit` as well
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.endings import code_of, exit_code, resume_command
from jobs.flags import CLUSTER_PANEL, COLUMN_PANEL, DENSE_LENGTH, DENSE_PANEL, MODEL, MODEL_PANEL, REUSE_PANEL, option
from jobs.settings import SCORES_MEMORY, RerankSettings, parse_bytes, parse_replicas
from pipelines.config import RerankerConfig

CANDIDATES_PANEL, NEGATIVES_PANEL = "Candidates", "What is a negative"


def command(
    input: Annotated[str, typer.Argument(metavar="INPUT", help="Sources: Parquet file, directory or quoted glob.")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="Directory for the lists; resumes what it holds.")],
    model: Annotated[str, option(help="The reranker: `embedded`, directory, uri or hub name.", panel=MODEL_PANEL)],
    revision: Annotated[str | None, option(help="Revision of a hub model.", panel=MODEL_PANEL)] = MODEL.revision,
    token: Annotated[str | None, option(help="Access token.", panel=MODEL_PANEL, envvar="HF_TOKEN")] = MODEL.token,
    dtype: Annotated[str, option(help="float32, float16, bfloat16, auto.", panel=MODEL_PANEL)] = MODEL.dtype,
    max_length: Annotated[int, option(help="Tokens of a pair.", panel=MODEL_PANEL)] = MODEL.max_length,
    max_query_length: Annotated[int, option(help="Tokens of a query.", panel=MODEL_PANEL)] = MODEL.max_query_length,
    depth: Annotated[int, option(help="Candidates of BM25, and as many of --dense.", panel=CANDIDATES_PANEL)] = 50,
    dense: Annotated[str | None, option(help="Directory of a bi-encoder that searches too.", panel=DENSE_PANEL)] = None,
    query_prefix: Annotated[str, option(help='"query: " for e5.', panel=DENSE_PANEL)] = "",
    passage_prefix: Annotated[str, option(help='"passage: " for e5.', panel=DENSE_PANEL)] = "",
    dense_length: Annotated[int, option(help="Tokens of a text.", panel=DENSE_PANEL)] = DENSE_LENGTH,
    corpus: Annotated[
        str | None, option(help="Table of passages to search; default: those of each source.", panel=CANDIDATES_PANEL)
    ] = None,
    corpus_text: Annotated[str, option(help="Its column of texts.", panel=CANDIDATES_PANEL)] = "text",
    ranks: Annotated[str, option(help="FIRST:LAST in the reranked list.", panel=NEGATIVES_PANEL)] = "2:30",
    margin: Annotated[
        float, option(help="A negative scores at most (1 - margin) x its positive.", panel=NEGATIVES_PANEL)
    ] = 0.05,
    negatives: Annotated[int, option(help="Of a list, at most.", panel=NEGATIVES_PANEL)] = 15,
    keep_empty: Annotated[
        bool, option("--keep-empty", help="Write positives without a negative, too.", panel=NEGATIVES_PANEL)
    ] = False,
    overwrite: Annotated[bool, option("--overwrite", help="Replace another mining's OUTPUT.")] = False,
    max_errors: Annotated[int | None, option(help="More bad rows make the exit code 1.")] = None,
    query_column: Annotated[str, option(help="The query's text.", panel=COLUMN_PANEL)] = "query",
    positive_column: Annotated[str, option(help="The right passage.", panel=COLUMN_PANEL)] = "positive",
    negatives_column: Annotated[str, option(help="Wrong ones; may be missing.", panel=COLUMN_PANEL)] = "negatives",
    group_column: Annotated[str, option(help="The positive's page; may be missing.", panel=COLUMN_PANEL)] = "group",
    scores: Annotated[
        str | None, option(help="Directory or uri of scores that later runs reuse.", panel=REUSE_PANEL)
    ] = None,
    scores_memory: Annotated[str, option(help="Of them on each node.", panel=REUSE_PANEL)] = SCORES_MEMORY,
    replicas: Annotated[str | None, option(help="N or MIN:MAX; default: what fits.", panel=CLUSTER_PANEL)] = None,
    num_cpus: Annotated[int, option(help="CPUs and threads of a replica.", panel=CLUSTER_PANEL)] = 1,
    num_gpus: Annotated[float, option(help="GPUs of a replica.", panel=CLUSTER_PANEL)] = 0,
    address: Annotated[
        str | None, option(help="Ray cluster; default: a private one.", panel=CLUSTER_PANEL, envvar="RAY_ADDRESS")
    ] = None,
) -> None:
    """Find hard negatives for the rows (query, positive) of INPUT; each file is a source with passages of its own.

    The same command again resumes what was stopped, or says that all is done.
    Exit codes: 0 done, 1 too many bad rows or unreadable files, 2 usage, 3 refused, 4 stopped (resumable), 130/143
    stopped by a signal (resumable).
    """

    def work() -> int:
        from jobs.training.encoders import EncoderSettings
        from jobs.training.mine.run import mine
        from jobs.training.mine.settings import MineSettings, MiningColumns, Rule, parse_ranks

        job = RerankSettings(
            input=input,
            output=output,
            reranker=RerankerConfig(
                model=model,
                revision=revision,
                token=token,
                dtype=dtype,
                max_length=max_length,
                max_query_length=max_query_length,
            ),
            scores=scores,
            scores_memory=parse_bytes(scores_memory, "--scores-memory"),
            replicas=parse_replicas(replicas) if replicas else None,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            address=address,
            overwrite=overwrite,
            max_errors=max_errors,
        )
        encoder = None if dense is None else EncoderSettings(dense, query_prefix, passage_prefix, dense_length)
        columns = MiningColumns(query_column, positive_column, negatives_column, group_column)
        rule = Rule(parse_ranks(ranks), margin, negatives, keep_empty)
        return code_of(mine(MineSettings(job, columns, depth, encoder, corpus, corpus_text, rule)), max_errors)

    raise typer.Exit(exit_code(work, resume_command("jobs.mine")))


if __name__ == "__main__":
    typer.run(command)
