"""The settings of a job: one frozen dataclass, which the command line fills."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from jobs.input.conditions import Condition
from jobs.input.corpus import Corpus
from jobs.input.shards import Shard
from jobs.output.options import JobOptions
from jobs.table.columns import ColumnMapping, GroupBy, Layout
from pipelines.config import RerankerConfig
from pipelines.errors import ConfigError

RECENT_PAIRS = 200_000
SCORES_MEMORY = "500MB"
POLL_SECONDS = 5.0


def parse_bytes(text: str, flag: str) -> int:
    """`500MB`, `4GiB` or a number of bytes; raises ConfigError."""
    parts = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:([KMGT])(i?)B?|B?)\s*", text, re.IGNORECASE)
    if parts is None:
        raise ConfigError(f"{flag} is {text!r}; give bytes, such as 500MB or 4GiB")
    number, prefix, binary = parts.groups()
    return int(float(number) * (1024 if binary else 1000) ** (" KMGT".index(prefix.upper()) if prefix else 0))


@dataclass(frozen=True, slots=True)
class RerankSettings:
    """One rerank job. Raises ConfigError for values that cannot work."""

    input: str
    """A Parquet file, a directory or a glob; a local path, or a uri of an object store."""
    output: str
    """A directory or a uri: new, empty, or the unfinished or finished output of the same job."""
    reranker: RerankerConfig = field(default_factory=RerankerConfig)
    mapping: ColumnMapping = field(default_factory=ColumnMapping)
    layout: Layout | None = None
    """None goes by the columns."""
    corpus: Corpus | None = None
    """Where documents are ids: the table that has their texts."""
    group_by: GroupBy | None = None
    """Makes lists of pair rows, which may come in any order."""
    top_n: int | None = None
    """Documents kept in each ranking; None keeps all."""
    limit: int | None = None
    """Only the first so many rows, file by file; of the share where there is one, before `where`."""
    shard: Shard | None = None
    """Only this share of each file; the other shares are other runs', each with an OUTPUT of its own."""
    where: tuple[Condition, ...] = ()
    """Only rows that pass all of them."""
    replicas: tuple[int, int] | None = None
    """Fewest and most replicas; None is as many as the cluster has room for now."""
    num_cpus: int = 1
    """CPUs of a replica, and the threads it computes with."""
    num_gpus: float = 0
    """GPUs of a replica; a part of one lets replicas share it."""
    address: str | None = None
    """A running Ray cluster; None is RAY_ADDRESS, else a private Ray on this machine."""
    app: str | None = None
    """A running app whose replicas score; None starts the job's own."""
    recent_pairs: int = RECENT_PAIRS
    """Pairs whose logits each replica remembers, 300 bytes each; 0 is only those of the unit at hand."""
    scores: str | None = None
    """A directory or uri with the logits of earlier runs. This run reads them and adds its own."""
    scores_memory: int = parse_bytes(SCORES_MEMORY, "--scores-memory")
    """Bytes that these logits may take on each node, 20 a pair. The driver takes five times that to load them."""
    overwrite: bool = False
    """Start anew where OUTPUT holds an earlier job's result."""
    max_errors: int | None = None
    """Rows with errors above which the exit code is 1; None never."""
    follow: bool = False
    """Go on with files that come later, until a signal ends it."""
    poll_seconds: float | None = None
    """Between two listings of the input that is followed; None is POLL_SECONDS."""
    dry_run: bool = False
    """Only say what the job would be: nothing is scored for good and nothing written."""
    price: float | None = None
    """Of a replica for an hour, in any currency; for a dry run."""
    pairs_per_second: float | None = None
    """What a replica does, for a dry run; None measures it."""

    def __post_init__(self) -> None:
        if self.top_n is not None and self.top_n < 1:
            raise ConfigError(f"--top-n is {self.top_n}; it is at least 1")
        if self.num_cpus < 1:
            raise ConfigError(f"--num-cpus is {self.num_cpus}; a replica needs at least 1")
        if self.num_gpus < 0:
            raise ConfigError(f"--num-gpus is {self.num_gpus}; it cannot be negative")
        if self.max_errors is not None and self.max_errors < 0:
            raise ConfigError(f"--max-errors is {self.max_errors}; it is 0 or more")
        if self.replicas and not 1 <= self.replicas[0] <= self.replicas[1]:
            raise ConfigError(f"--replicas is {self.replicas[0]}:{self.replicas[1]}; give MIN:MAX with 1 <= MIN <= MAX")

        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit is {self.limit}; it is at least 1 row, or left out for all")
        if self.recent_pairs < 0:
            raise ConfigError(f"--recent-pairs is {self.recent_pairs}; it is 0 (none are remembered) or more")
        if self.scores_memory < 1:
            raise ConfigError(f"--scores-memory is {self.scores_memory}; give bytes, more than 0")
        if self.group_by is not None and self.layout is Layout.LISTS:
            raise ConfigError("--group-by makes lists of pair rows; leave out --layout lists")
        self._check_dry_run()
        self._check_follow()
        if self.app is not None:
            self._check_app()

    def _check_dry_run(self) -> None:
        for flag, value in (("--price", self.price), ("--pairs-per-second", self.pairs_per_second)):
            if value is not None and not self.dry_run:
                raise ConfigError(f"{flag} is {value:g}; only a dry run makes use of it: give --dry-run too")
        if self.price is not None and not 0 <= self.price < inf:
            raise ConfigError(f"--price is {self.price:g}; a replica for an hour costs 0 or more")
        if self.pairs_per_second is not None and not 0 < self.pairs_per_second < inf:
            raise ConfigError(f"--pairs-per-second is {self.pairs_per_second:g}; a replica scores more than 0")
        if self.dry_run and self.app is not None:
            raise ConfigError(
                f"--dry-run with --app {self.app}: it uses this machine alone; give the app's --model in place of --app"
            )

    def _check_follow(self) -> None:
        if self.poll_seconds is not None and not self.follow:
            raise ConfigError(f"--poll-seconds is {self.poll_seconds:g}; only --follow makes use of it: give it too")
        if self.poll_seconds is not None and not 0 < self.poll_seconds < inf:
            raise ConfigError(f"--poll-seconds is {self.poll_seconds:g}; it is more than 0")
        given = {"--limit": self.limit is not None, "--max-errors": self.max_errors is not None}
        given |= {"--dry-run": self.dry_run, "--group-by": self.group_by is not None}
        flags = [flag for flag, is_given in given.items() if is_given]
        if self.follow and flags:
            raise ConfigError(
                f"{', '.join(flags)} with --follow: that is for a job that comes to an end; leave out one or the other"
            )

    def _check_app(self) -> None:
        given = {
            "--replicas": self.replicas is not None,
            "--num-cpus": self.num_cpus != 1,
            "--num-gpus": self.num_gpus != 0,
            "--max-batch-tokens": self.reranker.max_batch_tokens is not None,
        }
        flags = [flag for flag, is_given in given.items() if is_given]
        if flags:
            raise ConfigError(f"{', '.join(flags)} with --app {self.app}: the app decides that; leave it out")

    @property
    def replica_cpus(self) -> int:
        """CPUs that are set aside for an actor that scores: none where the app's replicas do the work."""
        return 0 if self.app is not None else self.num_cpus

    def result_options(self, layout: Layout, partitions: Mapping[str, str]) -> JobOptions:
        """Everything beside the fingerprint that changes the result.

        `layout` is that of the rows that are scored, `partitions` are the types of the columns that paths add.
        """
        return JobOptions(
            mapping=self.mapping,
            layout=layout,
            top_n=self.top_n,
            raw_scores=self.reranker.raw_scores,
            limit=self.limit,
            shard=None if self.shard is None else str(self.shard),
            where=tuple(sorted(map(str, self.where))),
            group_by=self.group_by,
            corpus=None if self.corpus is None else self.corpus.identity(),
            partitions=partitions,
        )


def parse_replicas(text: str) -> tuple[int, int]:
    """`4` -> (4, 4), `1:8` -> (1, 8); raises ConfigError."""
    fewest, _, most = text.partition(":")
    try:
        return int(fewest), int(most or fewest)
    except ValueError:
        raise ConfigError(f"--replicas is {text!r}; give a number, or MIN:MAX such as 1:8") from None
