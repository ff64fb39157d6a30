"""Every setting of the reranker, once: its default, its meaning, its limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from .calibration import Calibration
from .errors import ConfigError

EMBEDDED = "embedded"
EMBEDDED_MODELS = (EMBEDDED, "embedded-multilingual")
"""Name the models in this package, also where a directory of the same name lies; `./embedded` is that directory."""
MIN_MAX_LENGTH = 16
SPECIAL_TOKENS_PER_TEXT = 2
"""Special tokens around a text that stands alone: [CLS] and [SEP], or <s> and </s>."""
DTYPES = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class RerankerConfig:
    """How to load a reranker and how it reads texts. Raises ConfigError for values that cannot work."""

    model: str = EMBEDDED
    """An embedded model, a local directory, a directory in an object store (s3://, abfss://, gs://), or a hub name."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; None is its default branch."""
    token: str | None = field(default=None, repr=False)
    """Access token of the hub; None leaves it to huggingface_hub (HF_TOKEN, its login file)."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` is a GPU if there is one."""
    dtype: str = "auto"
    """`float32`, `float16`, `bfloat16`; `auto` is float16 on a GPU and float32 elsewhere."""
    num_threads: int | None = None
    """Threads on a CPU: batches scored side by side; set for torch in the whole process. None takes torch's setting."""
    max_batch_tokens: int | None = None
    """Token budget of one forward pass; None is 2,048 on CPUs (what fits their caches) and 65,536 on GPUs."""
    max_length: int = 1024
    """Tokens of a pair, special tokens included; clamped to what the model can read."""
    max_query_length: int = 512
    """Tokens of the query with its two special tokens; clamped to half of max_length."""
    overlap_tokens: int = 80
    """Tokens that two neighbouring chunks of a long document share; at most a quarter of the window."""
    max_chunks_per_doc: int | None = None
    """Chunks scored of one document; what lies beyond is cut and counted. None is all of them."""
    raw_scores: bool = False
    """Logits instead of relevance scores in 0..1."""
    calibration: Calibration | None = None
    """Scale and bias of the scores; None takes those in the model's directory, if there are any."""
    instruction: str | None = None
    """What a language model is told to look for, such as Qwen3-Reranker; None is its publisher's. Others take none."""

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model is empty; give `embedded`, a directory or a hub name")
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}; it is one of {', '.join(DTYPES)}")
        if self.max_length < MIN_MAX_LENGTH:
            raise ConfigError(f"max_length is {self.max_length}; a pair needs at least {MIN_MAX_LENGTH} tokens")
        if self.max_query_length < MIN_MAX_LENGTH // 2:
            raise ConfigError(f"max_query_length is {self.max_query_length}; it is at least {MIN_MAX_LENGTH // 2}")
        if self.overlap_tokens < 0:
            raise ConfigError(f"overlap_tokens is {self.overlap_tokens}; it cannot be negative")
        for name in ("num_threads", "max_batch_tokens", "max_chunks_per_doc"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it is at least 1, or left out")
