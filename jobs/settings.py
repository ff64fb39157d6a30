"""The settings of a job: one frozen dataclass, which the command line fills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from jobs.flags import Flag, Panel, as_flag, parse_bytes, parse_replicas, within
from jobs.input.conditions import Condition, parse_condition
from jobs.input.corpus import Corpus
from jobs.input.shards import Shard, parse_shard
from jobs.output.options import JobOptions
from jobs.table.columns import FLAG_OF_COLUMN, ColumnMapping, GroupBy, Layout
from pipelines.calibration import Calibration
from pipelines.config import RerankerConfig
from pipelines.errors import ConfigError

RECENT_PAIRS = 200_000
SCORES_MEMORY = "500MB"
POLL_SECONDS = 5.0


MODEL_FLAGS = {
    "model": Flag("The reranker: `embedded`, a directory, a uri, or a name on Hugging Face's hub.", Panel.MODEL),
    "revision": Flag("The branch, tag or commit of a hub model; by default its main branch.", Panel.MODEL),
    "token": Flag("The access token for a gated model of the hub.", Panel.MODEL, envvar="HF_TOKEN"),
    "dtype": Flag(
        "How the model computes: float32, float16 or bfloat16; auto is float16 on GPUs and float32 on CPUs.",
        Panel.MODEL,
    ),
    "max_length": Flag("A pair has at most so many tokens; longer documents are cut into chunks.", Panel.MODEL),
    "max_query_length": Flag("A query has at most so many tokens; the rest is cut off and counted.", Panel.MODEL),
    "overlap_tokens": Flag("Two neighbouring chunks of a document share so many tokens.", Panel.MODEL),
    "max_chunks_per_doc": Flag("So many chunks of a document are scored; by default all.", Panel.MODEL),
    "max_batch_tokens": Flag("A pass of the model takes so many tokens; by default what suits it.", Panel.MODEL),
    "raw_scores": Flag("Write logits instead of scores in 0..1.", Panel.MODEL, "--raw-scores"),
    "calibration": Flag(
        "A file of `crossray calibrate` for this model; by default the one in the model's directory.",
        Panel.MODEL,
        parse=Calibration.read,
    ),
    "instruction": Flag(
        "What a model that takes an instruction (Qwen3-Reranker, mxbai-rerank-v2, bge-reranker-v2-gemma) is told to "
        "look for; by default its publisher's.",
        Panel.MODEL,
    ),
}
"""By field of RerankerConfig, as those below by field of theirs."""
OF_THE_MODEL = ("revision", "token", "dtype", "max_length", "max_query_length", "instruction")
OF_THE_SCORES = ("scores", "scores_memory")
OF_THE_CLUSTER = ("replicas", "num_cpus", "num_gpus", "address")
"""Parameters that other commands have as `rerank` has them."""
COLUMN_HELP = {
    "query_id": "The column with the query's id, which comes out as it is.",
    "query": "The column with the query's text.",
    "documents": "The column with the list of documents: texts, or structs with a text.",
    "text_field": "The field of a document struct that has its text.",
    "id_field": "The field of a document struct that has its id, which rankings repeat; '' says that there is none.",
    "document_id": "In rows of one pair: the column with the document's id, which comes out as it is.",
    "document": "In rows of one pair: the column with the document's text.",
    "output_prefix": "A text that is put before the names of the new columns.",
    "drop": "A column of the input that does not come out; repeat the flag for several.",
    "strict_documents": "A null among the documents of a list is that row's error; without it, nulls come last.",
}
COLUMN_FLAGS = {name: Flag(help, Panel.COLUMNS, FLAG_OF_COLUMN[name]) for name, help in COLUMN_HELP.items()}
CORPUS_FLAGS = {
    "path": Flag("The table with the texts, where documents are ids; a path or uri.", Panel.CORPUS, "--corpus"),
    "id_column": Flag("The corpus's column of ids.", Panel.CORPUS, "--corpus-id"),
    "text_column": Flag("The corpus's column of texts.", Panel.CORPUS, "--corpus-text"),
    "memory": Flag(
        "Each node holds a corpus of up to this size (such as 4GiB); by default half of its object store. A larger one "
        "is joined on disk.",
        Panel.CORPUS,
        "--corpus-memory",
        parse=lambda text: parse_bytes(text, "--corpus-memory"),
    ),
}
GROUP_FLAGS = {
    "column": Flag(
        "In rows of one pair: rows with the same value in this column make a list.", Panel.COLUMNS, "--group-by"
    ),
    "rank_column": Flag(
        "With --group-by: the column by which a list is ordered; by default `rank`, if it is there.", Panel.COLUMNS
    ),
}


def corpus_of(path: str | None, id_column: str, text_column: str, memory: int | None) -> Corpus | None:
    """The corpus that the flags ask for; raises ConfigError where they say something of it and not where it is."""
    if path is not None:
        return Corpus(path, id_column, text_column, memory)
    given = {"--corpus-id": id_column != "id", "--corpus-text": text_column != "text"}
    flags = [name for name, is_given in (given | {"--corpus-memory": memory is not None}).items() if is_given]
    if flags:
        raise ConfigError(f"{', '.join(flags)} without --corpus: give the table, too")
    return None


def groups_of(column: str | None, rank_column: str | None) -> GroupBy | None:
    """The groups that the flags ask for; raises ConfigError where they only say how a list is ordered."""
    if column is not None:
        return GroupBy(column, rank_column)
    if rank_column is not None:
        raise ConfigError(
            f"--rank-column is {rank_column!r}; it orders the lists that --group-by makes: give that, too"
        )
    return None


@dataclass(frozen=True, slots=True)
class RerankSettings:
    """One rerank job. Raises ConfigError for values that cannot work."""

    input: str = field(
        metadata=as_flag("A Parquet file, a directory, or a glob in quotes; a path or uri.", metavar="INPUT")
    )
    """A Parquet file, a directory or a glob; a local path, or a uri of an object store."""
    output: str = field(
        metadata=as_flag("The directory for the result; what it holds of this job stays.", metavar="OUTPUT")
    )
    """A directory or a uri: new, empty, or the unfinished or finished output of the same job."""
    reranker: RerankerConfig = field(default_factory=RerankerConfig, metadata=within(RerankerConfig, MODEL_FLAGS))
    mapping: ColumnMapping = field(default_factory=ColumnMapping, metadata=within(ColumnMapping, COLUMN_FLAGS))
    layout: Layout | None = field(
        default=None, metadata=as_flag("What a row is; by default the columns tell.", Panel.COLUMNS)
    )
    corpus: Corpus | None = field(default=None, metadata=within(corpus_of, CORPUS_FLAGS))
    """Where documents are ids: the table that has their texts."""
    group_by: GroupBy | None = field(default=None, metadata=within(groups_of, GROUP_FLAGS))
    """Makes lists of pair rows, which may come in any order."""
    top_n: int | None = field(
        default=None, metadata=as_flag("How many documents a ranking keeps, the best ones; by default all.")
    )
    score_threshold: float | None = field(
        default=None, metadata=as_flag("Leave out of rankings what has a lower score than this, which lies in 0..1.")
    )
    """On 0..1 also where raw scores are written; before `top_n`."""
    uncalibrated: bool = field(
        default=False,
        metadata=as_flag("Allow --score-threshold for a model whose scores are not calibrated.", name="--uncalibrated"),
    )
    limit: int | None = field(default=None, metadata=as_flag("Rank only the first N rows, for a try.", Panel.ROWS))
    """Counted file by file, before `where`; of a shard its first N rows."""
    shard: Shard | None = field(
        default=None,
        metadata=as_flag(
            "Rank only this run's share, such as 2/8; each run has an OUTPUT of its own.",
            Panel.ROWS,
            parse=parse_shard,
        ),
    )
    where: tuple[Condition, ...] = field(
        default=(),
        metadata=as_flag(
            "Rank only rows with 'COLUMN OP VALUE', where OP is one of = != < <= > >= in. Of several, all must hold.",
            Panel.ROWS,
            parse=parse_condition,
        ),
    )
    replicas: tuple[int, int] | None = field(
        default=None,
        metadata=as_flag(
            "How many processes score, each with a loaded model: N or MIN:MAX; by default as many as fit.",
            Panel.CLUSTER,
            parse=lambda text: parse_replicas(text) if text else None,
        ),
    )
    """Fewest and most replicas; None is as many as the cluster has room for now."""
    num_cpus: int = field(default=1, metadata=as_flag("CPUs, and so threads, of each replica.", Panel.CLUSTER))
    num_gpus: float = field(
        default=0,
        metadata=as_flag("GPUs of each replica. Give 1 on a GPU machine: without it no GPU is used.", Panel.CLUSTER),
    )
    """A part of one lets replicas share it."""
    address: str | None = field(
        default=None,
        metadata=as_flag(
            "The Ray cluster to run on; by default one of its own on this machine.", Panel.CLUSTER, envvar="RAY_ADDRESS"
        ),
    )
    app: str | None = field(
        default=None, metadata=as_flag("Let the replicas of a running server score, by its app's name.", Panel.CLUSTER)
    )
    recent_pairs: int = field(
        default=RECENT_PAIRS,
        metadata=as_flag("Each replica remembers the scores of so many pairs; 0 is none.", Panel.REUSE),
    )
    """300 bytes each; with 0 a replica still knows the pairs of the unit at hand."""
    scores: str | None = field(
        default=None, metadata=as_flag("The directory or uri of scores that later runs reuse.", Panel.REUSE)
    )
    scores_memory: int = field(
        default=parse_bytes(SCORES_MEMORY, "--scores-memory"),
        metadata=as_flag(
            "Each node loads so much of --scores; 1GB is 50 million pairs.",
            Panel.REUSE,
            default=SCORES_MEMORY,
            parse=lambda text: parse_bytes(text, "--scores-memory"),
        ),
    )
    """Bytes, 20 a pair; five times that in the driver while it loads."""
    overwrite: bool = field(
        default=False,
        metadata=as_flag("Throw away what OUTPUT holds of an earlier job, and start anew.", name="--overwrite"),
    )
    max_errors: int | None = field(
        default=None,
        metadata=as_flag("The exit code is 1 if more rows than this have errors; by default errors do not change it."),
    )
    max_pairs: int | None = field(
        default=None, metadata=as_flag("Stop this run, resumably, once it has ranked so many pairs.")
    )
    max_minutes: float | None = field(
        default=None, metadata=as_flag("Stop this run, resumably, once it has taken so many minutes.")
    )
    follow: bool = field(
        default=False,
        metadata=as_flag("Go on for ever, and rank new files as they come.", Panel.FOLLOW, name="--follow"),
    )
    """Until a signal ends the job."""
    poll_seconds: float | None = field(
        default=None,
        metadata=as_flag(f"Seconds between two looks for files; by default {POLL_SECONDS:g}.", Panel.FOLLOW),
    )
    dry_run: bool = field(
        default=False,
        metadata=as_flag("Only estimate rows, pairs, time and cost; write nothing.", Panel.DRY_RUN, name="--dry-run"),
    )
    """Nothing is scored for good and nothing written."""
    price: float | None = field(
        default=None, metadata=as_flag("What a replica costs for an hour, in any currency.", Panel.DRY_RUN)
    )
    """In any currency."""
    pairs_per_second: float | None = field(
        default=None,
        metadata=as_flag("How many pairs a replica scores in a second; by default measured.", Panel.DRY_RUN),
    )

    def __post_init__(self) -> None:
        if self.top_n is not None and self.top_n < 1:
            raise ConfigError(f"--top-n is {self.top_n}; it is at least 1")
        if self.score_threshold is not None and not 0 <= self.score_threshold <= 1:
            raise ConfigError(
                f"--score-threshold is {self.score_threshold:g}; it lies in 0..1, also where --raw-scores are written"
            )
        if self.uncalibrated and self.score_threshold is None:
            raise ConfigError("--uncalibrated is for --score-threshold: give it too, or leave out both")
        if self.num_cpus < 1:
            raise ConfigError(f"--num-cpus is {self.num_cpus}; a replica needs at least 1")
        if self.num_gpus < 0:
            raise ConfigError(f"--num-gpus is {self.num_gpus}; it cannot be negative")
        if self.max_errors is not None and self.max_errors < 0:
            raise ConfigError(f"--max-errors is {self.max_errors}; it is 0 or more")
        if self.max_pairs is not None and self.max_pairs < 1:
            raise ConfigError(f"--max-pairs is {self.max_pairs}; it is at least 1")
        if self.max_minutes is not None and not 0 < self.max_minutes < inf:
            raise ConfigError(f"--max-minutes is {self.max_minutes:g}; it is more than 0")
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
        if not self.mapping.id_field and (self.corpus is not None or self.group_by is not None):
            raise ConfigError("--id-field is '', no ids: --corpus needs them, and --group-by has to name them")
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
        given |= {"--max-pairs": self.max_pairs is not None, "--max-minutes": self.max_minutes is not None}
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
            score_threshold=self.score_threshold,
            raw_scores=self.reranker.raw_scores,
            limit=self.limit,
            shard=None if self.shard is None else str(self.shard),
            where=tuple(sorted(map(str, self.where))),
            group_by=self.group_by,
            corpus=None if self.corpus is None else self.corpus.identity(),
            partitions=partitions,
        )
