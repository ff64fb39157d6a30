"""The command line of calibrations: flags -> CalibrateSettings, outcome -> exit code.

python -m jobs.calibrate MODEL LABELS [flags]      # the same as `crossray calibrate`
"""

from __future__ import annotations

from typing import Any

import typer

from jobs import errors
from jobs.calibration.settings import CalibrateSettings
from jobs.endings import exit_code, resume_command
from jobs.flags import Flags, with_flags
from jobs.settings import OF_THE_CLUSTER, OF_THE_MODEL, OF_THE_SCORES, RerankSettings

CALIBRATION = Flags.of(CalibrateSettings)
JOB = Flags.of(RerankSettings).only(*OF_THE_MODEL, *OF_THE_SCORES, *OF_THE_CLUSTER)
EXAMPLES = (
    "crossray calibrate my-reranker/ judged.parquet",
    "crossray calibrate BAAI/bge-reranker-v2-m3 clicks/ --label-column clicks --output bge.json --num-gpus 1",
    "crossray calibrate embedded judged.parquet --output mine.json     # then: --calibration mine.json",
)


@with_flags(CALIBRATION, JOB)
def command(**given: Any) -> None:
    """Make the scores of MODEL mean something: 0.8 of pairs like those of LABELS, that 8 of 10 are relevant.

    LABELS are Parquet rows as `crossray train` reads them: lists with `labels`, pairs with a `label`, or positives and
    negatives. Above 0 is relevant. The result holds scale and bias of the logits, which change scores and no order.
    The same command again goes on where it was stopped.
    Exit codes: 0 done, 2 usage, 3 refused (such as a model that orders the labels backwards), 4 stopped (resumable),
    130/143 stopped by a signal (resumable).
    """

    def work() -> int:
        from jobs.calibration.run import calibrate  # ray: a second or two, spared to --help

        calibrate(CALIBRATION.settings(given, job=JOB.settings(given, input="", output="")))
        return errors.DONE

    raise typer.Exit(exit_code(work, resume_command("jobs.calibrate")))


if __name__ == "__main__":
    typer.run(command)
