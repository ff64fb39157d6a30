"""What an evaluation is told: one frozen dataclass, which the command line fills."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from jobs.evaluation.falls import Before, read_before
from jobs.evaluation.gate import Gate, read_gate
from jobs.flags import Panel, as_flag, within
from jobs.settings import COLUMN_FLAGS, RerankSettings
from jobs.table.columns import ColumnMapping
from jobs.training import encoders
from jobs.training.encoders import EncoderSettings
from jobs.training.label.teachers import Kind, Teacher, parse_teacher
from pipelines.errors import ConfigError
from pipelines.evaluation.measures import DEFAULT_MEASURES

TOP_K = 100
OF_THE_LOG = ("query", "documents", "text_field", "id_field")
"""Fields of ColumnMapping that a log is read by."""


def parse_model(text: str) -> Teacher:
    """The reranker of a model's name."""
    return Teacher(Kind.RERANKER, text)


def parse_baseline(text: str) -> Teacher:
    """The baseline of `bm25`, `dense:DIR` or `fusion:T1,T2,...`; raises ConfigError."""
    try:
        return parse_teacher(text)
    except ConfigError:
        raise ConfigError(
            f"--baseline is {text!r}; give bm25, dense:DIR, or fusion:T1,T2,... of these and of reranker:MODEL"
        ) from None


def parse_first_stage(text: str) -> Teacher:
    """Who searches a corpus: `bm25`, `dense:DIR` or `fusion:T1,T2,...` of these; raises ConfigError."""
    try:
        found = parse_teacher(text)
    except ConfigError:
        found = Teacher(Kind.RERANKER)
    if any(member.kind is Kind.RERANKER for member in found.members):
        raise ConfigError(f"--first-stage is {text!r}; give bm25, dense:DIR, or fusion:T1,T2,... of these")
    return found


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """One evaluation. Raises ConfigError for values that cannot work."""

    sets: tuple[str, ...] = field(metadata=as_flag("Folders of benchmark sets, or logs.", metavar="SET..."))
    job: RerankSettings
    """Lengths, score store and replicas of the models; INPUT and OUTPUT are set for each of them."""
    output: str = field(metadata=as_flag("The directory for the results; what it holds of this evaluation stays."))
    models: tuple[Teacher, ...] = field(
        default=(),
        metadata=as_flag(
            "A reranker to evaluate, as --model of `rerank` names it; repeat the flag for several.",
            name="--model",
            parse=parse_model,
        ),
    )
    baselines: tuple[Teacher, ...] = field(
        default=(),
        metadata=as_flag(
            "What they are compared with beside the first stage: bm25, dense:DIR, or fusion:T1,T2,... of these.",
            name="--baseline",
            parse=parse_baseline,
        ),
    )
    first_stage: Teacher | None = field(
        default=None,
        metadata=as_flag(
            "Search the corpus for candidates: bm25, dense:DIR, or fusion:T1,T2,... of these. By default a set's own "
            "candidates count, and bm25 searches where it has none.",
            parse=parse_first_stage,
        ),
    )
    label_column: str | None = field(
        default=None,
        metadata=as_flag(
            "A SET may be Parquet lists of your own: this column, or DOCUMENTS.FIELD, has the label of each document, "
            "or the ids of those that were right.",
            Panel.COLUMNS,
        ),
    )
    mapping: ColumnMapping = field(
        default_factory=ColumnMapping,
        metadata=within(ColumnMapping, {name: COLUMN_FLAGS[name] for name in OF_THE_LOG}),
    )
    """The names of the other columns of such lists."""
    measures: tuple[str, ...] = field(
        default=(),
        metadata=as_flag(
            f"A measure, the first one for the table; by default the set's own, and {', '.join(DEFAULT_MEASURES)}.",
            name="--measure",
        ),
    )
    queries: int | None = field(
        default=None, metadata=as_flag("Draw so many queries of each set, the same each time; by default all.")
    )
    top_k: int = field(default=TOP_K, metadata=as_flag("How many candidates of each query are ranked, the first ones."))
    gate: Gate | None = field(
        default=None,
        metadata=as_flag(
            "A TOML file with what each model must reach; if one does not, the exit code is 5.", parse=read_gate
        ),
    )
    gate_against: Before | None = field(
        default=None,
        metadata=as_flag(
            "The results.json of an earlier evaluation; if a model is surely worse than there, the exit code is 5.",
            parse=read_before,
        ),
    )
    encoder: EncoderSettings | None = field(default=None, metadata=within(partial(EncoderSettings, ""), encoders.FLAGS))
    """Prefixes and lengths of dense encoders; their directories are the baselines'."""

    def __post_init__(self) -> None:
        if not self.sets:
            raise ConfigError("no SET is given; give the folder of a benchmark set, or several")
        if not self.output:
            raise ConfigError("--output is empty; give a directory")
        if not self.systems:
            raise ConfigError("nothing to evaluate is given; give --model, --baseline, or several of them")
        if self.queries is not None and self.queries < 2:
            raise ConfigError(f"--queries is {self.queries}; it is at least 2, or left out for all")
        if (self.gate is not None or self.gate_against is not None) and not self.models:
            raise ConfigError("--gate and --gate-against say what models must reach; give --model")
        if self.top_k < 2:
            raise ConfigError(f"--top-k is {self.top_k}; it is at least 2")

    @property
    def systems(self) -> tuple[Teacher, ...]:
        """All that order the candidates, each once."""
        return tuple(dict.fromkeys([*self.baselines, *self.models]))

    def measured_in(self, own: str | None) -> tuple[str, ...]:
        """The measures of a set, of which the first one heads its table: its own, unless others are asked for."""
        return self.measured if own is None or self.measures else tuple(dict.fromkeys([own, *self.measured]))

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of the measures, those of the gate among them."""
        asked = dict.fromkeys(self.measures or DEFAULT_MEASURES)
        return tuple(asked | dict.fromkeys(measure for least in (self.gate or {}).values() for measure in least))
