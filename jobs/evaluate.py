"""The command line of evaluations: flags -> EvaluateSettings, outcome -> exit code.

python -m jobs.evaluate SET... --model M --output OUTPUT [flags]      # the same as `crossray evaluate`
"""

from __future__ import annotations

import os
from typing import Any

import typer
from rich.console import Console

from jobs import errors, storage
from jobs.endings import exit_code, resume_command
from jobs.evaluation.falls import VALUES, falls, read_values
from jobs.evaluation.gate import missed
from jobs.evaluation.settings import EvaluateSettings
from jobs.flags import Flags, with_flags
from jobs.screen import say
from jobs.settings import OF_THE_CLUSTER, OF_THE_MODEL, OF_THE_SCORES, RerankSettings

EVALUATION = Flags.of(EvaluateSettings)
JOB = Flags.of(RerankSettings).only("overwrite", *OF_THE_MODEL, *OF_THE_SCORES, *OF_THE_CLUSTER)
EXAMPLES = (
    "crossray evaluate sets/scifact --model embedded --output evaluated/",
    "crossray evaluate sets/* --model embedded --model my-reranker/model --baseline bm25 --output evaluated/",
    "crossray evaluate sets/scifact --model embedded --baseline dense:my-encoder/ --queries 50 --output try/",
    "crossray evaluate logs/november.parquet --label-column clicks --model embedded --output evaluated/",
)


@with_flags(EVALUATION, JOB)
def command(**given: Any) -> None:
    """Say how well models order the candidates of benchmark sets, against baselines, and how sure that is.

    A SET is a folder with queries.jsonl, corpus.jsonl, qrels.tsv and candidates.parquet, or a log of your own with its
    --label-column; docs/evaluation.md shows them.
    The same command again goes on where it was stopped.
    Exit codes: 0 done, 2 usage, 3 refused, 4 stopped (resumable), 5 done, and a model misses what --gate asks for,
    130/143 stopped by a signal (resumable).
    """

    def work() -> int:
        from jobs.evaluation.run import evaluate  # ray: a second or two, spared to --help
        from jobs.evaluation.systems import name_of

        settings = EVALUATION.settings(given, job=JOB.settings(given, input="", output=""))
        results = evaluate(settings)
        models = [name_of(one) for one in settings.models]
        misses = missed(settings.gate or {}, results, models)
        if settings.gate_against is not None:
            now = read_values(storage.absolute(os.path.join(settings.output, VALUES), "--output"))
            fell = falls(settings.gate_against, now, models)
            for told in fell.not_compared:
                say(Console(stderr=True), told, "careful: ", "yellow")
            misses += fell.told
        for told in misses:
            say(Console(stderr=True), told, "missed: ")
        return errors.GATE_MISSED if misses else errors.DONE

    raise typer.Exit(exit_code(work, resume_command("jobs.evaluate", without="--overwrite")))


if __name__ == "__main__":
    typer.run(command)
